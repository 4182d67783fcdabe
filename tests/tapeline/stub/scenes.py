"""Where the responses of a scene come from: a file, or the whole service, which is recorded."""

from __future__ import annotations

from tests.tapeline.stub.player import Player
from tests.tapeline.stub.recorder import Recorder

Recordings = Player | Recorder
