"""Where the responses of a scene come from: a file, or the whole service, which is recorded."""

from __future__ import annotations

from tests.service.client.stub.player import Player
from tests.service.client.stub.recorder import Recorder

Recordings = Player | Recorder
