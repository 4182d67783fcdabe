"""How the web process recognizes share links."""

from __future__ import annotations

from typing import Final

from service.features.sharing import links
from service.features.sharing.errors import ShareNotFound
from service.web.core.rooms import Links

GATE: Final = Links(pattern=links.TOKEN, find=links.find, refused=ShareNotFound, cookie="tapeline_shares")
