"""Tests of state resolution 2 and 2.1: the definitions, and races between people."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from homeserver.core import state_res, state_res_v2, state_sets
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import StateKey
from tests.homeserver.core.resolution_fixtures import (
    JOIN_RULES,
    POWER_LEVELS,
    TOPIC,
    listed,
    loader,
    member,
    merged,
    quick_event,
)
from tests.support.events import ALICE, BOB, CAROL, START_TS, RoomBuilder

V11, V12 = ROOM_VERSIONS["11"], ROOM_VERSIONS["12"]
DAVE = "@dave:d.example"
VERSIONS = ("2", "6", "11", "12")


def full_set(*branches: RoomBuilder, **options: object) -> dict[str, Event]:
    """The full conflicted set of the states of branches."""
    unconflicted, conflicted = state_sets.separate([branch.state_ids for branch in branches])
    events = loader(branches[0], **options)
    return state_res_v2.full_conflicted_set(conflicted, unconflicted, events, branches[0].version)


class FullConflictedSet(TestCase):
    def test_conflicted_state(self) -> None:
        """Shows RES-2. The events of conflicted keys are in, those of others are not."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB])
            b, c = a.fork(), a.fork()
            topic = a.set_state("m.room.topic", {"topic": "t"})
            join_b = b.join(BOB, {"displayname": "B"})
            join_c = c.join(BOB, {"displayname": "C"})
            first_join = a.state[member(BOB)]
            self.assertEqual(
                full_set(a, b, c).keys(),
                {event.event_id for event in (topic, join_b, join_c, first_join)},
            )

    def test_auth_difference(self) -> None:
        """Shows RES-2. So are events in the auth chains of some of the states only."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB])
            b = a.fork()
            joins = [a.join(BOB, {"displayname": str(number)}) for number in range(3)]
            other = b.join(BOB, {"displayname": "B"})
            ids = {event.event_id for event in [*joins, other]}
            self.assertEqual(full_set(a, b).keys(), ids)

    def test_shared_through_unconflicted_state(self) -> None:
        """What the auth chain of unconflicted state holds is in all auth chains."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            old = a.state[member(BOB)]
            # Both branches have this, and through it the old join of Bob.
            a.set_state("m.room.name", {"name": "n"}, BOB)
            a.join(BOB, {"displayname": "B"})
            b = a.fork()
            # A state that does not have Bob's membership at all, nor anything later of his.
            del b.state[member(BOB)]
            full = full_set(a, b)
            self.assertEqual(full.keys(), {a.state[member(BOB)].event_id})
            del a.state["m.room.name", ""], b.state["m.room.name", ""]
            self.assertEqual(full_set(a, b).keys(), {a.state[member(BOB)].event_id, old.event_id})

    def test_conflicted_subgraph(self) -> None:
        """Shows RES-8. Version 12 adds what lies on auth paths between conflicted events."""
        for version, expected in (("11", False), ("12", True)):
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 100})
            b = a.fork()
            first = a.state[POWER_LEVELS]
            second = a.power_levels(BOB, users=listed(a, {BOB: 100, CAROL: 50}))
            third = a.power_levels(BOB, users=listed(a, {BOB: 100, CAROL: 50, DAVE: 1}))
            # Both states know the second power levels through Carol's later join.
            a.join(CAROL)
            b.state[member(CAROL)] = a.state[member(CAROL)]
            full = full_set(a, b)
            self.assertIn(first.event_id, full)
            self.assertIn(third.event_id, full)
            self.assertEqual(second.event_id in full, expected)

    def test_rejected_events(self) -> None:
        """Shows RES-9. Events rejected against their auth events are out, others stay.

        An event that fails only against the state before it counts as any other: here the
        topic, which nobody told the algorithm about, is judged again and wins.
        """
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            b = a.fork()
            bad = a.join_rules("invite", BOB)
            topic = a.set_state("m.room.topic", {"topic": "a"}, BOB)
            b.join(CAROL)
            self.assertIn(bad.event_id, full_set(a, b))

            def is_rejected(event_id: str, bad: Event = bad) -> bool:
                return event_id == bad.event_id

            full = full_set(a, b, is_rejected=is_rejected)
            self.assertNotIn(bad.event_id, full)
            self.assertIn(topic.event_id, full)
            self.assertEqual(merged(a, b)[JOIN_RULES], bad)
            result = merged(a, b, is_rejected=is_rejected)
            self.assertEqual(result[JOIN_RULES], b.state[JOIN_RULES])
            self.assertEqual(result[TOPIC], topic)


