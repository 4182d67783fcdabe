"""Ask the advisory database about everything in a lock: exit 0 all clear, 1 something is known, 2 not all was checked.

pip-audit alone calls it a success where the index does not answer its questions; what nobody has checked is not clear.
"""

import json
import subprocess
import sys


def main(lock: str) -> int:
    """Run pip-audit over a lock, and evaluate what it says."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", lock, "--require-hashes", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        sys.stderr.write(f"NOT CHECKED: the advisory database could not be asked about {lock}: {why}\n")
        return 2
    known = [(item, advisory) for item in found for advisory in item.get("vulns", ())]
    for item, advisory in known:
        fixed = ", ".join(advisory["fix_versions"]) or "nowhere yet"
        sys.stdout.write(f"{item['name']} {item['version']}: {advisory['id']}, mended in {fixed}\n")
    skipped = [item["name"] for item in found if "skip_reason" in item]
    sys.stdout.write(f"{lock}: {len(found) - len(skipped)} of {len(found)} checked, {len(known)} advisories\n")
    if skipped:
        shown = ", ".join(skipped[:8]) + (", ..." if len(skipped) > 8 else "")
        sys.stderr.write(f"NOT CHECKED: the advisory database told nothing about {shown}\n")
    return 1 if known else 2 if skipped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
