"""Tests of the state resolution of room version 1."""

from __future__ import annotations

from hashlib import sha1

from twisted.trial.unittest import TestCase

from tests.homeserver.core.resolution_fixtures import (
    JOIN_RULES,
    POWER_LEVELS,
    TOPIC,
    member,
    merged,
)
from tests.support.events import ALICE, BOB, CAROL, RoomBuilder

DAVE = "@dave:d.example"


def started() -> tuple[RoomBuilder, RoomBuilder]:
    room = RoomBuilder.started("1", members=[BOB, CAROL], users={BOB: 50, CAROL: 50})
    return room, room.fork()


def hashed(event_id: str) -> str:
    return sha1(event_id.encode(), usedforsecurity=False).hexdigest()


class Version1(TestCase):
    def test_missing_is_no_conflict(self) -> None:
        """Shows RES-11. What only some states have is in their union, allowed or not."""
        a, b = started()
        a.ban(ALICE, BOB)
        topic = b.set_state("m.room.topic", {"topic": "t"}, BOB)
        result = merged(a, b)
        self.assertEqual(result[TOPIC], topic)
        self.assertEqual(merged(b, a)[TOPIC], topic)

    def test_greatest_depth_wins(self) -> None:
        """Shows RES-11. Of other events the deepest that is allowed wins; time counts nothing."""
        a, b = started()
        a.message()
        deep = a.set_state("m.room.topic", {"topic": "deep"}, ts=1)
        b.set_state("m.room.topic", {"topic": "late"}, ts=2)
        self.assertEqual(merged(a, b)[TOPIC], deep)

    def test_sha1_breaks_ties(self) -> None:
        """Shows RES-11. Of equally deep events that with the lowest SHA-1 of its ID wins."""
        room = RoomBuilder.started("1")
        winners = set()
        for number in range(20):
            branches = [room.fork(), room.fork()]
            topics = [
                branch.set_state("m.room.topic", {"topic": str(number)}) for branch in branches
            ]
            lowest = min(topics, key=lambda event: hashed(event.event_id))
            self.assertEqual(merged(*branches)[TOPIC], lowest)
            winners.add(topics.index(lowest))
        self.assertEqual(winners, {0, 1})

    def test_disallowed_events_lose(self) -> None:
        """Shows RES-11. An event that the resolved power levels do not allow is passed over."""
        room = RoomBuilder.started("1", members=[BOB], users={BOB: 50})
        room.set_state("m.room.topic", {"topic": "first"})
        a, b = room.fork(), room.fork()
        a.power_levels(users={ALICE: 100, BOB: 0})
        topic = a.set_state("m.room.topic", {"topic": "a"})
        b.message()
        b.message()
        b.set_state("m.room.topic", {"topic": "b"}, BOB)
        result = merged(a, b)
        self.assertEqual(result[POWER_LEVELS], a.state[POWER_LEVELS])
        self.assertEqual(result[TOPIC], topic)

    def test_none_allowed(self) -> None:
        """Shows RES-11. If no event is allowed, that of least depth stays."""
        a, b = started()
        shallow = a.set_state("m.room.topic", {"topic": "a"}, BOB)
        b.message()
        b.set_state("m.room.topic", {"topic": "b"}, CAROL)
        for room in (a, b):
            del room.state[POWER_LEVELS]
        self.assertEqual(merged(a, b)[TOPIC], shallow)

    def test_power_levels_go_up_step_by_step(self) -> None:
        """Shows RES-11. Power levels are taken in order of depth, up to one not allowed."""
        a, b = started()
        first = a.power_levels(BOB, users={ALICE: 100, BOB: 50, CAROL: 0})
        # Carol did not know; by the levels chosen first she may not.
        b.message()
        b.message()
        b.power_levels(CAROL, users={ALICE: 100, BOB: 50, CAROL: 50, DAVE: 50})
        self.assertEqual(first.content["users"][CAROL], 0)
        # Bob cannot take Carol's power: the rules forbid it, but not of the first in the list.
        self.assertEqual(merged(a, b)[POWER_LEVELS], first)
        c = b.fork()
        last = c.power_levels(users={ALICE: 100})
        c.state[POWER_LEVELS] = last
        self.assertEqual(merged(a, c)[POWER_LEVELS], last)

    def test_join_rules_before_members(self) -> None:
        """Shows RES-11. Members are judged by the join rules that were chosen."""
        room = RoomBuilder.started("1", members=[BOB], users={BOB: 50})
        room.invite(ALICE, DAVE)
        a, b = room.fork(), room.fork()
        a.join_rules("invite")
        rules = a.join_rules("public")
        a.kick(ALICE, DAVE)
        b.join_rules("invite", BOB)
        b.message()
        b.message()
        b.message()
        join = b.join(DAVE)
        result = merged(a, b)
        self.assertEqual(result[JOIN_RULES], rules)
        # Kicked first, by depth; joining again is allowed as the room is public.
        self.assertEqual(result[member(DAVE)], join)
        closed = a.fork()
        closed.message()
        closed_rules = closed.join_rules("invite")
        result = merged(closed, b)
        self.assertEqual(result[JOIN_RULES], closed_rules)
        self.assertEqual(result[member(DAVE)].membership, "leave")

    def test_members_by_depth(self) -> None:
        """Shows RES-11. A ban deeper than a profile change wins; a join does not undo a ban."""
        a, b = started()
        b.join(BOB, {"displayname": "B"})
        a.message()
        ban = a.ban(ALICE, BOB)
        self.assertEqual(merged(a, b)[member(BOB)], ban)
        c, d = started()
        ban = c.ban(ALICE, BOB)
        d.message()
        d.join(BOB, {"displayname": "B"})
        self.assertEqual(merged(c, d)[member(BOB)], ban)

    def test_unknown_events(self) -> None:
        """Shows RES-11. A conflict of which one event is known goes to that event."""
        a, b = started()
        lost = a.power_levels(users={ALICE: 100, BOB: 0})
        kept = b.power_levels(users={ALICE: 100, BOB: 10})
        del a.events[lost.event_id]
        a.state[POWER_LEVELS] = lost
        self.assertEqual(merged(a, b)[POWER_LEVELS], kept)
