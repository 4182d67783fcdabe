"""Uploads a large CSV file to the whole service on this machine: time, memory, and the reported progress.

    python -m benchmarks.large_table                 # one million rows of 30 columns, as docs/results.md has it

Memory is the largest resident size of each process, sampled while the upload lasts: of the web process, and of the
sandbox that reads the file.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from service.local import LocalStack
from service.runtime.settings import Settings
from tapeline import Client

_BLOCK = 10_000
_INTERVAL_S = 0.05


def write(path: Path, rows: int, columns: int) -> None:
    """Write a table of numbers, a category with gaps, a split, and a target as the last column."""
    rng = np.random.default_rng(0)
    numbers = columns - 3
    with path.open("w") as file:
        file.write(",".join([*(f"c{index}" for index in range(numbers)), "city", "part", "label"]) + "\n")
        for start in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - start)
            block = rng.normal(size=(count, numbers)).round(6)
            labels = block[:, :3].sum(axis=1) > 0
            for index, row in enumerate(block.tolist()):
                line = start + index
                city = ("Oslo", "Bergen", "", "Tromsø")[line % 4]
                part = ("train", "train", "train", "val", "test")[line % 5]
                file.write(f"{','.join(map(str, row))},{city},{part},{'ab'[int(labels[index])]}\n")


@contextmanager
def peaks(web_pid: int) -> Iterator[dict[str, int]]:
    """The largest resident size in bytes of the web process and of its children, while the block lasts, and the seconds
    of processor time of the sandbox (``cpu_s``)."""
    figures, stop = {"web": 0, "sandbox": 0, "cpu_s": 0}, threading.Event()

    def watch() -> None:
        parent = psutil.Process(web_pid)
        while not stop.wait(_INTERVAL_S):
            for process in (parent, *parent.children(recursive=True)):
                try:
                    is_sandbox = "service.datasets.sandbox" in process.cmdline()
                    name, size = "sandbox" if is_sandbox else "web", process.memory_info().rss
                    cpu_s = sum(process.cpu_times()[:2]) if is_sandbox else 0
                except psutil.Error:  # the process has ended
                    continue
                figures[name] = max(figures[name], size)
                figures["cpu_s"] = max(figures["cpu_s"], round(cpu_s))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield figures
    finally:
        stop.set()
        watcher.join()


def main() -> None:
    """Write the file, upload it, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "large.csv")
        write(path, options.rows, options.columns)
        settings = Settings.from_env({"TAPELINE_HOME": f"{name}/home", "TAPELINE_PORT": "0"}, cores=2)
        reports: list[float] = []
        with LocalStack(settings) as stack, Client(stack.url) as client, peaks(stack.pids["web"]) as memory:
            started_at = time.monotonic()
            dataset = client.upload("large", {"table": path}, split="part", on_reading=reports.append)
            elapsed_s = time.monotonic() - started_at
        counts = ", ".join(f"{dataset[f'{part}_count']:,} {part}" for part in ("train", "validation", "test"))
        print(f"{path.stat().st_size / 1e6:.0f} MB, {options.rows:,} rows x {options.columns} columns: {counts}")
        load = f"load average {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores"
        print(f"{elapsed_s:.1f} s ({memory['cpu_s']} s of processor time in the sandbox), {load}")
        print(f"progress reported {len(reports)} times, in order: {reports == sorted(reports)}")
        print(f"web: {memory['web'] / 2**20:.0f} MiB, sandbox: {memory['sandbox'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
