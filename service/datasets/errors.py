"""Errors of datasets. Each has a stable ``code``, which becomes the code of a job's ``error``."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Final

from service.states import ErrorCode

_SIMILAR: Final = 50
"""Similarity of names in percent from which one is suggested for the other."""
_MAX_NAMES: Final = 20


class DatasetError(Exception):
    """Base of this package's errors; ``str()`` gives a message for users."""

    code: ClassVar[str] = "dataset_error"


class DatasetNotFound(DatasetError, LookupError):
    """No dataset has this name."""

    code = "dataset_not_found"

    def __init__(self, name: str, available: Sequence[str], suggestion: str | None) -> None:
        super().__init__(name, available, suggestion)  # the original arguments, so that pickling restores them
        self.name = name
        self.available = tuple(available)
        self.suggestion = suggestion

    def __str__(self) -> str:
        hint = f" Did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"there is no dataset {self.name!r}.{hint} Available: {', '.join(self.available)}"


class DatasetUnavailable(DatasetError):
    """The dataset is known, but its data is not available; ``advice`` names the remedy."""

    code = ErrorCode.DATASET_UNAVAILABLE

    def __init__(self, name: str, reason: str, advice: str, full_folder: Path | None = None) -> None:
        super().__init__(name, reason, advice, full_folder)
        self.name = name
        self.reason = reason
        self.advice = advice
        self.full_folder = full_folder
        """The folder that cannot be written, if that is the cause: another machine may have the data."""

    def __str__(self) -> str:
        return f"the dataset {self.name!r} is not available: {self.reason}. {self.advice}"


class DatasetChanged(DatasetError):
    """The data differs from the data with which the job started."""

    code = "dataset_changed"

    def __init__(self, name: str, expected: str, actual: str) -> None:
        super().__init__(name, expected, actual)
        self.name = name
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return (
            f"the data of {self.name!r} has changed: the job was trained on {self.expected[:19]}..., and it is now "
            f"{self.actual[:19]}.... Restore the earlier files, or train a new job"
        )


class DatasetBroken(DatasetError, ValueError):
    """A file exists, but is damaged or has unexpected content."""

    code = "dataset_broken"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def closest(name: str, candidates: Sequence[str], *, similarity: int = _SIMILAR) -> str | None:
    """The most similar known name, ignoring case, if any is similar enough."""
    from rapidfuzz import fuzz, process  # here: each process that reads an upload would load it

    match = process.extractOne(
        name.lower(), candidates, scorer=fuzz.ratio, score_cutoff=similarity, processor=str.lower
    )
    return match[0] if match else None


def column_hint(name: str, columns: Collection[str]) -> str:
    """What to say about a column that does not exist: the most similar one, or those that do."""
    similar = closest(name, list(columns))
    return f"; did you mean {similar!r}?" if similar else f"; the columns are {quoted(columns)}"


def quoted(names: Collection[str]) -> str:
    """The first of some names."""
    shown = ", ".join(map(repr, list(names)[:_MAX_NAMES]))
    return f"{shown} and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else shown
