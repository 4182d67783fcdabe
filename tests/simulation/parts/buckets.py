"""The artifact store of a life: the product's ``ObjectStore`` on a bucket in memory, with points at each request."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from obstore.exceptions import AlreadyExistsError, GenericError

from service.storage.object_store import ObjectStore
from tests.simulation.kernel.faults import Fault
from tests.simulation.kernel.runtime import CURRENT

T = TypeVar("T")

_LIST_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    attributes: Mapping[str, str]
    at_ms: float


@dataclass(eq=False)
class Bucket:
    """A bucket, and what is in it. It also plays the client of ``obstore``.

    Attributes:
        is_down: whether nobody reaches it.
        version: rises with each change.
    """

    name: str
    objects: dict[str, _Object] = field(default_factory=dict)
    is_down: bool = False
    version: int = 0
    unsure: set[str] = field(default_factory=set)
    """Objects whose sender was told of an error."""

    def put(
        self, path: str, data: bytes, *, attributes: Mapping[str, str], mode: str = "overwrite", **_: object
    ) -> None:
        """Store an object."""

        def store() -> None:
            if mode == "create" and path in self.objects:
                raise AlreadyExistsError(f"{path} already exists")
            self.objects[path] = _Object(bytes(data), attributes, CURRENT.world.now_ms)
            self.version += 1

        try:
            self._request(f"put {path}", store)
        except GenericError:
            self.unsure.add(path)
            raise

    def get(self, path: str, options: Mapping[str, Any] | None = None) -> _Result:
        """Read an object, or a part of it."""
        part = (options or {}).get("range")
        found = self._request(f"get {path}", lambda: _Result(self._find(path), part))
        if options == {"head": True} and path in self.unsure:
            CURRENT.world.sometimes("own object met")
        return found

    def delete(self, paths: str | Sequence[str]) -> None:
        """Delete objects; one that is absent is no error."""

        def delete() -> None:
            for path in [paths] if isinstance(paths, str) else paths:
                if self.objects.pop(path, None) is not None:
                    self.version += 1

        self._request(f"delete {paths}", delete)

    def list(self, folder: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """All objects beneath a folder, in pages."""

        def entries() -> list[dict[str, Any]]:
            return [
                {"path": path, "size": len(item.data), "last_modified": datetime.fromtimestamp(item.at_ms / 1000, UTC)}
                for path, item in sorted(self.objects.items())
                if folder is None or fnmatch.fnmatchcase(path, f"{folder}/*")
            ]

        found = self._request(f"list {folder}", entries)
        yield from (found[start : start + _LIST_PAGE] for start in range(0, len(found), _LIST_PAGE))

    def _find(self, path: str) -> _Object:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    def _request(self, name: str, run: Callable[[], T]) -> T:
        world = CURRENT.world
        if world.current is None:  # the simulator itself
            return run()
        world.step()
        if self.is_down:
            world.step(1000.0)  # a request waits for its answer
            raise GenericError("error sending request: timed out")
        if world.fault(Fault.CRASH, Fault.FREEZE, Fault.SLOW, Fault.REFUSED) is Fault.REFUSED:
            raise GenericError("error sending request: connection refused")
        value = run()
        world.note(f"{self.name}: {name}")
        world.step()
        if world.fault(Fault.CRASH, Fault.FREEZE, Fault.LOST_ANSWER) is Fault.LOST_ANSWER:
            world.sometimes("store answer lost")
            raise GenericError("error sending request: connection closed")
        return value


class _Result:
    """As ``obstore.GetResult``."""

    def __init__(self, found: _Object, part: tuple[int, int] | None) -> None:
        self.meta = {"size": len(found.data)}
        self.attributes = found.attributes
        self._data = found.data if part is None else found.data[slice(*part)]

    def to_bytes(self) -> bytes:
        return self._data

    def bytes(self) -> _Result:
        return self


class BucketStore(ObjectStore):
    """The product's store in a bucket of this life."""

    def __init__(self, bucket: Bucket, *, lease_s: float) -> None:
        super().__init__(f"s3://{bucket.name}", lease_s=lease_s)
        self.bucket = bucket

    def _client(self, timeout_s: float) -> Any:
        return self.bucket


class SimulatedDatetime:
    """``datetime`` in the module of the store: what a list calls old."""

    @staticmethod
    def now(zone: Any) -> datetime:
        return datetime.fromtimestamp(CURRENT.world.now_ms / 1000, zone)
