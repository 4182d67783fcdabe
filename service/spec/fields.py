"""Suggestions for unknown fields: the field of the spec that a misplaced or misspelt name probably means."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel
from rapidfuzz import fuzz, process

from service.spec.schema import StrictModel
from service.wording import listed

Model = type[BaseModel]

_SYNONYMS: Final = {"lr": "learning_rate", "wd": "weight_decay", "neurons": "units"}
"""Names from other libraries that string similarity does not match with the right field."""
_TAGS: Final = frozenset({"name", "type"})
"""Discriminator fields. Nearly every object has one, so they are useless as suggestions."""
_LONGEST: Final = 80
"""Names longer than this get no suggestion."""
_SIMILAR: Final = 70
"""Minimum similarity, from 0 to 100, of a misspelt name to a field of the same object."""
_SIMILAR_ELSEWHERE: Final = 85
"""Minimum similarity to a field of another object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A field of a spec.

    Attributes:
        path: field names from the root of the spec; ``layers[]`` means each item of a list.
        tags: the variants (``adam``, ``dense``) of the object that have the field; empty if all have it.
        is_given: whether the document contains one of these variants.
        values: the values of a discriminator field, such as ``("sgd", "adam", "adamw")``.
    """

    path: tuple[str, ...]
    tags: tuple[str, ...]
    is_given: bool
    values: tuple[str, ...] = ()

    @property
    def dotted(self) -> str:
        """The path as text: ``optimizer.learning_rate``, ``layers[].units``."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggestion for an unknown field: the field's name, if it is valid at that place, and a sentence."""

    name: str | None
    sentence: str


def closest(value: Any, choices: Sequence[str]) -> str | None:
    """The choice most similar to a value, ignoring case; ``None`` if none is similar enough."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    found = process.extractOne(value, choices, processor=str.casefold, score_cutoff=_SIMILAR)
    return str(found[0]) if found else None


def metric_instead(metric: str, known: Sequence[str], lead: str) -> str:
    """What to name instead of an unknown metric: the similar one, or all after ``lead``, such as ``it has``."""
    near = closest(metric, sorted(known, key=lambda name: not name.startswith("val_")))  # accuracy: that of validation
    return f"did you mean {near!r}?" if near else f"{lead} {', '.join(known) or 'none yet'}"


class Fields:
    """The fields that a document may have, for suggestions. They are collected lazily, once.

    Args:
        root: the model of the whole document.
        document: parsed JSON.
        others: the models of the other values of ``kind``.
    """

    def __init__(self, root: Model, document: Any, others: Sequence[Model] = ()) -> None:
        self._root, self._document, self._others = root, document, others

    @functools.cached_property
    def _everywhere(self) -> list[Place]:
        return list(_places(self._root, self._document))

    def suggest(self, path: Sequence[int | str], here: Sequence[Model]) -> Suggestion | None:
        """A suggestion for an unknown field; ``None`` if nothing is similar.

        Args:
            path: path into the document; the last item is the unknown field.
            here: the possible models of the object at ``path[:-1]``.
        """
        unknown = str(path[-1])
        if len(unknown) > _LONGEST:
            return None
        name = _SYNONYMS.get(unknown, unknown)
        siblings = {field.alias or name for model in here for name, field in model.model_fields.items()}
        if name in siblings:
            return _to_suggestion(name)
        inside = tuple(_shown(path[:-1]))
        return self._exactly(name, inside) or self._nearly(unknown, inside, siblings)

    def _exactly(self, name: str, inside: tuple[str, ...]) -> Suggestion | None:
        """A suggestion from an exact match: a field elsewhere, or a variant, with this name."""
        if name in _TAGS:
            return None
        found = [place for place in self._everywhere if place.path[-1] == name]
        # Prefer fields inside the same object, then those of variants that the document has, then those near the root.
        found.sort(key=lambda place: (place.path[: len(inside)] != inside, not place.is_given, len(place.path)))
        if found and found[0].path[:-1] == inside:
            return Suggestion(None, f"only {listed(found[0].tags)} has it")
        if found:
            return _to_suggestion(found[0].dotted, () if found[0].is_given else found[0].tags)
        teller = next((place.dotted for place in self._everywhere if name in place.values), None)
        if teller:
            return Suggestion(None, f"{name!r} is a value of {teller!r}")
        for other in self._others:
            if any(place.path[-1] == name for place in _places(other, {})):
                return Suggestion(None, f"only a {get_args(other.model_fields['kind'].annotation)[0]} has it")
        return None

    def _nearly(self, unknown: str, inside: tuple[str, ...], siblings: set[str]) -> Suggestion | None:
        """A suggestion by similarity: a field of the same object, or a more similar one elsewhere."""
        similar = process.extractOne(unknown, sorted(siblings), processor=str.casefold, score_cutoff=_SIMILAR)
        score = similar[1] if similar else 0.0
        others = {
            place: place.path[-1]
            for place in self._everywhere
            if place.path[:-1] != inside and place.path[-1] not in _TAGS
        }
        elsewhere = process.extractOne(
            unknown,
            others,
            scorer=fuzz.ratio,
            processor=str.casefold,
            score_cutoff=max(_SIMILAR_ELSEWHERE, score),
        )
        if elsewhere and elsewhere[1] > score:
            place = elsewhere[2]
            return _to_suggestion(place.dotted, () if place.is_given else place.tags)
        return _to_suggestion(str(similar[0])) if similar else None


def shorthand(model: Model, document: Any) -> Any:
    """Expand shorthands: ``"adam"`` becomes ``{"name": "adam"}`` where an object is selected by its ``name``.

    This applies to fields all of whose variants have a field ``name``. Other values are not changed.
    """
    if not isinstance(document, dict):
        return document
    written = dict(document)
    for name, value in document.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        below = models_of(field.annotation)
        if isinstance(value, str) and accepts_shorthand(field.annotation):
            written[name] = {"name": value}
        elif isinstance(value, dict) and len(below) == 1:
            written[name] = shorthand(below[0], value)
    return written


def accepts_shorthand(annotation: Any) -> bool:
    """Whether a field of this type accepts a text as shorthand for an object."""
    below = models_of(annotation)
    return bool(below) and get_origin(annotation) is not list and all("name" in found.model_fields for found in below)


def models_of(annotation: Any) -> list[Model]:
    """The models of the objects that a field of this type, or its list, may contain."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in models_of(argument)]


