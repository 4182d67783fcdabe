"""The URLs of database and broker with their passwords and the certificate authority that their servers must have."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit


def read_password(path: Path, variable: str, faults: list[str]) -> str:
    """The password in a file; if there is none, an empty text, and a fault."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{variable}: cannot read {path}: {getattr(error, 'strerror', None) or error}")
        return ""
    if not text:
        faults.append(f"{variable}: {path} is empty")
    return text


def with_password(url: str, password: str) -> str:
    """The URL with another password."""
    parts = urlsplit(url)
    user, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{quote(password, safe='')}@{address}").geturl()


def verify_servers(found: dict[str, Any], faults: list[str]) -> None:
    """Require valid certificates of the servers, unless the URLs say otherwise; by default, Celery checks none."""
    authority = None
    if found["ca"]:
        try:
            authority = found["ca"] = str(_authority_file(found["ca"], found["home"]))
        except (OSError, ValueError) as error:
            faults.append(f"TAPELINE_CA must be the absolute path of a PEM file, or its content in base64: {error}")
    if (found["broker_url"] or "").startswith("rediss://"):
        parameters = {"ssl_cert_reqs": "required", "ssl_ca_certs": authority}
        found["broker_url"] = _with_query(found["broker_url"], parameters)
    if authority and found["database_url"].startswith("postgresql") and urlsplit(found["database_url"]).hostname:
        parameters = {"sslmode": "verify-full", "sslrootcert": authority}
        found["database_url"] = _with_query(found["database_url"], parameters)


def _authority_file(text: str, home: Path) -> Path:
    """The file with the authorities; libpq takes no content."""
    if text.startswith("/"):
        path, content = Path(text), Path(text).read_bytes()
    else:
        path, content = home / "run" / "ca.crt", b64decode(text, validate=True)
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ValueError("there is no certificate in it")
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).rename(path)
    return path


def _with_query(url: str, parameters: Mapping[str, str | None]) -> str:
    """The URL with these parameters, besides those that it has."""
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    query |= {name: [value] for name, value in parameters.items() if value and name not in query}
    return parts._replace(query=urlencode(query, doseq=True, safe="/")).geturl()
