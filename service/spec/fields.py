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

SYNONYMS: Final = {"lr": "learning_rate", "wd": "weight_decay", "neurons": "units"}
"""Names from other libraries that string similarity does not match with the right field."""
_TAGS: Final = frozenset({"name", "type"})
"""Discriminator fields. Nearly every object has one, so they are useless as suggestions."""
_MAX_NAME_LENGTH: Final = 80
"""Names longer than this get no suggestion."""
_MIN_SIMILARITY: Final = 70
"""Minimum similarity, from 0 to 100, of a misspelt name to a field of the same object."""
_MIN_SIMILARITY_ELSEWHERE: Final = 85
"""Minimum similarity to a field of another object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecField:
    """A field of a spec.

    Attributes:
        path: field names from the root of the spec; ``layers[]`` means each item of a list.
        tags: the variants (``adam``, ``dense``) of the object that have the field; empty if all have it.
        is_used: whether the document contains one of these variants.
        values: the values of a discriminator field, such as ``("sgd", "adam", "adamw")``.
    """

    path: tuple[str, ...]
    tags: tuple[str, ...]
    is_used: bool
    values: tuple[str, ...] = ()

    @property
    def dotted(self) -> str:
        """The path as text: ``optimizer.learning_rate``, ``layers[].units``."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A suggestion for an unknown field: the field's name, if it is valid there, and a sentence."""

    name: str | None
    sentence: str


def closest(value: Any, choices: Sequence[str], *, similarity: float = _MIN_SIMILARITY) -> str | None:
    """The choice most similar to a value, ignoring case, preferably one that begins with it; ``None`` if none is
    similar enough."""
    if not isinstance(value, str) or len(value) > _MAX_NAME_LENGTH:
        return None
    begun = [choice for choice in choices if choice.casefold().startswith(value.casefold())]
    match = process.extractOne(value, begun or choices, processor=str.casefold, score_cutoff=similarity)
    return str(match[0]) if match else None


def suggest_metric(metric: str, names: Sequence[str], lead: str) -> str:
    """A suggestion for an unknown metric: a similar one, or all names after ``lead``, such as ``it has``."""
    # For ``accuracy``, suggest that of the validation data.
    match = closest(metric, sorted(names, key=lambda name: not name.startswith("val_")))
    return f"did you mean {match!r}?" if match else f"{lead} {', '.join(names) or 'none yet'}"


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
    def _all_fields(self) -> list[SpecField]:
        return list(spec_fields(self._root, self._document))

    def suggest(self, path: Sequence[int | str], models: Sequence[Model]) -> Suggestion | None:
        """A suggestion for an unknown field; ``None`` if nothing is similar.

        Args:
            path: path into the document; the last item is the unknown field.
            models: the possible models of the object at ``path[:-1]``.
        """
        unknown = str(path[-1])
        if len(unknown) > _MAX_NAME_LENGTH:
            return None
        name = SYNONYMS.get(unknown, unknown)
        siblings = {field.alias or name for model in models for name, field in model.model_fields.items()}
        if name in siblings:
            return _to_suggestion(name)
        parent_path = tuple(_model_path(path[:-1]))
        return self._match_exactly(name, parent_path) or self._match_similar(unknown, parent_path, siblings)

    def _match_exactly(self, name: str, parent_path: tuple[str, ...]) -> Suggestion | None:
        """A suggestion from an exact match: a field elsewhere, or a variant, with this name."""
        if name in _TAGS:
            return None
        matches = [field for field in self._all_fields if field.path[-1] == name]
        # Prefer fields inside the same object, then those of variants that the document has, then those near the root.
        matches.sort(
            key=lambda field: (field.path[: len(parent_path)] != parent_path, not field.is_used, len(field.path))
        )
        if matches and matches[0].path[:-1] == parent_path:
            return Suggestion(None, f"only {listed(matches[0].tags)} has it")
        if matches:
            return _to_suggestion(matches[0].dotted, () if matches[0].is_used else matches[0].tags)
        holder = next((field.dotted for field in self._all_fields if name in field.values), None)
        if holder:
            return Suggestion(None, f"{name!r} is a value of {holder!r}")
        for model in self._others:
            if any(field.path[-1] == name for field in spec_fields(model, {})):
                return Suggestion(None, f"only a {get_args(model.model_fields['kind'].annotation)[0]} has it")
        return None

    def _match_similar(self, unknown: str, parent_path: tuple[str, ...], siblings: set[str]) -> Suggestion | None:
        """A suggestion by similarity: a field of the same object, or a more similar one elsewhere."""
        similar = process.extractOne(unknown, sorted(siblings), processor=str.casefold, score_cutoff=_MIN_SIMILARITY)
        score = similar[1] if similar else 0.0
        other_fields = {
            field: field.path[-1]
            for field in self._all_fields
            if field.path[:-1] != parent_path and field.path[-1] not in _TAGS
        }
        elsewhere = process.extractOne(
            unknown,
            other_fields,
            scorer=fuzz.ratio,
            processor=str.casefold,
            score_cutoff=max(_MIN_SIMILARITY_ELSEWHERE, score),
        )
        if elsewhere and elsewhere[1] > score:
            field = elsewhere[2]
            return _to_suggestion(field.dotted, () if field.is_used else field.tags)
        return _to_suggestion(str(similar[0])) if similar else None


