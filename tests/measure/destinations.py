"""One event for many servers; and many servers that cannot be reached."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from federation.sender.destination import shard_of
from tests.measure.instances import Instance
from tests.measure.lab import Lab, ResidentsProcess
from tests.support.network import ca_file
from tests.support.process import ROOT, environment

_BODY_BYTES = 700
"""About what a transaction of one message has."""
_DEAD_FOR_MS = 3_600_000
_WINDOW_S = 30.0


async def measure_alive(lab: Lab, count: int) -> None:
    """Send messages in a room of `count` other servers: over new, then over kept connections."""
    residents = lab.residents(count)
    try:
        for database in lab.databases:
            for _ in range(lab.rounds):
                for kind in lab.kinds:
                    room = residents.tell("room", members=count + 1, version="11")["room_id"]
                    # Presence makes transactions of its own.
                    silent = {"enabled": False}
                    async with lab.instance(kind, database, presence=silent) as instance:
                        cold, warm = await _speak(instance, residents, room, count)
                    bare = _bare(residents.names)
                    lab.report(
                        "destinations",
                        kind,
                        database,
                        new_connection_ms=cold,
                        kept_connection_ms=warm,
                        bare_new_ms=bare[0],
                        bare_kept_ms=bare[1],
                        besides_new_ms=cold - bare[0],
                        besides_kept_ms=warm - bare[1],
                    )
    finally:
        residents.close()


async def _speak(
    instance: Instance, residents: ResidentsProcess, room_id: str, count: int
) -> tuple[float, float]:
    """Milliseconds of CPU for each destination, over new connections and over kept ones."""
    user = await instance.register("speaker")
    await user.join(room_id, residents.names[0])
    while await user.members(room_id) < count + 2:
        await asyncio.sleep(0.5)
    await instance.quiet()
    # What a join leaves behind; connections end, those for the keys of the servers too.
    await asyncio.sleep(65)
    await instance.quiet()
    found = []
    for number in range(3):
        before, used = residents.tell("stats")["sent"], instance.used()
        await user.send(room_id, f"message {number}")
        while residents.tell("stats")["sent"] < before + count:
            await asyncio.sleep(0.2)
        await instance.quiet()
        found.append((instance.used() - used) * 1000 / count)
    return found[0], min(found[1:])


def _bare(names: Sequence[str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "tests.measure.bare", str(ca_file()), str(_BODY_BYTES)]
    done = subprocess.run(
        [*command, *names], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    new, kept = map(float, done.stdout.split())
    return new, kept


async def measure_dead(lab: Lab, count: int) -> None:
    """Hearth with a room of `count` servers that have been down for an hour: parts of a core,
    while nothing happens and with a message a second; the same without them."""
    for database in lab.databases:
        for _ in range(lab.rounds):
            async with lab.instance("hearth", database, presence={"enabled": False}) as instance:
                user = await instance.register("speaker")
                room = await user.create_room()
                shares = [await _shares(instance, user, room)]
                instance.server.stop()
                user.close()
                _bury(instance, room, count)
                await instance.start()
                user = user.again()
                shares.append(await _shares(instance, user, room))
            (idle, busy), (idle_dead, busy_dead) = shares
            lab.report(
                "dead",
                "hearth",
                database,
                idle_percent=idle * 100,
                idle_with_dead_percent=idle_dead * 100,
                speaking_percent=busy * 100,
                speaking_with_dead_percent=busy_dead * 100,
            )


async def _shares(instance: Instance, user: Any, room_id: str) -> tuple[float, float]:
    await user.send(room_id, "first")
    await asyncio.sleep(10)
    found = []
    for speaks in (False, True):
        used, began = instance.used(), time.monotonic()
        while time.monotonic() < began + _WINDOW_S:
            if speaks:
                await user.send(room_id, "hello")
            await asyncio.sleep(1)
        found.append((instance.used() - used) / (time.monotonic() - began))
    return found[0], found[1]


def _bury(instance: Instance, room_id: str, count: int) -> None:
    """Put servers into a room that nobody listens for, and that have failed for an hour."""
    names = [f"127.{1 + n // 60_000}.{n // 250 % 240}.{1 + n % 250}:1" for n in range(count)]
    now = int(time.time() * 1000)
    # The interval doubles: a server that has been down for so long waits for about as long.
    waits = [random.randrange(_DEAD_FOR_MS) for _ in names]
    pos = _run(instance, "SELECT pos FROM clock")[0][0]
    nid = _run(instance, "SELECT room_nid FROM rooms WHERE room_id = ?", [room_id])[0][0]
    _fill(instance, "room_servers (room_nid, server_name, joined)", [(nid, n, 1) for n in names])
    _run(instance, "UPDATE rooms SET remote_servers = ? WHERE room_nid = ?", [count, nid])
    _fill(
        instance,
        "destinations (server_name, shard, pos, failing_since, retry_at, retry_interval)",
        [
            (name, shard_of(name), pos, now - _DEAD_FOR_MS, now + wait, _DEAD_FOR_MS)
            for name, wait in zip(names, waits, strict=True)
        ],
    )


def _connect(instance: Instance) -> Any:
    if instance.cluster is not None:
        return psycopg2.connect(instance.database_url)
    return sqlite3.connect(instance.database_url.removeprefix("sqlite:///"))


def _run(instance: Instance, sql: str, args: Sequence[Any] = ()) -> list[Any]:
    connection = _connect(instance)
    try:
        cursor = connection.cursor()
        cursor.execute(sql if instance.cluster is None else sql.replace("?", "%s"), args)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
        return list(rows)
    finally:
        connection.close()


def _fill(instance: Instance, table: str, rows: Sequence[Sequence[Any]]) -> None:
    connection = _connect(instance)
    try:
        if instance.cluster is None:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        else:
            execute_values(connection.cursor(), f"INSERT INTO {table} VALUES %s", rows)
        connection.commit()
    finally:
        connection.close()
