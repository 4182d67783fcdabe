"""A machine whose way to the object store breaks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from service.runtime.settings import Settings
from service.states import MachineFaultReason
from service.storage.database import Database
from tests.object_servers import BUCKET, FaultyProxy, credentials
from tests.waiting import wait_until
from workers.messages import MachineFault
from workers.supervisor.machine import MachineState
from workers.supervisor.totals import WorkerTotals


def test_a_machine_claims_no_jobs_until_the_object_store_takes_files_again(
    moto: str, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    with closing(FaultyProxy(moto)) as proxy, closing(Database(sqlite_url)) as database:
        environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_LEASE_S": "4", "TAPELINE_STORE_ENDPOINT": proxy.url}
        environ |= {"TAPELINE_DATABASE_URL": sqlite_url, "TAPELINE_STORE": f"s3://{BUCKET}/machine"}
        totals = WorkerTotals()
        machine = MachineState(Settings.from_env(environ, cores=1), database, totals)
        machine.check()
        assert machine.blocked is None
        proxy.fault = lambda exchange: (503, b"") if exchange.method == "GET" else None
        machine.check()
        assert machine.fault is not None
        assert machine.fault.reason is MachineFaultReason.STORE
        assert f"s3://{BUCKET}/machine" in machine.fault.message
        proxy.fault = lambda exchange: (507, b"<Code>QuotaExceeded</Code>") if len(exchange.body) > 1000 else None
        machine.report(MachineFault(MachineFaultReason.STORE, "full", f"s3://{BUCKET}/machine", 2000))
        machine.check()
        assert machine.blocked is not None
        assert machine.blocked["message"] == "full"
        seconds = machine.blocked["seconds"]
        wait_until(lambda: (machine.blocked or {})["seconds"] > seconds, "a second")
        machine.check()
        assert machine.blocked["seconds"] > seconds
        proxy.fault = lambda exchange: None
        machine.check()
        assert machine.blocked is None
        assert totals.document()["store_errors"] == 2
