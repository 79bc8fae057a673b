"""Which events authorise an event, and what is wrong with those that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core import auth_rules
from homeserver.core.auth_rules import EventRejected, auth_types, check_auth_events
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import StateKey
from tests.support.events import ALICE, ALL_VERSIONS, BOB, CAROL, RoomBuilder

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
