"""The summary of a joined room: heroes and counts (client-server API, `GET /sync`)."""

from __future__ import annotations

from homeserver.core.types import JsonObject
from homeserver.sync.request import Snapshot
from storage import memberships, state
from storage.transaction import Transaction

HEROES = 5


def heroes(txn: Transaction, room_nid: int, user_id: str) -> list[str]:
    """The first five others who are joined or invited, else who left; none in a named room."""
    if state.current_names(txn, room_nid):
        return []
    present = memberships.first_others(txn, room_nid, user_id, ("join", "invite"), HEROES)
    return present or memberships.first_others(txn, room_nid, user_id, ("leave", "ban"), HEROES)


def summary(snapshot: Snapshot, room_nid: int, chosen: list[str]) -> JsonObject:
    """The `summary` object, with heroes that were chosen before."""
    counts = None if snapshot.ahead is None else snapshot.ahead.counts.get(room_nid)
    if counts is None:
        counts = memberships.counts(snapshot.txn, room_nid)
    found: JsonObject = {
        "m.joined_member_count": counts.get("join", 0),
        "m.invited_member_count": counts.get("invite", 0),
    }
    if chosen:
        found["m.heroes"] = chosen
    return found
