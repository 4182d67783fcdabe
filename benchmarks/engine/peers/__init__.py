"""The same steps in other libraries. A module is None if its library is not installed."""

from typing import Any

pytorch: Any
jax_jit: Any
try:
    from benchmarks.engine.peers import pytorch
except ImportError:
    pytorch = None
try:
    from benchmarks.engine.peers import jax_jit
except ImportError:
    jax_jit = None
