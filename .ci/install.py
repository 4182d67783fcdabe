"""Install everything in a lock file, and say how far it is: python .ci/install.py requirements.lock.

uv takes a tenth of pip's time. Where it cannot be installed, or does not reach the packages that pip reaches, pip
installs them. Both check the hashes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
UV_LOCK = Path(__file__).with_name("uv.lock")
STEP = re.compile(r"\s*((?:Downloading|Collecting|Building|Prepared|Installed|Installing) [A-Za-z0-9._ -]+)")


def main(lock: str) -> int:
    """Install with uv, or else with pip; gives the exit code."""
    total = len(re.findall(r"^[A-Za-z0-9._-]+==", Path(lock).read_text(encoding="utf-8"), re.MULTILINE))
    print(f"  {total} packages", flush=True)
    arguments = ["install", "--require-hashes", "-r", lock]
    uv = find_uv()
    if uv is not None:
        failed = run([uv, "pip", *arguments, "--python", sys.executable], as_pip_is_configured())
        if not failed:
            return 0
        print("  with uv this failed; with pip it takes some minutes ...", flush=True)
    failed = run([*PIP, *arguments, "--progress-bar", "off"], os.environ)
    if failed:
        print("", *failed[-20:], sep="\n")
    return int(bool(failed))


def find_uv() -> str | None:
    """The program uv of this machine, or else of this environment, which gets it from pip; ``None`` without one."""
    own = Path(sys.executable).with_name("uv")
    if not own.exists() and shutil.which("uv") is None:
        command = [*PIP, "install", "--quiet", "--require-hashes", "-r", str(UV_LOCK)]
        subprocess.run(command, capture_output=True, check=False)  # not for every machine
    return str(own) if own.exists() else shutil.which("uv")


def as_pip_is_configured() -> Mapping[str, str]:
    """The environment for uv: index and certificates as in pip's configuration, which uv does not read."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False).stdout
    settings = dict(re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    return {**{names[name]: value for name, value in settings.items() if name in names}, **os.environ}


def run(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Run an installer and tell what it says; gives its output if it fails."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    output: list[str] = []
    for line in process.stdout or ():
        output.append(line.rstrip())
        step = STEP.match(line)
        if step is not None:
            tell(f"  {step[1]}")
    tell("")
    return output if process.wait() else []


def tell(text: str) -> None:
    """Replace the line on a terminal."""
    if sys.stdout.isatty():
        print(f"\r\x1b[2K{text[:79]}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
