"""What is recorded about models in the audit log."""

from __future__ import annotations

from enum import StrEnum


class ModelAction(StrEnum):
    """A recorded action."""

    REGISTER = "register"
    APPROVE = "approve"
    MOVE_ALIAS = "move_alias"
    CHANGE_GATES = "change_gates"
    DELETE_MODEL = "delete_model"
    DELETE_VERSION = "delete_version"
