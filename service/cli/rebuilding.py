"""A certificate's training, repeated on a service: all of it, or some of its epochs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tapeline import ApiError, Client, Job
from tapeline.errors import ClientError
from tapeline.verify import checking, claims
from tapeline.verify.checking import Certificate
from tapeline.verify.claims import CHECKPOINT_FILE, Provenance

_POLL_INTERVAL_S: Final = 0.5
_ENVIRONMENT: Final = ("numpy", "blas", "threads", "simd", "machine", "libc", "code")

Report = Callable[[str], None]
"""Shows a line of progress."""


class NotRebuildable(ClientError):
    """The training cannot be repeated on this service; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a rebuild found.

    Attributes:
        status: ``rebuilt``, ``environment_differs`` or ``mismatch``.
        epochs: those that were trained again.
        environment: the names of what differs in it, with the certified and the other value.
        job: the new job, or the last of several.
    """

    status: str
    sentence: str
    job: str | None
    epochs: Sequence[int] = ()
    first_difference: int | None = None
    environment: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    hint: str | None = None

    def document(self) -> dict[str, Any]:
        """It as JSON."""
        return {
            "status": self.status,
            "sentence": self.sentence,
            "job": self.job,
            "epochs": list(self.epochs),
            "first_difference": self.first_difference,
            "environment": {name: {"certified": a, "rebuilt": b} for name, (a, b) in self.environment.items()},
            "hint": self.hint,
        }


def rebuild(client: Client, certificate: Certificate, *, report: Report = print) -> Outcome:
    """Train again from the start, and compare each epoch; stop at the first that differs.

    Raises:
        NotRebuildable: the dataset, or the checkpoint of a fork, is not on the service.
        ApiError, ServerUnreachable: the service refuses the job, or does not respond.
    """
    known = certificate.provenance
    job = _submit(client, certificate)
    report(f"training {job.id} on {client.server}")
    with _cancelled_if_left(job):
        found: dict[int, str] = {}
        while True:
            ended = job.refresh().ended
            _take_digests(job, found)
            different = _first_difference(known.epochs, found, is_complete=ended and job.status == "succeeded")
            if different is not None:
                job.refresh()
                return _different(client, known, job, different, sorted(found))
            if ended:
                break
            time.sleep(_POLL_INTERVAL_S)
    if job.status != "succeeded":
        raise NotRebuildable(_ended(job))
    digests = job.digests()
    if digests["result_digest"] != f"sha256:{known.result}":
        return _different(
            client, known, job, max(found), sorted(found), what="final weights or scores on the test part"
        )
    if (part := _checkpoint_difference(certificate, job)) is not None:
        return _different(client, known, job, known.checkpoint, sorted(found), what=part)
    sentence = f"all {len(found)} epochs, the result and the checkpoint of epoch {known.checkpoint} have the same bits"
    return Outcome(
        status="rebuilt",
        sentence=sentence,
        job=job.id,
        epochs=sorted(found),
        environment=_environment_differences(known, digests["provenance"]),
    )


def spot_check(client: Client, certificate: Certificate, epochs: Sequence[int], *, report: Report = print) -> Outcome:
    """Train single epochs again, each from the checkpoint before it, and compare them; of the epoch of the certified
    checkpoint, also its tensors and state.

    Raises:
        NotRebuildable: a checkpoint is not on the service, or an epoch is not in the certificate.
    """
    known = certificate.provenance
    starts = {epoch: _start_of(client, known, epoch) for epoch in epochs}  # all of them, before anything is trained
    job: Job | None = None
    for epoch in epochs:
        job = _train_epoch(client, certificate, starts[epoch], epoch)
        report(f"training epoch {epoch} again: {job.id} on {client.server}")
        found: dict[int, str] = {}
        with _cancelled_if_left(job):
            while epoch not in found and not job.refresh().ended:
                time.sleep(_POLL_INTERVAL_S)
                _take_digests(job, found)
            _take_digests(job, found)
            job.refresh()
        if epoch not in found:
            raise NotRebuildable(_ended(job))
        if found[epoch] != known.epochs[epoch]:
            return _different(client, known, job, epoch, [epoch])
        if epoch == known.checkpoint and (part := _checkpoint_difference(certificate, job)) is not None:
            return _different(client, known, job, epoch, [epoch], what=part)
    environment = {} if job is None else _environment_differences(known, job.refresh()["provenance"])
    texts = ", ".join(map(str, epochs))
    sentence = (
        f"trained again from the checkpoint before it, each of the epochs {texts} has the same metrics and samples"
    )
    if known.checkpoint in epochs:
        sentence += f", and epoch {known.checkpoint} the weights of the certified checkpoint"
    else:
        sentence += (
            f"; the weights of the certified checkpoint were not compared: that needs epoch {known.checkpoint}, or all"
        )
    return Outcome(
        status="rebuilt",
        sentence=sentence,
        job=None if job is None else job.id,
        epochs=list(epochs),
        environment=environment,
    )


def properties_of(outcome: Outcome, certificate: Certificate, *, is_spot_check: bool) -> list[str]:
    """What a statement about a successful rebuild says."""
    total = len(certificate.provenance.epochs)
    return [claims.spot_checked(len(outcome.epochs), total) if is_spot_check else claims.REBUILT]


def _submit(client: Client, certificate: Certificate) -> Job:
    known = certificate.provenance
    if known.start is not None:
        return _repeat_fork(client, known)
    name = _check_dataset(client, known)
    data = {**known.spec["dataset"], "name": name}
    job = client.submit({**known.spec, "dataset": data, "reuse": "never", "name": f"rebuild of {known.job}"})
    if name == known.spec["dataset"]["name"] and job["spec_hash"] != known.spec_hash:
        job.cancel()
        raise NotRebuildable(
            f"{client.server} resolves the spec differently (spec_hash {job['spec_hash']}, certified "
            f"{known.spec_hash}): use a service with the release that trained it"
        )
    return job


def _check_dataset(client: Client, known: Provenance) -> str:
    """The name by which the service has the very data, before anything is trained.

    Raises:
        NotRebuildable: it does not have them.
    """
    name, wanted = str(known.dataset["name"]), str(known.dataset["sha256"])
    base = name.partition("@")[0]
    remedy = f"upload the same files to {client.server}: tapeline upload FILES --name {base}"
    for text in (name, f"{base}@{wanted[:12]}"):
        with suppress(ApiError):
            found = str(client.dataset(text)["sha256"] or "").removeprefix("sha256:")
            if found == wanted:
                return text
    try:
        other = client.dataset(base)
    except ApiError as error:
        if error.status != 404:
            raise
        raise NotRebuildable(
            f"the dataset {base!r} is not on {client.server}; its SHA-256 must be {wanted}: {remedy}"
        ) from error
    if other["sha256"] is None:  # not downloaded yet: the job finds out
        return base
    raise NotRebuildable(
        f"the dataset {base!r} on {client.server} has other data: its SHA-256 is "
        f"{str(other['sha256']).removeprefix('sha256:')}, the certified one is {wanted}; nothing was trained: {remedy}"
    )


def _repeat_fork(client: Client, known: Provenance) -> Job:
    """A fork begins with a checkpoint, which a spec does not have: only a service that has the job can repeat it."""
    original = _original(client, known)
    if original is None or original.status != "succeeded":
        raise NotRebuildable(
            f"{known.job} is a fork: its training began with epoch {known.start['epoch'] if known.start else 0} of "
            f"{known.start['job'] if known.start else ''}. Only a service that has {known.job} can rebuild it, and "
            f"{client.server} does not have it; the certificate of the parent can be rebuilt anywhere"
        )
    return original.reproduce()


def _original(client: Client, known: Provenance) -> Job | None:
    """The certified job, if the service has it."""
    try:
        return client.handle(known.job).refresh()
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def _start_of(client: Client, known: Provenance, epoch: int) -> Job | None:
    """The job from whose checkpoint an epoch can be trained; ``None``: it is the first one."""
    if epoch not in known.epochs:
        raise NotRebuildable(f"the certificate has no epoch {epoch}; it has {min(known.epochs)} to {max(known.epochs)}")
    if epoch == 1:
        _check_dataset(client, known)
        return None
    original = _original(client, known)
    if original is None:
        raise NotRebuildable(
            f"epoch {epoch} is trained from the checkpoint of epoch {epoch - 1} of {known.job}, which is not on "
            f"{client.server}: without --epochs, all epochs are trained from the start"
        )
    stored = {int(item["epoch"]): str(item["sha256"]) for item in original.checkpoints()}
    if epoch - 1 not in stored:
        raise NotRebuildable(
            f"epoch {epoch} cannot be trained alone: {known.job} keeps no checkpoint of epoch {epoch - 1}; it keeps "
            f"{', '.join(map(str, sorted(stored))) or 'none'}, so these epochs can be checked: "
            f"{', '.join(str(number) for number in _checkable(known, stored))}"
        )
    certified = (
        known.checkpoints.get(epoch - 1) if epoch - 1 in known.checkpoints else (known.start or {}).get("sha256")
    )
    if certified is not None and stored[epoch - 1].removeprefix("sha256:") != certified:
        raise NotRebuildable(
            f"the checkpoint of epoch {epoch - 1} of {known.job} on {client.server} is not the certified one: its "
            f"SHA-256 is {stored[epoch - 1]}, the certified one is {certified}"
        )
    return original


def _checkable(known: Provenance, stored: Mapping[int, str]) -> list[int]:
    first = [1] if known.start is None else []
    return first + [epoch for epoch in known.epochs if epoch - 1 in stored]


def _train_epoch(client: Client, certificate: Certificate, original: Job | None, epoch: int) -> Job:
    """A job whose next epoch is this one. It trains on until it is cancelled: with fewer epochs, the learning rate of
    a schedule would be another."""
    if original is None:
        return _submit(client, certificate)
    name = f"epoch {epoch} of {certificate.provenance.job}"
    keep = {"every_epochs": 1, "keep_last": certificate.provenance.spec["epochs"]}  # until it can be compared
    return original.fork({"name": name, "checkpoint": keep}, checkpoint=epoch - 1)


def _take_digests(job: Job, found: dict[int, str]) -> None:
    for item in job.digests(after=max(found, default=0))["epochs"]:
        found[int(item["epoch"])] = str(item["digest"])


def _first_difference(known: Mapping[int, str], found: Mapping[int, str], *, is_complete: bool) -> int | None:
    for epoch in sorted(found):
        if known.get(epoch) != found[epoch]:
            return epoch
    return min(known.keys() - found.keys(), default=None) if is_complete else None


def _different(
    client: Client, known: Provenance, job: Job, epoch: int, epochs: Sequence[int], *, what: str = ""
) -> Outcome:
    environment = _environment_differences(known, job["provenance"])
    hint = None
    if _original(client, known) is not None:
        hint = f"tapeline why {known.job} {job.id} --server {client.server} finds the first batch and tensor"
    part = f" in its {what}" if what else ""
    sentence = f"epoch {epoch} is the first that differs{part}"
    if environment:
        pins = "; ".join(f"{name} is {b!r}, certified with {a!r}" for name, (a, b) in environment.items())
        sentence += f", and so does the environment: {pins}"
    return Outcome(
        status="environment_differs" if environment else "mismatch",
        sentence=sentence,
        job=job.id,
        epochs=list(epochs),
        first_difference=epoch,
        environment=environment,
        hint=hint,
    )


def _environment_differences(known: Provenance, found: Mapping[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    certified = {**known.environment, "code": known.code}
    other = {name: value for name, value in (found or {}).items() if name in _ENVIRONMENT or name in certified}
    return {
        name: (certified.get(name), other.get(name))
        for name in sorted({*certified, *other})
        if certified.get(name) != other.get(name)
    }


def _checkpoint_difference(certificate: Certificate, job: Job) -> str | None:
    """What differs between the certified checkpoint and that of the new job, which may have another name."""
    with TemporaryDirectory(prefix="tapeline-rebuild-") as folder:
        epoch = certificate.provenance.checkpoint
        try:
            path = job.download_checkpoint(epoch, Path(folder, CHECKPOINT_FILE))
        except ApiError as error:
            if error.status != 404:
                raise
            raise NotRebuildable(
                f"the epochs are equal, but {job.id} keeps no checkpoint of epoch {epoch} to compare with the one that "
                "is certified"
            ) from error
        if _comparable(path) != _comparable(certificate.folder / CHECKPOINT_FILE):
            return "checkpoint"
    return None


def _comparable(path: Path) -> tuple[Any, ...]:
    """The tensors and the state of a checkpoint, without its spec, which contains the job's name."""
    header = checking.read_header(path)
    state = json.loads(header.pop("__metadata__")["state"])
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return header, state, file.read()


def _ended(job: Job) -> str:
    error = job["error"] or {}
    return f"{job.id} is {job.status}{': ' if error else ''}{error.get('message', '')}"


@contextmanager
def _cancelled_if_left(job: Job) -> Iterator[None]:
    """Cancel a job that still runs at the end of the block: what it would train further is not needed."""
    try:
        yield
    finally:
        with suppress(ClientError):
            if not job.refresh().ended:
                job.cancel()
