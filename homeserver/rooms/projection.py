"""The projections of current state and of memberships, kept with each event that is written.

Part of the append transaction's last step: see `homeserver.rooms.write`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from homeserver.core import canonical
from homeserver.core.client_format import stripped_state
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.draft import RoomDraft
from homeserver.rooms.rooted import MEMBER, Current, Placed, Rooted
from storage import memberships, room_servers, state
from storage.events import ACCEPTED
from storage.transaction import Transaction

STRIPPED_TYPES = (
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.name",
    "m.room.encryption",
    "m.room.topic",
    "m.room.history_visibility",
)
"""Types of the stripped state of invites and knocks (client-server API, "Stripped state")."""


def project_state(
    txn: Transaction, draft: RoomDraft, rooted: Sequence[Rooted], first_pos: int
) -> None:
    """Keep the projections of current state and of memberships.

    Parameters: `first_pos`, the position of the first of the events.
    """
    last: dict[StateKey, Placed | None] = {}
    log: list[memberships.MembershipChange] = []
    previous: dict[str, str] = {}
    pos = first_pos
    for item in rooted:
        first_aside = pos + (item.status == ACCEPTED)
        asides = item.asides
        length = (item.status == ACCEPTED) + len(asides)
        places = {key: place for place, key in enumerate(asides, first_aside)}
        if item.event.is_state:
            places[item.event.key] = pos
        for key, now in item.changes.items():
            place = places.get(key)
            last[key] = Placed(now, pos if place is None else place) if now is not None else None
            if place is not None and key[0] == MEMBER:
                log.append(_membership_change(draft, key[1], now, place, item, previous))
        if item.changes and item.current is not None:
            # From its first position on, as who left by it sees the room as it is then.
            begin = pos if length else max(pos - 1, 1)
            state.record_root(txn, draft.row.room_nid, begin, item.current)
        pos += length
    if not last:
        return
    numbers = [(key, now.current.event_nid if now else None) for key, now in last.items()]
    state.put_current(txn, draft.row.room_nid, numbers)
    memberships.log(txn, log)
    if any(key[0] == MEMBER for key in last):
        _project_members(txn, draft, last, pos - 1)


def _membership_change(
    draft: RoomDraft,
    user_id: str,
    now: Current | None,
    pos: int,
    item: Rooted,
    previous: dict[str, str],
) -> memberships.MembershipChange:
    if user_id not in previous:
        old = draft.changed.get((MEMBER, user_id))
        previous[user_id] = (old.membership if old else None) or "leave"
    event, event_nid = now if now is not None else (item.event, item.event_nid)
    membership = (now.event.membership if now is not None else None) or "leave"
    change = memberships.MembershipChange(
        pos,
        draft.row.room_nid,
        user_id,
        membership,
        previous[user_id],
        event_nid,
        event.event_id,
        event.sender,
    )
    previous[user_id] = membership
    return change


def _project_members(
    txn: Transaction, draft: RoomDraft, last: Mapping[StateKey, Placed | None], pos: int
) -> None:
    rows, gone = [], []
    joined: Counter[str] = Counter()
    own, changed = ":" + draft.server_name, draft.changed
    notified = []
    for key, now in last.items():
        if key[0] != MEMBER:
            continue
        user_id, is_in, is_local = key[1], False, key[1].endswith(own)
        if now is None:
            gone.append(user_id)
        else:
            current, place = now
            is_in = current[0].membership == "join"
            rows.append(_member_row(draft, current, place, is_local))
        if is_local:
            notified.append(f"user:{user_id}")
        old = changed.get(key)
        if is_in is not (old is not None and old.membership == "join"):
            joined[domain_of(user_id)] += 1 if is_in else -1
    memberships.put(txn, rows)
    memberships.vanish(txn, draft.row.room_nid, gone, pos)
    del joined[draft.server_name]
    if any(joined.values()):
        room_servers.change(txn, draft.row.room_nid, joined)
        count = room_servers.count(txn, draft.row.room_nid)
        draft.row = draft.row._replace(remote_servers=count)
    txn.notify(*notified)


def _member_row(
    draft: RoomDraft, current: Current, pos: int, is_local: bool
) -> memberships.MembershipRow:
    event, event_nid = current
    membership = event.membership or "leave"
    stripped = None
    if is_local and membership in ("invite", "knock"):
        stripped = canonical.encode_lenient({"s": _stripped(draft, event)})[5:-1].decode()
    content = event.content
    # By their places, as they are many.
    return memberships.MembershipRow(
        draft.row.room_nid,
        event.state_key or "",
        membership,
        event.event_id,
        event_nid,
        event.sender,
        pos,
        is_local,
        False,  # forgotten
        _text(content.get("displayname")),
        _text(content.get("avatar_url")),
        stripped,
    )


def _stripped(draft: RoomDraft, event: Event) -> list[JsonObject]:
    keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_TYPES]
    keys.append(("m.room.member", event.sender))
    keys.append(event.key)
    found = draft.state(keys)
    return [stripped_state(found[key]) for key in dict.fromkeys(keys) if key in found]


def _text(value: object) -> str | None:
    # PostgreSQL has no NUL in text, and a name may be any JSON value that somebody sent.
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else None
