"""Install everything in a lock file, and say how far it is: python .ci/install.py requirements.lock."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def main(lock: str) -> int:
    """Run pip; gives its exit code."""
    total = len(re.findall(r"^[A-Za-z0-9._-]+==", Path(lock).read_text(encoding="utf-8"), re.MULTILINE))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    pip = subprocess.Popen([*command, "--require-hashes", "-r", lock], stdout=subprocess.PIPE, text=True)
    output: list[str] = []
    count = 0
    for line in pip.stdout or ():
        output.append(line)
        package = re.match(r"(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)", line)
        if package is not None:
            count += 1
            tell(f"  package {min(count, total)} of {total}: {package[1]}", whole=count % 10 == 0)
        elif line.startswith("Installing collected packages"):
            tell("  unpacking; this takes up to a minute ...", whole=True)
    code = pip.wait()
    if code:
        print("", *output[-20:], sep="\n")
    else:
        tell(f"  {total} packages are installed", whole=True)
        print(flush=True)
    return code


def tell(text: str, *, whole: bool) -> None:
    """Replace the line on a terminal; elsewhere print a line where it is to be whole."""
    if sys.stdout.isatty():
        print(f"\r\x1b[2K{text}", end="", flush=True)
    elif whole:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
