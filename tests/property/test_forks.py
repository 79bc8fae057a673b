"""A room whose other servers fork its history at random: every projection and every client agrees
with the state that the specification's resolution gives.

HEARTH_TEST_LONG is a number of games to play instead of a few; HEARTH_TEST_SEED is the first one's
seed.
"""

from __future__ import annotations

import os
import random
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core import state_res
from homeserver.core.event import Event
from homeserver.rooms.receive import NOT_ADDED, Receiver
from storage import auth_index, memberships, rooms, state
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.events import ALICE as CREATOR
from tests.support.events import BOB, CAROL, RoomBuilder
from tests.support.federation import make_federation
from tests.support.server import TestServer, User

GAMES = int(os.environ.get("HEARTH_TEST_LONG") or 6)
SEED = int(os.environ.get("HEARTH_TEST_SEED") or 1)
STEPS = 60
VERSIONS = ("2", "6", "11", "12")

State = dict[tuple[str, str], str]


class Client:
    """Follows `/sync` and knows the state that it was told."""

    def __init__(self, user: User, limit: int) -> None:
        self.user = user
        self.filter = f'{{"room":{{"timeline":{{"limit":{limit}}}}}}}'
        self.since: str | None = None
        self.state: State = {}

    async def sync(self, room_id: str) -> None:
        answer = await self.user.sync(self.since, filter=self.filter)
        self.since = answer["next_batch"]
        room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        for part in ("state", "timeline"):
            for event in room.get(part, {}).get("events", []):
                if "state_key" in event:
                    self.state[event["type"], event["state_key"]] = event["event_id"]


