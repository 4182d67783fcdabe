"""Model cards whose classes, tags and titles contain any text that a folder or column name can contain."""

from __future__ import annotations

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from service.kinds.supervised.model import network as supervised
from service.models.exports.creation import JobFacts, Pictures
from service.models.exports.huggingface_folder import to_huggingface
from service.models.exports.trained_network import TrainedModel
from service.spec.schema import ClassifierSpec
from service.spec.validation import resolve
from service.storage.tables import Epoch, Job

NAMES = ("Äpfel", "猫", 'a "quoted" b', "it's", "a | b", "one\ntwo", "*bold*", "<b>x</b>", "&lt;i&gt;", "~~no~~", "$x$",
         "`code`", "# head", "[a](b)", "\\", "---", "a: b", "{x}")  # fmt: skip
STRANGE = "a\u2028b\x85c\x7fd\x1be \U0001f40e"
EPOCH = Epoch(epoch=1, metrics={"val_accuracy": 0.9, "val_loss": 1e-05}, seconds=1.0, finished_ms=0)
JOB = Job(
    id="job_1", name="n", kind="classifier", tags=[*NAMES, STRANGE], resolved={"dataset": {"name": "x"}}, spec_hash="h",
)  # fmt: skip
FACTS = JobFacts(
    job=JOB, title=STRANGE, checkpoint_epoch=1, dataset_title=STRANGE, dataset_source="from `here` \n| x",
    license=f"my {STRANGE}", epochs=[EPOCH],
)  # fmt: skip


def classifier(shape: tuple[int, int]) -> TrainedModel:
    spec = resolve({"kind": "classifier", "preset": "fast", "layers": [{"units": len(NAMES), "activation": "softmax"}]})
    assert isinstance(spec, ClassifierSpec)
    network = supervised(spec, shape, lambda size, rng, dtype: np.zeros(size, dtype))
    return TrainedModel(spec, network, shape, NAMES)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return classifier((2, 2))


def split_card(files: dict[str, bytes]) -> tuple[str, str]:
    """The front matter and the Markdown of the card."""
    _, header, text = files["README.md"].decode().split("---\n", 2)
    return header, text


def test_any_name_survives_the_front_matter(model: TrainedModel) -> None:
    header, _ = split_card(to_huggingface(model, FACTS, Pictures(samples=[], curves=lambda: b"")))
    front_matter = yaml.safe_load(header)
    assert front_matter["tags"][-len(NAMES) - 1 :] == [*NAMES, STRANGE]
    assert front_matter["license_name"] == f"my {STRANGE}"
    [index] = front_matter["model-index"]
    assert index["name"] == STRANGE
    [result] = index["results"]
    assert result["dataset"] == {"name": STRANGE, "type": "x", "split": "validation"}
    assert [metric["value"] for metric in result["metrics"]] == [0.9, 1e-05]


def test_names_never_become_markup(model: TrainedModel) -> None:
    _, text = split_card(to_huggingface(model, FACTS, Pictures(samples=[], curves=lambda: b"")))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    lines = [token for token in tokens if token.type == "inline"]
    [classes] = [line for line in lines if "into 18 classes" in line.content]
    shown = "".join(child.content for child in classes.children or () if child.type in ("text", "text_special"))
    assert f"{len(NAMES)} classes: {', '.join(' '.join(name.split()) for name in NAMES)}. " in shown
    assert {child.type for child in classes.children or ()} <= {"text", "text_special", "link_open", "link_close"}
    assert "\\$x\\$" in text, "the Hub renders formulas between dollars"
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1", "h2", "h2", "h2"]
    cells = [line.content for line, opening in zip(tokens[1:], tokens, strict=False) if opening.type == "td_open"]
    assert cells == ["val accuracy (`val_accuracy`)", "90.00%", "val loss (`val_loss`)", "1.00e-05"]
    [source] = [line for line in lines if line.content.startswith("dataset source")]
    assert [child.content for child in source.children or () if child.type == "code_inline"] == ["from `here`  | x"]


def test_a_column_name_with_backticks_stays_code() -> None:
    column = {"name": "a`b``c", "type": "number", "mean": 1.0, "scale": 1.0, "indicator": False}
    table = replace(classifier((1, 1)), columns=[column])
    _, text = split_card(to_huggingface(table, FACTS, Pictures(samples=[], curves=lambda: b"")))
    inline = [token for token in MarkdownIt("commonmark").parse(text) if token.type == "inline"]
    codes = [child.content for token in inline for child in token.children or () if child.type == "code_inline"]
    assert "load().predict([{'a`b``c': 1.0}])" in codes


@pytest.mark.parametrize("name", ["two  spaces", "no\xa0break", 'it\'s "so"', "back\\slash", '"""', "two\nlines"])
def test_the_example_names_the_columns_of_the_model(name: str) -> None:
    column = {"name": name, "type": "number", "mean": 1.0, "scale": 1.0, "indicator": False}
    files = to_huggingface(
        replace(classifier((1, 1)), columns=[column]), FACTS, Pictures(samples=[], curves=lambda: b"")
    )
    inline = [token for token in MarkdownIt("commonmark").parse(split_card(files)[1]) if token.type == "inline"]
    [code] = [
        child.content
        for token in inline
        for child in token.children or ()
        if child.type == "code_inline" and child.content.startswith("load()")
    ]
    assert ast.literal_eval(code.removeprefix("load().predict(").removesuffix(")")) == [{name: 1.0}]
    documented = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(files["torch/model.py"]))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    assert any(repr({name: 1.0}) in text for text in documented)


def test_all_json_files_of_the_folder_are_valid_with_any_names(model: TrainedModel) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    spec = {"dataset": {"name": "x"}, "name": STRANGE, "tags": list(NAMES)}
    job = Job(id="job_1", kind="classifier", tags=[], resolved=spec, spec_hash="h")
    facts = replace(FACTS, job=job, dataset_source=STRANGE)
    columns = [{"name": name, "type": "number", "mean": 1.0, "scale": 1.0, "indicator": False} for name in NAMES]
    table = replace(classifier((1, len(NAMES))), columns=columns, unused_columns=[STRANGE])
    for exported, names in ((model, set()), (table, {"preprocessing.json"})):
        files = to_huggingface(exported, facts, Pictures(samples=[], curves=lambda: b""))
        documents = {
            name: json.loads(content, parse_constant=refuse)
            for name, content in files.items()
            if name.endswith(".json")
        }
        assert documents.keys() == {"spec.json", "provenance.json", *names}
        assert documents["spec.json"] == spec
        assert documents["provenance.json"]["dataset_source"] == STRANGE
    preprocessing = documents["preprocessing.json"]
    assert [column["name"] for column in preprocessing["columns"]] == list(NAMES)
    assert preprocessing["unused_columns"] == [STRANGE]