class PowerEvents(TestCase):
    def test_which_they_are(self) -> None:
        """Shows RES-3. Power levels, join rules, and leaves or bans of someone else."""

        def is_power(key: StateKey, sender: str, **content: str) -> bool:
            event = quick_event("$1", V11, key, sender, dict(content), [])
            return state_res_v2.is_power_event(event)

        self.assertTrue(is_power(POWER_LEVELS, ALICE))
        self.assertTrue(is_power(JOIN_RULES, ALICE, join_rule="public"))
        self.assertTrue(is_power(member(BOB), ALICE, membership="leave"))
        self.assertTrue(is_power(member(BOB), ALICE, membership="ban"))
        self.assertFalse(is_power(member(BOB), BOB, membership="leave"))
        self.assertFalse(is_power(member(BOB), ALICE, membership="invite"))
        self.assertFalse(is_power(member(BOB), BOB, membership="join"))
        self.assertFalse(is_power(member(BOB), BOB, membership="knock"))
        self.assertFalse(is_power(("m.room.power_levels", "x"), ALICE))
        self.assertFalse(is_power(TOPIC, ALICE))
        self.assertFalse(is_power(("m.room.third_party_invite", "x"), ALICE))
        self.assertFalse(is_power(("org.example", BOB), ALICE, membership="ban"))


class PowerOrdering(TestCase):
    """Shows RES-4."""

    def setUp(self) -> None:
        self.events: dict[str, Event] = {}
        self.add("$create", ("m.room.create", ""), ALICE, {}, [])
        self.add("$powers", POWER_LEVELS, ALICE, {"users": {BOB: 50, CAROL: 20}}, ["$create"])
        self.cited = ["$create", "$powers"]

    def add(self, event_id: str, *args: object, **options: object) -> None:
        event = quick_event(event_id, V11, *args, **options)  # type: ignore[arg-type]
        self.events[event_id] = event

    def order(self, *event_ids: str) -> list[str]:
        events = state_sets.Events(self.events.get)
        unordered = {event_id: self.events[event_id] for event_id in event_ids}
        ordered = state_res_v2.reverse_topological_power_ordering(unordered, events)
        self.assertEqual(
            [event.event_id for event in ordered],
            [
                event.event_id
                for event in state_res_v2.reverse_topological_power_ordering(
                    dict(reversed(unordered.items())), events
                )
            ],
        )
        return [event.event_id for event in ordered]

    def test_power_then_time_then_id(self) -> None:
        """Shows RES-4. Higher power first, then earlier time, then smaller ID."""
        self.add("$1", JOIN_RULES, CAROL, {}, self.cited, ts=1)
        self.add("$2", JOIN_RULES, BOB, {}, self.cited, ts=9)
        self.add("$3", JOIN_RULES, BOB, {}, self.cited, ts=5)
        self.add("$4", JOIN_RULES, BOB, {}, self.cited, ts=5)
        self.add("$5", JOIN_RULES, DAVE, {}, self.cited, ts=0)
        self.assertEqual(self.order("$1", "$2", "$3", "$4", "$5"), ["$3", "$4", "$2", "$1", "$5"])

    def test_auth_edges_first(self) -> None:
        """Shows RES-4. An event follows its auth events, however powerful its sender is."""
        self.add("$1", JOIN_RULES, DAVE, {}, self.cited, ts=9)
        self.add("$2", member(DAVE), BOB, {"membership": "ban"}, [*self.cited, "$1"], ts=1)
        self.add("$3", member(BOB), CAROL, {"membership": "ban"}, self.cited, ts=1)
        self.assertEqual(self.order("$1", "$2", "$3"), ["$3", "$1", "$2"])

    def test_power_by_the_event_itself(self) -> None:
        """Shows RES-4. Power is looked up in the event's own auth events."""
        self.add("$new", POWER_LEVELS, ALICE, {"users": {BOB: 0, CAROL: 60}}, self.cited)
        self.add("$1", JOIN_RULES, CAROL, {}, ["$create", "$new"])
        self.add("$2", JOIN_RULES, BOB, {}, self.cited)
        self.add("$3", JOIN_RULES, CAROL, {}, self.cited)
        self.add("$4", JOIN_RULES, ALICE, {}, ["$create"])
        self.add("$5", JOIN_RULES, BOB, {}, ["$create"])
        # Without power levels the creator has 100; with them, Alice would have 0.
        self.assertEqual(self.order("$1", "$2", "$3", "$4", "$5"), ["$4", "$1", "$2", "$3", "$5"])

    def test_unknown_auth_events(self) -> None:
        """Shows RES-4. A sender whose auth events are not known has no power."""
        self.add("$1", JOIN_RULES, ALICE, {}, ["$unknown"], ts=9)
        self.add("$2", JOIN_RULES, DAVE, {}, self.cited, ts=1)
        self.add("$3", JOIN_RULES, BOB, {}, ["$powers"], ts=9)
        self.assertEqual(self.order("$1", "$2", "$3"), ["$3", "$2", "$1"])

    def test_privileged_creators(self) -> None:
        """Shows RES-4. From version 12 the creators come before everybody else."""
        room = RoomBuilder.started(
            "12",
            members=[BOB, CAROL],
            create_content={"additional_creators": [CAROL]},
            users={BOB: 2**52},
        )
        bans = [room.ban(sender, DAVE, add=False) for sender in (BOB, CAROL, ALICE)]
        ordered = state_res_v2.reverse_topological_power_ordering(
            {event.event_id: event for event in bans}, loader(room), room.create
        )
        self.assertEqual([event.sender for event in ordered], [CAROL, ALICE, BOB])


