"""Push rules of the users who changed any. Table `push_rules`."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from homeserver.cache import Cache
from homeserver.core.push_rules import Ruleset
from storage.errors import Conflict
from storage.point_query import point_query
from storage.transaction import Row, Transaction


def _ruleset(rows: list[Row]) -> Ruleset:
    ((user_id, text),) = rows
    return Ruleset(user_id) if text is None else load(user_id, text)


@point_query(
    "SELECT u.user_id, p.rules FROM (SELECT CAST(? AS TEXT) AS user_id) u"
    " LEFT JOIN push_rules p ON p.user_id = u.user_id",
    _ruleset,
)
def get(user_id: str) -> Sequence[Any]:
    """A user's ruleset: the defaults when nothing was changed."""
    return (user_id,)


def get_many(txn: Transaction, user_ids: Collection[str]) -> dict[str, Ruleset]:
    """The rulesets of those of the users who changed any rule."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(f"SELECT user_id, rules FROM push_rules WHERE {where}", args)
    return {user_id: load(user_id, text) for user_id, text in rows}


RULES = "push_rules"
"""The cache that is invalidated when the rules of an exceptional user change; keys are user IDs."""
EXCEPTIONAL = "exceptional_users"
"""The cache that is invalidated when a user becomes exceptional, or is no longer."""


class Stored(NamedTuple):
    """A user's rules as stored; `pos` is None for a user who never changed any."""

    ruleset: Ruleset
    exceptional: bool
    pos: int | None


def get_versioned(txn: Transaction, user_id: str) -> Stored:
    """A user's rules, to be changed by `replace`."""
    row = txn.one("SELECT rules, exceptional, pos FROM push_rules WHERE user_id = ?", (user_id,))
    if row is None:
        return Stored(Ruleset(user_id), False, None)
    return Stored(load(user_id, row[0]), bool(row[1]), row[2])


def replace(
    txn: Transaction, ruleset: Ruleset, exceptional: bool, pos: int, old_pos: int | None
) -> None:
    """Set a user's rules. `exceptional`: see the schema; `old_pos`: `pos` of the old ones.

    Raises Conflict, which runs the transaction again, when they were changed meanwhile.
    """
    text = json.dumps(ruleset.dump(), ensure_ascii=False, separators=(",", ":"))
    if old_pos is None:
        done = txn.execute(
            "INSERT INTO push_rules (rules, exceptional, pos, user_id) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (user_id) DO NOTHING",
            (text, exceptional, pos, ruleset.user_id),
        )
    else:
        done = txn.execute(
            "UPDATE push_rules SET rules = ?, exceptional = ?, pos = ?"
            " WHERE user_id = ? AND pos = ?",
            (text, exceptional, pos, ruleset.user_id, old_pos),
        )
    if not done:
        raise Conflict("push rules changed meanwhile")


def changed(txn: Transaction, user_id: str, after: int, upto: int) -> bool:
    """Whether the user's rules changed in `after < pos <= upto`."""
    sql = "SELECT 1 FROM push_rules WHERE user_id = ? AND pos > ? AND pos <= ?"
    return txn.one(sql, (user_id, after, upto)) is not None


def delete(txn: Transaction, user_id: str) -> None:
    """Go back to the defaults."""
    txn.execute("DELETE FROM push_rules WHERE user_id = ?", (user_id,))


def exceptional_members(
    txn: Transaction, room_nids: Collection[int]
) -> list[tuple[int, Ruleset, str | None]]:
    """Joined users of this server for whom events of these rooms are judged one by one.

    Room, rules and display name in the room.
    """
    where, args = txn.any_of("m.room_nid", room_nids)
    rows = txn.all(
        "SELECT m.room_nid, m.user_id, p.rules, m.displayname FROM memberships m"
        f" JOIN push_rules p ON p.user_id = m.user_id WHERE {where}"
        " AND m.membership = 'join' AND m.is_local AND p.exceptional",
        args,
    )
    return [(nid, load(user_id, text), name) for nid, user_id, text, name in rows]


# Of a pure function, so that homeservers in one process may share it.
_loaded: Cache[tuple[str, str], Ruleset] = Cache(
    "rulesets", lambda key, _: 1_000 + 8 * len(key[1]), share=1.0
)


def load(user_id: str, text: str) -> Ruleset:
    """The ruleset that was stored as this text. Parsing and compiling it takes a while."""
    found = _loaded.get((user_id, text))
    if found is None:
        found = _loaded[user_id, text] = Ruleset.load(user_id, json.loads(text))
    return found
