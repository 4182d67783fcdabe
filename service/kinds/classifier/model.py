"""Trained classifiers."""

from __future__ import annotations

from typing import Final

from service.kinds.classifier.spec import ClassifierSpec
from service.kinds.supervised.model import network
from service.models.kinds import ModelOfKind

MODEL: Final = ModelOfKind[ClassifierSpec](network=network)
