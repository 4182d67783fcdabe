"""Small IDX files, and fixtures for their folders."""

import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from service.datasets.builtins import BUILT_IN, BuiltIn
from service.datasets.formats.idx import write_idx
from service.datasets.info import IDX_NAMES, content_sha256

TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS = IDX_NAMES


def make_files(
    folder: Path, changed: Mapping[str, object] | None = None, *, seed: int = 0, suffix: str = ".gz"
) -> dict[str, str]:
    """Write four small IDX files, some with ``changed`` arrays; return digests of their unpacked content."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, object] = {
        TRAIN_IMAGES: rng.integers(0, 256, (30, 8, 8)),
        TRAIN_LABELS: np.arange(30) % 3,
        VALIDATION_IMAGES: rng.integers(0, 256, (9, 8, 8)),
        VALIDATION_LABELS: np.arange(9) % 3,
    } | dict(changed or {})
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, array in arrays.items():
        path = folder / f"{name}{suffix}"
        write_idx(path, np.asarray(array, np.uint8))
        content = path.read_bytes()
        digests[name] = hashlib.sha256(gzip.decompress(content) if suffix == ".gz" else content).hexdigest()
    return digests


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Mirror:
    """A stub server for files by name: their bytes, or an HTTP error status."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | int] = {}
        self.requests: list[str] = []
        self.truncate = False
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                mirror.requests.append(name)
                reply = mirror.files.get(name, 404)
                if isinstance(reply, int):
                    self.send_error(reply)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply[: len(reply) // 2] if mirror.truncate else reply)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror()
    make_files(tmp_path / "published")
    mirror.files |= {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    yield mirror
    mirror.close()


def tiny_builtin(published: Path, *mirrors: str) -> Mapping[str, BuiltIn]:
    """A built-in ``mnist`` whose checksums are those of small files."""
    digests = make_files(published)
    sizes = {name: (published / f"{name}.gz").stat().st_size for name in IDX_NAMES}
    mnist = replace(BUILT_IN["mnist"], digests=digests, packed_bytes=sizes, mirrors=mirrors)
    return {"mnist": replace(mnist, info=replace(mnist.info, sha256=content_sha256(digests)))}
