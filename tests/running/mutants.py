"""``make mutants``: count the mutants that the unit tests kill.

A mutant is a module with one small fault: another comparison, a condition left out, a statement removed. The tests that
run the changed function are repeated with it, one after the other, until one fails and kills it. Mutants that survive
are printed: either no test covers that part of the rule, or the mutant is equivalent to the original.

Modules are imported once. A mutant is applied in a forked process, where the code of the function is replaced, and the
private constants (statements, caches) that may use it are made again. Public constants, default values and decorators
have no mutants: other modules have imported what they made.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib
import json
import os
import random
import re
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, Final, NoReturn

import psycopg
import pytest

from tests.running.mutations import Mutant, all_mutants, apply, forget_cached, parsed, places, replace_code

MODULES: Final = {
    name.rpartition(".")[2]: name
    for name in (
        "service.jobs.leases",
        "service.jobs.epoch_commits",
        "service.jobs.commits",
        "service.sweeps.decisions",
        "service.sweeps.trial_scheduler",
        "service.features.registry.gates.better",
        "service.features.registry.gates.metric",
        "service.features.webhooks.outbox",
        "service.web.gate.access_checks",
        "service.spec.splits",
        "engine.autograd.tape",
    )
}
MOST_TESTS: Final = 200
PATIENCE: Final = 20.0
"""A test that takes so many seconds, and so many times as long as without the mutant, has found it."""
_OPTIONS: Final = ("-q", "-p", "no:xdist", "-p", "no:cacheprovider")
_SHARED: Final = (("migrated_url", "sqlite"), ("migrated_url", "postgresql"), ("private_url", "postgresql"))
"""Fixtures and their parameters that take long the first time."""
_FIRST_DATABASE: Final = 10**6
"""The number of the first database that a forked process creates."""
_PROBE: Final = "_tapeline_reached"


@dataclass
class Reach:
    """What a test runs."""

    seconds: float
    functions: list[str]
    """``module:function``."""


class Recorder:
    """In a process of its own: records which functions each test runs, and how long it takes."""

    def __init__(self) -> None:
        self.tests = dict[str, Reach]()
        self._reached, self._failed = set[str](), False

    def place_probes(self) -> None:
        setattr(builtins, _PROBE, self._reached.add)
        for name in MODULES.values():
            tree = parsed(name)
            for place, node in places(tree).items():
                for function in ast.walk(node):  # inner ones too: they may be kept, and run again
                    if isinstance(function, ast.FunctionDef):
                        probe = ast.parse(f"{_PROBE}({f'{name}:{place}'!r})").body[0]
                        function.body.insert(1 if ast.get_docstring(function) else 0, probe)
            replace_code(sys.modules[name], ast.fix_missing_locations(tree))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        for name in MODULES.values():
            forget_cached(sys.modules[name])
        self._reached.clear()
        self._failed = False
        began = time.monotonic()
        result = yield
        if self._reached and not self._failed:
            self.tests[item.nodeid] = Reach(time.monotonic() - began, sorted(self._reached))
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails without a mutant says nothing about one."""
        self._failed = self._failed or report.failed


