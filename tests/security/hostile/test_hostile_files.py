"""Every hostile file, uploaded to the running stack: rejected with a reason, quickly, and with little memory."""

from __future__ import annotations

import pytest

from tests.security.conftest import Stack
from tests.security.hostile import hostile_archives, image_archives
from tests.security.hostile.hostile_files import GOOD_IMAGES, GOOD_LABELS, Upload, hostile
from tests.security.hostile.image_archives import Hostile
from tests.security.hostile.meter import MAX_BYTES, MAX_S, Meter

CORPUS = list(hostile())


@pytest.mark.nightly
def test_the_corpus_is_large_and_a_good_upload_is_accepted(stack: Stack) -> None:
    assert len({title for title, _ in CORPUS}) == len(CORPUS) >= 40
    with stack.client("ann") as http:
        response = http.post("/datasets", data={"name": "good"}, files={"images": GOOD_IMAGES, "labels": GOOD_LABELS})
        assert response.status_code == 201, response.text
        assert http.delete("/datasets/good").status_code == 204


@pytest.mark.stack
@pytest.mark.parametrize(("title", "files"), CORPUS, ids=[title for title, _ in CORPUS])
def test_a_hostile_file_is_refused(stack: Stack, title: str, files: Upload) -> None:
    with stack.client("ann") as http, Meter(stack.home) as meter:
        response = http.post("/datasets", data={"name": "evil"}, files=dict(files))
    print(f"{title}: {meter.seconds:.2f} s, web +{meter.web_bytes >> 20} MiB, reader {meter.reader_bytes >> 20} MiB")
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "invalid_upload"
    assert "memory and time" not in response.text, "the reader itself broke, or was stopped by its limits"
    assert str(stack.home) not in response.text
    assert meter.seconds < MAX_S
    assert max(meter.web_bytes, meter.reader_bytes) < MAX_BYTES
    assert not list((stack.home / "artifacts" / "datasets").iterdir())


@pytest.mark.stack
def test_good_archives_are_accepted(stack: Stack) -> None:
    good = image_archives.GOOD
    junk = good | {"b/junk.png": b"junk", "c/cut.png": image_archives.PNG[:60]}
    with stack.client("ann") as http:
        for name, data, fields in (
            ("a.zip", image_archives.zipped(good), {}),
            ("a.tar", image_archives.tarred(good), {"size": "8"}),
            ("b.tar", image_archives.tarred(junk), {"on_bad": "skip"}),
        ):
            response = http.post("/datasets", data={"name": "good", **fields}, files={"archive": (name, data)})
            assert response.status_code == 201, response.text
            left_out = response.json()["report"].get("left_out", {"count": 0})
            assert left_out["count"] == (2 if "on_bad" in fields else 0)
            assert http.delete("/datasets/good").status_code == 204


@pytest.mark.nightly
@pytest.mark.timeout(900)  # a hundred uploads, of 75 s of processor time
def test_every_hostile_archive_is_refused_with_a_remedy(stack: Stack) -> None:
    """One test, which generates one archive at a time: all of them together take 170 MB."""
    titles, failures = [], []
    for case in hostile_archives.hostile():
        titles.append(case.title)
        if faults := _refusal_faults(stack, case):
            failures.append(f"{case.title}: {'; '.join(faults)}")
    assert len(set(titles)) == len(titles) >= 100
    assert not failures, "\n".join(failures)


def _refusal_faults(stack: Stack, case: Hostile) -> list[str]:
    """What is wrong with the refusal of an archive."""
    with stack.client("ann") as http, Meter(stack.home) as meter:
        form = {"name": "evil", **case.fields}
        # Processor time is limited, up to 15 s: on a busy machine the answer takes several times that.
        response = http.post("/datasets", data=form, files={"archive": ("evil.zip", case.data)}, timeout=None)
    usage = f"{meter.seconds:.2f} s, web +{meter.web_bytes >> 20} MiB, reader {meter.reader_bytes >> 20} MiB"
    print(f"{case.title}: {usage}", flush=True)
    if response.status_code != 422 or response.json()["code"] != "invalid_upload":
        return [f"{response.status_code} {response.text[:300]}"]
    message = " ".join(f"{fault.get('parameter', '')} {fault['detail']}" for fault in response.json()["errors"])
    faults = [f"does not say {part!r}: {message[:300]}" for part in case.mentions if part not in message]
    if "memory and time" in message:
        faults.append("the reader broke, or was stopped by its limits")
    if str(stack.home) in response.text or len(response.text) > 8_000:
        faults.append("reveals too much")
    if meter.seconds >= case.seconds or meter.web_bytes > MAX_BYTES or meter.reader_bytes > case.megabytes * 2**20:
        faults.append(f"exceeds its limits: {usage}")
    if list((stack.home / "artifacts" / "datasets").iterdir()):
        faults.append("leaves files behind")
    return faults
