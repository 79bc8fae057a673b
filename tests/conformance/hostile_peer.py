"""What the tests with a hostile peer have in common: a Hearth, a room, a peer in it."""

from __future__ import annotations

import gc
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.core.event import Event
from homeserver.core.types import JsonObject
from tests.support.federation import (
    FederatedServer,
    Federation,
    eventually,
    make_federation,
)
from tests.support.peer import Peer, PeerRoom, make_peer
from tests.support.server import User

MIB = 1024 * 1024


def peak_memory() -> int:
    """The most memory that the process has had, in bytes; since `forget_peak` where that works."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Let the peak begin at what the process has now (Linux only)."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


class HostilePeerCase(TestCase):
    """`alice` has a public room on `hearth`, in which the `peer`'s user `mallory` is.

    Every test ends with `unharmed`.
    """

    version = "10"
    timeout = 120

    hearth: FederatedServer
    federation: Federation
    peer: Peer
    alice: User
    room_id: str
    room: PeerRoom
    mallory: str

    def setUp(self) -> Any:
        capturing = capture_logs()
        self.log: list[Any] = capturing.__enter__()
        self.addCleanup(capturing.__exit__, None, None, None)
        return Deferred.fromCoroutine(self.prepare())

    async def prepare(self) -> None:
        (self.hearth,) = self.federation = await make_federation(self, 1)
        self.peer = await make_peer(self, self.federation)
        self.alice = await self.hearth.register("alice")
        self.room_id = await self.alice.create_room(preset="public_chat", room_version=self.version)
        self.room = await self.peer.join(self.hearth.name, self.room_id)
        self.mallory = self.peer.user()
        self.before = await self.state()
        forget_peak()
        self.memory_before = peak_memory()

    # Looking

    async def state(self, room_id: str | None = None) -> dict[tuple[str, str], str]:
        """The current state on Hearth, as event IDs."""
        events = await self.alice.ok("GET", f"/rooms/{room_id or self.room_id}/state")
        return {(each["type"], each["state_key"]): each["event_id"] for each in events}

    async def has(self, event: Event | str, room_id: str | None = None) -> bool:
        """Is the event shown to alice?"""
        event_id = event.event_id if isinstance(event, Event) else event
        status, _ = await self.alice.call(
            "GET", f"/rooms/{room_id or self.room_id}/event/{event_id}"
        )
        return status == 200

    async def timeline(self) -> list[str]:
        """The event IDs that alice can page through, the newest first."""
        answer = await self.alice.ok(
            "GET", f"/rooms/{self.room_id}/messages", query={"dir": "b", "limit": 100}
        )
        return [event["event_id"] for event in answer["chunk"]]

    async def unharmed(self, *, grown_by: int = 64 * MIB, patience: float = 40.0) -> None:
        """Nothing crashed, the room's state is as before, the memory is bounded, and an honest
        message goes both ways."""
        for line in self.log:
            self.assertNotIn(line["log_level"], ("error", "critical"), line)
            self.assertNotIn("exc_info", line)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(await self.state(), self.before)
        self.assertLess(peak_memory() - self.memory_before, grown_by)
        said = await self.alice.send(self.room_id, "still here")
        self.assertTrue(await self.has(said))
        honest = self.room.make(
            "m.room.message",
            {"msgtype": "m.text", "body": "honest"},
            self.mallory,
            prev=list(self.room.states)[:1] or None,
        )
        await self.peer.sent(self.hearth.name, honest)
        # What the room waits for does not come; nobody waits for that long.
        await eventually(lambda: self.has(honest), "an honest message", within=patience)

    # Sending

    async def refused(self, *events: Event | JsonObject, **options: Any) -> Any:
        """Send PDUs, which are answered with an error each and not shown; the answer."""
        status, answer = await self.peer.send(self.hearth.name, events, **options)
        self.assertEqual(status, 200, answer)
        for event in events:
            if isinstance(event, Event):
                verdict = answer["pdus"].get(event.event_id, {})
                self.assertIn("error", verdict, event.pdu)
                self.assertFalse(await self.has(event))
        # One line says who did what.
        self.assertIn(self.peer.name, [line.get("origin") for line in self.log])
        return answer

    async def not_shown(self, events: Sequence[Event]) -> None:
        """Send events; whatever the answer, a good one, none of them is shown."""
        status, answer = await self.peer.send(self.hearth.name, events)
        self.assertEqual(status, 200, answer)
        for event in events:
            self.assertFalse(await self.has(event), event.pdu)

    def said(self, body: str = "hello", **options: Any) -> Event:
        """A message of mallory's, not added to the model."""
        return self.room.make(
            "m.room.message", {"msgtype": "m.text", "body": body}, self.mallory, **options
        )
