"""Commands that call one method of the client and print what it returns: each is a declaration, a ``Terminal``.

Arguments and options follow from the signature of the method, which ``make client`` has written from the operation, and
their help from its docstring. Neither needs HTTP: ``--help`` and completion of options read the signature alone.

The views would load Flask, so a `Terminal` (columns, notes, questions) stands with the commands; the help of an option
that the operation describes at length is written again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import click
from rich.table import Column
from rich.text import Text

from service.cli.target import (
    Completer,
    Target,
    checkpoint_option,
    completer,
    confirm_deletion,
    job_argument,
    service_options,
    yes_option,
)
from service.cli.text import owner_names, print_rows, print_table, with_owners
from service.wording import rounded
from tapeline.method_types import Which
from tapeline.methods import GeneratedMethods
from tapeline.methods.job import JobMethods

if TYPE_CHECKING:
    from tapeline import Client

Item = Mapping[str, Any]
"""A document of the API."""
Cell = str | Callable[[Item], object]
"""A field of a document by its name, or what a function makes of the document."""
_TYPES: Final[Mapping[Any, Any]] = {int: click.INT, float: click.FLOAT}
_NUMBERS: Final = {int: "whole number", float: "number"}
_CLEARED: Final = object()
"""The value of an option that sets the default again."""
_ARGUMENT: Final = re.compile(r"^ {12}(\w+): ((?:.+\n)(?: {16}.+\n)*)", re.MULTILINE)
"""One of the arguments in a docstring, and what it means."""


@dataclass(frozen=True, slots=True)
class Option:
    """What an option has in place of what follows from the argument: names, and settings of ``click.Option``."""

    names: Sequence[str]
    settings: Mapping[str, Any]


def option(*names: str, **settings: Any) -> Option:
    """An option with these names, or else that of the argument."""
    return Option(names, settings)


@dataclass(frozen=True, slots=True)
class Terminal:
    """How the terminal calls a method of the client, and shows what it returns."""

    name: str
    """Of the command."""
    method: str
    """Of the client, or, as ``Job.digests``, of a job, which is the first argument."""
    help: str
    _: KW_ONLY
    metavars: Mapping[str, str] = field(default_factory=dict)
    """Names of arguments in the help; by default ``ID`` for the first id."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Options, as the help lists them, by the argument of the method that they are for."""
    hidden: Collection[str] = ()
    """Arguments of the method that the command does not have."""
    find: Callable[[Client, str], str] | None = None
    """The id that the text of the first argument stands for."""
    columns: Mapping[str, Cell] = field(default_factory=dict)
    """Of a list: titles and cells."""
    right: Collection[str] = ()
    """The columns that are aligned to the right."""
    whole: Collection[str] = ("ID",)
    """The columns whose cells are not wrapped."""
    empty: str = ""
    """Printed in place of a list without items, on standard error; without it, nothing is."""
    rows: Mapping[str, Cell] | Callable[[Item], Sequence[tuple[str, str | Text]]] | None = None
    """Of one document: titles and values."""
    line: Callable[[Item], str] | None = None
    """Of one document: a line."""
    show: Callable[[Any], None] | None = None
    """Prints what none of these describes."""
    note: str = ""
    """Printed below, on standard error."""
    question: str = ""
    """What is deleted, with the arguments in braces: a person is asked before."""
    done: str = ""
    """What happened, if nothing is returned: ``deleted``."""
    example: str = ""
    """An option of a change, for whoever gives none."""
    default_word: str = ""
    """In place of any value of a change, it sets the default again."""

    @property
    def is_of_job(self) -> bool:
        """Whether it is about a job."""
        return self.method.startswith("Job.")


def group(
    listing: Terminal,
    *terminals: Terminal,
    noun: str = "",
    kind: type[click.Group] = click.Group,
    complete: Completer | None = None,
    **settings: Any,
) -> click.Group:
    """The commands about one resource; without one of them, its list.

    Args:
        listing: its list, with the name and the help of the whole.
        noun: what it is about, in the plural, if it is not the name.
        kind: of the group, with its settings.
        complete: completes the first arguments; by default, ids that are in the list.
    """
    run = partial(_run, listing)

    def show_list(context: click.Context, **values: Any) -> None:
        if context.invoked_subcommand is None:
            run(context.ensure_object(Target), **values)

    listed = command(listing, noun or listing.name)
    commands = kind(
        listing.name,
        params=listed.params,
        callback=click.pass_context(show_list),
        help=listing.help,
        invoke_without_command=True,
        **settings,
    )
    for terminal in terminals:
        commands.add_command(command(terminal, noun or listing.name, complete=complete or _ids_of(listing)))
    return commands


