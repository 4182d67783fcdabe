"""The chart beside hosted services: what its policies open, slots, limits, alerts, dashboards and backups."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import pytest
import yaml

from service.cli.commands.maintenance import backup
from tests.deploy import helm
from tests.deploy.test_chart import (
    CHART,
    Object,
    containers,
    environment,
    pods,
    render,
    values,
    values_of,
    with_value,
)

__all__ = ["values"]


def opened(objects: dict[tuple[str, str], Object], component: str, address: str, port: int) -> bool:
    """Whether a policy lets the pods of a component connect to an address and port."""
    for rule in objects["NetworkPolicy", component]["spec"]["egress"]:
        peers = [peer["ipBlock"]["cidr"] for peer in rule.get("to", []) if "ipBlock" in peer]
        is_peer = "to" not in rule or any(ip_address(address) in ip_network(cidr) for cidr in peers)
        if is_peer and any(item["port"] == port and item["protocol"] == "TCP" for item in rule["ports"]):
            return True
    return False


METADATA = [("169.254.169.254", 80), ("169.254.169.252", 988), ("169.254.170.23", 80), ("fd00:ec2::23", 80)]
"""Of GKE with and without Dataplane V2, and of pod identities in EKS."""


def test_hosted_services_are_reached_through_the_policies_of_their_example() -> None:
    values = values_of("external")
    objects = render(values)
    proxy = urlsplit(values["proxy"]["url"])
    for component in ("web", "worker", "scheduler", "backup"):
        for address, port in [*METADATA, ("203.0.113.7", proxy.port or 0), ("203.0.113.8", 443), ("203.0.113.9", 5432)]:
            assert opened(objects, component, address, port), (component, address, port)
        assert not opened(objects, component, "203.0.113.7", 80), "metadata ports are open at its addresses only"
    assert not any(opened(objects, "migrate", address, port) for address, port in METADATA), "it needs no bucket"
    for name, container in containers(objects):
        if name not in ("test",):
            assert environment(container)["HTTPS_PROXY"] == values["proxy"]["url"]
    with_keys = render(with_value(values, "store.existingSecret", "bucket"))
    assert not opened(with_keys, "web", "169.254.169.254", 80), "a bucket with keys needs no role"
    managed = with_value(values, "broker", {"url": "rediss://10.0.0.3:6378/0"})
    managed = with_value(managed, "database", {"url": "postgresql+psycopg://app@pool.example.org:6432/tapeline"})
    assert opened(render(managed), "worker", "10.0.0.3", 6378)
    assert opened(render(managed), "worker", "10.0.0.3", 6432)
    named = with_value(values, "networkPolicy.metadata", {"to": [], "ports": [80]})
    assert opened(render(named), "web", "203.0.113.7", 80), "as Cilium needs it"


@pytest.mark.parametrize(
    ("limit", "given", "slots"), [("2", None, "2"), (3, None, "3"), ("1500m", None, "2"), ("4", 3, "3"), (None, 3, "3")]
)
def test_slots_follow_the_limit_of_processors_unless_they_are_given(
    limit: str | int | None, given: int | None, slots: str
) -> None:
    values = with_value(values_of("external"), "worker.resources", {"limits": {"cpu": limit, "memory": "8Gi"}})
    if given is not None:
        values = with_value(values, "worker.slots", given)
    objects = render(values)
    (container,) = objects["Deployment", "worker"]["spec"]["template"]["spec"]["containers"]
    assert environment(container, str(limit))["TAPELINE_WORKERS"] == slots
    (trigger,) = objects["ScaledObject", "worker"]["spec"]["triggers"]
    assert trigger["metadata"]["targetQueryValue"] == slots


def test_without_slots_and_limit_the_chart_says_what_is_missing() -> None:
    values = with_value(values_of("external"), "worker.resources", {"limits": {"cpu": None, "memory": "8Gi"}})
    with pytest.raises(helm.HelmError, match=r"worker\.slots follows worker\.resources\.limits\.cpu"):
        render(values)


def test_every_folder_of_a_node_has_a_limit(values: Object) -> None:
    for name, pod in pods(render(values)):
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], (name, volume["name"])


def test_alerts_and_dashboards_are_those_of_this_tree() -> None:
    objects = render(values_of("external"))
    rules = objects["PrometheusRule", "tl-tapeline"]
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    assert rules["spec"] == yaml.safe_load((CHART.parents[1] / "alerts.yml").read_text(encoding="utf-8"))
    files = sorted((CHART.parents[1] / "grafana").glob("*.json"))
    for file in files:
        item = objects["ConfigMap", f"dashboard-{file.stem}"]
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"] == {"grafana_folder": "Tapeline"}
        assert item["data"] == {f"tapeline-{file.name}": file.read_text(encoding="utf-8")}
    assert len([key for key in objects if key[1].startswith("dashboard-")]) == len(files) == 5
    assert not {"PrometheusRule", "ConfigMap", "CronJob"} & {kind for kind, _ in render(values_of("small"))}


def test_backups_run_on_a_schedule_into_a_claim_of_their_own() -> None:
    objects = render(values_of("external"))
    job = objects["CronJob", "backup"]["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("17 3 * * *", "Forbid")
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    place = "/var/lib/tapeline/backups"
    assert container["args"] == ["tapeline", "backup", "--keep", "7", "--with-signing-key", place]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == place]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"] == {"claimName": "backups"}
    names = [item["name"] for item in pod["volumes"]]
    assert "signing" in names
    assert environment(container)["TAPELINE_SIGNING_KEY"] == "/etc/tapeline/signing/key.pem"
    without = render(with_value(values_of("external"), "backup.signingKey", False))["CronJob", "backup"]
    assert "signing" not in str(without), "only on request"
    options = {option for parameter in backup.params for option in parameter.opts}
    assert {word for word in container["args"] if word.startswith("--")} <= options
