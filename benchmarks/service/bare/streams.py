"""The lower bound for streams: one loop that reads the new events of a job and writes their text to all clients.

``python -m benchmarks.service.bare.streams PORT JOB``. It has no limits, deadlines, keys, replay or progress.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

import psycopg

from service.runtime.settings import Settings
from service.web.streaming.messages import message
from service.web.streaming.poller import DATABASE_POLL_INTERVAL_S
from service.wording import at_time

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nevent: snapshot\ndata: {}\n\n"


def main() -> None:
    port, job_id = int(sys.argv[1]), sys.argv[2]
    asyncio.run(_serve(port, job_id, Settings.from_env(os.environ, cores=1)))


async def _serve(port: int, job_id: str, settings: Settings) -> None:
    clients: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_HEAD)
        clients.add(writer)
        await reader.read()  # until the client disconnects
        clients.discard(writer)
        writer.close()

    read = _reader(settings, job_id)
    last = max((seq for seq, *_ in read(0)), default=0)
    async with await asyncio.start_server(serve, "127.0.0.1", port, backlog=1000):
        while True:
            await asyncio.sleep(DATABASE_POLL_INTERVAL_S)
            for seq, kind, data, created_ms in read(last):
                fields = json.loads(data) if isinstance(data, str) else data
                document = {"job": job_id, "seq": seq, "type": kind, "at": at_time(created_ms), **fields}
                text = message(kind, document, number=seq).encode()
                for writer in clients:
                    writer.write(text)
                last = seq


def _reader(settings: Settings, job_id: str) -> Any:
    query = "SELECT seq, type, data, created_ms FROM events WHERE job_id = ? AND seq > ? ORDER BY seq"
    if settings.embedded_database:
        connection: Any = sqlite3.connect(settings.database_url.removeprefix("sqlite:///"), timeout=30)
    else:
        connection = psycopg.connect(settings.database_url.replace("+psycopg", ""), autocommit=True)
        query = query.replace("?", "%s")

    def read(after: int) -> Sequence[tuple[int, str, Any, int]]:
        rows: Sequence[tuple[int, str, Any, int]] = connection.execute(query, (job_id, after)).fetchall()
        return rows

    return read


if __name__ == "__main__":
    main()
