import doctest
import inspect
import math
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine import GradientTape, Tensor
from engine.autograd.numpy_dispatch import NO_GRADIENT
from engine.autograd.tensor import is_tracked

README = Path(engine.__file__).parent / "README.md"
LESSON = README.parents[1] / "docs" / "learn" / "tape.md"
TABLE = re.search(r"^\| value that leaves.*?^$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
LEAVING = [
    (code, row.split("|")[3])
    for row in (TABLE[0].splitlines()[2:] if TABLE else [])
    for code in re.findall(r"`([^`]+)`", row.split("|")[2])
]


@pytest.mark.parametrize("document", [README, LESSON], ids=["README", "lesson"])
def test_the_examples_run_and_print_the_documented_output(document: Path) -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, document.name, str(document), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    messages: list[str] = []
    runner.run(test, out=messages.append)
    if runner.summarize(verbose=False).failed:
        pytest.fail("".join(messages))


def test_every_decision_has_three_lines() -> None:
    decisions = README.read_text(encoding="utf-8").partition("## Decisions")[2].strip().split("\n\n")
    assert decisions
    for decision in decisions:
        title, *lines = decision.splitlines()
        assert title.startswith("**"), decision
        assert len(lines) == 3, decision


def evaluated(code: str, values: list[float]) -> tuple[bool, Any]:
    """Whether a tape tracks the value of ``code`` for a tensor ``t`` with these values, and that value."""
    t, a, rng = Tensor(np.array(values), watch=True), np.ones(2), np.random.default_rng(0)
    np.random.seed(0)  # noqa: NPY002 - the legacy functions are in the table, too
    names = {"t": t, "a": a, "rng": rng, "np": np, "math": math, "pickle": pickle}
    with GradientTape():
        try:
            value = eval(code, names)
        except SyntaxError:
            exec(code, names)
            value = a
        value = a if value is None else value
        return any(map(is_tracked, [[value], *([[*value]] if isinstance(value, (list, tuple)) else [])])), plain(value)


def plain(value: Any) -> Any:
    """A value in a form that can be compared."""
    if isinstance(value, (str, bytes, int, float, complex)):
        return value
    if isinstance(value, memoryview):
        return value.tobytes()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, np.nditer):
        return [element.item() for element in value]
    try:
        return [plain(item) for item in value]
    except TypeError:
        return repr(value)


@pytest.mark.parametrize("code", [code for code, _ in LEAVING])
def test_the_documented_operations_leave_the_tape(code: str) -> None:
    (tracked, first), (_, second) = evaluated(code, [0.25, 0.5]), evaluated(code, [0.3, 0.4])
    assert not tracked
    assert first != second, "the value does not depend on the tensor"


@pytest.mark.parametrize("code", sorted({code for _, cell in LEAVING for code in re.findall(r"`([^`]+\))`", cell)}))
def test_the_alternatives_stay_on_the_tape(code: str) -> None:
    assert evaluated(code, [0.25, 0.5])[0]


ARGUMENTS: list[Callable[[Any], tuple[Any, ...]]] = [
    lambda t: (t,),
    lambda t: (t[0],),
    lambda t: (t, t),
    lambda t: (t, 1),
    lambda t: (2, t),
    lambda t: (2, t[0]),
    lambda t: (1.0, t),
    lambda t: (t, 1.0, 2.0),
    lambda t: ((2, 2), t[0]),
]
WRITE_FILES = {"DataSource", "dump", "memmap", "save", "savetxt", "savez", "savez_compressed", "tofile"}
NOT_COMPARABLE = {"ctypes", "empty", "empty_like", "get_include", "info", "show_config", "show_runtime", "test"}
SKIPPED = {*WRITE_FILES, *NOT_COMPARABLE, "printoptions", "set_printoptions", "setbufsize", "seterr", "seterrcall"}


def callables() -> Iterator[tuple[str, Any]]:
    spaces = {
        "np": np,
        "np.linalg": np.linalg,
        "np.fft": np.fft,
        "np.emath": np.emath,
        "np.lib.stride_tricks": np.lib.stride_tricks,
    }
    for space, module in spaces.items():
        for name in dir(module):
            function = getattr(module, name)
            is_class = inspect.isclass(function) and issubclass(function, (np.generic, Exception))
            if callable(function) and not name.startswith("_") and not is_class and function not in NO_GRADIENT:
                yield f"{space}.{name}", function
    for name in dir(np.ndarray):
        if not name.startswith("_"):
            yield f"t.{name}", lambda t, *args, name=name: (lambda m: m(*args) if callable(m) else m)(getattr(t, name))


def leaves(function: Any, arguments: Any) -> bool:
    """Whether the function gives a value that depends on a tensor, but is not on the tape."""
    results = []
    for values in ([0.25, 0.5], [0.3, 0.4]):
        with GradientTape():
            try:
                result = function(*arguments(Tensor(np.array(values), watch=True)))
                if any(map(is_tracked, [[result], *([[*result]] if isinstance(result, (list, tuple)) else [])])):
                    return False
                results.append(plain(result))
            except Exception:  # noqa: BLE001 - a call that fails loses no gradient
                return False
    return bool(results[0] != results[1])


@pytest.mark.filterwarnings("ignore")
def test_every_operation_of_numpy_that_leaves_the_tape_is_documented() -> None:
    documented = {name for code, _ in LEAVING for name in re.findall(r"(?:np|t)(?:\.\w+)+", code)}
    found = {
        name
        for name, function in callables()
        if name.rpartition(".")[2] not in SKIPPED and any(leaves(function, arguments) for arguments in ARGUMENTS)
    }
    assert {"np.asarray", "np.full", "t.item"} <= found
    assert sorted(found - documented) == []
