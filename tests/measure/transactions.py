"""Transactions of 50 events of one room: how many events a core takes in.

Each comes once the server is quiet (`transactions`), or as soon as the one before is answered
(`stream`): caches of the processor are cold, or warm.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from tests.measure import machine
from tests.measure.client import MeasuringClient
from tests.measure.instances import Instance
from tests.measure.lab import Lab, ResidentsProcess


async def measure(
    lab: Lab, transactions: int = 40, size: int = 50, members: int = 100, version: str = "11"
) -> None:
    """Send transactions one after the other, in turns to each kind of server."""
    residents = lab.residents(10)
    try:
        for database in lab.databases:
            for _ in range(lab.rounds):
                for kind in lab.kinds:
                    room = residents.tell("room", members=members, version=version)["room_id"]
                    async with lab.instance(kind, database) as instance:
                        await _receive(lab, instance, database, residents, room, transactions, size)
    finally:
        residents.close()


async def _receive(
    lab: Lab,
    instance: Instance,
    database: str,
    residents: ResidentsProcess,
    room_id: str,
    transactions: int,
    size: int,
) -> None:
    user = await instance.register("reader")
    await user.join(room_id, residents.names[0])
    while await user.members(room_id) < 2:
        await asyncio.sleep(0.5)
    await instance.quiet()
    for name, count in (("", 4), ("transactions", transactions), ("stream", transactions)):
        residents.tell("transactions", room_id=room_id, count=count, size=size)
        await instance.quiet()
        used, used_db = instance.used(), instance.used_by_database()
        answered = 0.0
        for _ in range(count):
            done = await asyncio.to_thread(residents.tell, "send", destination=instance.server.name)
            assert not done["refused"], done
            answered += done["seconds"]
            if name != "stream":
                # Synapse answers before it has them, and drops what it has too much of.
                await machine.quiet(instance.used, 0.3, 0.1)
        await instance.quiet()
        total, database_part = instance.used() - used, instance.used_by_database() - used_db
        last = await _last_message(user, room_id)
        if name == "stream" and instance.kind == "synapse":
            continue  # What it dropped cost nothing.
        assert last == f"message {count * size - 1}", last
        if not name:
            continue  # The first ones are to warm up.
        events = count * size
        lab.report(
            name,
            instance.kind,
            database,
            cpu_ms_per_pdu=total * 1000 / events,
            of_it_database_ms=database_part * 1000 / events,
            answered_ms_per_pdu=answered * 1000 / events,
            cpu_ms_of_each=total * 1000 / count,
        )
        print(f"{'':<13}{events / total:.0f} events a second and core")


async def _last_message(user: MeasuringClient, room_id: str) -> str | None:
    path = f"/rooms/{quote(room_id)}/messages?dir=b&limit=1"
    chunk = (await user.call("GET", path))["chunk"]
    return chunk[0]["content"].get("body") if chunk else None