class Hunt:
    """Runs the tests that reach each mutant until one fails, each mutant in a forked process of its own."""

    def __init__(self, mutants: Sequence[Mutant], most: int, record: Path, is_recorded: bool) -> None:
        self.mutants, self.most, self.record, self.is_recorded = mutants, most, record, is_recorded
        self.tests = dict[str, Reach]()
        self.results: list[dict[str, Any]] = []
        self._passed_without = dict[str, int]()
        """Of the tests of a place, how many are known to pass here, one after the other, without a mutant."""
        self._unusable = set[tuple[str, str]]()
        """Places, and tests that fail here without a mutant."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Examples of Hypothesis: the same each time, none remembered, and not made smaller."""
        import hypothesis  # not at the top: pytest warns of a plugin that is imported before it

        settings = hypothesis.settings
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        settings.register_profile("mutants", settings(), derandomize=True, database=None, phases=phases)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's loop."""
        self.session = session
        self.items = {item.nodeid: item for item in session.items}
        for name in MODULES.values():
            importlib.import_module(name)
        if not self.is_recorded:
            self._record()
        rows = json.loads(self.record.read_text(encoding="utf-8"))
        self.tests = {name: Reach(*row) for name, row in rows.items() if name in self.items}
        self._start_servers()
        for number, mutant in enumerate(self.mutants, 1):
            began = time.monotonic()
            result = asdict(mutant) | self._hunt(mutant) | {"seconds": round(time.monotonic() - began, 2)}
            self.results.append(result)
            print(f"{number}/{len(self.mutants)} {json.dumps(result)}", file=sys.__stdout__, flush=True)
        return True

    def _record(self) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                recorder = Recorder()
                recorder.place_probes()
                self.session.config.pluginmanager.register(recorder)
                for item, following in zip_longest(self.session.items, self.session.items[1:]):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                rows = {name: (reach.seconds, reach.functions) for name, reach in recorder.tests.items()}
                self.record.write_text(json.dumps(rows), encoding="utf-8")
                code = 0
            except BaseException:  # noqa: BLE001 - nothing of the session may go on in this process
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1] != 0:
            pytest.exit("the tests that run each function could not be recorded: see the error above")

    def _start_servers(self) -> None:
        """What all tests share, such as a database server, is started here once; the forked processes inherit it."""
        for fixture, parameter in _SHARED:
            users = [name for name in self.tests if _parameters(self.items[name]).get(fixture) == parameter]
            if users:
                # The one that leaves least behind in this process, such as a web app.
                item = self.items[min(users, key=lambda name: len(self.tests[name].functions))]
                # With the session as the next test, only fixtures of the session stay.
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=self.session)

    def _candidates(self, mutant: Mutant) -> list[str]:
        """The tests that reach a mutant: those of its module first, then those of its folder; the fastest first."""
        place = f"{mutant.module}:{mutant.place}"
        found = [name for name, reach in self.tests.items() if place in reach.functions]
        if not found:  # a constant, or a function that makes one
            reaches_module = re.compile(rf"{mutant.module}:").match
            found = [name for name, reach in self.tests.items() if any(map(reaches_module, reach.functions))]
        found = [name for name in found if (place, name) not in self._unusable]
        stem = mutant.module.rpartition(".")[2]
        folder = f"tests/{'/'.join(mutant.module.split('.')[:-1])}/"
        return sorted(
            found,
            key=lambda name: (f"test_{stem}." not in name, not name.startswith(folder), self.tests[name].seconds),
        )

    def _hunt(self, mutant: Mutant) -> dict[str, Any]:
        """The verdict, the test that found the mutant, how many were tried, and how many reach it."""
        place = f"{mutant.module}:{mutant.place}"
        while True:
            names = self._candidates(mutant)
            tried = names[: self.most or None]
            verdict, number = self._run(tried, mutant)
            if verdict != "killed" or number <= self._passed_without.get(place, 0):
                break
            # It counts only if the same tests pass without the mutant.
            without, failed_number = self._run(tried[:number], mutant, applied=False)
            if without == "survived":
                self._passed_without[place] = number
                break
            self._unusable.add((place, tried[failed_number - 1]))
            self._passed_without[place] = 0
        killer = tried[number - 1] if verdict == "killed" else None
        return {"verdict": verdict, "killer": killer, "tried": number, "tests": len(names)}

    def _run(self, names: Sequence[str], mutant: Mutant, *, applied: bool = True) -> tuple[str, int]:
        """Run tests in a forked process: the verdict, and the number of tests that it began."""
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(reader)
            self._work(names, mutant, applied, writer)
        os.close(writer)
        begun, lines, limit = 0, [""], PATIENCE * 2
        with os.fdopen(reader, "rb", buffering=0) as stream:
            while select.select([stream], [], [], limit)[0] and (data := stream.read(2**16)):
                *whole, rest = (lines[-1] + data.decode()).split("\n")
                lines = [*lines[:-1], *whole, rest]
                begun = lines.count("begin")
                limit = PATIENCE + PATIENCE * self.tests[names[begun - 1]].seconds if begun else PATIENCE * 2
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._clean(pid)
        for verdict in ("invalid", "survived"):
            if verdict in lines:
                return verdict, begun
        return ("killed", begun) if begun else ("invalid", 0)

    def _work(self, names: Sequence[str], mutant: Mutant, applied: bool, writer: int) -> NoReturn:
        """In the forked process: apply the mutant, and run the tests until one fails."""
        try:
            os.setpgid(0, 0)
            self._prepare_process()
            watcher = _Watcher()
            self.session.config.pluginmanager.register(watcher)
            try:
                apply(
                    mutant if applied else replace(mutant, number=-1), [sys.modules[name] for name in MODULES.values()]
                )
            except Exception:  # noqa: BLE001 - whatever it is, no test has found it
                os.write(writer, b"invalid\n")
                os._exit(1)
            items = [self.items[name] for name in names]
            for item, following in zip_longest(items, items[1:], fillvalue=self.session):
                os.write(writer, b"begin\n")
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if watcher.failed:
                    os._exit(1)
            os.write(writer, b"survived\n")
        finally:
            os._exit(1)

    def _folder(self, pid: int) -> Path:
        return vars(self.session.config)["_tmp_path_factory"].getbasetemp() / f"mutant{pid}"  # type: ignore[no-any-return]

    def _prepare_process(self) -> None:
        """Its own folder and databases, and no output."""
        from tests import conftest  # not at the top: pytest loads it with the options

        conftest._NUMBERS = count(_FIRST_DATABASE)
        factory, folder = vars(self.session.config)["_tmp_path_factory"], self._folder(os.getpid())
        folder.mkdir(mode=0o700)
        factory._basetemp = folder
        terminal: Any = self.session.config.pluginmanager.get_plugin("terminalreporter")
        terminal._tw._file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends

    def _clean(self, pid: int) -> None:
        """Remove the folder and the databases of a process."""
        shutil.rmtree(self._folder(pid), ignore_errors=True)
        definitions = self.session._fixturemanager.getfixturedefs("postgres_server", self.session) or ()
        for server in [item.cached_result[0] for item in definitions if item.cached_result]:
            with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
                for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'tapeline_%'"):
                    if int(name.removeprefix("tapeline_")) >= _FIRST_DATABASE:
                        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _parameters(item: pytest.Item) -> dict[str, Any]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


