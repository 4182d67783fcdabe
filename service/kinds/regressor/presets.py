"""The presets of regressors, and what each reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.schema.preset_info import PresetInfo, ReachedItem

PRESETS: Final[Mapping[str, dict[str, Any]]] = {
    # As for classes, with more weight decay: with 0.02, the error on a few hundred rows (diabetes) is a tenth
    # higher, and on larger tables it is the same.
    "table": {
        "dataset": {"name": "diabetes", "scale": [0, 1]},
        "layers": [
            {"units": 128, "activation": "relu"},
            {"units": 64, "activation": "relu"},
            {"units": 1, "activation": "linear"},
        ],
        "initializer": {"name": "glorot"},
        "loss": {"name": "squared_error"},
        "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.4},
        "schedule": {"name": "one_cycle"},
        "epochs": 60,
        "batch_size": 32,
        "seed": 0,
    },
}
INFO: Final[Mapping[str, PresetInfo]] = {
    "table": PresetInfo(
        "Two small hidden layers; batches and epochs follow the number of rows.",
        (ReachedItem("diabetes", "val_rmse", 59.5, 0.22),),
    ),
}
