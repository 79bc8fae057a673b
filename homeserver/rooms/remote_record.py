"""Memberships of this server's users in rooms that this server is not in.

An invite or a knock of such a user, and its end, is a member event without a place in a graph: it
is kept as an outlier, and the projections of memberships say what it means to the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.core import canonical
from homeserver.core.event import Event
from homeserver.core.types import JsonObject
from homeserver.rooms.write import federation_text
from storage import events, memberships, rooms
from storage.events import ACCEPTED, EventRow
from storage.state import NumberBlocks
from storage.transaction import Transaction


class ResidentHere(Exception):
    """A user of this server is joined to the room: its state decides, not what others say."""


@dataclass(frozen=True, slots=True)
class OutsideMember:
    """A member event of a user of this server in a room that this server is not in.

    Parameters: `stripped`, the stripped state that describes the room to the user.
    """

    event: Event
    stripped: Sequence[JsonObject] = ()


class OutsideRecords:
    """Writes such memberships, in transactions of the caller."""

    def __init__(self) -> None:
        self._event_numbers = NumberBlocks("event")
        self._room_numbers = NumberBlocks("room", 10)

    def record(self, txn: Transaction, member: OutsideMember, now_ms: int) -> int:
        """Make the event its user's membership; its position, 0 if it is that already.

        Must be the transaction's last step: it takes a position.

        Raises:
            ResidentHere: nothing is written then.
        """
        event = member.event
        user_id = event.state_key or ""
        room_nid = self._room(txn, event, now_ms)
        if memberships.local_joined(txn, room_nid):
            raise ResidentHere(event.room_id)
        old = memberships.get(txn, room_nid, user_id)
        if old is not None and old.event_id == event.event_id:
            return 0
        event_nid = self._event(txn, room_nid, event)
        membership = event.membership or "leave"
        stripped = None
        if membership in ("invite", "knock"):
            wrapped: JsonObject = {"s": list(member.stripped)}
            stripped = canonical.encode_lenient(wrapped)[5:-1].decode()
        # The members are not as the room's state says.
        rooms.contents_changed(txn, [room_nid])
        pos = txn.next_pos()
        change = memberships.MembershipChange(
            pos,
            room_nid,
            user_id,
            membership,
            old.membership if old is not None else "leave",
            event_nid,
            event.event_id,
            event.sender,
        )
        memberships.log(txn, [change])
        row = memberships.MembershipRow(
            room_nid=room_nid,
            user_id=user_id,
            membership=membership,
            event_id=event.event_id,
            event_nid=event_nid,
            sender=event.sender,
            pos=pos,
            is_local=True,
            forgotten=False,
            displayname=_text(event.content.get("displayname")),
            avatar_url=_text(event.content.get("avatar_url")),
            stripped_state=stripped,
        )
        memberships.put(txn, [row])
        txn.notify(f"user:{user_id}")
        return pos

    def _room(self, txn: Transaction, event: Event, now_ms: int) -> int:
        known = rooms.nid(txn, event.room_id)
        number = known if known is not None else self._room_numbers.take(txn, 1)[0]
        version = event.version.identifier
        room = rooms.ensure(txn, number, event.room_id, version, now_ms)
        if room.state_root is None and room.version != version:
            # Nothing but such an event told of the version so far.
            rooms.set_version(txn, room.room_nid, version)
        return room.room_nid

    def _event(self, txn: Transaction, room_nid: int, event: Event) -> int:
        stored = events.get(txn, event.event_id)
        if stored is not None:
            return stored.event_nid
        row = outlier(self._event_numbers.take(txn, 1)[0], room_nid, event)
        events.insert(txn, [row])
        return row.event_nid


def outlier(event_nid: int, room_nid: int, event: Event) -> EventRow:
    """The row of an event that has no place in the room's graph."""
    return EventRow(
        event_nid=event_nid,
        event_id=event.event_id,
        room_nid=room_nid,
        pos=None,
        depth=event.depth,
        type=event.type,
        state_key=event.state_key,
        sender=event.sender,
        origin_server_ts=event.origin_server_ts,
        json=federation_text(event),
        status=ACCEPTED,
        state_before=None,
        state_after=None,
        replaces_state=None,
        redacted_by=None,
        relates_to=None,
        rel_type=None,
        thread_root=None,
        contains_url=False,
        notify=0,
        notify_total=0,
        highlight_total=0,
        txn_device=None,
        txn_scope=None,
        txn_id=None,
        outgoing=False,
    )


def _text(value: object) -> str | None:
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else None
