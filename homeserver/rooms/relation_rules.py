"""What a client may not say about another event.

1. The same reaction to the same event twice (client-server API, "Avoiding duplicate annotations").
2. A thread whose root is itself a child of another event ("Validation of `m.thread`
   relationships").
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.types import JsonObject
from homeserver.rooms.relations import relation_in
from homeserver.rooms.requests import StateView
from storage import events
from storage.transaction import Transaction


class RelationRules:
    """Checks the relation of one message that a user wants to send.

    `guard` and `within` are those of `AppendRequest`: the one looks at what the same transaction
    adds, the other at the database.
    """

    def __init__(self, user_id: str, content: JsonObject) -> None:
        self._user_id = user_id
        self._relation = relation_in(content)
        self._key = _annotation_key(content)

    @property
    def needed(self) -> bool:
        """Whether there is anything to check."""
        relation = self._relation
        if relation is None:
            return False
        return relation.rel_type == "m.thread" or self._key is not None

    def guard(self, view: StateView) -> None:
        """Raises MatrixError 400 `M_DUPLICATE_ANNOTATION`, `M_UNKNOWN`."""
        relation = self._relation
        if relation is None:
            return
        pending = view.pending
        if relation.rel_type == "m.thread":
            for event in pending:
                if event.event_id == relation.relates_to and relation_in(event.content):
                    raise _no_root()
            return
        own = (event for event in pending if event.sender == self._user_id)
        self._refuse_again(_annotations_of(own, relation.relates_to))

    def within(self, txn: Transaction, room_nid: int, room_id: str) -> None:
        """Raises MatrixError 400 `M_DUPLICATE_ANNOTATION`, `M_UNKNOWN`."""
        relation = self._relation
        if relation is None:
            return
        parent = relation.relates_to
        if relation.rel_type == "m.thread":
            row = events.get(txn, parent)
            if row is not None and row.room_nid == room_nid and row.rel_type is not None:
                raise _no_root()
            return
        texts = events.annotations_by(txn, room_nid, parent, self._user_id)
        self._refuse_again(json.loads(text)["content"] for text in texts)

    def _refuse_again(self, contents: Iterable[JsonObject]) -> None:
        if any(_annotation_key(content) == self._key for content in contents):
            raise MatrixError(
                400, "M_DUPLICATE_ANNOTATION", "You have reacted to this event so already."
            )


def _annotation_key(content: JsonObject) -> str | None:
    relates = content.get("m.relates_to")
    if not isinstance(relates, dict) or relates.get("rel_type") != "m.annotation":
        return None
    key = relates.get("key")
    return key if isinstance(key, str) else None


def _annotations_of(pending: Iterable[Event], parent: str) -> Iterable[JsonObject]:
    for event in pending:
        relation = relation_in(event.content)
        if relation is not None and relation.relates_to == parent:
            yield event.content


def _no_root() -> MatrixError:
    return errors.unknown("A thread cannot start at an event that itself relates to another.")
