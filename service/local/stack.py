"""Starts, supervises and stops the embedded stack."""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from service.local.broker import Broker, BrokerError
from service.local.log_writer import LogWriter
from service.local.orphans import GRACE_S, OrphanReaper
from service.local.process import StackProcess, describe_exit
from service.runtime.settings import Settings, is_loopback
from tapeline.addresses import url_of

_READY_TIMEOUT_S: Final = 120.0
"""How long the web process may take to respond: on a busy machine, minutes."""
_SLOW_START_S: Final = 15.0
"""After this time without a response, the user is notified."""
_MIGRATION_TIMEOUT_S: Final = 120.0
_POLL_INTERVAL_S: Final = 0.1
_MIN_RESTART_DELAY_S: Final = 0.5
_MAX_RESTART_DELAY_S: Final = 30.0
_STABLE_RUN_S: Final = 60.0
"""A process that ran for this long restarts with the minimum delay."""


class StackError(Exception):
    """The stack cannot start; the message says what to do."""


class PortTaken(StackError):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} on {host} is in use; use another one:\n  TAPELINE_PORT={_next_port(port)} {_start_command()}"
        )
        self.host, self.port = host, port


class HomeInUse(StackError):
    """Another stack runs on the same state folder."""

    def __init__(self, home: Path, pid: int | None, url: str | None, *, is_demo: bool = False) -> None:
        port = _next_port(int(url.rpartition(":")[2])) if url else 8001
        location = f" at {url}" if url else ""
        process = f" (process {pid})" if pid else ""
        alternative = f"start a second one:\n  TAPELINE_HOME=/another/folder TAPELINE_PORT={port} {_start_command()}"
        if is_demo:
            message = (
                f"a demo runs on {home}{location}{process}, and ends in a few minutes; wait for it, or {alternative}"
            )
        else:
            message = f"Tapeline already runs on {home}{location}{process}; use it, stop it, or {alternative}"
        super().__init__(message)
        self.home, self.pid, self.url = home, pid, url


