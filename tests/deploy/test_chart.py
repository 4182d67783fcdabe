"""The Helm chart, rendered by Helm's library: no cluster runs here. Objects of Kubernetes are validated against its own
schemas; those of KEDA, the gateway and Prometheus' operator, for which no schemas are installed, only by this file."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.runtime.settings import SETTINGS, Settings
from tests.deploy import helm
from tests.deploy.chart_schema import BY_THE_CHART
from workers.supervisor import job_monitor, supervisor
from workers.supervisor.worker import CELERY_GRACE_S

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "tapeline"
KUBERNETES = "1.34"
OTHERS = {"keda.sh/v1alpha1", "gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1"}
Object = dict[str, Any]


def values_of(name: str) -> Object:
    found: Object = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8"))
    return found


NAMES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


WHOLE_PROCESSORS = {"containerName": "worker", "resource": "limits.cpu", "divisor": "1"}


def with_value(values: Object, path: str, value: Any) -> Object:
    """A copy with the value at a dotted path."""
    changed = copy.deepcopy(values)
    *parents, last = path.split(".")
    place = changed
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return changed


def render(values: Object) -> dict[tuple[str, str], Object]:
    """The objects by kind and by the last part of their names."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name="tl", namespace="ml")
    objects = [
        item for path, text in texts.items() if path.endswith(".yaml") for item in yaml.safe_load_all(text) if item
    ]
    found = {(item["kind"], item["metadata"]["name"].removeprefix("tl-tapeline-")): item for item in objects}
    assert len(found) == len(objects), "names are unique"
    return found


def notes(values: Object) -> str:
    with helm.Chart.load(CHART) as chart:
        return chart.render(values, name="tl", namespace="ml")["tapeline/templates/NOTES.txt"]


def pods(objects: dict[tuple[str, str], Object]) -> Iterator[tuple[str, Object]]:
    """The specs of all pods, by the name of their object."""
    for (kind, name), item in objects.items():
        if kind in ("Deployment", "Job"):
            yield name, item["spec"]["template"]["spec"]
        elif kind == "CronJob":
            yield name, item["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif kind == "Pod":
            yield name, item["spec"]


def containers(objects: dict[tuple[str, str], Object]) -> Iterator[tuple[str, Object]]:
    for name, pod in pods(objects):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield name, container


@pytest.fixture(params=NAMES)
def values(request: pytest.FixtureRequest) -> Object:
    return values_of(request.param)


def test_the_chart_passes_the_linter_and_every_object_the_schemas_of_kubernetes(values: Object) -> None:
    report = helm.lint(CHART, values, strict=True, kube_version=f"{KUBERNETES}.0")
    assert [message for message in report["messages"] if message["severity"] > 1] == report["errors"] == []
    for item in render(values).values():
        if item["apiVersion"] not in OTHERS:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_all_kinds_of_objects_are_rendered_in_some_case() -> None:
    found = {kind for name in NAMES for kind, _ in render(values_of(name))}
    assert found == {
        *("Deployment", "Service", "ServiceAccount", "Job", "Pod", "PodDisruptionBudget", "NetworkPolicy", "Ingress"),
        *("HTTPRoute", "ServiceMonitor", "ScaledObject", "TriggerAuthentication", "ConfigMap"),
        *("CronJob", "PrometheusRule"),
    }


def test_every_pod_fulfils_the_restricted_standard_and_has_a_read_only_root(values: Object) -> None:
    objects = render(values)
    for name, pod in pods(objects):
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, 10001, 10001), name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert {*pod.get("volumes", [])[0]} <= {"name", "emptyDir"}, name
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "persistentVolumeClaim", "configMap"}, name
    for name, container in containers(objects):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name


