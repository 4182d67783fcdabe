"""The version of this tree: of the client, and of the service that it may contain."""

from typing import Final

VERSION: Final = "0.2.0"
"""As in ``pyproject.toml``; a test compares them."""
