"""What a gate of each kind has: its fields, how it is checked, and what it is called in texts and on the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from service.features.registry.tables import Model, ModelVersion
from service.schema.base import StrictModel
from service.storage.artifacts import ArtifactStore
from service.storage.tables import Job

Document = Mapping[str, Any]
"""A gate as it is stored: the fields that apply, with their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A request that supplies what a gate needs."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found when a gate was checked."""

    gate: Document
    passed: bool
    sentence: str
    """The result in words."""
    evidence: Mapping[str, Any]
    """The numbers and ids on which it is based."""
    remedies: Sequence[Remedy] = ()
    """Requests that would supply what is missing. Empty: nothing is missing, or no request would help."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The version that is checked, and what belongs to it.

    Attributes:
        owner: whose jobs may be evidence; ``None``: all, without keys.
    """

    session: Session
    artifacts: ArtifactStore
    owner: str | None
    model: Model
    version: ModelVersion
    job: Job

    @property
    def reference(self) -> str:
        """``digits:3``."""
        return f"{self.model.name}:{self.version.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How the page edits such a gate.

    Attributes:
        name: on the button that adds one.
        begins: a new one.
        labels: of its fields, in their order.
        texts: the fields that are not numbers.
        text: in place of fields.
        remedy: on the button that sends the requests for what is missing; a sweep has one of its own.
    """

    name: str
    begins: Document
    labels: Mapping[str, str] = field(default_factory=dict)
    texts: Sequence[str] = ()
    text: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKind:
    """A kind of gate.

    Attributes:
        key: the field that tells the kind.
        fields: the fields that this kind adds.
        shares: further fields, of kinds above it in the list.
        valid: checks fields that are valid one by one; raises ``PydanticCustomError``.
        defaults: of fields that may be left out; they are stored.
        check: what is found about a version. It stores nothing, and trains nothing.
        text: what it requires, in a few words.
        example: in documents and help texts.
        other: a field that may stand in place of the last one of the example.
        noun: what it is, in the description of the API.
        named: its fields in a sentence.
    """

    key: str
    fields: type[StrictModel]
    shares: frozenset[str] = frozenset()
    valid: Callable[[Any], None] = lambda gate: None
    defaults: Document = field(default_factory=dict)
    check: Callable[[Checked, Document], Finding]
    text: Callable[[Document], str]
    form: Form
    example: Document
    other: str = ""
    noun: str = ""
    named: str = ""

    @property
    def names(self) -> frozenset[str]:
        """The names of its fields."""
        return self.shares | self.fields.model_fields.keys()

    def in_words(self, *, is_markdown: bool, with_defaults: bool) -> str:
        """The example in a sentence."""
        example = json.dumps({**self.example, **(self.defaults if with_defaults else {})}).replace(".0}", "}")
        code, name = (f"`{example}`", f"`{self.other}`") if is_markdown else (example, f'"{self.other}"')
        return f"{code} (or {name})" if self.other else code
