"""Rooms that the user left, is invited to or knocks on, in the answer of `/sync`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from homeserver.core.client_format import strip_pdu
from homeserver.core.types import JsonObject
from homeserver.rooms.invite_blocking import Invites
from homeserver.sync import room_section
from homeserver.sync.request import Snapshot
from homeserver.sync.streams import account_data as account_data_stream
from storage import memberships, rooms
from storage.memberships import MembershipChange, MembershipRow
from storage.rooms import RoomRow

GONE = ("leave", "ban")


def read_others(
    snapshot: Snapshot, joined: Collection[int], changes: Sequence[MembershipChange]
) -> dict[str, JsonObject]:
    """The sections `leave`, `invite` and `knock`.

    Parameters: `joined`, the rooms that the user is in; `changes`, the user's changes of
    membership since the token, the oldest first.
    """
    members = _members(snapshot, joined, changes)
    if not members:
        return {}
    wanted = snapshot.request.filter.room
    found = rooms.get_many(snapshot.txn, members.keys())
    here = {nid: row for nid, row in found.items() if wanted.matches_room(row.room_id)}
    invites = Invites(snapshot.txn, snapshot.request.user_id)
    sections: dict[str, JsonObject] = {"leave": {}, "invite": {}, "knock": {}}
    for nid, room in here.items():
        member = members[nid]
        own = [change for change in changes if change.room_nid == nid]
        is_hidden = member.sender in snapshot.ignored or invites.hides(member.sender)
        section = None
        if member.membership in GONE:
            section = _left(snapshot, room, member.pos, member.forgotten, own)
        elif member.membership == "knock":
            sections["knock"][room.room_id] = {"knock_state": _stripped(member)}
        elif not is_hidden:
            sections["invite"][room.room_id] = {"invite_state": _stripped(member)}
        elif own and own[0].previous not in GONE:
            # The client is not told of the invite, but that the user is not there any more.
            ends = [change.pos for change in own if change.membership in GONE]
            section = _left(snapshot, room, ends[-1], False, own) if ends else None
        if section is not None:
            sections["leave"][room.room_id] = section
    _add_account_data(snapshot, here, sections["leave"])
    return sections


def _add_account_data(
    snapshot: Snapshot, here: Mapping[int, RoomRow], leave: dict[str, JsonObject]
) -> None:
    request, wanted = snapshot.request, snapshot.request.filter.room.account_data
    nids = [
        nid
        for nid, room in here.items()
        if room.room_id in leave and wanted.matches_room(room.room_id)
    ]
    if not nids or wanted.matches_nothing:
        return
    found = account_data_stream.room_changes(
        snapshot.txn, request.user_id, request.since, snapshot.now, nids
    )
    for nid, data in found.items():
        chosen = [event for event in data if wanted.matches(event["type"])]
        if chosen:
            leave[here[nid].room_id]["account_data"] = {"events": chosen}


def _members(
    snapshot: Snapshot, joined: Collection[int], changes: Sequence[MembershipChange]
) -> dict[int, MembershipRow]:
    """The user's memberships of rooms that may have to be shown."""
    request, txn = snapshot.request, snapshot.txn
    changed = {change.room_nid for change in changes} - set(joined)
    if request.lists_everything:
        kinds = ["invite", "knock"]
        if request.filter.room.include_leave or changed:
            kinds += GONE
        rows = memberships.of_user(txn, request.user_id, kinds)
    elif changed:
        rows = memberships.of_user_in(txn, request.user_id, changed)
    else:
        rows = []
    shows_old = request.lists_everything and request.filter.room.include_leave
    # A room that was forgotten is shown once more to devices that do not know that it was left.
    return {
        row.room_nid: row
        for row in rows
        if row.membership not in GONE
        or row.room_nid in changed
        or (shows_old and not row.forgotten)
    }


def _left(
    snapshot: Snapshot,
    room: RoomRow,
    end: int,
    is_forgotten: bool,
    changes: Sequence[MembershipChange],
) -> JsonObject | None:
    """A room that the user is not in any more; None if they were gone before the token.

    Parameters: `end`, the position of what made them go.
    """
    is_old = all(change.previous in GONE for change in changes)
    if is_old and (is_forgotten or not snapshot.request.lists_everything):
        return None
    since = snapshot.request.since
    if changes and changes[0].previous != "join":
        since = None
    return room_section.left(snapshot, room, end, since)


_STRIPPED = {"type", "state_key", "sender", "content"}


def _stripped(member: MembershipRow) -> JsonObject:
    """The stripped state of an invite or a knock."""
    found: list[JsonObject] = json.loads(member.stripped_state or "[]")
    # Other servers may send anything.
    return {"events": [strip_pdu(event) for event in found if event.keys() >= _STRIPPED]}
