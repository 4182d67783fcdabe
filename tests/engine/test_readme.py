import doctest
import re
from pathlib import Path

import pytest

import engine

README = Path(engine.__file__).parent / "README.md"
BLOCKS = re.findall(r"^```pycon\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_readme_examples_run_and_print_the_documented_output() -> None:
    assert len(BLOCKS) >= 5
    test = doctest.DocTestParser().get_doctest("\n".join(BLOCKS), {}, "engine/README.md", str(README), 0)
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
