"""The artifact store in a bucket of S3, Google Cloud or Azure, or of a server that speaks S3, through obstore.

obstore is not fork-safe: its threads and connections do not survive a fork. It is imported at the first access, which
only processes make that fork no more; an access from a forked copy raises.
"""

from __future__ import annotations

import configparser
import errno
import hashlib
import io
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from service.errors import ServiceError
from service.runtime.failpoints import failpoint
from service.storage.artifacts import ArtifactDamaged, ArtifactStore, ArtifactUnreadable, Stored, headers_of

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig, S3Store

    Client = S3Store | GCSStore | AzureStore

T = TypeVar("T")

_MIN_TIMEOUT_S: Final = 30.0
_MIN_BYTES_PER_S: Final = 64 * 1024
"""A transfer that is slower than this fails."""
PART_BYTES: Final = 8 * 2**20
"""Larger files are sent and read in parts of this size."""
_FIRST_BYTES: Final = int(_MIN_TIMEOUT_S * _MIN_BYTES_PER_S)
"""Read by the request that opens a file: most files need no other."""
_MAX_PARTS_IN_FLIGHT: Final = 4
URL_VALID_S: Final = 15 * 60
"""A download must begin in this time, not end."""
_MAX_RETRY_S: Final = 20.0
_PROBE_JOB: Final = "job_probe"
"""A job that does not exist: a probe that a killed process leaves behind is removed as an orphan."""
_PUT_ID: Final = "putid"
"""The attribute with the mark of the request that created an object. Azure takes no hyphen in its name, and some
proxies drop what has an underscore."""
_THREADS: Final = "TOKIO_WORKER_THREADS"


class StoreForked(ServiceError, RuntimeError):
    """A process used the object store of the process that it was forked from."""