class Game:
    def __init__(self, server: TestServer, user: User, seed: int) -> None:
        self.server, self.user = server, user
        self.rng = random.Random(seed)
        self.receiver = server.homeserver.services[Receiver]
        self.late: list[Event] = []
        # In some games the server remembers nothing of what events rest on but what it stored.
        self.forgets = seed % 2 == 0
        self.clients = [Client(user, limit) for limit in (1, 5, 100)]

    async def start(self) -> None:
        version = self.rng.choice(VERSIONS)
        self.room = RoomBuilder.started(
            version,
            members=[BOB, CAROL],
            users={BOB: 60, CAROL: 50},
            room_id=f"!{self.rng.getrandbits(32)}:a.example",
        )
        before = list(self.room.state.values())
        chain = [e for e in self.room.events.values() if e not in before]
        join = self.room.join(self.user.user_id)
        await self.receiver.adopt(join, self.room.version, before, chain)
        self.branches = [self.room]
        self.accepted = {join.event_id: dict(self.room.state_ids)}
        self.events = self.room.events

    async def play(self) -> None:
        await self.start()
        for _ in range(STEPS):
            self.step()
            if self.rng.random() < 0.5:
                await self.deliver()
            if self.rng.random() < 0.3:
                client = self.rng.choice(self.clients)
                await client.sync(self.room.room_id)
            if self.rng.random() < 0.1:
                await self.user.send(self.room.room_id, "from here")
        while self.late:
            await self.deliver()
        truth = await self.truth()
        for client in self.clients:
            await client.sync(self.room.room_id)
            known = {key: name for key, name in client.state.items() if name is not None}
            extra = {key for key in known if key not in truth}
            # A key that resolution took away cannot be told of by /sync.
            agreed = {key: name for key, name in known.items() if key not in extra}
            assert agreed == truth, (agreed.items() ^ truth.items(), self.room.version)

    def step(self) -> None:
        rng = self.rng
        branch = rng.choice(self.branches)
        if len(self.branches) < 3 and rng.random() < 0.15:
            self.branches.append(branch.fork())
        elif len(self.branches) > 1 and rng.random() < 0.2:
            other = rng.choice([item for item in self.branches if item is not branch])
            merged = state_res.resolve(
                [branch.state_ids, other.state_ids], self.events.get, branch.version
            )
            branch.merge(other, {key: self.events[name] for key, name in merged.items()})
            self.branches = [item for item in self.branches if item is not other]
        event = self.make(branch)
        if event is not None:
            self.late.append(event)

    def make(self, branch: RoomBuilder) -> Event | None:
        rng = self.rng
        sender = rng.choice([CREATOR, BOB, CAROL])
        member = branch.state.get(("m.room.member", sender))
        if member is None or member.membership != "join":
            return branch.join(sender) if rng.random() < 0.5 else None
        kind = rng.random()
        if kind < 0.3:
            return branch.message(sender, str(kind))
        if kind < 0.55:
            return branch.set_state("m.room.topic", {"topic": str(kind)}, sender)
        if kind < 0.65:
            return branch.set_state("m.room.name", {"name": str(kind)}, sender)
        if kind < 0.75:
            return branch.ban(CREATOR, rng.choice([BOB, CAROL]))
        if kind < 0.85:
            return branch.kick(CREATOR, rng.choice([BOB, CAROL]))
        levels = {BOB: rng.choice([0, 50, 60]), CAROL: rng.choice([0, 50])}
        listed = {} if branch.version.creators_privileged else {CREATOR: 100}
        return branch.power_levels(CREATOR, users={**listed, **levels})

    async def deliver(self) -> None:
        """Some of the events that are on their way, in any order."""
        self.rng.shuffle(self.late)
        count = self.rng.randint(1, max(1, len(self.late)))
        part, self.late = self.late[:count], self.late[count:]
        if self.forgets:
            for cache in self.server.homeserver.services[StateStore].auth.caches:
                cache.clear()
        judged = await self.receiver.add(self.room.room_id, part)
        self.late += [e for e in part if judged[e.event_id].status == NOT_ADDED]
        await self.truth()

    async def truth(self) -> State:
        """The current state: all projections must have the same."""

        def read(txn: Transaction) -> State:
            row = rooms.get(txn, self.room.room_id)
            assert row is not None and row.state_root is not None
            current = state.current(txn, row.room_nid)
            members = {
                entry.user_id: entry.membership for entry in memberships.of_room(txn, row.room_nid)
            }
            states: Any = self.server.homeserver.services[StateStore]
            from homeserver.rooms.room_tree import RoomTree

            tree = RoomTree(txn, states, row.room_nid, self.room.version)
            numbers = tree.all_numbers(row.state_root)
            assert {key: entry.event_nid for key, entry in current.items()} == numbers
            for (kind, user_id), entry in current.items():
                if kind == "m.room.member":
                    event = Event.from_json(entry.json, self.room.version, entry.event_id)
                    assert members[user_id] == event.membership
            self.check_heads(txn, tree, row)
            return {key: entry.event_id for key, entry in current.items()}

        return await self.server.homeserver.db.read(read)

    def check_heads(self, txn: Transaction, tree: Any, row: rooms.RoomRow) -> None:
        """The current state is the resolution of the states after the extremities."""
        from storage import events

        ends = events.get_many(txn, row.extremities)
        sets = []
        for end in ends.values():
            assert end.state_after is not None and end.status == events.ACCEPTED
            numbers = tree.all_numbers(end.state_after)
            found = tree.events_of(numbers.values())
            sets.append({key: found[number].event_id for key, number in numbers.items()})
        resolved = state_res.resolve(
            sets, tree.event, self.room.version, is_rejected=tree.is_rejected
        )
        numbers = tree.all_numbers(row.state_root)
        found = tree.events_of(numbers.values())
        assert resolved == {key: found[number].event_id for key, number in numbers.items()}


class ForksTest(TestCase):
    timeout = 600

    async def test_random_forks(self) -> None:
        for seed in range(SEED, SEED + GAMES):
            # Of its own, because event IDs of version 2 are chosen, alike in all games.
            (server,) = await make_federation(self, 1)
            user = await server.register(f"user{seed}")
            self.patch(auth_index, "_MANY", 1 if seed % 2 == 0 else 500)
            try:
                await Game(server, user, seed).play()
            except Exception as problem:
                raise AssertionError(f"seed {seed}: {problem!r}") from problem
            await server.stop()
