"""Joining a large room: CPU, the time until one can speak in it, memory."""

from __future__ import annotations

import asyncio
import time

from tests.measure import machine
from tests.measure.instances import Instance
from tests.measure.lab import Lab, ResidentsProcess


async def measure(lab: Lab, members: int, servers: int, version: str = "11") -> None:
    """Join a room of `members` users of `servers` servers, in turns with each kind of server."""
    residents = lab.residents(servers)
    try:
        for database in lab.databases:
            for _ in range(lab.rounds):
                for kind in lab.kinds:
                    room = residents.tell("room", members=members, version=version)["room_id"]
                    async with lab.instance(kind, database) as instance:
                        await _join(lab, instance, database, residents, room, members)
    finally:
        residents.close()


async def _join(
    lab: Lab,
    instance: Instance,
    database: str,
    residents: ResidentsProcess,
    room_id: str,
    members: int,
) -> None:
    user = await instance.register("newcomer")
    await user.sync(None)
    await instance.quiet()
    machine.forget_peak(instance.pid)
    memory = machine.resident_mb(instance.pid)
    used, used_db, began = instance.used(), instance.used_by_database(), time.monotonic()
    await user.join(room_id, residents.names[0])
    answered = time.monotonic() - began
    cpu_answered = instance.used() - used
    await user.send(room_id, "hello")
    sendable = time.monotonic() - began
    # Some servers answer when they know, others what they know.
    while await user.members(room_id) < members + 1:
        await asyncio.sleep(1)
    complete = time.monotonic() - began
    cpu_complete = instance.used() - used
    await instance.quiet()
    cpu_quiet = instance.used() - used
    used_db = instance.used_by_database() - used_db
    # What the question costs is no part of the join.
    asked = instance.used()
    await user.members(room_id)
    await instance.quiet()
    question = instance.used() - asked
    lab.report(
        "join",
        instance.kind,
        database,
        cpu_answered_s=cpu_answered,
        cpu_complete_s=cpu_complete - question,
        cpu_quiet_s=cpu_quiet - question,
        of_it_database_s=used_db,
        answered_s=answered,
        sendable_s=sendable,
        complete_s=complete,
        memory_growth_mb=machine.peak_mb(instance.pid) - memory,
    )