def shorthand(model: Model, document: Any) -> Any:
    """Expand shorthands: ``"adam"`` becomes ``{"name": "adam"}`` where an object is selected by its ``name``.

    This applies to fields all of whose variants have a field ``name``. Other values are not changed.
    """
    if not isinstance(document, dict):
        return document
    expanded = dict(document)
    for name, value in document.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        models = models_of(field.annotation)
        if isinstance(value, str) and accepts_shorthand(field.annotation):
            expanded[name] = {"name": value}
        elif isinstance(value, dict) and len(models) == 1:
            expanded[name] = shorthand(models[0], value)
    return expanded


def accepts_shorthand(annotation: Any) -> bool:
    """Whether a field of this type accepts a text as shorthand for an object."""
    models = models_of(annotation)
    return bool(models) and get_origin(annotation) is not list and all("name" in model.model_fields for model in models)


def models_of(annotation: Any) -> list[Model]:
    """The models of the objects that a field of this type, or its list, may contain."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_of(argument)]


def choices_of(annotation: Any) -> list[str]:
    """The names that are valid as a shorthand for a field's object; empty if any text is valid."""
    names = []
    for model in models_of(annotation):
        name = model.model_fields["name"].annotation
        if isinstance(name, type) and issubclass(name, StrEnum):
            names += [member.value for member in name]
        else:
            names += tags_of(model)
    return names


def tags_of(model: Model) -> tuple[str, ...]:
    """The discriminator values of a variant in its union, such as ``("adam",)``."""
    for name in ("name", "type"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()


def spec_fields(root: Model, document: Any) -> Iterator[SpecField]:
    """All fields of a document's model, those near the root first."""
    queue: deque[tuple[tuple[str, ...], list[Model], list[Any]]] = deque([((), [root], [document])])
    while queue:
        path, variants, documents = queue.popleft()
        by_name: dict[str, list[Model]] = {}
        for model in variants:
            for name in model.model_fields:
                by_name.setdefault(name, []).append(model)
        for name, models in by_name.items():
            tags = tuple(tag for model in models for tag in tags_of(model)) if len(models) < len(variants) else ()
            is_used = not tags or any(_tag(item) in tags for item in documents)
            values = tuple(tag for model in models for tag in tags_of(model)) if name in _TAGS else ()
            yield SpecField(path=(*path, name), tags=tags, is_used=is_used, values=values)
            annotation = models[0].model_fields[name].annotation
            children = models_of(annotation)
            if children:
                is_list = get_origin(annotation) is list
                child_documents = [item.get(name) for item in documents if isinstance(item, dict)]
                if is_list:
                    child_documents = [
                        element for value in child_documents if isinstance(value, list) for element in value
                    ]
                queue.append(((*path, name + "[]" if is_list else name), children, child_documents))


def _tag(value: Any) -> Any:
    return value.get("name", value.get("type", "dense")) if isinstance(value, dict) else None


def _model_path(path: Sequence[int | str]) -> Iterator[str]:
    """A path into a document as a path into its model: indices become ``[]``."""
    for position, step in enumerate(path):
        if isinstance(step, int):
            continue
        following = path[position + 1] if position + 1 < len(path) else None
        yield f"{step}[]" if isinstance(following, int) else step


def _to_suggestion(dotted: str, tags: Sequence[str] = ()) -> Suggestion:
    qualifier = f" ({listed(tags)} only)" if tags else ""
    return Suggestion(dotted, f"did you mean {dotted!r}{qualifier}?")
