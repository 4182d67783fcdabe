"""The options of an upload: each is declared once, as a field of the options of its formats.

From the declaration follow the form of the API and its description, the controls of the page, the options of the
command, the arguments of the client and the table in docs/spec.md; ``make client`` writes the last two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints

from service.datasets.info import Fit
from service.states import Task
from tapeline.images.files import Size

DEFAULT_FRACTION: Final = 0.15
"""Of each class for validation."""
MIN_SPREAD: Final = 32
"""Minimum difference between the channels of a coloured pixel; less is the tint of a scan, or JPEG noise."""


class Channels(StrEnum):
    """How the images of an archive are stored."""

    GREY = "1"
    COLOUR = "3"
    AUTO = "auto"
    """In colour if any image has a coloured pixel."""


class OnBad(StrEnum):
    """How to handle unreadable images in an archive."""

    ERROR = "error"
    SKIP = "skip"
    """Leave them out and list them in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """How the page asks for an option.

    Attributes:
        choices: of a list, labels by value; empty: the script of the page offers the columns of the table.
        attributes: of a field in which its value is typed.
        is_explained: whether the text below the form is about it.
        is_hidden: the script of the page sets it.
    """

    label: str
    title: str = ""
    choices: Mapping[str, str] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_explained: bool = False
    is_hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What is said about an option.

    Attributes:
        meaning: for the API and the documents, in Markdown.
        help: of the option of the command.
        argument: of the client.
        control: on the page.
        flag: of the command, if it is not the name.
        metavar: of the option of the command.
    """

    meaning: str
    help: str
    argument: str
    control: Control
    flag: str = ""
    metavar: str | None = None


def _option(default: Any = MISSING, *, factory: Any = MISSING, **declared: Any) -> Any:
    metadata = {"declared": Declaration(**declared)}
    return field(default=default, default_factory=factory, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoOptions:
    """Options for an archive of image files."""

    size: Size | None = _option(
        None,
        meaning="For an archive of image files: fit each to this size in pixels. `32`, or `32x24` for width x "
        "height. Required if the images have several sizes.",
        help="Fit image files to this size in pixels: 32, or 32x24 for width x height.",
        argument="Scale image files, such as to ``32`` or ``32x24`` (width x height). Those of a folder are scaled "
        "before they are sent, which gives the same dataset.",
        control=Control(
            label="Size in pixels",
            title="Fit image files to this size in pixels: 32, or 32x24 for width x height",
            attributes={"maxlength": "20", "pattern": "[1-9][0-9]*(x[1-9][0-9]*)?", "placeholder": "as they are"},
        ),
    )
    """Fit every image to this size. Without it, all images must have the same size."""
    fit: Fit = _option(
        Fit.CROP,
        meaning="With `size`: `crop` (default) scales each image to cover the size and cuts off evenly what extends "
        "beyond; `pad` scales it into the size and fills the rest with black. Predictions prepare images in "
        "the same way.",
        help="crop cuts off what extends beyond the size, pad adds black borders (default: crop).",
        argument="``crop`` (the default) scales images to cover the size and cuts off the rest; ``pad`` scales them "
        "into it, with black borders.",
        control=Control(
            label="Images of another shape",
            title="How image files are fitted to the size in pixels",
            choices={"": "crop: cut off two sides", "pad": "pad: add black borders"},
        ),
    )
    channels: Channels = _option(
        Channels.AUTO,
        meaning="For an archive of image files: `1` stores them in grey, `3` in colour. `auto` (default) stores them "
        "in "
        f"colour if any image has a pixel whose red, green and blue differ by more than {MIN_SPREAD} of 255, so that "
        "tinted scans and the noise of JPEG stay grey.",
        help="1 stores image files in grey, 3 in colour, auto in colour if any has colours (default: auto).",
        argument="Store such images in grey (``1``) or in colour (``3``); by default detected from the images.",
        control=Control(
            label="Channels",
            title="How image files are stored. Automatic: in colour if any image has colours",
            choices={"": "automatic", "1": "grey", "3": "colour"},
        ),
    )
    on_bad: OnBad = _option(
        OnBad.ERROR,
        meaning="For an archive of image files: `error` (default) refuses an archive with files that are truncated, "
        "damaged, "
        "not images, or outside of class folders; `skip` leaves these out, and `report` in the response counts and "
        "names them.",
        help="skip leaves out image files that are truncated or not images, and lists them (default: error).",
        argument="``skip`` omits images that cannot be read; ``report`` of the dataset names them.",
        control=Control(
            label="Unreadable images",
            title="What to do with image files that are truncated, damaged or not images",
            choices={"": "refuse the upload", "skip": "leave them out"},
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOptions:
    """Options for files of every format."""

    validation_fraction: float | None = _option(
        None,
        meaning="Fraction of each class to set aside for validation, if the upload has no validation data "
        f"(default: {DEFAULT_FRACTION}).",
        help="Fraction of each class to set aside for validation if the upload has no validation data "
        f"(default: {DEFAULT_FRACTION}).",
        argument="Fraction of each class to set aside for validation, if the upload has no validation data.",
        control=Control(
            label="Validation fraction",
            title="Fraction of each class to set aside for validation if there are no validation data",
            attributes={
                "type": "number", "min": "0.01", "max": "0.99", "step": "any",
                "placeholder": f"{DEFAULT_FRACTION} ({DEFAULT_FRACTION:.0%})",
            },
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """Options for a table."""

    target: str | None = _option(
        None,
        meaning="The column of a table to learn: classes, or a number (default: the last one).",
        help="Column of a table to learn: classes, or a number (default: the last one).",
        argument="The column of a table to predict (default: the last one).",
        control=Control(label="Target column", title="The column to learn: a class or a number", choices={}),
    )
    task: Task | None = _option(
        None,
        meaning="What to learn from a table: `classification` into the classes that are the target's values, or "
        "`regression`, to predict the number in the target. Default: regression if the target has more than 20 "
        "different numbers.",
        help="Tell the values of the target apart, or predict its number (default: regression for many numbers).",
        argument="Predict classes or numbers (default: as the target suggests).",
        control=Control(
            label="Learn",
            choices={"": "automatic", "classification": "classes", "regression": "a number"},
            is_explained=True,
        ),
    )
    split: str | None = _option(
        None,
        meaning="The column of a table that assigns each row to a part: `train`, `validation` (or `val`) or "
        "`test`. It is not learned from. Without validation rows, test rows are used for validation; otherwise "
        "training never sees them.",
        help="Column that assigns each row of a table to a part: train, validation (val) or test.",
        argument="The column of a table that contains the part of each row: ``train``, ``validation`` or ``test``.",
        control=Control(label="Split column", choices={}, is_explained=True),
    )
    types: Mapping[str, str] = _option(
        factory=dict,
        meaning="Types of columns of a table that are not to be detected, as JSON: "
        '`{"age": "number", "id": "ignore"}`. A type is `number`, `category`, `date` or `ignore`. Rows with another '
        "value in a number or date column are rejected.",
        help="Type of a column, instead of the detected one: number, category, date or ignore. Repeatable.",
        argument="Types of columns of a table, instead of the detected ones: ``number``, ``category``, ``date`` or "
        "``ignore``.",
        control=Control(label="", is_hidden=True),
        flag="type",
        metavar="COLUMN=TYPE",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOption:
    """One option.

    Attributes:
        group: the options of its formats.
        kind: ``Size``, ``str`` (the name of a column), ``float`` (a fraction), ``Mapping``, or a class of choices.
        default: ``None``: there is none, or it depends on the data.
    """

    name: str
    group: type[PhotoOptions | PartOptions | TableOptions]
    kind: Any
    default: Any
    declared: Declaration

    @property
    def flag(self) -> str:
        """The option of the command: ``--on-bad``."""
        return f"--{self.declared.flag or self.name.replace('_', '-')}"

    @property
    def choices(self) -> list[str]:
        """Its values, if it has a list of them."""
        return [str(choice.value) for choice in self.kind] if self.is_choice else []

    @property
    def is_choice(self) -> bool:
        """Whether it has a list of values."""
        return isinstance(self.kind, type) and issubclass(self.kind, StrEnum)

    def restored(self, value: Any) -> Any:
        """Its value, from JSON."""
        if value is None:
            return None
        return tuple(value) if self.kind is Size else self.kind(value) if self.is_choice else value


def _declared(group: type[Any]) -> Iterator[UploadOption]:
    hints = get_type_hints(group)
    for item in fields(group):
        kind = hints[item.name]
        if NoneType in get_args(kind):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        kind = Mapping if get_origin(kind) is Mapping else kind
        default = None if item.default is MISSING else item.default
        declared = item.metadata["declared"]
        yield UploadOption(name=item.name, group=group, kind=kind, default=default, declared=declared)


UPLOAD_OPTIONS: Final = tuple(
    option for group in (PhotoOptions, PartOptions, TableOptions) for option in _declared(group)
)


def options_of(group: type[Any]) -> list[UploadOption]:
    """The options of a group."""
    return [option for option in UPLOAD_OPTIONS if option.group is group]


def restored(group: type[Any], values: Mapping[str, Any]) -> Any:
    """The options of a group, from JSON."""
    return group(**{option.name: option.restored(values[option.name]) for option in options_of(group)})
