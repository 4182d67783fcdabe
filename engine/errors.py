"""The errors of the engine. All have one base class; each also derives from a fitting built-in exception, and has its
facts as attributes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Self

import numpy as np

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergedError",
    "EngineError",
    "GradientError",
    "SettingError",
    "ShapeError",
]


class EngineError(Exception):
    """Base of all errors of the engine."""


class ShapeError(EngineError, ValueError):
    """Operand shapes do not fit the operation.

    Attributes:
        operation: name of the operation.
        shapes: the shapes that do not fit, in the order of the arguments.
    """

    def __init__(self, message: str, *, operation: str = "", shapes: tuple[tuple[int, ...], ...] = ()) -> None:
        super().__init__(message)
        self.operation = operation
        self.shapes = shapes

    @classmethod
    def of(cls, operation: str, problem: str, *operands: Any) -> Self:
        """The error of an operation with these operands: ``operation: problem``."""
        return cls(f"{operation}: {problem}", operation=operation, shapes=tuple(map(np.shape, operands)))


class GradientError(EngineError, RuntimeError):
    """A gradient does not exist, or an operation would change a recorded value.

    Attributes:
        operation: the function concerned, or ``""``.
    """

    def __init__(self, message: str, *, operation: str = "") -> None:
        super().__init__(message)
        self.operation = operation


class CheckpointError(EngineError, ValueError):
    """A checkpoint is damaged, or does not fit the object that it is loaded into.

    Attributes:
        tensor: name of the tensor concerned, or None for the whole file.
    """

    def __init__(self, message: str, *, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class DataError(EngineError, ValueError):
    """The data cannot be used for training: empty, of a wrong type or shape, or with labels out of range."""


class SettingError(EngineError, ValueError):
    """A hyperparameter is out of range, or two are incompatible.

    Attributes:
        setting: its name.
    """

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class DivergedError(EngineError, ArithmeticError):
    """A loss or a weight is not finite any more.

    Attributes:
        epoch: 1-based number of the current epoch.
        step: finished steps of the whole run.
        loss: name of the loss (``train_loss``, ``d_loss``, ...) or of the weights.
        value: NaN or an infinity.
    """

    def __init__(self, *, epoch: int, step: int, loss: str, value: float) -> None:
        shown = "NaN" if math.isnan(value) else "infinite"
        super().__init__(f"{loss} is {shown} in epoch {epoch} after {step} steps: the training diverged")
        self.epoch = epoch
        self.step = step
        self.loss = loss
        self.value = value

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are pickled between processes, which does not support keyword-only arguments by default.
        return partial(type(self), epoch=self.epoch, step=self.step, loss=self.loss, value=self.value), ()


def check_positive(where: str = "", /, **settings: float) -> None:
    """Raise SettingError, whose message begins with ``where``, unless all settings are positive."""
    for name, value in settings.items():
        if not value > 0:
            raise SettingError(f"{where}{name} {value} must be positive", setting=name)


def check_fraction(where: str = "", /, **settings: float) -> None:
    """Raise SettingError, whose message begins with ``where``, unless all settings are in [0, 1)."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise SettingError(f"{where}{name} {value} is not in [0, 1)", setting=name)
