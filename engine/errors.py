"""The engine's errors: one base; each also is the built-in a caller expects and carries its facts."""

from __future__ import annotations

import math


class EngineError(Exception):
    """Base of every error the engine raises on purpose."""


class ShapeError(EngineError, ValueError):
    """Operand shapes do not fit the operation.

    Attributes:
        operation: what was asked for.
        shapes: the shapes that do not fit, in argument order.
    """

    def __init__(self, message: str, *, operation: str = "", shapes: tuple[tuple[int, ...], ...] = ()) -> None:
        super().__init__(message)
        self.operation = operation
        self.shapes = shapes


class GradientError(EngineError, RuntimeError):
    """A gradient was asked for that does not exist, or a recorded value was about to be changed.

    Attributes:
        operation: the function concerned, or ``""``.
    """

    def __init__(self, message: str, *, operation: str = "") -> None:
        super().__init__(message)
        self.operation = operation


class CheckpointError(EngineError, ValueError):
    """A checkpoint is damaged, or does not fit what it is loaded into.

    Attributes:
        tensor: name of the tensor concerned, or None when it is the file as a whole.
    """

    def __init__(self, message: str, *, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class DataError(EngineError, ValueError):
    """The data cannot be trained on: empty, of a wrong type or shape, labels out of range."""


class SettingError(EngineError, ValueError):
    """A hyper-parameter is out of its range, or two do not go together.

    Attributes:
        setting: its name.
    """

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class DivergedError(EngineError, ArithmeticError):
    """A loss, or a weight, stopped being a finite number.

    Attributes:
        epoch: 1-based number of the epoch under way.
        step: finished steps of the whole run.
        loss: name of the loss (``train_loss``, ``d_loss``, ...) or of the weights.
        value: what it was: NaN or an infinity.
    """

    def __init__(self, *, epoch: int, step: int, loss: str, value: float) -> None:
        shown = "NaN" if math.isnan(value) else "infinite"
        super().__init__(f"{loss} is {shown} in epoch {epoch} after {step} steps: the training diverged")
        self.epoch = epoch
        self.step = step
        self.loss = loss
        self.value = value

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes; keyword-only arguments need help with that.
        return (_diverged, (self.epoch, self.step, self.loss, self.value))


def _diverged(epoch: int, step: int, loss: str, value: float) -> DivergedError:
    return DivergedError(epoch=epoch, step=step, loss=loss, value=value)
