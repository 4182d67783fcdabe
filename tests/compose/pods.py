"""Pods as the chart renders them, run by Docker: the same commands, variables, users, mounts and probes, without a
cluster. What a kubelet does and Docker does not, such as fsGroup, is done here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.compose.conftest import IMAGE, docker
from tests.waiting import wait_until

Object = dict[str, Any]


@dataclass
class Network:
    """A network of a project with fixed addresses, its containers and volumes."""

    secrets: Mapping[str, Mapping[str, str]]
    folder: Path
    """For the files of Secrets."""
    project: str = field(default_factory=lambda: f"tapeline-{uuid4().hex[:8]}")
    containers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        docker("network", "create", self.project)
        subnet = docker("network", "inspect", "--format={{(index .IPAM.Config 0).Subnet}}", self.project).strip()
        docker("network", "rm", self.project)
        docker("network", "create", "--subnet", subnet, self.project)  # fixed addresses need a chosen subnet
        self._prefix = subnet.rsplit(".", 1)[0]

    def address(self) -> str:
        """An address that no container has."""
        return f"{self._prefix}.{len(self.containers) + 50}"

    def run(self, name: str, *arguments: str, ip: str | None = None) -> str:
        """Start a container in the background; returns its name, which other containers resolve as ``name``."""
        container = f"{self.project}-{name}-{len(self.containers)}"
        address = ("--ip", ip or self.address())
        self.containers.append(container)
        network = ("--network", self.project, "--network-alias", name, *address)
        docker("run", "--detach", "--name", container, *network, *arguments)
        return container

    def down(self) -> None:
        """Remove everything."""
        docker("rm", "--force", "--volumes", *self.containers)
        docker("network", "rm", self.project)
        for volume in docker("volume", "ls", "--quiet", "--filter", f"name={self.project}").split():
            docker("volume", "rm", volume)


@dataclass
class Pod:
    """A pod of the chart: its init containers, then its container."""

    network: Network
    spec: Object
    name: str
    """Of its Service, if it has one."""
    ip: str = ""
    container: str = ""

    def start(self) -> None:
        """Start the container; the init containers have ended."""
        (container,) = self.spec["containers"]
        self.ip = self.network.address()
        self.container = self.network.run(self.name, *self._arguments(container), ip=self.ip)

    def start_init(self) -> str:
        """Start the init container; returns its name."""
        (container,) = self.spec["initContainers"]
        self.ip = self.network.address()
        return self.network.run(f"{self.name}-init", *self._arguments(container), ip=self.ip)

    def _arguments(self, container: Object) -> list[str]:
        context, limits = self.spec["securityContext"], container["resources"]["limits"]
        user, group = context["runAsUser"], context["runAsGroup"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        arguments = ["--user", f"{user}:{group}", "--group-add", str(context["fsGroup"]), "--read-only"]
        arguments += [f"--cap-drop={name}" for name in container["securityContext"]["capabilities"]["drop"]]
        arguments += ["--security-opt", "no-new-privileges", "--memory", limits["memory"].removesuffix("i").lower()]
        if "cpu" in limits:
            arguments += ["--cpus", limits["cpu"]]
        for variable, value in self._environment(container).items():
            arguments += ["--env", f"{variable}={value}"]
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in container["volumeMounts"]:
            arguments += self._mount(mount, volumes[mount["name"]], context["fsGroup"])
        return [*arguments, IMAGE, *container.get("args", [])]

    def _environment(self, container: Object) -> dict[str, str]:
        found = {"POD_IP": self.ip}
        for item in container["env"]:
            source = item.get("valueFrom", {})
            if "secretKeyRef" in source:
                found[item["name"]] = self.network.secrets[source["secretKeyRef"]["name"]][
                    source["secretKeyRef"]["key"]
                ]
            elif "resourceFieldRef" in source:
                of = next(
                    one for one in self.spec["containers"] if one["name"] == source["resourceFieldRef"]["containerName"]
                )
                found[item["name"]] = str(of["resources"]["limits"]["cpu"])
            elif source:
                fields = {"status.podIP": self.ip, "spec.nodeName": "node-1.example.internal"}
                found[item["name"]] = fields[source["fieldRef"]["fieldPath"]]
            else:
                found[item["name"]] = item["value"].replace("$(POD_IP)", self.ip)
        return found

    def _mount(self, mount: Object, volume: Object, group: int) -> list[str]:
        path = mount["mountPath"]
        if "emptyDir" in volume:
            size = volume["emptyDir"].get("sizeLimit", "1Gi").removesuffix("i").lower()
            return ["--tmpfs", f"{path}:exec,size={size},uid=0,gid={group},mode=2777"]
        if "persistentVolumeClaim" in volume:
            return ["--volume", f"{self.network.project}-{volume['persistentVolumeClaim']['claimName']}:{path}"]
        assert mount["readOnly"]
        folder = self.network.folder / f"{self.name}-{mount['name']}"
        folder.mkdir(exist_ok=True)
        for item in volume["secret"]["items"]:
            file = folder / item["path"]
            file.write_text(self.network.secrets[volume["secret"]["secretName"]][item["key"]])
            with suppress(PermissionError):
                os.chown(file, -1, group)
            file.chmod(volume["secret"].get("defaultMode", 0o644))
        return ["--volume", f"{folder}:{path}:ro"]

    def probe(self, kind: str) -> bool:
        """Whether a probe of the container succeeds, as the kubelet makes it."""
        (container,) = self.spec["containers"]
        probe = container[f"{kind}Probe"]
        if "exec" in probe:
            command = ["docker", "exec", self.container, *probe["exec"]["command"]]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        (port,) = [port["containerPort"] for port in container["ports"] if port["name"] == probe["httpGet"]["port"]]
        try:
            url = f"http://{self.ip}:{port}{probe['httpGet']['path']}"
            return httpx.get(url, timeout=probe["timeoutSeconds"], trust_env=False).status_code < 400
        except httpx.TransportError:
            return False

    def wait_until_started(self) -> None:
        (container,) = self.spec["containers"]
        probe = container["startupProbe"]
        wait_until(
            lambda: self.probe("startup"),
            f"the start of {self.name}",
            probe["periodSeconds"] * probe["failureThreshold"],
        )

    def stop(self) -> float:
        """End the pod as its eviction does; returns the seconds that it took, and fails if it had to be killed."""
        (container,) = self.spec["containers"]
        began_at = time.monotonic()
        if "lifecycle" in container:
            docker("exec", self.container, *container["lifecycle"]["preStop"]["exec"]["command"])
        grace_s = self.spec["terminationGracePeriodSeconds"] - (time.monotonic() - began_at)
        docker("stop", f"--time={grace_s:.0f}", self.container)
        exit_code = docker("inspect", "--format={{.State.ExitCode}}", self.container).strip()
        assert exit_code == "0", f"{self.name} was killed: {self.logs()}"
        return time.monotonic() - began_at

    def logs(self) -> str:
        return logs_of(self.container)


def logs_of(container: str) -> str:
    process = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=False)
    return (process.stdout + process.stderr)[-4000:]


def wait_for_end(container: str, timeout_s: float = 120) -> int:
    """Wait until a container has ended; returns its exit code."""
    return int(docker("wait", container, timeout_s=timeout_s))
