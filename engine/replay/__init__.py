"""Replay of training steps: a step is traced once, planned, and replayed without the tape."""

from engine.replay.replay import Replay

__all__ = ["Replay"]
