"""Reading what directories and summaries show of many rooms at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from storage.transaction import Transaction

_PART = 500


def current_texts(
    txn: Transaction, room_nids: Sequence[int], event_types: Collection[str]
) -> dict[int, dict[str, str]]:
    """JSON of the current state events of these types with an empty state key, by room number
    and type."""
    found: dict[int, dict[str, str]] = {nid: {} for nid in room_nids}
    types, type_args = txn.any_of("c.type", event_types)
    for start in range(0, len(room_nids), _PART):
        where, args = txn.any_of("c.room_nid", room_nids[start : start + _PART])
        rows = txn.all(
            "SELECT c.room_nid, c.type, e.json FROM current_state c"
            " JOIN events e ON e.event_nid = c.event_nid"
            f" WHERE {where} AND {types} AND c.state_key = ''",
            [*args, *type_args],
        )
        for room_nid, event_type, text in rows:
            found[room_nid][event_type] = text
    return found


def joined_counts(txn: Transaction, room_nids: Sequence[int]) -> dict[int, int]:
    """How many users are joined to each of these rooms; rooms without any are left out."""
    found: dict[int, int] = {}
    for start in range(0, len(room_nids), _PART):
        where, args = txn.any_of("room_nid", room_nids[start : start + _PART])
        rows = txn.all(
            f"SELECT room_nid, COUNT(*) FROM memberships WHERE {where} AND membership = 'join'"
            " GROUP BY room_nid",
            args,
        )
        found |= {row[0]: row[1] for row in rows}
    return found