def choices_of(annotation: Any) -> list[str]:
    """The names that are valid as a shorthand for a field's object; empty if any text is valid."""
    found = []
    for model in models_of(annotation):
        name = model.model_fields["name"].annotation
        if isinstance(name, type) and issubclass(name, StrEnum):
            found += [member.value for member in name]
        else:
            found += tags_of(model)
    return found


def tags_of(model: Model) -> tuple[str, ...]:
    """The discriminator values of a variant in its union, such as ``("adam",)``."""
    for name in ("name", "type"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()


def _places(root: Model, document: Any) -> Iterator[Place]:
    """All fields of a document's model, those near the root first."""
    waiting: deque[tuple[tuple[str, ...], list[Model], list[Any]]] = deque([((), [root], [document])])
    while waiting:
        path, variants, given = waiting.popleft()
        by_name: dict[str, list[Model]] = {}
        for model in variants:
            for name in model.model_fields:
                by_name.setdefault(name, []).append(model)
        for name, models in by_name.items():
            tags = tuple(tag for model in models for tag in tags_of(model)) if len(models) < len(variants) else ()
            is_given = not tags or any(_tag(item) in tags for item in given)
            values = tuple(tag for model in models for tag in tags_of(model)) if name in _TAGS else ()
            yield Place(path=(*path, name), tags=tags, is_given=is_given, values=values)
            annotation = models[0].model_fields[name].annotation
            below = models_of(annotation)
            if below:
                is_list = get_origin(annotation) is list
                inner = [item.get(name) for item in given if isinstance(item, dict)]
                if is_list:
                    inner = [one for value in inner if isinstance(value, list) for one in value]
                waiting.append(((*path, name + "[]" if is_list else name), below, inner))


def _tag(value: Any) -> Any:
    return value.get("name", value.get("type", "dense")) if isinstance(value, dict) else None


def _shown(path: Sequence[int | str]) -> Iterator[str]:
    """A path into a document as a path into its model: indices become ``[]``."""
    for position, step in enumerate(path):
        if isinstance(step, int):
            continue
        follows = path[position + 1] if position + 1 < len(path) else None
        yield f"{step}[]" if isinstance(follows, int) else step


def _to_suggestion(dotted: str, tags: Sequence[str] = ()) -> Suggestion:
    which = f" ({listed(tags)} only)" if tags else ""
    return Suggestion(dotted, f"did you mean {dotted!r}{which}?")