def command(terminal: Terminal, noun: str, *, complete: Completer | None = None) -> click.Command:
    """A command.

    Args:
        noun: what it is about, in the plural.
        complete: completes its first argument, an id or a name.

    Raises:
        ValueError: it has options or hides arguments that the method does not have.
    """
    arguments = sorted(_arguments(_method(terminal)), key=partial(_place, terminal))
    if unknown := {*terminal.options, *terminal.metavars, *terminal.hidden} - {item.name for item in arguments}:
        raise ValueError(f"{terminal.method} has no arguments {sorted(unknown)}")
    shared = _added(service_options, *([yes_option] if terminal.question else []))
    return click.Command(
        terminal.name,
        params=[*_parameters(terminal, arguments, noun, complete), *shared],
        callback=click.pass_obj(partial(_run, terminal)),
        help=terminal.help,
    )


def _place(terminal: Terminal, argument: inspect.Parameter) -> int:
    """Where an argument is in the help: a checkpoint, options as they are declared, the others."""
    if _is_positional(terminal, argument) or argument.annotation is Which:
        return -1
    declared = [*terminal.options]
    return declared.index(argument.name) if argument.name in declared else len(declared)


def _run(terminal: Terminal, target: Target, **values: Any) -> None:
    yes = values.pop("yes", False)
    arguments = inspect.signature(_method(terminal)).parameters.values()
    names = [item.name for item in arguments if _is_positional(terminal, item) and item.name in values]
    positional = [values.pop(name) for name in names]
    if any(item.kind is item.VAR_KEYWORD for item in arguments):
        given = {name: value for name, value in values.items() if value not in (None, ())}
        values = {name: None if value is _CLEARED else value for name, value in given.items()}
        if not values:
            raise click.UsageError(f"nothing to change: give an option, such as {terminal.example}")
    with target.client() as client:
        if terminal.find is not None:
            positional[0] = terminal.find(client, positional[0])
        if terminal.question:
            confirm_deletion(terminal.question.format(*positional), yes=yes)
        job = target.find(client, values.pop("job_text")) if terminal.is_of_job else None
        found = getattr(job or client, _method(terminal).__name__)(*positional, **values)
        if terminal.done:
            key = "id" if names[0].endswith("_id") else names[0]
            target.echo({key: positional[0], terminal.done: True}, f"{positional[0]}  {terminal.done}")
        elif not target.prints(found):
            _print(terminal, found, owner_names(client, found) if "owner" in values and terminal.columns else [])


def _print(terminal: Terminal, found: Any, owners: Sequence[str]) -> None:
    if terminal.columns and not found:
        click.echo(terminal.empty, err=True, nl=bool(terminal.empty))
    elif terminal.columns:
        columns = [
            Column(
                title,
                overflow="ellipsis" if title in terminal.whole else "fold",
                no_wrap=title in terminal.whole,
                justify="right" if title in terminal.right else "left",
            )
            for title in terminal.columns
        ]
        rows = [[_text(cell, item) for cell in terminal.columns.values()] for item in found]
        print_table(*with_owners(columns, rows, owners))
    elif isinstance(terminal.rows, Mapping):
        print_rows((title, _text(cell, found)) for title, cell in terminal.rows.items())
    elif terminal.rows is not None:
        print_rows(terminal.rows(found))
    elif terminal.line is not None:
        click.echo(terminal.line(found))
    elif terminal.show is not None:
        terminal.show(found)
    if terminal.note:
        click.echo(terminal.note, err=True)


def _text(cell: Cell, item: Item) -> str | Text:
    value = item[cell] if isinstance(cell, str) else cell(item)
    match value:
        case Text():
            return value
        case None:
            return "-"
        case list():
            return ", ".join(map(str, value))
        case bool():
            return "yes" if value else "no"
        case float():
            return rounded(value)
        case int():
            return f"{value:,}"
    return str(value)


