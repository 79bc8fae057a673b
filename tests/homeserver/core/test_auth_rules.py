from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import auth_rules
from homeserver.core.auth_rules import EventRejected, check_auth_events
from homeserver.core.event import Event
from homeserver.core.power_levels import PowerLevels
from homeserver.core.types import JsonObject
from tests.support.events import ALICE, ALL_VERSIONS, BOB, CAROL, RoomBuilder
from tests.support.rules import RulesTestCase, raw_event

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


def never(event_id: str) -> bool:
    return False


class CreateTest(RulesTestCase):
    """Rule 1."""

    def test_allowed(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            self.assert_allowed(room, room.create, {})

    def test_no_create_event_into_an_existing_room(self) -> None:
        """Shows AUTH-20."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version)
            content = room.create.content
            event = room.event("m.room.create", ALICE, content, "", add=False)
            self.assert_rejected("1.1", room, event)
            event = room.event("m.room.create", ALICE, content, "other", add=False)
            self.assert_rejected("1.1", room, event)
            event = room.event("m.room.create", ALICE, content, add=False)
            self.assert_rejected("1.1", room, event)

    def test_room_id(self) -> None:
        """Of the sender's server up to version 11, absent from then on. Shows AUTH-16."""
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            for room_id in ("!room:b.example", "!room", "!room:a.example:8448"):
                event = raw_event(
                    room, "m.room.create", ALICE, room.create.content, "", room_id=room_id
                )
                event = Event.from_pdu({**event.pdu, "prev_events": []}, room.version, "$x")
                self.assert_rejected("1.2", room, event)
            own = {**room.create.pdu, "room_id": "!room:a.example"}
            event = Event.from_pdu(own, room.version, "$x")
            if int(version) >= 12:
                self.assert_rejected("1.2", room, event)
            else:
                self.assert_allowed(room, event)

    def test_room_version(self) -> None:
        for version in ALL_VERSIONS:
            for unknown in ("13", "", "org.example", 1, None, ["1"]):
                room = RoomBuilder(version, create_content={"room_version": unknown})
                self.assert_rejected("1.3", room, room.create)

    def test_creator(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            content = {key: v for key, v in room.create.content.items() if key != "creator"}
            event = Event.from_pdu({**room.create.pdu, "content": content}, room.version, "$x")
            if int(version) >= 11:
                self.assert_allowed(room, event)
            else:
                self.assert_rejected("v10/1.4", room, event)

    def test_additional_creators(self) -> None:
        """Must be a list of user IDs in version 12. Shows AUTH-15."""
        bad: list[Any] = [
            "not-an-array",
            None,
            {},
            {BOB: 1},
            [BOB, 42],
            [BOB, "not-a-user-id"],
            ["@invalid:dom$ain$.com"],
            [[BOB]],
        ]
        for version in ALL_VERSIONS:
            for additional in bad:
                room = RoomBuilder(version, create_content={"additional_creators": additional})
                if int(version) >= 12:
                    self.assert_rejected("1.4", room, room.create)
                else:
                    self.assert_allowed(room, room.create)
            for good in ([], [BOB, "@bar:baz.code"]):
                room = RoomBuilder(version, create_content={"additional_creators": good})
                self.assert_allowed(room, room.create)


class StateTest(RulesTestCase):
    """Which state an event is judged by."""

    def test_each_state_is_judged_by_itself(self) -> None:
        """Auth events, state before, current state may give three verdicts. Shows AUTH-1."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB], power={"events_default": 0})
            by_auth_events = dict(room.state)
            fork = room.fork()
            room.power_levels(users=room.state[POWER_LEVELS].content["users"], events_default=10)
            event = room.message(BOB, state=by_auth_events)
            fork.ban(ALICE, BOB)
            self.assert_allowed(room, event, by_auth_events)
            self.assert_rejected("8", room, event, room.state)
            self.assert_rejected("6", room, event, fork.state)

    def test_unsigned_local_events(self) -> None:
        """The rules need no signature and no hash, so that drafts can pass. Shows AUTH-2."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB], users={BOB: 0})
            for draft in (room.message(BOB, add=False), room.leave(BOB, add=False)):
                pdu = {k: v for k, v in draft.pdu.items() if k not in ("hashes", "signatures")}
                self.assert_allowed(room, Event.from_pdu(pdu, room.version, "$draft:b.example"))
            draft = room.set_state("m.room.name", {}, BOB, add=False)
            pdu = {k: v for k, v in draft.pdu.items() if k not in ("hashes", "signatures")}
            self.assert_rejected("8", room, Event.from_pdu(pdu, room.version, "$draft:b.example"))

    def test_create_event_is_found_in_the_state(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version)
            event = room.message()
            auth_rules.check(event, room.state)
            without = {key: entry for key, entry in room.state.items() if key != CREATE}
            rejection = self.assertRaises(EventRejected, auth_rules.check, event, without)
            self.assertEqual(rejection.rule, "2")
            auth_rules.check(event, without, create=room.create)

    def test_create_event_of_another_room(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version)
            other = RoomBuilder(version, room_id="!other:a.example", create_content={"x": 1})
            rejection = self.assertRaises(
                EventRejected, auth_rules.check, room.message(), room.state, create=other.create
            )
            self.assertEqual(rejection.rule, "2")


class FederateTest(RulesTestCase):
    def test_other_servers_are_shut_out(self) -> None:
        """Shows AUTH-5."""
        local = "@local:a.example"
        for version in ALL_VERSIONS:
            for closed in (False, 0, "true", None):
                content = {"m.federate": closed}
                room = RoomBuilder.started(version, members=[local, BOB], create_content=content)
                self.assert_allowed(room, room.message(ALICE, add=False))
                self.assert_allowed(room, room.message(local, add=False))
                for event in (
                    room.message(BOB, add=False),
                    room.leave(BOB, add=False),
                    room.join(CAROL, add=False),
                    room.join("@port:a.example:8448", add=False),
                ):
                    self.assert_rejected("4", room, event)
            room = RoomBuilder.started(version, create_content={"m.federate": True})
            self.assert_allowed(room, room.join(BOB, add=False))

    def test_counted_from_the_create_sender(self) -> None:
        """Not from the room ID, which has no domain in version 12. Shows AUTH-5."""
        room = RoomBuilder.started("12", create_content={"m.federate": False})
        self.assertNotIn(":", room.room_id)
        self.assert_allowed(room, room.join("@local:a.example", add=False))


class OrdinaryEventsTest(RulesTestCase):
    def test_sender_must_be_joined(self) -> None:
        for version in ALL_VERSIONS:
            for membership in ("none", "invite", "leave", "ban", "knock"):
                room = RoomBuilder.started(version, members=[CAROL])
                if membership != "none":
                    room.member(BOB, membership, ALICE)
                for event in (
                    room.message(BOB, add=False),
                    room.set_state("m.room.name", {}, BOB, add=False),
                    room.set_state("m.room.third_party_invite", {}, BOB, state_key="t", add=False),
                ):
                    self.assert_rejected("6", room, event, hint=membership)

    def test_defaults_without_power_levels(self) -> None:
        """Messages for all, state for the creator only. Shows AUTH-6."""
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            room.join(ALICE)
            room.join_rules("public")
            room.join(BOB)
            self.assert_allowed(room, room.message(BOB, add=False))
            self.assert_allowed(room, room.set_state("m.room.name", {}, ALICE, add=False))
            self.assert_rejected("8", room, room.set_state("m.room.name", {}, BOB, add=False))
            self.assert_allowed(room, room.invite(BOB, CAROL, add=False))
            self.assert_rejected("5.5.5", room, room.kick(BOB, ALICE, add=False))

    def test_required_level(self) -> None:
        """Shows AUTH-7."""
        power: JsonObject = {
            "events": {"m.room.name": 30, "org.example": 40},
            "state_default": 20,
            "events_default": 10,
        }
        wanted: list[tuple[str, str | None, int]] = [
            ("m.room.name", "", 30),
            ("org.example", "", 40),
            ("org.example", None, 40),
            ("m.room.topic", "", 20),
            ("m.room.message", None, 10),
        ]
        for version in ALL_VERSIONS:
            for event_type, state_key, required in wanted:
                for level in (required - 1, required, required + 1):
                    listed = {} if int(version) >= 12 else {ALICE: 100}
                    room = RoomBuilder.started(
                        version, members=[BOB], power={**power, "users": {**listed, BOB: level}}
                    )
                    event = room.event(event_type, BOB, {}, state_key, add=False)
                    if level < required:
                        self.assert_rejected("8", room, event)
                    else:
                        self.assert_allowed(room, event)

    def test_third_party_invites_need_the_invite_level(self) -> None:
        """And no other."""
        for version in ALL_VERSIONS:
            for invite, allowed in ((10, True), (11, False)):
                listed = {} if int(version) >= 12 else {ALICE: 100}
                power = {"users": {**listed, BOB: 10}, "invite": invite, "state_default": 99}
                room = RoomBuilder.started(version, members=[BOB], power=power)
                event = room.set_state(
                    "m.room.third_party_invite", {}, BOB, state_key="t", add=False
                )
                if allowed:
                    self.assert_allowed(room, event)
                else:
                    self.assert_rejected("7.1", room, event)

    def test_state_keys_of_users(self) -> None:
        """Shows AUTH-10."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB], users={BOB: 50})
            for key in ("", BOB, "b", BOB[1:], f" {ALICE}"):
                event = room.set_state("org.example", {}, BOB, state_key=key, add=False)
                self.assert_allowed(room, event)
            for key in (ALICE, "@", f"{BOB} ", f"{BOB}_suffix"):
                event = room.set_state("org.example", {}, BOB, state_key=key, add=False)
                self.assert_rejected("9", room, event)

    def test_aliases(self) -> None:
        """A rule of their own up to version 5: own domain as state key, nothing else needed."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version)
            own = room.set_state("m.room.aliases", {}, BOB, state_key="b.example", add=False)
            others = room.set_state("m.room.aliases", {}, BOB, state_key="a.example", add=False)
            message = room.event("m.room.aliases", BOB, {}, add=False)
            if int(version) <= 5:
                self.assert_allowed(room, own)
                self.assert_rejected("v5/4.2", room, others)
                self.assert_rejected("v5/4.1", room, message)
            else:
                for event in (own, others, message):
                    self.assert_rejected("6", room, event)
                room.join(BOB)
                self.assert_rejected("8", room, own)

    def test_redactions(self) -> None:
        """Judged here in versions 1 and 2: redact level, or same domain of the event IDs."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB, CAROL], users={CAROL: 50})
            alices, bobs = room.message(ALICE), room.message(BOB)
            for event in (
                room.redaction(BOB, bobs, add=False),
                room.redaction(CAROL, bobs, add=False),
                room.redaction(CAROL, alices, add=False),
            ):
                self.assert_allowed(room, event)
            for target in (alices, "$opaque", "$opaque:", ""):
                event = room.redaction(BOB, target, add=False)
                if int(version) <= 2:
                    self.assert_rejected("v2/11.3", room, event)
                else:
                    self.assert_allowed(room, event)
            if int(version) <= 2:
                wrong: list[Any] = [None, 5, [], {}]
                for redacts in wrong:
                    event = raw_event(room, "m.room.redaction", BOB, {}, redacts=redacts)
                    self.assert_rejected("v2/11.3", room, event)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 105),
    st.sampled_from([2**53, -(2**53), 2**63, 2**70, 10**400, math.inf, math.nan, 1.5, 1e300]),
    st.sampled_from(["", "50", " 7 ", "x", "@", ALICE, BOB, "join", "invite", "ban", "\x00"]),
    st.sampled_from(["public", "restricted", "abc", "ed25519:1", "\ud800", "9" * 5000]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "", ALICE, BOB, "signed", "token"]), inner),
    ),
    max_leaves=6,
)
KEYS: dict[str, list[str]] = {
    "m.room.create": ["creator", "m.federate", "room_version", "additional_creators"],
    "m.room.member": ["membership", "third_party_invite", "join_authorised_via_users_server"],
    "m.room.join_rules": ["join_rule", "allow"],
    "m.room.power_levels": [
        *("users", "events", "notifications", "users_default", "events_default", "state_default"),
        *("ban", "kick", "redact", "invite"),
    ],
    "m.room.third_party_invite": ["public_key", "public_keys"],
    "m.room.redaction": ["redacts"],
    "m.room.aliases": ["aliases"],
    "m.room.message": ["body"],
}
LIKELY: dict[str, Any] = {
    "membership": st.sampled_from(["join", "invite", "leave", "ban", "knock"]),
    "join_rule": st.sampled_from(["public", "invite", "knock", "restricted", "knock_restricted"]),
    "join_authorised_via_users_server": st.sampled_from([ALICE, CAROL, "carol"]),
    "third_party_invite": st.fixed_dictionaries(
        {
            "signed": st.fixed_dictionaries(
                {"mxid": st.just(BOB) | JSON, "token": st.just("abc") | JSON},
                optional={
                    "signatures": st.dictionaries(
                        st.just("s"), st.dictionaries(st.just("ed25519:1"), JSON) | JSON
                    )
                    | JSON
                },
            )
        }
    ),
    "public_keys": st.lists(st.fixed_dictionaries({"public_key": JSON}), max_size=3),
}


def contents(event_type: str) -> st.SearchStrategy[JsonObject]:
    """Content of an event type with likely and wild values under the keys that the rules read."""
    wild = {key: JSON | LIKELY[key] if key in LIKELY else JSON for key in KEYS[event_type]}
    return st.fixed_dictionaries({}, optional=wild)


class HostileContentTest(TestCase):
    """Whatever the contents of the event and of the state: a verdict, never another error."""

    STATE: tuple[tuple[str, str, str], ...] = (
        ("m.room.member", ALICE, ALICE),
        ("m.room.member", BOB, BOB),
        ("m.room.power_levels", ALICE, ""),
        ("m.room.join_rules", ALICE, ""),
        ("m.room.third_party_invite", ALICE, "abc"),
    )

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), version=st.sampled_from(ALL_VERSIONS))
    def test_verdict(self, data: st.DataObject, version: str) -> None:
        room = RoomBuilder(version)
        state = {}
        create = room.create
        if data.draw(st.booleans(), "hostile create event"):
            content = data.draw(contents("m.room.create"))
            create = Event.from_pdu({**create.pdu, "content": content}, room.version, "$create")
            if room.version.room_id_is_create_hash:
                room.room_id = create.room_id
        for event_type, sender, key in self.STATE:
            choice = data.draw(st.sampled_from(["none", "good", "hostile"]), event_type)
            if choice == "none":
                continue
            content = {"membership": "join"} if event_type == "m.room.member" else {}
            if choice == "hostile":
                content = data.draw(contents(event_type))
            state[event_type, key] = raw_event(room, event_type, sender, content, key)
        event_type = data.draw(st.sampled_from(sorted(KEYS)))
        state_key = data.draw(st.sampled_from([None, "", ALICE, BOB, "@", "abc", "a.example"]))
        sender = data.draw(st.sampled_from([ALICE, BOB, CAROL]))
        content = data.draw(contents(event_type))
        event = raw_event(room, event_type, sender, content, state_key)
        if event_type == "m.room.redaction":
            event = raw_event(room, event_type, sender, content, redacts=data.draw(JSON))
        if data.draw(st.booleans(), "hostile signatures"):
            signatures = data.draw(JSON | st.dictionaries(st.just("c.example"), JSON))
            event = Event.from_pdu({**event.pdu, "signatures": signatures}, room.version, "$event")
        for check in (
            lambda: auth_rules.check(event, state, create=create),
            lambda: check_auth_events(event, list(state.values()), never, create),
        ):
            try:
                self.assertIsNone(check())
            except EventRejected as rejection:
                self.assertTrue(rejection.rule and rejection.reason)
        power = PowerLevels.of(state.get(POWER_LEVELS), create)
        for level in (
            power.user_level(BOB),
            power.event_level("a", True),
            power.notification(),
            *(power.invite, power.kick, power.ban, power.redact),
            *power.listed_users().values(),
        ):
            self.assertIs(type(level), int)