class MainlineOrdering(TestCase):
    def setUp(self) -> None:
        self.events: dict[str, Event] = {}
        # The mainline is P2, P1, P0; X hangs off P1, Y off X, Z off nothing.
        for event_id, auth in (
            ("$P0", []),
            ("$P1", ["$P0"]),
            ("$P2", ["$P1"]),
            ("$X", ["$P1"]),
            ("$Y", ["$X"]),
            ("$Z", []),
        ):
            self.add(event_id, auth, key=POWER_LEVELS)

    def add(self, event_id: str, auth: list[str], ts: int = 0, key: StateKey = TOPIC) -> None:
        self.events[event_id] = quick_event(event_id, V11, key, ALICE, {}, auth, ts=ts)

    def order(self, *event_ids: str, power: str | None = "$P2") -> list[str]:
        return [
            event.event_id
            for event in state_res_v2.mainline_ordering(
                [self.events[event_id] for event_id in event_ids],
                None if power is None else self.events[power],
                state_sets.Events(self.events.get),
            )
        ]

    def test_position_then_time_then_id(self) -> None:
        """Shows RES-5. Events on earlier power levels first, then by time, then by ID."""
        self.add("$1", ["$P2"], ts=1)
        self.add("$2", ["$P0"], ts=9)
        self.add("$3", ["$P1"], ts=5)
        self.add("$4", ["$P1"], ts=4)
        self.add("$5", ["$P1"], ts=4)
        self.assertEqual(self.order("$1", "$5", "$2", "$3", "$4"), ["$2", "$4", "$5", "$3", "$1"])

    def test_off_the_mainline(self) -> None:
        """Shows RES-5. The position is that of the nearest ancestor on the mainline."""
        self.add("$1", ["$Y"], ts=2)
        self.add("$2", ["$P1"], ts=1)
        self.add("$3", ["$P1"], ts=3)
        self.add("$4", ["$P0"], ts=9)
        self.add("$5", ["$P2"], ts=0)
        self.assertEqual(self.order("$1", "$2", "$3", "$4", "$5"), ["$4", "$2", "$1", "$3", "$5"])
        # What was found out on the way to one event holds for others.
        self.add("$6", ["$X"], ts=9)
        self.assertEqual(self.order("$1", "$6", "$2"), ["$2", "$1", "$6"])

    def test_no_ancestor_on_the_mainline(self) -> None:
        """Shows RES-5. Events with no power levels, or foreign ones, come before all others."""
        self.add("$1", ["$Z"], ts=9)
        self.add("$2", [], ts=8)
        self.add("$3", ["$unknown"], ts=7)
        self.add("$4", ["$P0"], ts=0)
        self.assertEqual(self.order("$1", "$2", "$3", "$4"), ["$3", "$2", "$1", "$4"])

    def test_power_levels_themselves(self) -> None:
        """Shows RES-5. The position of power levels is that of those they cite."""
        self.add("$1", ["$P1"], ts=5)
        self.assertEqual(self.order("$P2", "$1"), ["$P2", "$1"])
        self.add("$2", ["$P0"], ts=9)
        self.assertEqual(self.order("$P2", "$1", "$2"), ["$2", "$P2", "$1"])

    def test_without_power_levels(self) -> None:
        """Shows RES-5. If there are none, only time and ID count."""
        self.add("$1", ["$P0"], ts=2)
        self.add("$2", ["$P2"], ts=1)
        self.assertEqual(self.order("$1", "$2", power=None), ["$2", "$1"])

    def test_circles_end(self) -> None:
        """Power levels that cite each other, as versions 1 and 2 cannot rule out, do no harm."""
        self.add("$C", ["$D"], key=POWER_LEVELS)
        self.add("$D", ["$C"], key=POWER_LEVELS)
        self.add("$1", ["$C"], ts=1)
        self.assertEqual(self.order("$1"), ["$1"])
        self.assertEqual(self.order("$1", power="$C"), ["$1"])


