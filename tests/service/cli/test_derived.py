"""Commands that follow from a method of the client."""

from __future__ import annotations

import click
import pytest

from service.cli.derived import Terminal, _print, command, option


def test_arguments_and_options_follow_from_the_method() -> None:
    made = command(Terminal("send", "redeliver", "Send it."), "webhooks")
    assert [item.human_readable_name for item in made.params[:2]] == ["ID", "DELIVERY"]
    drain = command(Terminal("drain", "drain_worker", "Drain it."), "workers")
    running = next(item for item in drain.params if item.name == "running")
    assert isinstance(running.type, click.Choice)
    assert (running.type.choices, running.default) == (("release", "finish"), "release")
    assert isinstance(running, click.Option)
    assert str(running.help).startswith("What happens to its running jobs: other workers continue them (release)")
    change = command(Terminal("set", "change_owner", "Change it."), "owners")
    types = {item.name: item.type for item in change.params}
    assert (types["weight"], types["streams"]) == (click.FLOAT, click.INT)


def test_an_option_of_an_argument_that_the_method_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"delete_webhook has no arguments \['limit'\]"):
        command(Terminal("delete", "delete_webhook", "Delete it.", options={"limit": option()}), "webhooks")


def test_what_a_narrow_terminal_cuts_off_is_marked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some digits of a number would be another number."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("COLUMNS", "14")
    terminal = Terminal("datasets", "datasets", "List them.", columns={"SIZE": "size", "NAME": "name"}, whole=["SIZE"])
    _print(terminal, [{"size": 123_456_789_012, "name": "digits"}], [])
    assert "123,456,789,\N{HORIZONTAL ELLIPSIS} " in capsys.readouterr().out