class _Watcher:
    failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed = self.failed or report.failed


def _chosen(arguments: argparse.Namespace) -> list[Mutant]:
    if arguments.only:
        rows = json.loads(arguments.only.read_text(encoding="utf-8"))
        names = list(Mutant.__dataclass_fields__)
        return [Mutant(**{name: row[name] for name in names}) for row in rows if row["verdict"] == "survived"]
    chosen = []
    for name in arguments.modules or MODULES:
        mutants = all_mutants(MODULES[name])
        size = min(arguments.sample or len(mutants), len(mutants))
        chosen += random.Random(1).sample(mutants, size)
    return chosen


def main() -> int:
    """Try the mutants, and print what survives."""
    parser = argparse.ArgumentParser(description="Count the mutants that the unit tests kill.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="at most N mutants of each module")
    parser.add_argument("--only", type=Path, metavar="FILE", help="those that survive in the results of an earlier run")
    parser.add_argument("--most", type=int, default=MOST_TESTS, metavar="N", help="tests for a mutant; 0: all")
    parser.add_argument("--results", type=Path, default=Path("dist/mutants.json"), metavar="FILE")
    parser.add_argument("--reached", type=Path, metavar="FILE", help="what an earlier run recorded of the tests")
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="instead of all unit tests")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    record = arguments.reached or arguments.results.with_suffix(".reached.json")
    hunt = Hunt(_chosen(arguments), arguments.most, record, is_recorded=arguments.reached is not None)
    pytest.main([*_OPTIONS, *arguments.tests], plugins=[hunt])
    arguments.results.write_text(json.dumps(hunt.results, indent=1), encoding="utf-8")
    verdicts = defaultdict[str, Counter[str]](Counter)
    for result in hunt.results:
        verdicts[result["module"]][result["verdict"]] += 1
        if result["verdict"] == "survived":
            sys.stdout.write(
                "survives: {module}:{line} {place}: {change} ({tried} of {tests} tests)\n".format(**result)
            )
    for module, counts in verdicts.items():
        sys.stdout.write(f"{module}: {counts['killed']} of {counts['killed'] + counts['survived']} killed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
