"""Process limits, each in a separate process because not all of them can be lifted."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stack

MIB = 2**20
START = "import resource\nfrom service.runtime import process_limits\n"


def run(script: str) -> str:
    completed = subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True, timeout=60)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


@pytest.mark.parametrize(("is_final", "lifted"), [(False, "100"), (True, "50")])
def test_only_a_final_limit_cannot_be_lifted(is_final: bool, lifted: str) -> None:
    script = f"""
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
process_limits.limit(resource.RLIMIT_NOFILE, 50, is_final={is_final})
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 50
process_limits.lift(resource.RLIMIT_NOFILE)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    assert run(script) == lifted


def test_a_limit_above_the_hard_limit_is_lowered_to_it() -> None:
    script = """
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
process_limits.limit(resource.RLIMIT_NOFILE, 5000)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    assert run(script) == "100 100"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a limit on the address space")
@pytest.mark.parametrize("is_final", [False, True])
def test_allocating_more_memory_than_the_limit_is_an_error(is_final: bool) -> None:
    script = f"""
process_limits.limit_memory({64 * MIB}, is_final={is_final})
bytearray({32 * MIB})
try:
    bytearray({128 * MIB})
except MemoryError:
    print("limited")
process_limits.lift(resource.RLIMIT_AS)
try:
    bytearray({128 * MIB})
    print("lifted")
except MemoryError:
    print("final")
"""
    assert run(script).split() == ["limited", "final" if is_final else "lifted"]


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no OOM score")
def test_a_process_offers_itself_to_the_oom_killer() -> None:
    assert run("process_limits.offer_to_oom_killer(700)\nprint(open('/proc/self/oom_score_adj').read())") == "700"


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc keeps large blocks"
)
def test_large_blocks_are_returned_by_threads_that_still_exist() -> None:
    script = """
import threading

def memory_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

def use():
    blocks = [b"x" * (4 * 2**20) for _ in range(5)]
    used.wait()
    measured.wait()
    blocks.clear()
    freed.wait()
    ended.wait()

process_limits.return_large_blocks()
bytes(30 * 2**20)  # from now on, glibc would keep blocks up to this size
used, measured, freed, ended = (threading.Barrier(9) for _ in range(4))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
used.wait()
most = memory_mb()
measured.wait()
freed.wait()
print(most - memory_mb())
ended.wait()
"""
    assert int(run(script)) > 150
