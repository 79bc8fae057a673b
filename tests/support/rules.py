"""Assertions about the authorisation rules, for rooms made by `RoomBuilder`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core import auth_rules
from homeserver.core.auth_rules import EventRejected
from homeserver.core.event import Event
from homeserver.core.types import JsonObject, StateKey
from tests.support.events import RoomBuilder


def raw_event(
    room: RoomBuilder,
    event_type: str,
    sender: str,
    content: JsonObject,
    state_key: str | None = None,
    **top_level: Any,
) -> Event:
    """An event of the room with any content, even one that has no canonical JSON form."""
    draft = room.event(event_type, sender, {}, state_key, add=False)
    pdu = {**draft.pdu, "content": content, **top_level}
    return Event.from_pdu(pdu, room.version, event_id=draft.event_id)


class RulesTestCase(TestCase):
    """A test case that says what the rules should make of an event."""

    def assert_allowed(
        self,
        room: RoomBuilder,
        event: Event,
        state: Mapping[StateKey, Event] | None = None,
        hint: str = "",
        **options: Any,
    ) -> None:
        """The rules allow `event` in `state` (default: the current state of the room)."""
        state = room.state if state is None else state
        try:
            auth_rules.check(event, state, create=room.create, **options)
        except EventRejected as rejection:
            self.fail(f"version {room.version.identifier} {hint}: {rejection}")

    def assert_rejected(
        self,
        rule: str | None,
        room: RoomBuilder,
        event: Event,
        state: Mapping[StateKey, Event] | None = None,
        hint: str = "",
        **options: Any,
    ) -> None:
        """The rules reject `event` by `rule` (None: by whichever)."""
        state = room.state if state is None else state
        where = f"version {room.version.identifier} {hint}"
        try:
            auth_rules.check(event, state, create=room.create, **options)
        except EventRejected as rejection:
            if rule is not None:
                self.assertEqual(rejection.rule, rule, where)
            self.assertTrue(rejection.reason.endswith("."), rejection.reason)
        else:
            self.fail(f"{where}: allowed")
