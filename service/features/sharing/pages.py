"""The button and the dialog with which a page shares what it shows."""

from __future__ import annotations

from typing import Final

from service.web.core.rooms import Pages

PAGES: Final = Pages(actions="sharing/share.html")
