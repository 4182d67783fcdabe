"""Commands that follow from a method of the client."""

from __future__ import annotations

import click
import pytest

from service.cli.derived import Terminal, command, option


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