class IterativeAuthChecks(TestCase):
    def setUp(self) -> None:
        self.room = RoomBuilder.started("11", members=[BOB], users={BOB: 50})
        self.base = self.room.state_ids

    def check(self, *events: Event, **options: object) -> dict[StateKey, str]:
        resolved: dict[StateKey, str] = {}
        state_res_v2.iterative_auth_checks(
            events, resolved, self.base, loader(self.room, **options)
        )
        return resolved

    def test_each_event_changes_the_state_for_the_next(self) -> None:
        """Allowed events enter the state, others are passed over."""
        ban = self.room.ban(ALICE, BOB, add=False)
        late = self.room.set_state("m.room.topic", {"topic": "late"}, BOB, add=False)
        self.assertEqual(self.check(late, ban), {TOPIC: late.event_id, member(BOB): ban.event_id})
        self.assertEqual(self.check(ban, late), {member(BOB): ban.event_id})

    def test_missing_keys_from_own_auth_events(self) -> None:
        """Shows RES-6. What the state lacks comes from the event's own auth events."""
        topic = self.room.set_state("m.room.topic", {"topic": "t"}, BOB, add=False)
        del self.base[member(BOB)]
        self.assertEqual(self.check(topic), {TOPIC: topic.event_id})
        # But what it has counts: here that Bob was banned.
        self.base[member(BOB)] = self.room.ban(ALICE, BOB, add=False).event_id
        self.assertEqual(self.check(topic), {})

    def test_rejected_auth_events_are_not_used(self) -> None:
        """Shows RES-6, RES-9. Rejected auth events do not stand in for missing keys."""
        topic = self.room.set_state("m.room.topic", {"topic": "t"}, BOB, add=False)
        join = self.base.pop(member(BOB))
        self.assertEqual(self.check(topic, is_rejected=lambda event_id: event_id == join), {})

    def test_unneeded_auth_events_are_not_used(self) -> None:
        """Shows RES-6. Auth events under keys that are not needed do not get into the state."""
        name = self.room.set_state("m.room.name", {"name": "n"}, add=False)
        del self.base[member(BOB)]
        topic = self.room.set_state(
            "m.room.topic", {"topic": "t"}, BOB, auth=[*self.room.state.values(), name], add=False
        )
        self.assertEqual(self.check(topic), {TOPIC: topic.event_id})