class ObjectStore(ArtifactStore):
    """A store in a bucket.

    Args:
        url: ``s3://bucket/prefix``, or the same with ``gs`` or ``az``.
        endpoint: of a server that speaks S3; empty: that of the cloud.
        ca: file with certificate authorities besides those of the system.
        lease_s: requests are retried for less than this.
        redirects: whether clients download files from the store by themselves.
    """

    is_remote = True
    min_orphan_age_s = 24 * 3600.0  # a bucket's clock and list may lag behind

    def __init__(self, url: str, *, endpoint: str = "", ca: str = "", lease_s: float, redirects: bool = False) -> None:
        self.address = url
        self._endpoint, self._ca, self.redirects = endpoint, ca, redirects
        self._retry_s = min(_MAX_RETRY_S, lease_s / 2) / 2  # for a request; a second one may ask for its outcome
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._clients: dict[float, Client] = {}
        self._credentials: dict[str, str] = {}
        self._deletes_singly = False
        """Whether the server of this store has refused to delete several objects in one request."""

    def prepare(self) -> None:
        """Load the library and start its threads, which a memory limit may prevent later."""
        self._call(lambda client: None)

    def put_all(self, contents: Mapping[str, bytes], digests: Mapping[str, str] | None = None) -> None:
        """Create objects, several at once.

        Raises:
            FileExistsError: another one has the name of one of them.
        """
        files = [(path, data, (digests or {}).get(path)) for path, data in contents.items()]
        if len(files) == 1:
            self._put(*files[0])
            return
        try:
            with ThreadPoolExecutor(_MAX_PARTS_IN_FLIGHT) as pool:
                list(pool.map(lambda file: self._put(*file), files))
        except RuntimeError as error:  # as the memory limit of a job may have it
            raise OSError(errno.EAGAIN, f"{self.address}: no thread can be started to store files") from error

    def put_file(self, path: str, file: io.BufferedReader) -> None:
        """Create an object, in parts if it is large."""
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._put(path, file.read() if size_bytes <= PART_BYTES else file)

    def replace(self, path: str, data: bytes) -> None:
        """Create an object, or overwrite the one of this name."""
        self._put(path, data, may_exist=True)

    def _put(
        self, path: str, data: bytes | io.BufferedReader, sha256: str | None = None, *, may_exist: bool = False
    ) -> None:
        """Create an object.

        A request may have succeeded although its answer is lost, and its repetition meets its own object: its ``putid``
        tells. Larger files are sent in parts, which replaces an object of that name: their names are never used twice.
        """
        put_id, deadline = secrets.token_hex(8), time.monotonic() + self._retry_s
        options: dict[str, Any] = {"use_multipart": False, "mode": "overwrite" if may_exist else "create"}
        part_bytes = min(len(data), PART_BYTES) if isinstance(data, bytes) else PART_BYTES
        if not isinstance(data, bytes) or len(data) > PART_BYTES:
            options = {"use_multipart": True, "chunk_size": PART_BYTES, "max_concurrency": _MAX_PARTS_IN_FLIGHT}
        if sha256 is None:
            digest = hashlib.sha256(data) if isinstance(data, bytes) else hashlib.file_digest(data, "sha256")
            sha256 = digest.hexdigest()
        attributes = {_PUT_ID: put_id, "sha256": sha256} | headers_of(path)
        from obstore.exceptions import AlreadyExistsError  # imported here: see the module

        pause_s = 0.1
        while True:
            try:
                self._call(lambda client: _send(client, path, data, attributes=attributes, **options), part_bytes)
                break
            except OSError as error:
                # An upload in parts may take longer than all retries; that a name is taken is an answer, however late.
                is_known = options["use_multipart"] or isinstance(error.__cause__, AlreadyExistsError)
                if error.errno in _REFUSED or (not is_known and time.monotonic() > deadline + self._retry_s):
                    raise
                try:
                    found = self._put_id(path)
                except OSError:
                    raise error from None  # the outcome is unknown: a file that is there has no row
                if found == put_id:
                    break
                if found is not None and not may_exist:
                    raise FileExistsError(errno.EEXIST, f"{self.address}/{path} already exists") from error
                if time.monotonic() > deadline:
                    raise
            time.sleep(pause_s)
            pause_s *= 2
        failpoint("object_stored", path.split("/")[-2] if "/" in path else path)

    def _put_id(self, path: str) -> str | None:
        """The mark of the request that created an object; ``None`` if there is no such object."""
        try:
            return str(self._head(path).attributes.get(_PUT_ID, ""))
        except FileNotFoundError:
            return None

    def _head(self, path: str) -> GetResult:
        return self._call(lambda client: client.get(path, options={"head": True}))

    def size(self, path: str) -> int:
        """The size of an object, without its content."""
        try:
            return self._head(path).meta["size"]
        except FileNotFoundError as error:
            raise ArtifactDamaged(path, error.strerror or str(error)) from error
        except OSError as error:
            raise ArtifactUnreadable(path, str(error)) from error

    def open(self, path: str) -> io.BufferedReader:
        """Open an object, with its first bytes. If these are all, their SHA-256 is checked."""
        try:
            size, data, sha256 = self._call(lambda client: _read_first(client, path))
        except FileNotFoundError as error:
            raise ArtifactDamaged(path, error.strerror or str(error)) from error
        except OSError as error:
            raise ArtifactUnreadable(path, error.strerror or str(error)) from error
        if size == len(data) and sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactDamaged(path, "its SHA-256 differs from the stored one")
        return io.BufferedReader(_ObjectFile(size, data, lambda *part: self._read(path, *part)))

    def _read(self, path: str, start: int, stop: int) -> bytes:
        data = self._call(
            lambda client: client.get(path, options={"range": (start, stop)}).bytes().to_bytes(), stop - start
        )
        if len(data) != stop - start:
            raise OSError(errno.ETIMEDOUT, f"{self.address}/{path}: {len(data)} of {stop - start} bytes arrived")
        return data

    def download_url(self, path: str, *, method: str) -> str | None:
        """A URL that is signed for ``URL_VALID_S``, whether or not there is such a file."""
        from obstore import sign  # imported here: see the module

        if not self.redirects:
            return None
        with self._lock:
            if self._clients and file_credentials() != self._credentials:
                self._clients.clear()  # no refusal of this process would tell that they were replaced
        valid = timedelta(seconds=URL_VALID_S)
        try:
            return self._call(lambda client: sign(client, cast(Any, method), path, valid))
        except OSError as error:
            raise ArtifactUnreadable(path, str(error)) from error

    def remove(self, paths: Iterable[str]) -> None:
        """Delete objects."""
        if not (names := list(paths)):
            return
        deleted_singly = self._deletes_singly
        try:
            self._call(lambda client: client.delete(names))
        except FileNotFoundError:  # the others may be left: some clouds stop at an absent one
            for name in names:
                with suppress(FileNotFoundError):
                    self._call(lambda client, name=name: client.delete(name))  # type: ignore[misc]  # a default argument
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or deleted_singly:
                raise
            with self._lock:
                self._deletes_singly = True
                self._clients.clear()
            self.remove(names)

    def stored(self, folder: str | None = None) -> Iterator[Stored]:
        """List the bucket; for the collection of garbage only, since rows name what is there."""
        now = datetime.now(UTC)
        listed = self._call(lambda client: iter(client.list(folder)))
        while batch := self._call(lambda client: next(listed, None)):
            for item in batch:
                if folder is not None or item["path"].startswith("job_"):
                    yield Stored(item["path"], item["size"], (now - item["last_modified"]).total_seconds())

    def remove_folder(self, folder: str) -> None:
        """Delete the objects; what cannot be deleted now is an orphan."""
        with suppress(OSError):
            self.remove(item.path for item in self.stored(folder))

    def check_writable(self, size_bytes: int = 0) -> None:
        """Create, read and delete an object of random content."""
        path, data = f"{_PROBE_JOB}/probe/{secrets.token_hex(8)}", os.urandom(max(size_bytes, 1))
        try:
            self.put_all({path: data})
            self.read(path, hashlib.sha256(data).hexdigest())
        except ArtifactDamaged as error:
            raise OSError(errno.EIO, str(error)) from error
        finally:
            with suppress(OSError):
                self.remove([path])

    def _call(self, request: Callable[[Client], T], size_bytes: int = 0) -> T:
        """Run a request; once more if its credentials are refused and their file has others by now.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: the message names a remedy.
        """
        from obstore.exceptions import BaseError  # imported here: see the module

        timeout_s = _MIN_TIMEOUT_S if size_bytes <= _FIRST_BYTES else PART_BYTES / _MIN_BYTES_PER_S
        for is_last in (False, True):
            client = None
            try:
                client = self._client(timeout_s)
                return request(client)
            except (BaseError, FileNotFoundError, ValueError) as error:
                translated = _translate(self.address, error)
                if is_last or translated.errno != errno.EACCES or not self._renew(client):
                    raise translated from error
        raise AssertionError("the last attempt returns or raises")

    def _client(self, timeout_s: float) -> Client:
        if self._pid not in (None, os.getpid()):
            raise StoreForked(
                f"the object store was opened by process {self._pid} and used by its fork {os.getpid()}: "
                "open it after the last fork"
            )
        with self._lock:
            self._pid = os.getpid()
            if not self._clients:
                self._credentials = file_credentials()
            if timeout_s not in self._clients:
                self._clients[timeout_s] = self._connect(timeout_s)
            return self._clients[timeout_s]

    def _renew(self, refused: Client | None) -> bool:
        """Whether there are other credentials than those of a refused client; they are used from now on."""
        with self._lock:
            if refused not in self._clients.values():  # another thread has renewed them
                return refused is not None
            if file_credentials() == self._credentials:
                return False
            self._clients.clear()
            return True

    def _connect(self, timeout_s: float) -> Client:
        from obstore.store import AzureStore, GCSStore, S3Store  # imported here: see the module

        _start_threads()
        parts = urlsplit(self.address)
        client: ClientConfig = {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=5),
            "allow_http": self._endpoint.startswith("http://"),
        }
        if self._ca:
            client["root_certificate"] = Path(self._ca).read_bytes()
        retry: RetryConfig = {
            "retry_timeout": timedelta(seconds=self._retry_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
        }
        prefix = parts.path.strip("/") or None
        match parts.scheme:
            case "s3":
                config = dict(self._credentials) | ({"endpoint": self._endpoint} if self._endpoint else {})
                return S3Store(
                    parts.netloc,
                    prefix=prefix,
                    client_options=client,
                    retry_config=retry,
                    disable_bulk_delete=self._deletes_singly,
                    **config,  # type: ignore[arg-type]  # a dict for keywords of several types
                )
            case "gs":
                return GCSStore(parts.netloc, prefix=prefix, client_options=client, retry_config=retry)
            case _:
                return AzureStore(parts.netloc, prefix=prefix, client_options=client, retry_config=retry)


class _ObjectFile(io.RawIOBase):
    """An object for reading, part by part: a slow reader holds no connection."""

    def __init__(self, size: int, first: bytes, read: Callable[[int, int], bytes]) -> None:
        self._size, self._start, self._part = size, 0, first
        self._read_part = read
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        offset = self._position - self._start
        if not 0 <= offset < len(self._part) and self._position < self._size:
            self._part = self._read_part(self._position, min(self._position + PART_BYTES, self._size))
            self._start, offset = self._position, 0
        data = memoryview(self._part)[max(offset, 0) : max(offset, 0) + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        parts = bytearray()
        chunk = bytearray(2**20)
        while count := self.readinto(chunk):
            parts += memoryview(chunk)[:count]
        return bytes(parts)


def _send(client: Client, path: str, data: bytes | io.BufferedReader, **options: Any) -> None:
    if not isinstance(data, bytes):
        data.seek(0)
    client.put(path, data, **options)


def _read_first(client: Client, path: str) -> tuple[int, bytes, str]:
    """The size of an object, its first bytes, and its SHA-256, if it is known."""
    from obstore.exceptions import GenericError  # imported here: see the module

    try:
        found = client.get(path, options={"range": (0, _FIRST_BYTES)})
    except GenericError as error:
        if "416" not in str(error):
            raise
        found = client.get(path)  # it is empty
    size = found.meta["size"]
    data = found.bytes().to_bytes()
    if len(data) != min(size, _FIRST_BYTES):
        raise GenericError(f"{path}: {len(data)} of {size} bytes arrived")
    return size, data, str(found.attributes.get("sha256", ""))


def _start_threads() -> None:
    """Start the threads of obstore: by default, there is one for each processor, with much of the address space."""
    import obstore  # imported here: see the module

    if _THREADS in os.environ:
        return
    os.environ[_THREADS] = "2"
    try:
        obstore.put(obstore.store.MemoryStore(), "first", b"")
    finally:
        del os.environ[_THREADS]  # a child compares its environment with that before a job


_ROLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def file_credentials() -> dict[str, str]:
    """The credentials in the file of AWS, which obstore does not read; empty if the environment has others."""
    if any(os.environ.get(name) for name in _ROLES):
        return {}
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        profile = parser[os.environ.get("AWS_PROFILE") or "default"]
    except (configparser.Error, KeyError, OSError, UnicodeDecodeError):
        return {}
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    names |= {"aws_session_token": "session_token"}
    return {name: profile[key] for key, name in names.items() if key in profile}


_NO_BUCKET: Final = (
    r"NoSuchBucket|ContainerNotFound|specified bucket does not exist",
    errno.ENODEV,
    "there is no such bucket: create it, or correct TAPELINE_STORE",
)
_CAUSES: Final = (
    _NO_BUCKET,
    (
        r"RequestTimeTooSkewed|request time and the (server|current) time",
        errno.EPERM,
        "this machine's clock differs from the store's: synchronize it with NTP",
    ),
    (
        r"Received redirect without LOCATION|PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint",
        errno.EPERM,
        "the bucket is in another region: set AWS_REGION to it",
    ),
    (
        r"169\.254\.169\.254|metadata\.google|must be specified",
        errno.EACCES,
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of your cloud",
    ),
    (
        r"InsufficientStorage|StorageFull|QuotaExceeded|507 Insufficient",
        errno.ENOSPC,
        "the store is full: delete what is not needed, or raise its quota",
    ),
    (
        r"lacked the necessary privileges|valid authentication|ExpiredToken|InvalidToken|status code: 40[13]",
        errno.EACCES,
        "the credentials are refused: check them, and that they may read, write, list and delete",
    ),
    (
        r"NotImplemented|MethodNotAllowed|status code: (405|501)",
        errno.EOPNOTSUPP,
        "the server does not support this request: use one that speaks all of S3",
    ),
    (r"[Tt]imed out|operation timed out|TimedOut", errno.ETIMEDOUT, "the store is silent or too slow"),
    (
        r"error sending request",
        errno.ECONNREFUSED,
        "the store cannot be reached: check the network, TAPELINE_STORE_ENDPOINT and TAPELINE_CA",
    ),
)
"""Patterns in the messages of obstore, with the errno and the remedy of the error that they become."""
_REFUSED: Final = frozenset({errno.ENODEV, errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL})
"""Errors of requests that had no effect, and that a repetition would meet again."""


def _translate(address: str, error: Exception) -> OSError:
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    detail = re.sub(r"\s+", " ", text.partition("\n\nDebug source")[0].partition("<?xml")[0]).strip(" :")[:300]
    if code is not None:
        detail += f" ({code[1]})"
    for pattern, number, remedy in [_NO_BUCKET] if isinstance(error, FileNotFoundError) else _CAUSES:
        if re.search(pattern, text):
            return OSError(number, f"{address}: {remedy}. {detail}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "is missing")
    if isinstance(error, ValueError) and "parse path" in text:
        return FileNotFoundError(errno.ENOENT, "not a path that this store assigned")
    # Not EIO: a file that cannot be read now is not lost.
    return OSError(errno.EPROTO, f"{address}: the store fails. {detail}")
