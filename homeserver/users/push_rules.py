"""Push rules of this server's users ("Push Rules: API").

A change is a change of the account data `m.push_rules`, and takes effect with the next event.
"""

from __future__ import annotations

from collections.abc import Callable

from homeserver.core import push_rule_changes
from homeserver.core.push_rules import PushRule, Ruleset
from homeserver.core.push_volume import is_exceptional
from homeserver.core.types import JsonObject
from storage import push_rules
from storage.database import Database
from storage.transaction import Transaction

Change = Callable[[Ruleset], Ruleset]


class PushRules:
    """Reads and changes rulesets. Methods raise what `homeserver.core.push_rule_changes` does."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ruleset(self, user_id: str) -> Ruleset:
        """All rules of a user."""
        return await self._db.query(push_rules.get, user_id)

    async def rule(self, user_id: str, kind: str, rule_id: str) -> PushRule:
        """One rule."""
        return push_rule_changes.get_rule(await self.ruleset(user_id), kind, rule_id)

    async def put(
        self,
        user_id: str,
        kind: str,
        rule_id: str,
        body: JsonObject,
        before: str | None,
        after: str | None,
    ) -> None:
        """Add a rule, or change it."""
        await self._change(
            user_id,
            lambda rules: push_rule_changes.put_rule(
                rules, kind, rule_id, body, before=before, after=after
            ),
        )

    async def delete(self, user_id: str, kind: str, rule_id: str) -> None:
        """Remove a rule."""
        await self._change(
            user_id, lambda rules: push_rule_changes.delete_rule(rules, kind, rule_id)
        )

    async def set_enabled(self, user_id: str, kind: str, rule_id: str, body: JsonObject) -> None:
        """Switch a rule on or off."""
        await self._change(
            user_id, lambda rules: push_rule_changes.set_enabled(rules, kind, rule_id, body)
        )

    async def set_actions(self, user_id: str, kind: str, rule_id: str, body: JsonObject) -> None:
        """Change the actions of a rule."""
        await self._change(
            user_id, lambda rules: push_rule_changes.set_actions(rules, kind, rule_id, body)
        )

    async def _change(self, user_id: str, change: Change) -> None:
        await self._db.write(change_rules, user_id, change)


def change_rules(txn: Transaction, user_id: str, change: Change) -> None:
    """Change a user's rules within a transaction."""
    old = push_rules.get_versioned(txn, user_id)
    ruleset = change(old.ruleset)
    exceptional = is_exceptional(ruleset)
    pos = txn.next_pos()
    push_rules.replace(txn, ruleset, exceptional, pos, old.pos)
    if exceptional != old.exceptional:
        txn.invalidate(push_rules.EXCEPTIONAL, user_id)
    elif exceptional:
        txn.invalidate(push_rules.RULES, user_id)
    txn.notify(f"user:{user_id}")
