"""A sender on a real database with a clock of its own, rooms written row by row, and the other
servers, which take what they are sent or do not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from federation.client.errors import RemoteHttpError, Unreachable
from federation.sender.sender import FederationSender
from storage import events, outgoing_to_device, receipts, room_servers
from storage.bus import MemoryBus
from storage.database import Database
from storage.feed import Feed
from storage.outgoing import CHANNEL
from storage.receipts import Receipt
from storage.transaction import Transaction

HERE = "here.example"
START = 1_700_000_000.0


@dataclass
class Sent:
    """A transaction as it came."""

    destination: str
    txn_id: str
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def pdus(self) -> list[str]:
        """The bodies of the events."""
        return [pdu["content"].get("body", pdu["type"]) for pdu in self.content["pdus"]]

    def edus(self, edu_type: str) -> list[Any]:
        """The contents of the EDUs of one type."""
        return [edu["content"] for edu in self.content["edus"] if edu["edu_type"] == edu_type]


@dataclass
class Others:
    """Stands for the client that reaches the other servers."""

    attempts: list[Sent] = field(default_factory=list)
    taken: list[Sent] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    max_pdus: dict[str, int] = field(default_factory=dict)
    held: dict[str, Deferred[None]] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    most_under_way: int = 0

    async def put_encoded(
        self, destination: str, path: str, content: bytes, *, timeout_s: float, max_bytes: int
    ) -> Any:
        sent = Sent(destination, path.rpartition("/")[2], content)
        self.attempts.append(sent)
        self.under_way[destination] = self.under_way.get(destination, 0) + 1
        self.most_under_way = max(self.most_under_way, self.under_way[destination])
        try:
            if destination in self.held:
                await self.held[destination]
        finally:
            self.under_way[destination] -= 1
        if destination in self.down:
            raise Unreachable(destination, "is down")
        if len(sent.pdus) > self.max_pdus.get(destination, 50):
            raise RemoteHttpError(destination, 413)
        self.taken.append(sent)
        return {"pdus": {}}

    async def probe(self, destination: str, *, timeout_s: float) -> None:
        if destination in self.down:
            self.attempts.append(Sent(destination, "", b"{}"))
            raise Unreachable(destination, "is down")

    def to(self, destination: str) -> list[Sent]:
        """What a server took."""
        return [sent for sent in self.taken if sent.destination == destination]

    def pdus(self, destination: str) -> list[str]:
        """The events that a server took, in order."""
        return [pdu for sent in self.to(destination) for pdu in sent.pdus]

    def edus(self, destination: str, edu_type: str) -> list[Any]:
        """The contents of the EDUs that a server took, in order."""
        return [edu for sent in self.to(destination) for edu in sent.edus(edu_type)]


class World:
    """A database and the senders on it. `statements` are those of finished transactions."""

    def __init__(self, test: TestCase, db: Database) -> None:
        self.db = db
        self.clock = Clock()
        self.clock.advance(START)
        self.others = Others()
        self.senders: list[FederationSender] = []
        self._numbers = itertools.count(1)
        test.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))

    async def start(self) -> FederationSender:
        """One more process, or a restarted one."""
        clock: Any = self.clock
        bus = MemoryBus(clock)
        feed = Feed(self.db, bus, clock)
        sender = FederationSender(self.db, feed, bus, clock, self.client, HERE, random=Random(1))
        self.senders.append(sender)
        await sender.start()
        await self.settle()
        return sender

    @property
    def client(self) -> Any:
        return self.others

    async def stop(self) -> None:
        """Stop all in an orderly way."""
        while self.senders:
            await self.senders.pop().stop()

    def kill(self) -> None:
        """The process ends in the middle of everything; its leases run out."""
        for sender in self.senders:
            _silence(sender)
        self.senders.clear()
        self.others.held.clear()
        self.clock.advance(31)

    async def settle(self) -> None:
        """Until nothing goes on that does not wait for the clock or for another server."""
        quiet = 0
        while quiet < 3:
            before = len(self.others.attempts)
            self.clock.advance(0)
            await deferLater(reactor, 0.001)
            busy = any(_is_busy(sender, self.others) for sender in self.senders)
            quiet = 0 if busy or len(self.others.attempts) != before else quiet + 1

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await self.settle()

    # What happens here

    async def room(self, number: int, *servers: str) -> None:
        """A room that these servers are in."""
        await self.db.write(_add_room, number, servers)

    async def say(self, room: int, body: str, **columns: Any) -> int:
        """An event in a room; its position."""
        return await self.db.write(_add_event, next(self._numbers), room, body, columns)

    async def receipt(self, room: int, event_id: str, **columns: Any) -> None:
        """A receipt."""
        row: dict[str, Any] = {
            "room_nid": room,
            "user_id": f"@a:{HERE}",
            "type": "m.read",
            "thread_id": "",
            "event_id": event_id,
            "event_pos": next(self._numbers),
            "ts": 5,
            "pos": 0,
        } | columns
        await self.db.write(_add_receipt, Receipt(**row))

    async def message(self, destination: str, size: int = 10, users: Collection[str] = ()) -> str:
        """A message for devices of another server; its ID."""
        message_id = f"m{next(self._numbers)}"
        messages = {
            user: {"D": json.dumps({"x": "y" * size})} for user in users or [f"@u:{destination}"]
        }
        await self.db.write(
            outgoing_to_device.add, destination, f"@a:{HERE}", "m.x", message_id, messages
        )
        return message_id

    async def member(
        self, room: int, user_id: str, membership: str, previous: str = "leave", **columns: Any
    ) -> int:
        """A member event, with what follows from it."""
        values = (next(self._numbers), room, user_id, membership, previous, columns)
        return await self.db.write(_add_member, *values)


def _is_busy(sender: Any, others: Others) -> bool:
    """Whether something goes on that does not wait for another server."""
    schedule = sender._schedule
    waiting = {name for name, count in others.under_way.items() if count and name in others.held}
    running = {destination.name for destination in schedule._running}
    return bool(sender._working or sender._under_way or schedule._ready or running - waiting)


def _silence(sender: Any) -> None:
    sender._stopped = True
    for unsubscribe in sender._unsubscribe:
        unsubscribe()
    for loop, _ in sender._loops:
        if loop.running:
            loop.stop()
    keeper = sender._shards._keeper
    if keeper._loop.running:
        keeper._loop.stop()
    schedule = sender._schedule
    schedule._stopped = True
    schedule._ready.clear()
    for destination in list(schedule._running):
        schedule.forget(destination)


def _add_room(txn: Transaction, number: int, servers: Collection[str]) -> None:
    txn.execute(
        "INSERT INTO rooms (room_nid, room_id, version, head_version, depth, extremities,"
        " state_version, notify_total, highlight_total, last_pos, created_ts, remote_servers)"
        " VALUES (?, ?, '11', 1, 1, '[]', 1, 0, 0, 0, 0, ?)",
        (number, f"!r{number}:{HERE}", len(servers)),
    )
    room_servers.put(txn, number, dict.fromkeys(servers, 1))


_EMPTY: dict[str, Any] = {
    "depth": 1,
    "type": "m.room.message",
    "state_key": None,
    "sender": f"@a:{HERE}",
    "origin_server_ts": 1,
    "status": events.ACCEPTED,
    "contains_url": False,
    "notify": 0,
    "notify_total": 0,
    "highlight_total": 0,
    "outgoing": True,
}


def _add_event(txn: Transaction, number: int, room: int, body: str, columns: dict[str, Any]) -> int:
    values: dict[str, Any] = dict.fromkeys(events.EventRow._fields)
    values |= _EMPTY | columns
    content = values.pop("content", {"body": body})
    pos = txn.next_pos()
    values |= {
        "event_nid": number,
        "event_id": f"$e{number}",
        "room_nid": room,
        "pos": pos,
        "json": json.dumps({"content": content, "type": values["type"]}, separators=(",", ":")),
    }
    events.insert(txn, [events.EventRow(**values)])
    txn.notify(CHANNEL)
    return pos


def _add_member(
    txn: Transaction,
    number: int,
    room: int,
    user_id: str,
    membership: str,
    previous: str,
    columns: dict[str, Any],
) -> int:
    own = {
        "type": "m.room.member",
        "state_key": user_id,
        "content": {"membership": membership, "body": f"{membership} {user_id}"},
    }
    pos = _add_event(txn, number, room, "", own | columns)
    txn.execute(
        "INSERT INTO membership_log (pos, room_nid, user_id, membership, previous, event_nid,"
        " event_id, sender) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (pos, room, user_id, membership, previous, number, f"$e{number}", f"@a:{HERE}"),
    )
    change = (membership == "join") - (previous == "join")
    server = user_id.partition(":")[2]
    if server != HERE:
        room_servers.change(txn, room, {server: change})
    return pos


def _add_receipt(txn: Transaction, row: Receipt) -> None:
    receipts.put(txn, [row._replace(pos=txn.next_pos())])
    txn.notify(CHANNEL)
