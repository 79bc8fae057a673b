from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import auth_rules
from homeserver.core.auth_rules import EventRejected, auth_types, check_auth_events
from homeserver.core.event import Event
from homeserver.core.power_levels import PowerLevels
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject, StateKey
from tests.support.events import ALICE, ALL_VERSIONS, BOB, CAROL, RoomBuilder
from tests.support.rules import RulesTestCase, raw_event

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


def member(user: str) -> StateKey:
    return ("m.room.member", user)


def never(event_id: str) -> bool:
    return False


class SelectionTest(TestCase):
    def selected(self, version: str, event_type: str, key: str | None, **content: Any) -> Any:
        found = auth_types(event_type, ALICE, key, content, ROOM_VERSIONS[version])
        if event_type != "m.room.create":
            # The create event up to version 11, the levels and the sender's member: always.
            common = {POWER_LEVELS, member(ALICE)} | ({CREATE} if int(version) < 12 else set())
            self.assertLessEqual(common, found)
            return found - common
        return found

    def test_create_events_have_none(self) -> None:
        """Shows EVT-11."""
        for version in ALL_VERSIONS:
            self.assertEqual(self.selected(version, "m.room.create", "", creator=ALICE), set())

    def test_create_event_is_left_out_from_version_12(self) -> None:
        """Shows EVT-11, AUTH-16."""
        for version in ALL_VERSIONS:
            found = auth_types("m.room.name", ALICE, "", {}, ROOM_VERSIONS[version])
            self.assertEqual(CREATE in found, int(version) < 12, version)

    def test_ordinary_events(self) -> None:
        """Shows EVT-11."""
        for version in ALL_VERSIONS:
            for event_type, key in (
                ("m.room.message", None),
                ("m.room.name", ""),
                ("m.room.power_levels", ""),
                ("m.room.join_rules", ""),
                ("m.room.third_party_invite", "abc"),
                ("m.room.member", None),
            ):
                content = {"membership": "join"}
                self.assertEqual(self.selected(version, event_type, key, **content), set())

    def test_member_events(self) -> None:
        """The target, and join rules for join, invite and knock. Shows EVT-11, EVT-12."""
        for version in ALL_VERSIONS:
            for membership in ("join", "invite", "knock"):
                found = self.selected(version, "m.room.member", BOB, membership=membership)
                self.assertEqual(found, {member(BOB), JOIN_RULES})
            others: list[Any] = ["leave", "ban", "other", None, ["join"]]
            for other in others:
                found = self.selected(version, "m.room.member", BOB, membership=other)
                self.assertEqual(found, {member(BOB)})

    def test_third_party_invite(self) -> None:
        """Shows EVT-11."""
        invite = {"signed": {"token": "abc"}}
        malformed: list[Any] = [None, 5, [], {}, {"signed": 5}, {"signed": {}}]
        malformed.append({"signed": {"token": ["abc"]}})
        for version in ALL_VERSIONS:
            for membership in ("invite", "join", "leave"):
                found = self.selected(
                    version, "m.room.member", BOB, membership=membership, third_party_invite=invite
                )
                wanted = membership == "invite"
                self.assertEqual(("m.room.third_party_invite", "abc") in found, wanted)
            for junk in malformed:
                found = self.selected(
                    version, "m.room.member", BOB, membership="invite", third_party_invite=junk
                )
                self.assertEqual(found, {member(BOB), JOIN_RULES})

    def test_authorising_user(self) -> None:
        """Of joins, from version 8 on. Shows EVT-11."""
        key = "join_authorised_via_users_server"
        for version in ALL_VERSIONS:
            for membership in ("join", "invite", "leave"):
                content = {"membership": membership, key: CAROL}
                found = self.selected(version, "m.room.member", BOB, **content)
                wanted = membership == "join" and int(version) >= 8
                self.assertEqual(member(CAROL) in found, wanted)
            found = self.selected(
                version, "m.room.member", BOB, membership="join", **{key: [CAROL]}
            )
            self.assertEqual(found, {member(BOB), JOIN_RULES})

    def test_selected_events_are_enough(self) -> None:
        """Judged by its selected auth events, an event fares as by the whole state."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 60})
            for event in (
                room.message(BOB, add=False),
                room.kick(BOB, CAROL, add=False),
                room.kick(CAROL, BOB, add=False),
                room.join("@new:d.example", add=False),
                room.invite(BOB, "@new:d.example", add=False),
                room.set_state("m.room.name", {}, CAROL, add=False),
            ):
                auth = {room.events[i].key: room.events[i] for i in event.auth_event_ids}
                verdicts = []
                for state in (room.state, auth):
                    try:
                        auth_rules.check(event, state, create=room.create)
                        verdicts.append("")
                    except EventRejected as rejection:
                        verdicts.append(rejection.rule)
                self.assertEqual(verdicts[0], verdicts[1])


class AuthEventsTest(TestCase):
    """Rules 2 and 3."""

    def passes(self, room: RoomBuilder, event: Event, auth: Sequence[Event], **kw: Any) -> None:
        check_auth_events(event, auth, kw.get("is_rejected", never), kw.get("create", room.create))

    def rejected(
        self, rule: str, room: RoomBuilder, event: Event, auth: Sequence[Event], **kw: Any
    ) -> None:
        rejection = self.assertRaises(EventRejected, self.passes, room, event, auth, **kw)
        self.assertEqual(rejection.rule, rule, room.version.identifier)

    def auth(self, room: RoomBuilder, event: Event) -> list[Event]:
        return [room.events[event_id] for event_id in event.auth_event_ids]

    def test_the_selected_set_and_less_is_fine(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB])
            event = room.message(BOB)
            auth = self.auth(room, event)
            self.passes(room, event, auth)
            for left_out in auth:
                if not left_out.is_create:
                    self.passes(room, event, [entry for entry in auth if entry != left_out])

    def test_create_events_are_not_asked(self) -> None:
        for version in ALL_VERSIONS:
            room = RoomBuilder(version)
            self.passes(room, room.create, [], create=None)

    def test_duplicates(self) -> None:
        """Two entries of one key, or one entry twice. Shows AUTH-3."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB])
            older = room.state[member(BOB)]
            room.join(BOB, {"displayname": "Bob"})
            event = room.message(BOB)
            auth = self.auth(room, event)
            self.rejected("3.1", room, event, [*auth, older])
            self.rejected("3.1", room, event, [*auth, auth[0]])

    def test_unexpected_entries(self) -> None:
        """Shows AUTH-3."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB, CAROL])
            name = room.set_state("m.room.name", {"name": "n"})
            message = room.message()
            event = room.message(BOB)
            for extra in (
                name,
                message,
                room.state[member(CAROL)],
                room.state[JOIN_RULES],
            ):
                self.rejected("3.2", room, event, [*self.auth(room, event), extra])

    def test_rejected_entries(self) -> None:
        """Shows AUTH-4."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB])
            event = room.message(BOB)
            auth = self.auth(room, event)
            for bad in auth:
                self.rejected(
                    "3.3", room, event, auth, is_rejected=lambda i, bad=bad: i == bad.event_id
                )

    def test_entries_of_another_room(self) -> None:
        """Shows AUTH-4."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB])
            other = RoomBuilder(version, room_id="!other:a.example", create_content={"x": 1})
            other.join(ALICE)
            other.power_levels(users={BOB: 100})
            event = room.message(BOB)
            auth = [entry for entry in self.auth(room, event) if entry.key != POWER_LEVELS]
            self.rejected("3.5", room, event, [*auth, other.state[POWER_LEVELS]])

    def test_create_event_is_required_up_to_version_11(self) -> None:
        """Shows AUTH-16."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version, members=[BOB])
            event = room.message(BOB)
            auth = [entry for entry in self.auth(room, event) if not entry.is_create]
            if int(version) >= 12:
                self.passes(room, event, auth)
                self.rejected("3.2", room, event, [*auth, room.create])
            else:
                self.rejected("3.4", room, event, auth)
                self.passes(room, event, [*auth, room.create])

    def test_room_id_names_an_accepted_create_event(self) -> None:
        """From version 12. Shows AUTH-16."""
        room = RoomBuilder.started("12", members=[BOB])
        other = RoomBuilder("12", create_content={"x": 1})
        event = room.message(BOB)
        auth = self.auth(room, event)
        self.assertEqual(room.room_id, "!" + room.create.event_id[1:])
        self.rejected("2", room, event, auth, create=None)
        self.rejected("2", room, event, auth, create=other.create)
        rejected = {room.create.event_id}
        self.rejected("2", room, event, auth, is_rejected=rejected.__contains__)
        # An event of the room that is no create event, but gave the room ID.
        imposter = room.message(BOB)
        fake = room.event("m.room.message", BOB, room_id="!" + imposter.event_id[1:], auth=[])
        self.rejected("2", room, fake, [], create=imposter)


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
