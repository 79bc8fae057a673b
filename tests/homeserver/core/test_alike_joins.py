"""Joins that are judged once for all that are alike: never what the rules would refuse."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import auth_rules
from homeserver.core.alike_joins import AlikeJoins
from homeserver.core.event import Event
from tests.support.events import ALICE, ALL_VERSIONS, BOB, CAROL, RoomBuilder

DAVE = "@dave:d.example"
USERS = (ALICE, BOB, CAROL, DAVE)
CONTENTS: tuple[dict[str, Any], ...] = (
    {"membership": "join"},
    {"membership": "join", "displayname": "Somebody"},
    {"membership": "join", "join_authorised_via_users_server": ALICE},
    {"membership": "leave"},
    {"membership": "knock"},
    {"membership": "invite"},
    {"membership": ["join"]},
)


def is_allowed(event: Event, room: RoomBuilder, create: Event | None) -> bool:
    """What the rules say of an event by its own auth events."""
    if create is None and room.version.room_id_is_create_hash:
        create = room.create
    named = [room.events[name] for name in event.auth_event_ids]
    try:
        auth_rules.check_auth_events(event, named, lambda name: False, create)
        auth_rules.check(event, {other.key: other for other in named}, create=create)
    except auth_rules.EventRejected:
        return False
    return True


def make(room: RoomBuilder, sender: str, target: str, content: Any, auth: Any) -> Event:
    """A member event with chosen auth events, that is not put into the room."""
    event = room.event("m.room.member", sender, content, target, add=False)
    own = [room.events[name] for name in event.auth_event_ids]
    chosen = [other for other in own if auth == "own" or other.type != auth]
    pdu = {**event.pdu, "auth_events": room_references(room, chosen)}
    return Event.from_pdu(pdu, room.version, event.event_id)


def room_references(room: RoomBuilder, events: list[Event]) -> list[Any]:
    if room.version.event_format == 1:
        return [[event.event_id, {}] for event in events]
    return [event.event_id for event in events]


MEMBERS = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(USERS),
    st.sampled_from(CONTENTS),
    st.sampled_from(["own", "m.room.member", "m.room.join_rules", "m.room.create"]),
)


class AlikeJoinsTest(TestCase):
    @settings(deadline=None, max_examples=300)
    @given(
        st.sampled_from(ALL_VERSIONS),
        st.sampled_from(["public", "invite", "knock", "restricted", "knock_restricted", 7]),
        st.sampled_from([{}, {"m.federate": False}, {"m.federate": True}, {"m.federate": 1}]),
        st.sets(st.sampled_from([BOB, CAROL])),
        st.booleans(),
        st.lists(MEMBERS, min_size=2, max_size=12),
    )
    def test_only_what_the_rules_allow(
        self,
        version: str,
        rule: Any,
        create: Any,
        banned: set[str],
        is_new_room: bool,
        members: list[tuple[str, str, Any, str]],
    ) -> None:
        """Whatever came before: an event that is let through is one that the rules allow."""
        room = RoomBuilder(version, create_content=create)
        if not is_new_room:
            room = RoomBuilder.started(version, join_rule=rule, create_content=create)
            for user in sorted(banned):
                room.event("m.room.member", ALICE, {"membership": "ban"}, user)
        for known in (room.create, None):
            alike = AlikeJoins()
            for member in members:
                event = make(room, *member)
                allowed = is_allowed(event, room, known)
                if alike.allow(event, known):
                    self.assertTrue(allowed, event.pdu)
                if allowed:
                    named = [room.events[name] for name in event.auth_event_ids]
                    alike.note(event, named, known, room.create)

    def test_first_joins_of_a_public_room(self) -> None:
        """The second join is let through as the first was; a user's second one is not."""
        for version in ALL_VERSIONS:
            room = RoomBuilder.started(version)
            alike = AlikeJoins()
            first = room.join(BOB)
            self.assertFalse(alike.allow(first, room.create))
            named = [room.events[name] for name in first.auth_event_ids]
            alike.note(first, named, room.create, room.create)
            self.assertTrue(alike.allow(room.join(CAROL), room.create))
            self.assertFalse(alike.allow(room.join(CAROL), None))
            self.assertFalse(alike.allow(room.join(BOB), room.create))
