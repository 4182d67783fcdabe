"""ONNX Runtime, which runs exported models as their users do."""

from __future__ import annotations

from typing import Any


def session(data: bytes) -> Any:
    """An ``InferenceSession`` of one thread. The library is loaded here: it starts a thread, which would not survive
    the fork of the processes that run the tests."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options)
