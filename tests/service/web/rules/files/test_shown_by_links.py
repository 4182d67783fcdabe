"""What share links show: these operations, and no other."""

from __future__ import annotations

from contextlib import closing

from service.storage.artifacts import EXPORTS
from service.web.http.endpoint import PUBLIC
from tests.service.web.rules.populated import PopulatedService

EVERY, GAN = ("classifier", "gan", "table", "regressor"), ("gan",)
SHOWN = {
    "/jobs/{job_id}": EVERY,
    "/jobs/{job_id}/artifacts": EVERY,
    "/jobs/{job_id}/artifacts/{artifact_id}": GAN,
    "/jobs/{job_id}/bisection": EVERY,
    "/jobs/{job_id}/calibration": EVERY,
    "/jobs/{job_id}/checkpoints": EVERY,
    "/jobs/{job_id}/checkpoints/{which}": EVERY,
    "/jobs/{job_id}/confusion": EVERY,
    "/jobs/{job_id}/digests": EVERY,
    "/jobs/{job_id}/events": EVERY,
    "/jobs/{job_id}/export/{target}": EVERY,
    "/jobs/{job_id}/importance": EVERY,
    "/jobs/{job_id}/metrics": EVERY,
    "/jobs/{job_id}/plots/{which}.{form}": EVERY,
    "/jobs/{job_id}/results": EVERY,
    "/jobs/{job_id}/samples": EVERY,
    "/jobs/{job_id}/samples.gif": GAN,
    "/jobs/{job_id}/samples.webp": GAN,
    "/jobs/{job_id}/samples/{which}.png": GAN,
    "/jobs/{job_id}/stream": EVERY,
    "/ui/jobs/{job_id}": EVERY,
    "/ui/jobs/{job_id}/log": EVERY,
    "/ui/play/{job_id}": EVERY,
    "/comparisons": EVERY,
    "/differences": EVERY,
    "/stream": EVERY,
    "/ui/compare": EVERY,
}
"""Of each operation, the jobs with which a link of the job shows it."""
OF_SWEEPS = {
    "/sweeps/{sweep_id}",
    "/sweeps/{sweep_id}/curves",
    "/sweeps/{sweep_id}/decisions",
    "/sweeps/{sweep_id}/importance",
    "/sweeps/{sweep_id}/plots/{which}.{form}",
    "/sweeps/{sweep_id}/stream",
    "/sweeps/{sweep_id}/trials",
    "/ui/sweeps/{sweep_id}",
}
"""The operations that a link of the sweep shows."""


def is_shown(populated: PopulatedService, token: str, address: str, job_id: str) -> bool:
    """Whether a link shows an address; an unknown parameter keeps the operation from being executed."""
    query = {"nonsense": "1", **dict.fromkeys(("a", "b", "jobs"), job_id)}
    headers = {"Authorization": f"Bearer {token}"}
    with closing(populated.app.test_client().get(address, headers=headers, query_string=query)) as response:
        return response.status_code != 404 or "share_not_found" not in response.text


def link(populated: PopulatedService, path: str) -> str:
    return str(populated.post("ann", "/shares", {"path": path})["token"])


def test_a_link_shows_the_operations_that_are_marked_and_no_other(populated: PopulatedService) -> None:
    reads = [item for item in populated.operations if item.method == "GET" and item.scope != PUBLIC]
    shown: dict[str, tuple[str, ...]] = {}
    for name in EVERY:
        values = {"job_id": populated.ids[name], "artifact_id": populated.artifacts[name]}
        token = link(populated, f"/jobs/{values['job_id']}")
        for item in reads:
            if is_shown(populated, token, item.address(values), values["job_id"]):
                shown[item.path] = (*shown.get(item.path, ()), name)
    assert shown == SHOWN
    values = {"sweep_id": populated.ids["sweep"]}
    token = link(populated, f"/sweeps/{values['sweep_id']}")
    assert {item.path for item in reads if is_shown(populated, token, item.address(values), "")} == OF_SWEEPS


def test_a_link_shows_no_residuals_and_no_export_with_private_fields(populated: PopulatedService) -> None:
    job_id = populated.ids["classifier"]
    token = link(populated, f"/jobs/{job_id}")
    exports = {kind.value for kind in EXPORTS if is_shown(populated, token, f"/jobs/{job_id}/export/{kind}", job_id)}
    assert exports == {"onnx", "torch"}
    plots = ("curves", "confusion", "calibration", "importance", "residuals")
    shown = [name for name in plots if is_shown(populated, token, f"/jobs/{job_id}/plots/{name}.png", job_id)]
    assert shown == [*plots[:-1]]
