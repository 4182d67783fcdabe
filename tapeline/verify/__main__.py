"""``python -m tapeline.verify DIR``: verify a certificate, without a service and without a network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tapeline.errors import ClientError, MissingPackage

VERIFIED, REFUSED, UNUSABLE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tapeline.verify",
        description="Verify a certificate: files, signatures, and that they belong together. Exit code 0: verified; "
        "1: refused; 2: it cannot be checked.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--keys", metavar="URL-or-FILE", help="trusted keys: a service, or its tapeline-keys.json")
    source.add_argument("--public-key", metavar="FILE", help="the trusted key, a PEM file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        try:
            from tapeline.verify import checking, trusted_keys
            from tapeline.verify.bundles import CertificateRefused
        except ModuleNotFoundError as error:
            raise MissingPackage("'tapeline-client[verify]'", f"verification ({error})") from error
        try:
            given = options.keys or options.public_key
            trusted = None if given is None else trusted_keys.load(given)
            certificate = checking.verify(options.folder, trusted)
        except CertificateRefused as error:
            return _fail(error, REFUSED, "mismatch", as_json=options.json)
    except (ClientError, OSError) as error:
        return _fail(error, UNUSABLE, None, as_json=options.json)
    text = json.dumps(certificate.document(), indent=2) if options.json else "\n".join(certificate.lines())
    sys.stdout.write(text + "\n")
    return VERIFIED


def _fail(error: Exception, code: int, status: str | None, *, as_json: bool) -> int:
    text = json.dumps({"status": status, "error": {"detail": str(error)}}) if as_json else _line(error, status)
    sys.stderr.write(text + "\n")
    return code


def _line(error: Exception, status: str | None) -> str:
    return f"{status}: {error}" if status is not None else f"tapeline: {error}"


if __name__ == "__main__":
    sys.exit(main())
