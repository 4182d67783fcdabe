"""Logs rotate while the processes that print into them run, and lose nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.local.log_writer import LogWriter
from service.local.process import StackProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

LIMIT = 4096
PRINT_WITH_CHILD = """
import os, sys
child = os.fork()  # it inherits the descriptor
for number in range(400):
    os.write(1, f"{'child' if child == 0 else 'parent'} {number:04} {'.' * 30}\\n".encode())
if child:
    os.waitpid(child, 0)
"""
STACK = """
import os, sys, time
from pathlib import Path
from service.local.log_writer import LogWriter
from service.local.process import StackProcess
writer = LogWriter(Path(sys.argv[1]), ["web"])
child = StackProcess("web", [sys.executable, "-c", sys.argv[2]], environ=os.environ | {"STACK": str(os.getpid())},
                     folder=Path(sys.argv[1]), log=Path(sys.argv[1]) / "web.log", output=writer.descriptor("web"))
child.start()
print(writer.pid, flush=True)
time.sleep(60)
"""


@contextmanager
def writing(folder: Path, *, kept: int = 100) -> Iterator[LogWriter]:
    writer = LogWriter(folder, ["web"], max_bytes=LIMIT, kept=kept)
    try:
        yield writer
    finally:
        writer.close()


def process(folder: Path, writer: LogWriter, code: str) -> StackProcess:
    output = writer.descriptor("web")
    command = [sys.executable, "-c", code]
    return StackProcess("web", command, environ=os.environ, folder=folder, log=folder / "web.log", output=output)


def logs(folder: Path) -> list[Path]:
    """The files of the log, oldest first."""
    return sorted(folder.glob("web.log*"), key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 0)


def numbers(folder: Path, who: str) -> list[int]:
    text = "".join(path.read_text() for path in logs(folder))
    return [int(number) for number in re.findall(rf"^{who} (\d+) \.+$", text, re.MULTILINE)]


def test_a_log_rotates_while_a_process_and_its_child_print_and_no_line_is_lost_or_torn(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        child = process(tmp_path, writer, PRINT_WITH_CHILD)
        child.start()
        assert child.wait(60) == 0
    assert len(logs(tmp_path)) > 5
    assert all(path.stat().st_size <= LIMIT for path in logs(tmp_path))
    assert numbers(tmp_path, "parent") == numbers(tmp_path, "child") == list(range(400))


def test_only_the_newest_files_are_kept(tmp_path: Path) -> None:
    with writing(tmp_path, kept=2) as writer:
        child = process(tmp_path, writer, PRINT_WITH_CHILD)
        child.start()
        child.wait(60)
    assert [path.name for path in logs(tmp_path)] == ["web.log.2", "web.log.1", "web.log"]
    kept = numbers(tmp_path, "parent")
    assert kept == list(range(kept[0], 400)) if kept else numbers(tmp_path, "child")[-1] == 399


def test_a_killed_log_writer_is_replaced_and_its_successor_writes_what_was_printed_meanwhile(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        os.kill(writer.pid, signal.SIGKILL)
        child = process(tmp_path, writer, PRINT_WITH_CHILD)
        child.start()
        wait_until(lambda: not Path(f"/proc/{writer.pid}/exe").exists(), "the end of the log writer")
        writer.keep_running()
        assert child.wait(60) == 0
    assert numbers(tmp_path, "parent") == numbers(tmp_path, "child") == list(range(400))


def test_the_tail_of_a_log_is_that_of_the_last_run_also_in_a_new_file(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        for text in ("first", "second"):
            child = process(tmp_path, writer, f"print({text!r})")
            child.start()
            child.wait(60)
            assert child.tail() == text
        talkative = process(tmp_path, writer, PRINT_WITH_CHILD)
        talkative.start()
        talkative.wait(60)
        assert re.fullmatch(r"(parent|child) 0399 \.+", talkative.tail(1))
        silent = process(tmp_path, writer, "pass")
        silent.start()
        silent.wait(60)
        assert silent.tail() == ""


def test_a_process_that_outlives_the_killed_stack_still_has_its_log(tmp_path: Path) -> None:
    wait = "import os, time\nwhile os.getppid() == int(os.environ['STACK']): time.sleep(0.01)\n"
    command = [sys.executable, "-c", STACK, str(tmp_path), f"{wait}print('after the end')"]
    stack = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert stack.stdout is not None
    writer = int(stack.stdout.readline())
    stack.kill()
    stack.wait()
    stack.stdout.close()
    wait_until(lambda: not Path(f"/proc/{writer}/exe").exists(), "the end of the log writer")
    assert (tmp_path / "web.log").read_text().splitlines()[-1] == "after the end"


def test_a_stopped_stack_blocks_nobody_who_prints(tmp_path: Path) -> None:
    """The stack does not read the pipes itself: 300 kB are more than a pipe holds."""
    talk, log = "for _ in range(3000): print('x' * 99)", tmp_path / "web.log"
    stack = subprocess.Popen([sys.executable, "-c", STACK, str(tmp_path), talk], stdout=subprocess.PIPE, text=True)
    assert stack.stdout is not None
    stack.stdout.readline()
    os.kill(stack.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: log.exists() and log.read_text().count("x\n") == 3000, "all lines")
    finally:
        stack.kill()
        stack.wait()
        stack.stdout.close()
