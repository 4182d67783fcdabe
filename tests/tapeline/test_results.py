"""What the results of the client's methods show of themselves, in a program, a terminal and a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from IPython.lib.pretty import pretty
from PIL import Image

from tapeline import ApiError, Prediction, Records
from tapeline.inputs.given import shown_of
from tapeline.method_types import Residuals
from tapeline.notebook import cards
from tapeline.notebook.curves import chart

REGRESSION: dict[str, Any] = {
    "values": [258606.2, 98000.0],
    "target": "price",
    "classes": [],
    "class_names": [],
    "probabilities": [],
    "checkpoint": 29,
    "unknown_values": [],
}
CLASSES: dict[str, Any] = {"classes": [1], "class_names": ["cat", "dog"], "probabilities": [[0.25, 0.75]]}


def test_predicted_numbers_have_the_name_of_the_target_and_are_beside_the_cells() -> None:
    prediction = Prediction(REGRESSION, [{"rooms": 3, "city": "Oslo"}, {"rooms": 1, "city": None}])
    assert prediction.keys() == {"values", "target", "checkpoint", "unknown_values"}
    assert repr(prediction).splitlines() == [
        "<Prediction of 2, checkpoint of epoch 29>",
        "price    rooms  city",
        "258,606  3      Oslo",
        "98,000   1      -",
    ]
    assert all(f">{text}</td>" in prediction._repr_html_() for text in ("258,606", "Oslo"))
    assert prediction.predictions == [{"value": 258606.2}, {"value": 98000.0}]
    assert list(prediction.to_frame().columns) == ["price"]


def test_a_known_value_of_the_target_is_shown_beside_the_prediction() -> None:
    prediction = Prediction(REGRESSION, [{"price": 1}, {"price": 2}])
    assert repr(prediction).splitlines()[1].split() == ["predicted", "price", "price"]


def test_predictions_for_images_name_their_files(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        items = [tmp_path / "a.png", str(tmp_path / "a.png"), opened, Image.new("L", (2, 2)), b"GIF", [[0.5]]]
        assert shown_of(items) == [{"file": "a.png"}] * 3 + [{}] * 3
    prediction = Prediction({**CLASSES, "checkpoint": 1, "unknown_values": None}, [{"file": "a.png"}])
    assert prediction.predictions[0] == {
        "file": "a.png",
        "label": "dog",
        "probability": 0.75,
        "probabilities": {"cat": 0.25, "dog": 0.75},
    }
    assert "a.png  dog    0.75" in repr(prediction)


def test_a_column_named_file_is_not_the_name_of_a_file() -> None:
    prediction = Prediction({**CLASSES, "checkpoint": 1, "unknown_values": []}, [{"file": 3}])
    assert "file" not in prediction.predictions[0]


def test_residuals_are_the_worst_rows_and_points_have_names() -> None:
    worst = [{"index": 7, "target": 100.0, "prediction": 130.5, "row": {"rooms": 2, "target": "x"}}]
    document = {"worst": worst, "points": [[1.0, 2.0]], "target": "price", "validation_count": 45, "checkpoint": 3}
    residuals = Residuals(document)
    assert residuals == [{"index": 7, "target": 100.0, "prediction": 130.5, "residual": -30.5, "rooms": 2}]
    assert residuals.points == [{"target": 1.0, "prediction": 2.0}]
    assert list(residuals.to_frame()["residual"]) == [-30.5]
    assert repr(residuals).splitlines() == [
        "<Residuals: 1 of 45 rows, target price, checkpoint of epoch 3>",
        "index  target  prediction  residual  rooms",
        "7      100     130.5       -30.5     2",
    ]


def test_records_are_a_table_in_a_terminal_of_ipython() -> None:
    rows = Records({"epoch": epoch, **{f"metric_{number}": 0.123456 for number in range(11)}} for epoch in range(30))
    first, second, *_, last = pretty(rows).splitlines()
    assert first.endswith("and 2 more columns")
    assert second.split() == ["0", *["0.1235"] * 9]
    assert last == "and 20 more"


def test_a_card_of_a_job_has_the_best_epoch_and_names_what_is_wrong() -> None:
    finding = {"code": "mode_collapse", "epoch": 9, "message": "all samples are <alike>"}
    document = {"id": "job_1", "kind": "gan", "status": "running", "health": [finding]}
    document |= {"progress": {"epoch": 12, "epochs": 20, "fraction": 0.6}}
    interval = {"val_accuracy": {"text": "of 21, 95% CI 77% to 99%"}}
    best = {"epoch": 10, "metrics": {"val_accuracy": 0.952, "val_loss": 0.25}, "intervals": interval}
    shown = cards.job(document, {"epochs": [], "series": {}}, best, None)
    assert "epoch 12 of 20, best epoch 10: val accuracy 95.20% (of 21, 95% CI 77% to 99%), val loss 0.25<" in shown
    assert "<strong>mode collapse</strong>, epoch 9: all samples are &lt;alike&gt;" in shown


def test_a_line_connects_the_epochs_in_which_a_metric_is_measured() -> None:
    values = [None, 8.0, None, None, 4.0, None]
    (drawn,) = re.findall(
        r'<path d="(M[^"]+L[^"]+)"', chart("distance", [1, 2, 3, 4, 5, 6], {"frechet_distance": values})
    )
    assert drawn.count("L") == 1
    assert "h0" in chart("distance", [1, 2], {"frechet_distance": [None, 8.0]}), "a point"


def test_an_error_names_the_method_that_answers() -> None:
    detail = "the job is a regressor; what it gets wrong: GET /jobs/job_01M8/residuals"
    error = ApiError(409, {"code": "wrong_kind", "detail": detail})
    assert str(error) == "the job is a regressor; what it gets wrong: job.residuals()"
    assert error.detail == detail
