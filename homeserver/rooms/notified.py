"""Whom events notify, and how (client-server API, "Push Notifications").

Whether somebody is notified was decided when the event was appended (`homeserver.rooms.unread`):
by its class, the user's volume of the room, and marks of single users. So notifications and unread
counts agree, and nobody's rules are evaluated for an event that tells them nothing. The rules are
asked for what else they say of the notification, its sound for example; for all who keep the
defaults and are not mentioned they say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from homeserver.core import canonical
from homeserver.core.event import Event
from homeserver.core.power_levels import PowerLevels
from homeserver.core.push_conditions import PushEvent, mentioned_users
from homeserver.core.push_rules import Actions, EventClass, Ruleset, class_of
from homeserver.core.push_volume import heard, volume
from homeserver.core.room_versions import ROOM_VERSIONS
from storage import overviews, state
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.transaction import Transaction

_DEFAULTS = Ruleset("@:")
"""The rules of no user: the defaults without what names a user."""
_CREATE = ("m.room.create", "")
_POWER = ("m.room.power_levels", "")
_HIGHLIGHT = {"set_tweak": "highlight"}


class RoomFacts(NamedTuple):
    """What push rules ask of a room."""

    room: RoomRow
    joined: int


def facts_of(txn: Transaction, rooms: Mapping[int, RoomRow]) -> dict[int, RoomFacts]:
    """Facts of rooms, by number."""
    counts = overviews.joined_counts(txn, list(rooms))
    return {nid: RoomFacts(room, counts.get(nid, 0)) for nid, room in rooms.items()}


def told_by(event_class: int, ruleset: Ruleset, room_id: str) -> EventClass:
    """What an event of a class does to a user without a mark."""
    return heard(volume(ruleset, room_id), event_class)


class Judged:
    """One event, as push rules see it. Power levels are looked up only if somebody's rules need
    them."""

    def __init__(self, txn: Transaction, row: EventRow, facts: RoomFacts) -> None:
        self._txn = txn
        self._facts = facts
        self.row = row
        fields = canonical.parse(row.json)
        fields["room_id"] = facts.room.room_id
        self.content: Any = fields.get("content")
        self._mentioned = frozenset(mentioned_users(self.content))
        # Whether a mention of the room is one was found out when the class was.
        self._question = PushEvent(
            fields,
            member_count=facts.joined,
            sender_power_level=100 if row.notify > 1 else 0,
        )
        self._is_exact = False
        self._shared: dict[int, bool] = {}
        self._of_all: dict[EventClass, Actions] = {}

    def actions(
        self,
        user_id: str,
        ruleset: Ruleset | None,
        displayname: str | None,
        told: EventClass,
        *,
        follows: bool = False,
    ) -> Actions:
        """What a user's rules (None: the defaults) say of an event that notifies them as `told`.

        `follows`: the user follows the thread of the event (MSC4306).
        """
        self._question.follows = follows or None
        if ruleset is not None and (ruleset.changes or any(ruleset.own.values())):
            self._be_exact()
            return agreeing(ruleset.evaluate(self._question, displayname), told)
        if follows or user_id in self._mentioned:
            found = Ruleset(user_id).evaluate(self._question, displayname, self._shared)
            return agreeing(found, told)
        known = self._of_all.get(told)
        if known is None:
            plain = _DEFAULTS.evaluate(self._question, None, self._shared)
            known = self._of_all[told] = agreeing(plain, told)
        return known

    def _be_exact(self) -> None:
        if self._is_exact:
            return
        self._is_exact = True
        room = self._facts.room
        rows = state.current(self._txn, room.room_nid, [_CREATE, _POWER])
        version = ROOM_VERSIONS[room.version]
        events = {k: Event.from_json(r.json, version, r.event_id) for k, r in rows.items()}
        if _CREATE in events:
            power = PowerLevels.of(events.get(_POWER), events[_CREATE])
            self._question.sender_power_level = power.user_level(self.row.sender)
            self._question.notification_level = power.notification
        self._shared = {}


def agreeing(actions: Actions, told: EventClass) -> Actions:
    """Actions that do what is known to be done: rules may have changed since."""
    if class_of(actions) == told:
        return actions
    return ("notify", _HIGHLIGHT) if told > 1 else ("notify",)


def invite_actions(fields: Mapping[str, Any], ruleset: Ruleset) -> Actions:
    """What a user's rules say of an invite; nothing if they silence it."""
    question = PushEvent(fields, member_count=0, sender_power_level=0)
    actions = ruleset.evaluate(question)
    return actions if class_of(actions) else ()
