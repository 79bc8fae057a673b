"""What a user set for a room goes over to the room that replaces it (client-server API, "Room
upgrades", "Server behaviour").

When a user joins a room that names a predecessor, and the predecessor's tombstone names this room,
tags, the marks of direct chats and push rules are copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import structlog
from twisted.internet.defer import Deferred

from homeserver.core.push_rules import PushRule, Ruleset
from homeserver.core.types import JsonObject
from homeserver.rooms.restricted import room_id_of
from homeserver.rooms.write import WrittenRoom
from homeserver.users.account_data import encode
from homeserver.users.push_rules import change_rules
from homeserver.users.tags import TAG, tags_of
from storage import account_data, memberships, push_rules, rooms, state
from storage.account_data import GLOBAL
from storage.database import Database
from storage.transaction import Transaction

_log = structlog.get_logger(__name__)
DIRECT = "m.direct"
_MEMBER = "m.room.member"


class CarryOver:
    """Watches joins."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name
        self._running = 0
        self._idle: list[Deferred[None]] = []

    def written(self, room: WrittenRoom) -> None:
        """To be called after each commit to a room."""
        for entry in room.entries:
            user_id, old = entry.event.state_key, entry.replaces
            if (
                entry.event.type == _MEMBER
                and user_id is not None
                and entry.event.membership == "join"
                and (old is None or old.membership != "join")
                and user_id.endswith(":" + self._server_name)
            ):
                self._running += 1
                Deferred.fromCoroutine(self._copy(room.room_id, user_id))

    async def drained(self) -> None:
        """Wait for what is under way."""
        if self._running:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    async def _copy(self, room_id: str, user_id: str) -> None:
        try:
            old_room_id = await self._db.read(_predecessor, room_id, user_id)
            if old_room_id is not None:
                await self._db.write(_copy, user_id, old_room_id, room_id)
        except Exception:
            _log.exception("Settings were not copied", room_id=room_id, user_id=user_id)
        finally:
            self._running -= 1
            if not self._running:
                idle, self._idle = self._idle, []
                for waiter in idle:
                    waiter.callback(None)


def _predecessor(txn: Transaction, room_id: str, user_id: str) -> str | None:
    """The room that this one replaces for the user, if both rooms say so."""
    named = _content(txn, room_id, "m.room.create").get("predecessor")
    old_room_id = room_id_of(named.get("room_id")) if isinstance(named, dict) else None
    if old_room_id is None or old_room_id == room_id:
        return None
    old_nid = rooms.nid(txn, old_room_id)
    if old_nid is None or memberships.get(txn, old_nid, user_id) is None:
        return None
    tombstone = _content(txn, old_room_id, "m.room.tombstone")
    return old_room_id if tombstone.get("replacement_room") == room_id else None


def _content(txn: Transaction, room_id: str, event_type: str) -> JsonObject:
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        return {}
    key = (event_type, "")
    row = state.current(txn, room_nid, [key]).get(key)
    content: JsonObject = json.loads(row.json)["content"] if row is not None else {}
    return content


def _copy(txn: Transaction, user_id: str, old_room_id: str, new_room_id: str) -> None:
    old_tags = tags_of(account_data.get(txn, user_id, old_room_id, TAG))
    if old_tags:
        _change(
            txn,
            user_id,
            new_room_id,
            TAG,
            lambda content: {**content, "tags": {**old_tags, **tags_of(content)}},
        )
    _change(txn, user_id, GLOBAL, DIRECT, lambda old: with_direct(old, old_room_id, new_room_id))
    rules = push_rules.get(txn, user_id)
    if with_room(rules, old_room_id, new_room_id).own != rules.own:
        change_rules(txn, user_id, lambda rules: with_room(rules, old_room_id, new_room_id))
    txn.notify(f"user:{user_id}")


def _change(
    txn: Transaction,
    user_id: str,
    room_id: str,
    data_type: str,
    change: Callable[[JsonObject], JsonObject],
) -> None:
    old = account_data.get_versioned(txn, user_id, room_id, data_type)
    content, old_pos = old if old is not None else ({}, None)
    changed = change(content)
    if changed != content:
        text = encode(changed)
        account_data.replace(txn, user_id, room_id, data_type, text, txn.next_pos(), old_pos)


def with_direct(content: JsonObject, old_room_id: str, new_room_id: str) -> JsonObject:
    """`m.direct` with the new room beside the old one wherever that is."""
    changed = dict(content)
    for user_id, listed in content.items():
        if isinstance(listed, list) and old_room_id in listed and new_room_id not in listed:
            changed[user_id] = [*listed, new_room_id]
    return changed


def with_room(ruleset: Ruleset, old_room_id: str, new_room_id: str) -> Ruleset:
    """The rules with a copy for the new room of each that is for the old room alone."""
    own: dict[str, tuple[PushRule, ...]] = {}
    for kind, rules in ruleset.own.items():
        known = {rule.rule_id for rule in rules}
        found = []
        for rule in rules:
            found.append(rule)
            copied = _for_room(rule, old_room_id, new_room_id)
            if copied is not None and copied.rule_id not in known:
                found.append(copied)
        own[kind] = tuple(found)
    return Ruleset(ruleset.user_id, own, ruleset.changes)


def _for_room(rule: PushRule, old_room_id: str, new_room_id: str) -> PushRule | None:
    """The copy of a rule: a rule of the old room, or one with the old room among its conditions."""
    if rule.kind == "room":
        return replace(rule, rule_id=new_room_id) if rule.rule_id == old_room_id else None
    old = {"kind": "event_match", "key": "room_id", "pattern": old_room_id}
    if old not in rule.conditions:
        return None
    conditions = tuple(
        {**condition, "pattern": new_room_id} if condition == old else condition
        for condition in rule.conditions
    )
    # Clients name such rules by the room.
    rule_id = rule.rule_id.replace(old_room_id, new_room_id)
    if rule_id == rule.rule_id:
        rule_id = f"{rule.rule_id}_{new_room_id}"
    return replace(rule, rule_id=rule_id, conditions=conditions)
