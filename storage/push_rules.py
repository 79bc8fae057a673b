"""Push rules of the users who changed any. Table `push_rules`."""

from __future__ import annotations

import json
from collections.abc import Collection

from homeserver.core.push_rules import Ruleset
from storage.transaction import Transaction


def get(txn: Transaction, user_id: str) -> Ruleset:
    """A user's ruleset: the defaults when nothing was changed."""
    text = txn.value("SELECT rules FROM push_rules WHERE user_id = ?", (user_id,))
    return Ruleset(user_id) if text is None else Ruleset.load(user_id, json.loads(text))


def get_many(txn: Transaction, user_ids: Collection[str]) -> dict[str, Ruleset]:
    """The rulesets of those of the users who changed any rule."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(f"SELECT user_id, rules FROM push_rules WHERE {where}", args)
    return {user_id: Ruleset.load(user_id, json.loads(text)) for user_id, text in rows}


def put(txn: Transaction, ruleset: Ruleset, exceptional: bool, pos: int) -> None:
    """Set a user's rules. `exceptional`: see the schema."""
    text = json.dumps(ruleset.dump(), ensure_ascii=False, separators=(",", ":"))
    txn.execute(
        "INSERT INTO push_rules (user_id, rules, exceptional, pos) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET rules = excluded.rules,"
        " exceptional = excluded.exceptional, pos = excluded.pos",
        (ruleset.user_id, text, exceptional, pos),
    )


def is_exceptional(txn: Transaction, user_id: str) -> bool:
    """Whether events are judged for this user one by one."""
    sql = "SELECT exceptional FROM push_rules WHERE user_id = ?"
    return bool(txn.value(sql, (user_id,)))


def changed(txn: Transaction, user_id: str, after: int, upto: int) -> bool:
    """Whether the user's rules changed in `after < pos <= upto`."""
    sql = "SELECT 1 FROM push_rules WHERE user_id = ? AND pos > ? AND pos <= ?"
    return txn.one(sql, (user_id, after, upto)) is not None


def delete(txn: Transaction, user_id: str) -> None:
    """Go back to the defaults."""
    txn.execute("DELETE FROM push_rules WHERE user_id = ?", (user_id,))