def _parameters(
    terminal: Terminal, arguments: Sequence[inspect.Parameter], noun: str, complete: Completer | None
) -> Iterator[click.Parameter]:
    texts = dict(_ARGUMENT.findall(_method(terminal).__doc__ or ""))
    is_first = not terminal.is_of_job
    if terminal.is_of_job:
        yield from _added(job_argument)
    for argument in arguments:
        if argument.name in terminal.hidden:
            continue
        if _is_positional(terminal, argument):
            is_named = is_first and argument.name.endswith(("_id", "name"))
            metavar = "ID" if is_first and argument.name.endswith("_id") else argument.name.removesuffix("_id").upper()
            yield click.Argument(
                [argument.name],
                metavar=terminal.metavars.get(argument.name, metavar),
                shell_complete=complete if is_named else None,
            )
            is_first = False
        elif argument.annotation is Which:
            yield from _added(checkpoint_option(argument.default))
        else:
            text = " ".join(texts.get(argument.name, "").split()).replace("``", "").partition(". ")[0]
            given = terminal.options.get(argument.name, option())
            if terminal.default_word:
                given = option(
                    *given.names,
                    type=_OrDefault(_kind(argument.annotation)[0], terminal.default_word),
                    **given.settings,
                )
            yield _option(argument, given, f"{text.rstrip('.')}." if text else None, noun)


class _OrDefault(click.ParamType[Any]):
    """A value, or the word that stands for the default."""

    name = "text"

    def __init__(self, kind: type, word: str) -> None:
        self._kind, self._word = kind, word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as a number or a text."""
        if value == self._word:
            return _CLEARED
        try:
            return self._kind(value)
        except ValueError:
            name = param.opts[0] if param is not None else ""
            kind = _NUMBERS[self._kind]
            raise click.UsageError(f"{name} is {value!r}: give a {kind}, or {self._word!r}") from None


def _method(terminal: Terminal) -> Callable[..., Any]:
    owner, _, name = terminal.method.rpartition(".")
    method: Callable[..., Any] = getattr(JobMethods if owner else GeneratedMethods, name)
    return method


def _added(*decorators: Callable[[click.Command], click.Command]) -> list[click.Parameter]:
    """The parameters that decorators add to a command."""
    holder = click.Command(None)
    for decorate in decorators:
        decorate(holder)
    return holder.params[::-1]


def _option(argument: inspect.Parameter, given: Option, text: str | None, noun: str) -> click.Option:
    kind, is_list = _kind(argument.annotation)
    flag = argument.name.replace("_", "-")
    names = [*(given.names or [f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"]), argument.name]
    settings: dict[str, Any] = {"help": text, "multiple": is_list, "required": _is_required(argument)}
    if argument.default not in (inspect.Parameter.empty, None):
        settings |= {"default": argument.default, "show_default": True}
    elif kind is bool:
        settings["default"] = None
    if argument.name == "owner":
        settings |= {
            "metavar": "OWNER",
            "help": f"{noun.capitalize()} of this owner, or of all with '*' (scope admin).",
        }
    if get_origin(kind) is Literal:
        settings["type"] = click.Choice(get_args(kind))
    elif kind in _TYPES:
        settings["type"] = _TYPES[kind]
    settings |= given.settings
    settings["required"] = settings["required"] and "default" not in settings
    return click.Option(names, **settings)


def _arguments(method: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """The arguments of a method, and, of a change, its fields."""
    for argument in [*inspect.signature(method, eval_str=True).parameters.values()][1:]:
        if argument.kind is not argument.VAR_KEYWORD:
            yield argument
            continue
        for name, kind in get_type_hints(get_args(argument.annotation)[0]).items():
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _is_positional(terminal: Terminal, argument: inspect.Parameter) -> bool:
    return _is_required(argument) and argument.name not in terminal.options


def _is_required(argument: inspect.Parameter) -> bool:
    return argument.default is inspect.Parameter.empty and argument.kind is not inspect.Parameter.VAR_KEYWORD


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there may be several."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(item for item in get_args(annotation) if item is not NoneType)
    if get_origin(annotation) is not None and get_origin(annotation) is not Literal:
        return get_args(annotation)[0], True
    return annotation, False


def _ids_of(listing: Terminal) -> Completer:
    """Complete the id of an item of a list, with what its second column shows."""

    def offered(client: Client, options: Mapping[str, Any], incomplete: str) -> Iterator[tuple[str, str]]:
        _, second, *_ = listing.columns.values()
        for item in getattr(client, listing.method)():
            yield str(item["id"]), str(_text(second, item))

    return completer(offered)