class Races(TestCase):
    """What people do at the same time on different servers."""

    def started(self, version: str) -> tuple[RoomBuilder, RoomBuilder]:
        room = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 50})
        return room, room.fork()

    def test_ban_against_power_levels(self) -> None:
        """Alice bans Bob while he gives Carol power: he is out before he could."""
        for version in VERSIONS:
            a, b = self.started(version)
            b.power_levels(BOB, users=listed(b, {BOB: 50, CAROL: 50}))
            ban = a.ban(ALICE, BOB)
            b.set_state("m.room.topic", {"topic": "mine"}, CAROL)
            result = merged(a, b)
            self.assertEqual(result[member(BOB)], ban)
            self.assertEqual(result[POWER_LEVELS], a.state[POWER_LEVELS])
            self.assertNotIn(TOPIC, result)

    def test_more_power_acts_first(self) -> None:
        """Of two moderators, one bans the other: that comes first, even if later in time."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 51, CAROL: 50})
            b = a.fork()
            ban = a.ban(BOB, CAROL, ts=START_TS + 10**6)
            b.ban(CAROL, DAVE, ts=START_TS + 10**5)
            result = merged(a, b)
            self.assertEqual(result[member(CAROL)], ban)
            self.assertNotIn(member(DAVE), result)

    def test_what_power_events_rest_on(self) -> None:
        """A conflicted join that a power event rests on is settled along with power events.

        So Dave's early join comes before the join rules that would have kept him out.
        """
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 100, DAVE: 100})
            b = a.fork()
            join = a.join(DAVE)
            rules = b.join_rules("invite", BOB)
            kick = a.kick(DAVE, CAROL)
            result = merged(a, b)
            self.assertEqual(result[JOIN_RULES], rules)
            self.assertEqual(result[member(CAROL)], kick)
            self.assertEqual(result[member(DAVE)], join)

    def test_demotion_against_promotion(self) -> None:
        """Alice takes Bob's power while he spreads it."""
        for version in VERSIONS:
            a, b = self.started(version)
            b.power_levels(BOB, users=listed(b, {BOB: 50, CAROL: 50}))
            b.kick(BOB, CAROL)
            demotion = a.power_levels(users=listed(a, {BOB: 0}))
            result = merged(a, b)
            self.assertEqual(result[POWER_LEVELS], demotion)
            self.assertEqual(result[member(CAROL)], a.state[member(CAROL)])

    def test_join_against_new_join_rules(self) -> None:
        """Somebody joins a room as it becomes private: they stay out, evading no rule."""
        for version in VERSIONS:
            a, b = self.started(version)
            b.join(DAVE)
            rules = a.join_rules("invite")
            result = merged(a, b)
            self.assertEqual(result[JOIN_RULES], rules)
            self.assertNotIn(member(DAVE), result)
            # Who had joined before stays, whatever profile they have meanwhile.
            profile = b.join(CAROL, {"displayname": "C"})
            self.assertEqual(merged(a, b)[member(CAROL)], profile)

    def test_topics_at_the_same_time(self) -> None:
        """The later topic wins; of equally late ones that with the greater ID."""
        for version in VERSIONS:
            a, b = self.started(version)
            early = a.set_state("m.room.topic", {"topic": "1"}, BOB, ts=START_TS + 10**6)
            late = b.set_state("m.room.topic", {"topic": "2"}, ts=START_TS + 10**6 + 1)
            self.assertEqual(merged(a, b)[TOPIC], late)
            same = a.fork()
            other = same.set_state("m.room.topic", {"topic": "3"}, ts=START_TS + 10**6)
            expected = max(early, other, key=lambda event: event.event_id)
            # Branches that do not know of each other.
            parallel = state_without(same, TOPIC)
            parallel.state[TOPIC] = other
            self.assertEqual(merged(a, parallel)[TOPIC], expected)

    def test_topic_after_new_power_levels(self) -> None:
        """A topic set under newer power levels wins over a later one set under older ones."""
        for version in VERSIONS:
            a, b = self.started(version)
            a.power_levels(users=listed(a, {BOB: 50, CAROL: 50}))
            topic = a.set_state("m.room.topic", {"topic": "new"}, CAROL)
            b.set_state("m.room.topic", {"topic": "old"}, BOB, ts=START_TS + 10**9)
            self.assertEqual(merged(a, b)[TOPIC], topic)

    def test_topic_of_a_banned_user(self) -> None:
        """A banned user's topic falls back to what it was, not to nothing."""
        for version in VERSIONS:
            a = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            first = a.set_state("m.room.topic", {"topic": "first"})
            b = a.fork()
            a.ban(ALICE, BOB)
            b.set_state("m.room.topic", {"topic": "mine"}, BOB)
            result = merged(a, b)
            self.assertEqual(result[TOPIC], first)
            self.assertEqual(result[member(BOB)].membership, "ban")

    def test_banned_but_with_a_new_profile(self) -> None:
        """A ban is not undone by what the banned user did meanwhile."""
        for version in VERSIONS:
            a, b = self.started(version)
            for number in range(3):
                b.join(BOB, {"displayname": str(number)})
            b.leave(BOB)
            b.join(BOB)
            a.ban(ALICE, BOB)
            self.assertEqual(merged(a, b)[member(BOB)].membership, "ban")

    def test_long_chain_of_promotions(self) -> None:
        """Power given on one branch counts for what it was given for, in order."""
        for version in VERSIONS:
            a, b = self.started(version)
            a.power_levels(users=listed(a, {BOB: 50, CAROL: 50}))
            last = a.power_levels(CAROL, users=listed(a, {BOB: 50, CAROL: 50, DAVE: 50}))
            a.join(DAVE)
            invite = a.invite(DAVE, "@eve:e.example")
            b.set_state("m.room.topic", {"topic": "t"})
            result = merged(a, b)
            self.assertEqual(result[POWER_LEVELS], last)
            self.assertEqual(result[member("@eve:e.example")], invite)
            self.assertIn(TOPIC, result)

    def test_unconflicted_state_stands(self) -> None:
        """Shows RES-7. What all states agree on is not changed by events beneath it."""
        for version in VERSIONS:
            a, b = self.started(version)
            rules = a.state[JOIN_RULES]
            a.join_rules("invite")
            # A state which has the old rules again, though its chain knows of the change.
            a.invite(ALICE, DAVE)
            a.state[JOIN_RULES] = rules
            b.join("@eve:e.example")
            self.assertIn(JOIN_RULES, {event.key for event in full_set(a, b).values()})
            result = merged(a, b)
            self.assertEqual(result[JOIN_RULES], rules)
            for key in a.state.keys() & b.state.keys():
                if a.state[key] == b.state[key]:
                    self.assertEqual(result[key], a.state[key])