def environment(container: Object, cpu: str = "1") -> dict[str, str]:
    """The variables, with contents for what comes from Secrets and the pod; ``cpu`` is its limit of processors."""
    found: dict[str, str] = {}
    for item in container["env"]:
        if "valueFrom" in item:
            urls = {"TAPELINE_DATABASE_URL": "postgresql+psycopg://secret/", "TAPELINE_BROKER_URL": "redis://secret/"}
            if "resourceFieldRef" in item["valueFrom"]:  # as Kubernetes does: in units of the divisor, rounded up
                assert item["valueFrom"]["resourceFieldRef"] == WHOLE_PROCESSORS
                urls[item["name"]] = str(ceil(float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1)))
            value = urls.get(item["name"], "10.1.2.3" if item["name"] == "POD_IP" else "a-key-of-16-letters")
        else:
            value = item["value"]
        assert item["name"] not in found, "set twice"
        found[item["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
    return found


def test_the_service_accepts_its_variables_and_has_a_volume_for_each_path(values: Object, tmp_path: Path) -> None:
    for name, container in containers(render(values)):
        if name == "test":
            continue
        environ = environment(container)
        assert {variable for variable in environ if variable.startswith("TAPELINE_")} <= set(SETTINGS)
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for variable, value in environ.items():
            if value.startswith("/"):
                assert any(value.startswith(mount) for mount in mounts), f"{name}: {variable}={value}"
        for variable in [name for name in environ if name.endswith("_FILE") or name == "TAPELINE_CA"]:
            (tmp_path / variable).write_text("-----BEGIN CERTIFICATE-----")
            environ[variable] = str(tmp_path / variable)
        settings = Settings.from_env(environ, cores=2)
        assert settings.keys_required
        assert {"10.1.2.3", "tl-tapeline-web"} <= set(settings.allowed_hosts)
        expected = values.get("settings", {})
        for variable in expected.keys() - {"TAPELINE_ALLOWED_HOSTS"}:
            assert float(environ[variable]) == float(expected[variable])


def test_the_schema_has_every_setting_or_the_value_that_it_comes_from() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    names = {f"TAPELINE_{name}" for name in BY_THE_CHART}
    assert names <= set(SETTINGS)
    assert set(schema["properties"]["settings"]["properties"]) == set(SETTINGS) - names
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(schema["properties"]) - {"global"} == set(defaults)


def objects_of(schema: Any) -> Iterator[Object]:
    for item in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []:
        yield from objects_of(item)
    if isinstance(schema, dict) and "properties" in schema and schema.get("type") == "object":
        yield schema


def test_no_part_of_the_schema_accepts_names_that_it_does_not_know() -> None:
    found = [*objects_of(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))]
    assert len(found) > 40
    assert all(item["additionalProperties"] is False for item in found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("databse", {}),
        ("web.replica", 3),
        ("web.replicas", 0),
        ("worker.slots", 0),
        ("backup", {"enabled": True, "existingClaim": ""}),
        ("backup.keep", 0),
        ("backup.schedule", "daily"),
        ("proxy.url", "http://user:secret@proxy:3128"),
        ("worker.slots", "2"),
        ("worker.terminationGracePeriodSeconds", 10),
        ("settings.TAPELINE_LEASES", 3),
        ("settings.TAPELINE_LEASE_S", 1),
        ("settings.TAPELINE_PORTABLE_BITS", "yes"),
        ("settings.TAPELINE_STORE", "s3://another"),
        ("settings.TAPELINE_AUTH", "local"),
        ("settings.TAPELINE_OTEL_PARENT", "parent"),
        ("database", {"url": ""}),
        ("database.url", "postgresql+psycopg://tapeline:secret@db/tapeline"),
        ("database.url", "postgresql+psycopg://db/tapeline?user=tapeline&password=secret"),
        ("database.url", "sqlite:////tmp/x.db"),
        ("database.existingSecret", "and-a-url"),
        ("broker.url", "redis://:secret@redis:6379/0"),
        ("broker.url", "redis://redis:6379/0?password=secret"),
        ("broker.url", "memory://"),
        ("worker.database", {"url": "postgresql+psycopg://w:secret@db/tapeline"}),
        ("store", {"url": "", "existingClaim": ""}),
        ("store.existingClaim", "and-a-bucket"),
        ("store.url", "file:///data"),
        ("store.url", "http://bucket"),
        ("signing.existingSecret", ""),
        ("migrations.mode", "helm"),
        ("migrations.grantTo", "a; DROP TABLE jobs"),
        ("image.tag", "1.0 --privileged"),
        ("image.digest", "md5:1"),
        ("ingress", {"enabled": True, "host": ""}),
        ("httpRoute", {"enabled": True, "hostnames": ["a.example"], "parentRefs": []}),
        ("keda", {"enabled": True, "connectionSecret": ""}),
        ("serviceMonitor", {"enabled": True, "apiKeySecret": ""}),
        ("networkPolicy.store.ports", ["https"]),
        ("networkPolicy.extra", {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": []}),
        ("networkPolicy.webFrom", [{"cidr": "10.0.0.0/8"}]),
        ("web.podDisruptionBudget.minAvailable", "half"),
        ("worker.resources", {"limit": {"memory": "1Gi"}}),
        ("worker.resources.limits", {"memory": "1 GB"}),
    ],
)
def test_the_schema_refuses_values_that_cannot_work(path: str, value: Any) -> None:
    with pytest.raises(helm.HelmValuesError, match=path.split(".")[0]):
        render(with_value(values_of("team"), path, value))


def test_pods_have_the_time_that_they_need_to_stop(values: Object) -> None:
    objects = render(values)
    deployments = {
        name: item["spec"]["template"]["spec"] for (kind, name), item in objects.items() if kind == "Deployment"
    }
    grace = {name: pod["terminationGracePeriodSeconds"] for name, pod in deployments.items()}
    needed = job_monitor.STOP_GRACE_S + 2 + supervisor.DEREGISTER_TIMEOUT_S + CELERY_GRACE_S
    assert grace["worker"] >= needed + 10
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]["worker"]
    assert schema["properties"]["terminationGracePeriodSeconds"]["minimum"] >= needed
    (web,) = deployments["web"]["containers"]
    assert grace["web"] >= int(web["lifecycle"]["preStop"]["exec"]["command"][1]) + 10 + 5


def test_each_process_has_its_probes(values: Object) -> None:
    objects = render(values)
    for name in ("web", "worker", "scheduler"):
        (container,) = objects["Deployment", name]["spec"]["template"]["spec"]["containers"]
        assert ("args" in container) is (name != "web"), "the command of the image serves HTTP"
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
        assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60
        if name == "web":
            paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
            assert paths == ["/healthz", "/readyz", "/healthz"]
        else:
            assert startup["exec"] == liveness["exec"] == {"command": ["python", "-m", "workers.heartbeat", name]}
            assert "readinessProbe" not in container, "nobody sends it requests"


@pytest.mark.parametrize(
    ("mode", "hook", "name"),
    [("hook", "pre-install,pre-upgrade", "migrate"), ("job", None, None), ("none", None, None)],
)
def test_the_migration_runs_before_the_pods_or_beside_them_or_not(
    mode: str, hook: str | None, name: str | None
) -> None:
    values = with_value(values_of("external"), "migrations.mode", mode)
    objects = render(values)
    jobs = {key[1]: item for key, item in objects.items() if key[0] == "Job"}
    assert len(jobs) == (mode != "none")
    for key, job in jobs.items():
        annotations = job["metadata"].get("annotations", {})
        assert annotations.get("helm.sh/hook") == hook
        assert name in (None, key)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        grants = ["--grant-to", "tapeline_app", "--grant-demand-to", "tapeline_demand"]
        assert container["args"] == ["python", "-m", "migrations.upgrade", *grants]
        policy = objects["NetworkPolicy", "migrate"]["metadata"].get("annotations", {})
        weights = [item.get("helm.sh/hook-weight") for item in (policy, annotations)]
        assert (policy.get("helm.sh/hook"), weights) == (hook, ["-1", "0"] if hook else [None, None])
        account = job["spec"]["template"]["spec"]["serviceAccountName"]
        assert account == ("default" if hook else "tl-tapeline"), "a hook runs before the account exists"
    for component in ("web", "worker", "scheduler"):
        (init,) = objects["Deployment", component]["spec"]["template"]["spec"]["initContainers"]
        assert init["args"] == ["python", "-m", "migrations.upgrade", "--wait"]
    if mode == "job":
        other = render(with_value(values, "migrations.resources.limits", {"memory": "1Gi"}))
        assert not jobs.keys() & {key[1] for key in other}, "a Job cannot be changed"


@pytest.mark.parametrize("name", ["grantToWorkers", "grantDemandTo"])
def test_a_role_for_two_purposes_is_refused(name: str) -> None:
    with pytest.raises(helm.HelmError, match="must be different roles"):
        render(with_value(values_of("external"), f"migrations.{name}", "tapeline_app"))


@pytest.mark.stack
@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"NODE_NAME": "ip-192-168-101-102.eu-central-1.compute.internal"}, "ip-192-168-101-102"),
        ({"NODE_NAME": f"gke-{'long' * 9}-a1b2c3d4-wxyz"}, f"g{'long' * 9}-a1b2c3d4-wxyz"[-40:]),
        ({"NODE_NAME": "10.0.0.17"}, "10.0.0.17"),
        ({"NODE_NAME": "node-1", "TAPELINE_WORKER_NAME": "chosen"}, "chosen"),
    ],
)
def test_a_worker_has_the_name_of_its_node(variables: dict[str, str], name: str) -> None:
    (container,) = render(values_of("small"))["Deployment", "worker"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in container["env"]
    shell, option, script = container["args"]
    shown = script.replace("exec python -m workers", "printenv TAPELINE_WORKER_NAME")
    assert shown != script
    environ = {"PATH": os.environ["PATH"], **variables}
    run = subprocess.run([shell, option, shown], env=environ, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == name
    assert SETTINGS["TAPELINE_WORKER_NAME"].valid(name)


def test_workers_scale_with_the_demand_when_keda_is_enabled() -> None:
    objects = render(values_of("external"))
    scaled, worker = objects["ScaledObject", "worker"], objects["Deployment", "worker"]
    assert "replicas" not in worker["spec"], "helm upgrade would reset what KEDA set"
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    slots = environment(container, "4")["TAPELINE_WORKERS"]
    assert trigger["metadata"] == {"query": "SELECT slots FROM tapeline_demand", "targetQueryValue": slots}
    authentication = objects["TriggerAuthentication", trigger["authenticationRef"]["name"].removeprefix("tl-tapeline-")]
    parameter = {"parameter": "connection", "name": "tapeline", "key": "demand"}
    assert authentication["spec"]["secretTargetRef"] == [parameter]
    spec = scaled["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 250)
    assert all(isinstance(spec[name], int) for name in ("pollingInterval", "cooldownPeriod"))


def ports(policy: Object, direction: str) -> set[int | str]:
    return {port["port"] for rule in policy["spec"][direction] for port in rule["ports"]}


def test_network_policies_select_the_pods_and_open_what_each_needs() -> None:
    objects = render(values_of("team"))
    policies = {name: item for (kind, name), item in objects.items() if kind == "NetworkPolicy"}
    for name, policy in policies.items():
        owner = next(item for (kind, key), item in objects.items() if kind in ("Deployment", "Job") and name in key)
        labels = owner["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert {name: ports(policy, "egress") for name, policy in policies.items()} == {
        "web": {53, 5432, 6379, 8333, 4318},
        "worker": {53, 5432, 6379, 8333, 4318},
        "scheduler": {53, 5432, 6379, 8333, 4318, 443},
        "migrate": {53, 5432},
    }
    assert {name: ports(policy, "ingress") for name, policy in policies.items()} == {
        "web": {"http"},
        "worker": set(),
        "scheduler": set(),
        "migrate": set(),
    }
    (test,) = [item for (kind, name), item in objects.items() if (kind, name) == ("Pod", "test")]
    peers = policies["web"]["spec"]["ingress"][0]["from"]
    own = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
    assert any(labels.items() <= test["metadata"]["labels"].items() for labels in own), "helm test reaches the service"


def test_disruption_budgets_permit_to_drain_a_node(values: Object) -> None:
    objects = render(values)
    budgets = {name: item["spec"] for (kind, name), item in objects.items() if kind == "PodDisruptionBudget"}
    assert ("web" in budgets) is (objects["Deployment", "web"]["spec"]["replicas"] > 1)
    for name, budget in budgets.items():
        selector = objects["Deployment", name]["spec"]["selector"]
        assert budget["selector"] == selector
        assert budget.get("minAvailable", 1) == budget.get("maxUnavailable", 1) == 1


def test_routes_and_monitor_lead_to_the_web_pods_and_their_hosts_are_accepted(values: Object) -> None:
    objects = render(values)
    service, web = objects["Service", "web"], objects["Deployment", "web"]
    assert service["spec"]["selector"].items() <= web["spec"]["template"]["metadata"]["labels"].items()
    (container,) = web["spec"]["template"]["spec"]["containers"]
    environ = environment(container)
    hosts = [rule["host"] for (kind, _), item in objects.items() if kind == "Ingress" for rule in item["spec"]["rules"]]
    hosts += [host for (kind, _), item in objects.items() if kind == "HTTPRoute" for host in item["spec"]["hostnames"]]
    assert set(hosts) <= set(environ["TAPELINE_ALLOWED_HOSTS"].split(","))
    assert environ.get("TAPELINE_PROXIES") == ("1" if hosts else None)
    if ("ServiceMonitor", "web") in objects:
        monitor = objects["ServiceMonitor", "web"]["spec"]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        (endpoint,) = monitor["endpoints"]
        assert endpoint["port"] == service["spec"]["ports"][0]["name"]
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "tapeline"}], "rules name the job"


def test_the_notes_say_how_to_make_the_first_key() -> None:
    command = "kubectl --namespace ml exec deploy/tl-tapeline-scheduler -- tapeline keys create ann --scope admin"
    assert command in notes(values_of("small"))
    assert "tapeline keys" not in notes(values_of("team")), "it has a key"
    assert "https://tapeline.example.org/" in notes(values_of("team"))


def test_the_documented_values_are_accepted() -> None:
    text = (CHART.parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
    (first,) = re.findall(r"<<'VALUES'\n(.*?)VALUES\n", text, re.DOTALL)
    (scaled,) = re.findall(r"```yaml\n(migrations:.*?)```", text, re.DOTALL)
    values = yaml.safe_load(first) | yaml.safe_load(scaled)
    assert {("Ingress", "web"), ("ScaledObject", "worker")} <= render(values).keys()


def test_the_chart_installs_the_version_of_this_tree() -> None:
    project = tomllib.loads((CHART.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with helm.Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == project["version"]
        assert f"## {chart.version}\n" in (CHART / "UPGRADING.md").read_text(encoding="utf-8")


def test_no_secret_is_in_the_manifests(values: Object) -> None:
    for name, container in containers(render(values)):
        for item in container["env"]:
            assert (
                "value" not in item
                or not re.search("KEY$|PASSWORD$|SECRET", item["name"])
                or item["value"].startswith("/")
            ), name
