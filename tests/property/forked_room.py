"""A room of several servers that forks at random, and what one server made of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from homeserver.core import state_res
from homeserver.core.event import Event
from homeserver.rooms.receive import NOT_ADDED, KnownState, Receiver
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.timeline import Timeline
from storage import rooms, state
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.events import ALICE as CREATOR
from tests.support.events import BOB, CAROL, RoomBuilder
from tests.support.server import TestServer, User

MEMBER = "m.room.member"
VISIBILITY = ("m.room.history_visibility", "")
VISIBILITIES = ("world_readable", "shared", "invited", "joined")
VERSIONS = ("2", "6", "11", "12")

State = dict[tuple[str, str], Event]


@dataclass
class Placed:
    """An event of the timeline, and the state around it."""

    pos: int
    event: Event
    before: State
    after: State


class ForkedRoom:
    """`late` are events that are on their way to the server; `lost` never come by themselves."""

    def __init__(self, server: TestServer, seed: int) -> None:
        self.server = server
        self.rng = random.Random(seed)
        self.receiver = server.homeserver.services[Receiver]
        # There is nobody to ask for what is lost.
        server.homeserver.services[Timeline].filler = None
        self.late: list[Event] = []
        self.lost: set[str] = set()
        self.states: dict[str, Mapping[tuple[str, str], str]] = {}
        """The state before each event that other servers made."""
        self.users: list[User] = []
        self.done: list[str] = []
        self.timeline: list[Placed] = []
        self.moves: list[tuple[int, str, str, str]] = []
        self.current: State = {}

    @property
    def room_id(self) -> str:
        return self.room.room_id

    async def start(self) -> None:
        """Alice's room, entered by the first user of the server."""
        version = self.rng.choice(VERSIONS)
        self.users = [await self.server.register(name) for name in ("ute", "vera", "wim")]
        first, second, _ = (user.user_id for user in self.users)
        self.room = RoomBuilder.started(
            version,
            members=[BOB, CAROL],
            users={BOB: 60, CAROL: 50, first: 60, second: 50},
            power={"invite": 0},
            room_id=f"!{self.rng.getrandbits(32)}:a.example",
        )
        if self.rng.random() < 0.7:
            self._show_history(self.room)
        before = list(self.room.state.values())
        chain = [e for e in self.room.events.values() if e not in before]
        join = self.room.join(first)
        await self.receiver.adopt(join, self.room.version, before, chain)
        self.branches = [self.room]
        self.events = self.room.events
        await self.refresh()

    async def step(self) -> None:
        """Something happens somewhere."""
        rng = self.rng
        self._branch()
        branch = rng.choice(self.branches)
        before = branch.state_ids
        event = self._make(branch)
        if event is not None:
            self.states[event.event_id] = before
            self.done.append(f"{event.event_id} {event.pdu}")
            if rng.random() < 0.05:
                self.lost.add(event.event_id)
            else:
                self.late.append(event)
        if self.late and rng.random() < 0.5:
            await self.deliver()
        if rng.random() < 0.25:
            await self._act(rng.choice(self.users))

    def _branch(self) -> None:
        rng = self.rng
        if len(self.branches) < 3 and rng.random() < 0.15:
            self.branches.append(rng.choice(self.branches).fork())
        elif len(self.branches) > 1 and rng.random() < 0.2:
            branch, other = rng.sample(self.branches, 2)
            merged = state_res.resolve(
                [branch.state_ids, other.state_ids], self.events.get, branch.version
            )
            branch.merge(other, {key: self.events[name] for key, name in merged.items()})
            self.branches = [item for item in self.branches if item is not other]
        elif rng.random() < 0.15:
            # A server that has got all that this one has.
            branch = rng.choice(self.branches)
            branch.heads = list(self.heads)
            branch.state = dict(self.current)

    def _show_history(self, branch: RoomBuilder) -> Event:
        content = {"history_visibility": self.rng.choice(VISIBILITIES)}
        return branch.set_state("m.room.history_visibility", content)

    def _make(self, branch: RoomBuilder) -> Event | None:
        rng = self.rng
        sender = rng.choice([CREATOR, CREATOR, BOB, CAROL])
        member = branch.state.get((MEMBER, sender))
        if member is None or member.membership != "join":
            return branch.join(sender) if rng.random() < 0.5 else None
        kind = rng.random()
        if kind < 0.3:
            return branch.message(sender, str(kind))
        if kind < 0.45:
            return branch.set_state("m.room.topic", {"topic": str(kind)}, sender)
        if kind < 0.5:
            return branch.set_state("m.room.name", {"name": str(kind)}, sender)
        if kind < 0.7:
            return self._move_user(branch, sender)
        if kind < 0.78:
            return branch.ban(CREATOR, rng.choice([BOB, CAROL]))
        if kind < 0.85:
            return branch.kick(CREATOR, rng.choice([BOB, CAROL]))
        if kind < 0.93:
            return self._show_history(branch)
        levels = {BOB: rng.choice([0, 50, 60]), CAROL: rng.choice([0, 50])}
        listed = {} if branch.version.creators_privileged else {CREATOR: 100}
        listed[self.users[0].user_id] = 60
        return branch.power_levels(CREATOR, users={**listed, **levels}, invite=0)

    def _move_user(self, branch: RoomBuilder, sender: str) -> Event | None:
        # The first one stays, or the server would be out of the room.
        user_id = self.rng.choice(self.users[1:]).user_id
        member = branch.state.get((MEMBER, user_id))
        membership = member.membership if member is not None else "leave"
        if membership in ("join", "invite"):
            return self.rng.choice([branch.kick, branch.ban])(sender, user_id)
        if membership == "ban":
            return branch.kick(sender, user_id)
        return branch.invite(sender, user_id)

    async def _act(self, user: User) -> None:
        """A user of the server does something, which may be refused."""
        room = f"/rooms/{quote(self.room_id)}"
        kind = self.rng.random()
        if user is self.users[0] and 0.6 <= kind < 0.8:
            kind = 0.1
        if kind < 0.4:
            call = ("PUT", f"{room}/send/m.room.message/{kind}", {"msgtype": "m.text", "body": "x"})
        elif kind < 0.6:
            call = ("PUT", f"{room}/state/m.room.topic", {"topic": str(kind)})
        elif kind < 0.8:
            call = ("POST", f"{room}/leave", {})
        else:
            call = ("POST", f"/join/{quote(self.room_id)}", {})
        status, answer = await user.call(*call)
        self.done.append(f"{user.user_id} {call} -> {status} {answer}")
        assert status < 500, self.done[-1]
        await self.refresh()

    async def deliver(self) -> None:
        """Some of the events that are on their way, in any order."""
        self.rng.shuffle(self.late)
        count = self.rng.choice([1, 1, 1, len(self.late)])
        part, self.late = self.late[:count], self.late[count:]
        known = await self._known_states(part)
        judged = await self.receiver.add(self.room_id, part, states=known)
        self.late += [e for e in part if judged[e.event_id].status == NOT_ADDED]
        self.done.append(f"delivered: {[(j.event_id, j.status, j.pos) for j in judged.values()]}")
        await self.refresh()

    async def _known_states(self, part: list[Event]) -> dict[str, KnownState]:
        """States before those events that come behind lost ones; what they need is stored."""
        states = {
            event.event_id: KnownState(self.states[event.event_id])
            for event in part
            if self.lost.intersection(event.prev_event_ids)
        }
        named = {name for event in part for name in event.auth_event_ids}
        if states or self.lost & named:
            wanted = [event for event in self.events.values() if event.is_state]
            await self.receiver.add_outliers(self.room_id, wanted)
        return states

    async def refresh(self) -> None:
        """Read what the server has."""
        await self.server.homeserver.db.read(self._read)

    def _read(self, txn: Transaction) -> None:
        row = rooms.get(txn, self.room_id)
        assert row is not None
        self.heads = list(row.extremities)
        states: Any = self.server.homeserver.services[StateStore]
        tree = RoomTree(txn, states, row.room_nid, self.room.version)

        def whole(root: bytes) -> State:
            numbers = tree.all_numbers(bytes(root))
            found = tree.events_of(numbers.values())
            return {key: found[number] for key, number in numbers.items()}

        known = {item.event.event_id: item for item in self.timeline}
        self.timeline = []
        for pos, name, text, before, after in txn.all(
            "SELECT pos, event_id, json, state_before, state_after FROM events"
            " WHERE room_nid = ? AND status = 0 AND pos > 0 ORDER BY pos",
            (row.room_nid,),
        ):
            item = known.get(name)
            if item is None:
                event = Event.from_json(text, self.room.version, name)
                self.events.setdefault(name, event)
                item = Placed(pos, event, whole(before), whole(after))
            self.timeline.append(item)
        self.moves = txn.all(
            "SELECT pos, user_id, membership, previous FROM membership_log WHERE room_nid = ?"
            " ORDER BY pos",
            (row.room_nid,),
        )
        self.current = {
            key: Event.from_json(entry.json, self.room.version, entry.event_id)
            for key, entry in state.current(txn, row.room_nid).items()
        }

    # What is true

    def membership(self, user_id: str) -> str:
        """The membership now."""
        return membership_in(self.current, user_id)

    def members(self, *wanted: str) -> set[str]:
        """Users with one of these memberships now."""
        users = {key[1] for key in self.current if key[0] == MEMBER}
        return {user for user in users if self.membership(user) in wanted}

    def last_stay(self, user_id: str) -> tuple[int | None, int | None]:
        """Positions of the last join and of what ended it."""
        since = until = None
        for pos, user, new, old in self.moves:
            if user == user_id and new == "join" != old:
                since, until = pos, None
            elif user == user_id and old == "join" != new:
                until = pos
        return since, until

    def visible(self, user_id: str) -> list[Placed]:
        """The events that history visibility lets the user see."""
        since, until = self.last_stay(user_id)
        last = 0 if since is None else until or 2**63
        found = []
        for item in self.timeline:
            kinds = {visibility_in(item.before), visibility_in(item.after)}
            old, new = membership_in(item.before, user_id), membership_in(item.after, user_id)
            allowed = "world_readable" in kinds or "join" in (old, new)
            allowed |= "shared" in kinds and item.pos < last
            allowed |= "invited" in kinds and "invite" in (old, new)
            allowed |= old in ("invite", "knock") and new in ("leave", "ban")
            if allowed:
                found.append(item)
        return found


def membership_in(found: State, user_id: str) -> str:
    """The membership in a state; "leave" where there is none."""
    event = found.get((MEMBER, user_id))
    return (event.membership if event is not None else None) or "leave"


def visibility_in(found: State) -> str:
    """The history visibility in a state."""
    event = found.get(VISIBILITY)
    return str(event.content["history_visibility"]) if event is not None else "shared"