class LocalStack:
    """Broker, web process, worker and scheduler on this machine; a context manager.

    An external database or broker in the settings replaces the embedded one. Port 0 means any free port;
    ``url`` contains the actual one.

    Args:
        notify: called with a message for the user, for example when a process has exited and will be
            restarted.
        is_demo: whether it is a demo that ends by itself; the error of a second stack says so.
    """

    def __init__(
        self, settings: Settings, *, notify: Callable[[str], None] = lambda text: None, is_demo: bool = False
    ) -> None:
        self.settings = settings
        self._owner = {"pid": os.getpid()} | ({"demo": True} if is_demo else {})
        self._notify = notify
        self._release = ExitStack()  # the lock and the listening socket
        self._lock = self._listener = -1
        self._logs: LogWriter | None = None
        self._broker: Broker | None = None
        self._children: list[StackProcess] = []
        self._guard: OrphanReaper | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake_up = threading.Event()

    @property
    def url(self) -> str:
        """The URL of page and API."""
        return url_of(self.settings.host, self.settings.port)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by name."""
        return {child.name: child.pid for child in self._children}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all processes, and wait until the web process responds. After a failure, none is left running.

        Raises:
            StackError: the stack cannot start, for instance HomeInUse or PortTaken.
        """
        try:
            self._refuse_open_access()
            self._claim_folder()
            self._claim_port()
            self._guard = OrphanReaper(self._lock)
            self._logs = LogWriter(self.settings.home / "logs", ("broker", "migrate", "web", "worker", "scheduler"))
            self._start_broker()
            self._migrate()
            for child in self._create_children():
                self._start(child)
            self._wait_until_healthy()
        except BaseException:  # Ctrl-C too
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._supervise, name="watcher", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop all processes: SIGTERM, then SIGKILL after the grace period, or at once on a second Ctrl-C."""
        while True:
            try:
                self._stop()
            except KeyboardInterrupt:
                self._wake_up.set()
            else:
                return

    def _stop(self) -> None:
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        if self._listener >= 0:
            # Otherwise clients would connect to a socket on which no process accepts connections, and wait.
            os.close(self._listener)
            self._listener = -1
        # The broker last: the other processes may still use it.
        for children in ([child for child in self._children if not self._is_broker(child)], self._children):
            for child in children:
                child.terminate()
            deadline = time.monotonic() + GRACE_S
            for child in children:
                while child.exit_code() is None and time.monotonic() < deadline and not self._wake_up.is_set():
                    time.sleep(0.02)
            for child in children:
                child.end(0)
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self._logs is not None:
            logs, self._logs = self._logs, None
            logs.close()
        if self._broker is not None:
            self._broker.socket.unlink(missing_ok=True)
        self._release.close()

    def _claim_folder(self) -> None:
        home = self.settings.home
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            (home / "logs").mkdir(exist_ok=True)
            self._lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StackError(
                f"the state folder {home} cannot be used: {error.strerror}; use another one:\n"
                f"  TAPELINE_HOME=/another/folder tapeline up"
            ) from error
        self._release.callback(os.close, self._lock)
        deadline = time.monotonic() + GRACE_S + 3
        has_notified = False
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _read_owner(self._lock)
                pid, url = owner.get("pid"), owner.get("url")
                # After a kill, the stack's guard holds the lock until the remaining processes have exited.
                if pid is None or psutil.pid_exists(pid) or time.monotonic() > deadline:
                    raise HomeInUse(home, pid, url, is_demo=bool(owner.get("demo"))) from None
                if not has_notified:
                    self._notify("waiting for processes of the previous run to exit ...")
                    has_notified = True
                time.sleep(_POLL_INTERVAL_S)
            else:
                break
        _write_owner(self._lock, self._owner)

    def _claim_port(self) -> None:
        """Listen on a socket that the web process inherits: the port is reserved before anything starts, and while the
        web process restarts."""
        host, port = self.settings.host, self.settings.port
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family)
        except OSError as error:
            raise StackError(f"TAPELINE_HOST={host} is not an address of this machine: {error.strerror}") from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(host, port) from error
            raise StackError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
        self.settings = replace(self.settings, port=listener.getsockname()[1])
        self._listener = listener.detach()
        _write_owner(self._lock, self._owner | {"url": self.url})

    def _start_broker(self) -> None:
        if self.settings.broker_url is not None:
            return
        try:
            broker = Broker(self.settings.home, **self._log_of("broker"), environ=os.environ)
        except BrokerError as error:
            raise StackError(f"{error}; name a Redis or Valkey server with TAPELINE_BROKER_URL=redis://...") from error
        broker.prepare()
        self._broker = broker
        self.settings = replace(self.settings, broker_url=broker.url)
        self._start(broker.child)
        try:
            broker.wait_until_ready()
        except BrokerError:
            # Its files may be damaged, and are not needed.
            broker.child.end(0)
            broker.forget_messages()
            broker.prepare()
            broker.child.start()
            self._register_with_guard(broker.child)
            try:
                broker.wait_until_ready()
            except BrokerError as error:
                raise self._create_error(broker.child, str(error)) from error

    def _migrate(self) -> None:
        child = self._create_process("migrate", "-m", "migrations.upgrade")
        child.start()
        try:
            code = child.wait(_MIGRATION_TIMEOUT_S)
        except TimeoutError:
            code = None
        finally:
            child.end(0)
        if code != 0:
            raise self._create_error(child, "the database could not be migrated")

    def _refuse_open_access(self) -> None:
        """Reject ``local`` on a non-loopback address: it is for ports that a container publishes on loopback only."""
        settings = self.settings
        if not settings.keys_required and not is_loopback(settings.host):
            raise StackError(
                f"TAPELINE_AUTH=local and TAPELINE_HOST={settings.host} would give access without a key; "
                "unset TAPELINE_AUTH, and create a key:\n  tapeline keys create NAME"
            )

    def _create_children(self) -> list[StackProcess]:
        web = self._create_process(
            "web",
            *("-m", "gunicorn", "-c", "python:service.web.gunicorn_conf"),
            *("--bind", f"fd://{self._listener}", "service.web.wsgi:app"),
            pass_fds=[self._listener],
        )
        return [
            web,
            self._create_process("worker", "-m", "workers"),
            self._create_process("scheduler", "-m", "workers.scheduler"),
        ]

    def _create_process(self, name: str, *arguments: str, pass_fds: list[int] | None = None) -> StackProcess:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
        return StackProcess(
            name,
            [sys.executable, *arguments],
            environ=inherited | self.settings.to_env(),
            # Not the user's current folder: Python and Celery would import from there.
            folder=self.settings.home,
            **self._log_of(name),
            pass_fds=pass_fds or [],
        )

    def _start(self, child: StackProcess) -> None:
        self._children.append(child)
        child.start()
        self._register_with_guard(child)

    def _register_with_guard(self, child: StackProcess) -> None:
        if self._guard is not None:
            self._guard.watch(child.pid)

    def _log_of(self, name: str) -> dict[str, Any]:
        output = self._logs.descriptor(name) if self._logs is not None else None
        return {"log": self.settings.home / "logs" / f"{name}.log", "output": output}

    def _is_broker(self, child: StackProcess) -> bool:
        return self._broker is not None and child is self._broker.child

    def _wait_until_healthy(self) -> None:
        web = next(child for child in self._children if child.name == "web")
        started_at = time.monotonic()
        has_notified = False
        while time.monotonic() - started_at < _READY_TIMEOUT_S:
            code = web.exit_code()
            if code is not None:
                raise self._create_error(web, f"the web process exited right after its start ({describe_exit(code)})")
            if is_healthy(self.settings.host, self.settings.port, timeout_s=0.5):
                return
            if not has_notified and time.monotonic() - started_at > _SLOW_START_S:
                self._notify(
                    f"the web process is still starting; waiting up to {_READY_TIMEOUT_S:g} s (is the machine busy?)"
                )
                has_notified = True
            time.sleep(0.05)
        raise self._create_error(web, f"the web process did not respond within {_READY_TIMEOUT_S:g} s")

    def _create_error(self, child: StackProcess, summary: str) -> StackError:
        tail = child.tail()
        return StackError(
            f"{summary}:\n{_indent(tail)}\ncomplete log: {child.log}" if tail else f"{summary}; it logged nothing"
        )

    def _supervise(self) -> None:
        """Restart processes that exit, with exponentially growing delays."""
        delays: dict[str, float] = {}
        restart_at: dict[str, float] = {}
        while not self._stopping.wait(_POLL_INTERVAL_S):
            now = time.monotonic()
            if self._logs is not None:
                self._logs.keep_running()
            if self._guard is not None and not self._guard.alive:
                self._guard = OrphanReaper(self._lock)
                for child in self._children:
                    self._guard.watch(child.pid)
            for child in self._children:
                if child.name in restart_at:
                    if now >= restart_at[child.name]:
                        del restart_at[child.name]
                        self._restart(child)
                    continue
                code = child.exit_code()
                if code is None:
                    continue
                if self._guard is not None:
                    self._guard.forget(child.pid)
                child.end(0)  # kills the rest of its process group
                is_stable = now - child.started_at > _STABLE_RUN_S
                delay = _MIN_RESTART_DELAY_S if is_stable else delays.get(child.name, _MIN_RESTART_DELAY_S)
                delays[child.name] = min(2 * delay, _MAX_RESTART_DELAY_S)
                restart_at[child.name] = now + delay
                tail = child.tail(8)
                excerpt = f":\n{_indent(tail)}" if tail else ""
                self._notify(
                    f"the {child.name} process exited ({describe_exit(code)}); it restarts in {delay:g} s{excerpt}"
                )

    def _restart(self, child: StackProcess) -> None:
        try:
            if self._is_broker(child) and self._broker is not None:
                self._broker.prepare()
            child.start()
            self._register_with_guard(child)
        except OSError as error:  # no processes or descriptors left: retried in the next round
            self._notify(f"the {child.name} process cannot start: {error.strerror}")


def is_healthy(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether a Tapeline web process responds there."""
    hostname = url_of(host, port).removeprefix("http://").rpartition(":")[0].strip("[]")
    connection = http.client.HTTPConnection(hostname, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz", headers={"Host": f"localhost:{port}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _next_port(port: int) -> int:
    return port + 1 if port < 65535 else 8000


def _start_command() -> str:
    """The command that started this process."""
    return "make up" if "MAKELEVEL" in os.environ else "tapeline up"


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())


def _read_owner(lock: int) -> dict[str, Any]:
    with suppress(ValueError):
        owner = json.loads(os.pread(lock, 4096, 0))
        if isinstance(owner, dict):
            return owner
    return {}


def _write_owner(lock: int, owner: dict[str, Any]) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(owner).encode(), 0)
