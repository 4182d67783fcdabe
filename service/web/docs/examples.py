"""Example values for the documentation: in the OpenAPI document, and in the forms that send a request."""

from __future__ import annotations

from typing import Any, Final

from service import kinds

_SEVEN: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAPklEQVR42mNgGBmAEZX7H0WMBSGGCZjwyGEB//+j6sQFSJP8"
    "T7ZOApKMOCX/M9DKTnySjOTp/E+BnYzE6gQANMgIJMx36KEAAAAASUVORK5CYII="
)
"""A seven from MNIST as a PNG of 28 x 28 pixels in base64."""

BODIES: Final[dict[str, dict[str, Any]]] = {
    "SpecAsSent": {
        "smallest": {"kind": "classifier"},
        **{kind.name: {"kind": kind.name, **kind.example} for kind in kinds.ALL if kind.example},
        "folds": {"kind": "classifier", "dataset": {"folds": 5}},
        "names": {"kind": "classifier", "dataset": "mnist", "optimizer": "adam"},
    },
    "ForkRequest": {
        "more_epochs": {"checkpoint": "latest", "overrides": {"epochs": 20}},
        "lower_rate": {"checkpoint": "best", "overrides": {"epochs": 20, "optimizer": {"learning_rate": 0.01}}},
    },
    "Investigation": {"two": {"a": "job_01J00000000000000000000000", "b": "job_01J00000000000000000000001"}},
    "SweepSpec": {
        "rates": {
            "name": "rates",
            "base": {"kind": "classifier", "epochs": 9},
            "seeds": [0, 1],
            "space": {"optimizer.learning_rate": {"log": [0.001, 0.3]}, "batch_size": {"choice": [50, 100]}},
            "search": {"name": "random", "trials": 9},
            "halving": {"min_epochs": 1, "factor": 3},
        },
        "grid": {
            "base": {"kind": "classifier", "epochs": 3},
            "space": {"optimizer.learning_rate": {"choice": [0.01, 0.03, 0.1]}},
        },
        "seed_group": {"base": {"kind": "classifier", "epochs": 3}, "seeds": [0, 1, 2, 3, 4]},
    },
    "JobPatch": {"rename": {"name": "a better name", "tags": ["demo"]}, "budget": {"budget": {"seconds": 600}}},
    "OwnerPatch": {
        "twice_the_share": {"weight": 2, "running_jobs": 8},
        "defaults": {"weight": None, "running_jobs": None},
    },
    "DrainRequest": {"finish": {"running": "finish"}, "release": {"running": "release"}},
    "DatasetPatch": {"publish": {"shared": True}},
    "SignIn": {"key": {"key": "tpl_0123456789ab_…"}},
    "KeyRequest": {
        "submit": {"name": "laptop of Ann", "owner": "ann", "scope": "submit", "lifetime_days": 90},
    },
    "KeyRotation": {"a_day": {"overlap_s": 86400}, "at_once": {"overlap_s": 0}},
    "PredictRequest": {"digit": {"images": [_SEVEN]}, "explained": {"images": [_SEVEN], "explain": True}},
    "GenerateRequest": {"grid": {"count": 16, "seed": 7, "format": "grid", "scale": 4}, "images": {"count": 4}},
}
"""Bodies by the name of their schema, unless it has ``EXAMPLES``; a form starts with the first one."""