class Version12(TestCase):
    """The two situations in which algorithm 2 resets state, and 2.1 does not."""

    def test_starts_from_an_empty_map(self) -> None:
        """Shows RES-8, RES-7. Conflicting join rules of someone who has left since survive.

        Alice makes the room invite-only and leaves. Another server claims that the rules are
        still public. Both states have Alice's leave, by which neither would be allowed.
        """
        for version, expected in (("11", None), ("12", "invite")):
            a = RoomBuilder.started(version, members=[BOB, CAROL])
            public = a.state[JOIN_RULES]
            a.join_rules("invite")
            leave = a.leave(ALICE)
            b = a.fork()
            for number in range(3):
                b.join(CAROL, {"displayname": str(number)})
            b.state[JOIN_RULES] = public
            result = merged(a, b)
            rules = result.get(JOIN_RULES)
            self.assertEqual(None if rules is None else rules.content["join_rule"], expected)
            # Nobody joins her again for that.
            self.assertEqual(result[member(ALICE)], leave)

    def test_conflicted_subgraph(self) -> None:
        """Shows RES-8. Power levels in between are replayed, so that later ones are not lost.

        Alice gives power to Bob (2nd), Bob to Carol (3rd), Eve joins. Another server claims that
        after more of Eve's changes the power levels are the 1st. Both auth chains hold the 2nd
        ones, by which alone the 3rd are allowed.
        """
        eve = "@eve:e.example"
        for version, expected in (("11", 1), ("12", 3)):
            a = RoomBuilder.started(version, members=[BOB, CAROL])
            levels = [a.state[POWER_LEVELS]]
            levels.append(a.power_levels(users=listed(a, {BOB: 50})))
            levels.append(a.power_levels(BOB, users=listed(a, {BOB: 50, CAROL: 50})))
            a.join(eve)
            b = a.fork()
            a.join(DAVE)
            b.join(eve, {"displayname": "E"})
            b.state[POWER_LEVELS] = levels[0]
            self.assertEqual(levels.index(merged(a, b)[POWER_LEVELS]) + 1, expected)

    def test_create_event_through_the_room_id(self) -> None:
        """Shows RES-8. Auth events do not name the create event; the room ID does."""
        a = RoomBuilder.started("12", members=[BOB], users={BOB: 50})
        b = a.fork()
        self.assertNotIn(a.create.event_id, a.state[POWER_LEVELS].auth_event_ids)
        topic = a.set_state("m.room.topic", {"topic": "t"})
        b.ban(ALICE, BOB)
        result = state_res.resolve([a.state_ids, b.state_ids], a.events.get, V12)
        self.assertEqual(result[TOPIC], topic.event_id)
        self.assertEqual(result[member(BOB)], b.state[member(BOB)].event_id)


def state_without(room: RoomBuilder, key: StateKey) -> RoomBuilder:
    """A branch of a room whose state lacks a key."""
    other = room.fork()
    del other.state[key]
    return other
