"""Sending events, state and redactions (client-server API, "Sending events to a room")."""

from __future__ import annotations

import json
from typing import Protocol

from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.ids import (
    EventID,
    InvalidIdentifier,
    RoomAlias,
    RoomID,
    UserID,
    domain_of,
)
from homeserver.core.power_levels import (
    PowerLevels,
    check_sent_power_levels,
    room_creators,
)
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.relation_rules import RelationRules
from homeserver.rooms.requests import AppendRequest, StateView
from homeserver.web.request import Requester
from storage import events, rooms, state
from storage.database import Database
from storage.events import TransactionKey
from storage.transaction import Transaction

MAX_TRANSACTION_ID = 255
"""Bytes of a client's transaction ID."""


class MemberChanges(Protocol):
    """Changes of membership, with the checks of the membership endpoints."""

    async def set_member(
        self, requester: Requester, room_id: RoomID, target: UserID, content: JsonObject
    ) -> str:
        """Send an `m.room.member` event; its event ID."""


class AliasLookup(Protocol):
    """Room aliases of this server and of others."""

    async def resolve(self, alias: RoomAlias) -> str | None:
        """The room that an alias points to."""


class Sending:
    """Sends what clients say in rooms."""

    def __init__(
        self, db: Database, appender: Appender, members: MemberChanges, aliases: AliasLookup
    ) -> None:
        self._db = db
        self._appender = appender
        self._members = members
        self._aliases = aliases

    async def send_event(
        self,
        requester: Requester,
        room_id: RoomID,
        event_type: str,
        content: JsonObject,
        txn_id: str,
        *,
        ts: int | None = None,
        sticky_ms: int | None = None,
    ) -> str:
        """Send a message event; its event ID.

        Parameters: `ts` in milliseconds is heeded for application services alone; `sticky_ms`,
        for how many milliseconds it is sticky (MSC4354).

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 400 `M_INVALID_PARAM`, `M_DUPLICATE_ANNOTATION`,
                `M_UNKNOWN` for a thread in a thread; 413 `M_TOO_LARGE`.
        """
        if event_type == "m.room.redaction":
            redacts = content.get("redacts")
            if not isinstance(redacts, str):
                raise errors.missing_param("redacts")
            return await self.redact(
                requester,
                room_id,
                _event_id(redacts),
                {key: value for key, value in content.items() if key != "redacts"},
                _transaction(requester, f"send/{event_type}", txn_id),
                ts=ts,
            )
        template = EventTemplate(
            event_type,
            requester.user_id,
            content,
            origin_server_ts=_allowed_ts(requester, ts),
            sticky_ms=sticky_ms,
        )
        rules = RelationRules(requester.user_id, content)
        request = AppendRequest(
            room_id,
            [template],
            transaction=_transaction(requester, f"send/{event_type}", txn_id),
            guard=rules.guard if rules.needed else None,
            within=rules.within if rules.needed else None,
            pretend=requester.is_shadow_banned,
        )
        return (await self._appender.append(request)).event_ids[0]

    async def send_state(
        self,
        requester: Requester,
        room_id: RoomID,
        event_type: str,
        state_key: str,
        content: JsonObject,
        *,
        ts: int | None = None,
        sticky_ms: int | None = None,
    ) -> str:
        """Send a state event; its event ID, or that of the current one if that says the same.
        A sticky one is always sent.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 400 `M_BAD_JSON`, `M_INVALID_PARAM`, `M_BAD_ALIAS`.
        """
        if event_type == "m.room.member":
            try:
                target = UserID.parse(state_key)
            except InvalidIdentifier:
                raise errors.invalid_param("The state key of a member event is a user ID.")
            return await self._members.set_member(requester, room_id, target, content)
        if event_type == "m.room.create":
            raise errors.forbidden("A room is created only once.")
        if event_type == "m.room.canonical_alias":
            await self._check_canonical_alias(room_id, content)
        template = EventTemplate(
            event_type,
            requester.user_id,
            content,
            state_key,
            origin_server_ts=_allowed_ts(requester, ts),
            sticky_ms=sticky_ms,
        )

        def decide(state: StateView) -> list[EventTemplate]:
            if event_type == "m.room.power_levels" and state_key == "":
                _check_power_levels(state, content)
            return [template]

        request = AppendRequest(
            room_id, decide, idempotent=sticky_ms is None, pretend=requester.is_shadow_banned
        )
        return (await self._appender.append(request)).event_ids[0]

    async def redact(
        self,
        requester: Requester,
        room_id: RoomID,
        event_id: EventID,
        content: JsonObject,
        transaction: TransactionKey,
        *,
        ts: int | None = None,
    ) -> str:
        """Redact an event; the redaction's event ID.

        Users redact their own events, those with the redact level others' too, and administrators
        of this server those of its users.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`, `M_USER_SUSPENDED`; 400 `M_INVALID_PARAM` for an event
                of another room.
        """
        target = await self._db.read(_redaction_target, room_id, event_id)
        is_own = target is not None and target.sender == requester.user_id
        if requester.is_suspended and not is_own:
            raise errors.user_suspended()
        if target is not None and target.is_create:
            raise errors.forbidden("The event that created the room cannot be redacted.")
        template = EventTemplate(
            "m.room.redaction",
            requester.user_id,
            content,
            redacts=event_id,
            origin_server_ts=_allowed_ts(requester, ts),
        )

        request = AppendRequest(
            room_id,
            [template],
            transaction=transaction,
            guard=lambda state: _check_redaction(state, target, requester),
            pretend=requester.is_shadow_banned,
        )
        return (await self._appender.append(request)).event_ids[0]

    async def _check_canonical_alias(self, room_id: RoomID, content: JsonObject) -> None:
        """New aliases must be well formed and point to this room; old ones are not looked at."""
        named = _named_aliases(content)
        old = await self._db.read(_current_content, room_id, "m.room.canonical_alias")
        for alias in named - _named_aliases(old, strict=False):
            try:
                parsed = RoomAlias.parse(alias)
            except InvalidIdentifier:
                raise errors.invalid_param(f"{alias!r} is not a room alias.")
            if await self._aliases.resolve(parsed) != room_id:
                raise MatrixError(
                    400, "M_BAD_ALIAS", f"The alias {alias} does not point to this room."
                )


def transaction_for_redaction(
    requester: Requester, event_id: EventID, txn_id: str
) -> TransactionKey:
    """The transaction of a request to the redaction endpoint."""
    return _transaction(requester, f"redact/{event_id}", txn_id)


def _transaction(requester: Requester, scope: str, txn_id: str) -> TransactionKey:
    if len(txn_id.encode()) > MAX_TRANSACTION_ID:
        raise errors.invalid_param("The transaction ID is longer than 255 bytes.")
    return TransactionKey(requester.device_id or "", scope, txn_id)


def _allowed_ts(requester: Requester, ts: int | None) -> int | None:
    return ts if requester.appservice_id is not None else None


def _event_id(text: str) -> EventID:
    try:
        return EventID.parse(text)
    except InvalidIdentifier:
        raise errors.invalid_param("`redacts` is not an event ID.")


def _check_power_levels(state: StateView, content: JsonObject) -> None:
    create = state.get("m.room.create")
    privileged = create is not None and create.version.creators_privileged
    check_sent_power_levels(content, room_creators(create) if create and privileged else ())


def _check_redaction(state: StateView, target: Event | None, requester: Requester) -> None:
    """What is not known yet can be redacted: whether it may be is judged when it arrives."""
    create = state.get("m.room.create")
    if target is None or create is None or target.sender == requester.user_id:
        return
    if requester.is_admin and domain_of(target.sender) == requester.user_id.domain:
        return
    power = PowerLevels.of(state.get("m.room.power_levels"), create)
    if power.user_level(requester.user_id) < power.redact:
        raise errors.forbidden("You may not redact this event.")


def _redaction_target(txn: Transaction, room_id: str, event_id: str) -> Event | None:
    room = rooms.get(txn, room_id)
    row = events.get(txn, event_id)
    if room is None or row is None:
        return None
    if row.room_nid != room.room_nid:
        raise errors.invalid_param("This event is in another room.")
    return Event.from_json(row.json, ROOM_VERSIONS[room.version], row.event_id)


def _current_content(txn: Transaction, room_id: str, event_type: str) -> JsonObject:
    room = rooms.get(txn, room_id)
    if room is None:
        return {}
    row = state.current(txn, room.room_nid, [(event_type, "")]).get((event_type, ""))
    content: JsonObject = json.loads(row.json)["content"] if row is not None else {}
    return content


def _named_aliases(content: JsonObject, *, strict: bool = True) -> set[str]:
    alias, others = content.get("alias"), content.get("alt_aliases")
    found: set[str] = set()
    if isinstance(alias, str):
        found |= {alias} if alias else set()
    elif alias is not None and strict:
        raise errors.invalid_param("`alias` must be a string.")
    if isinstance(others, list) and all(isinstance(other, str) for other in others):
        found |= set(others)
    elif others is not None and strict:
        raise errors.invalid_param("`alt_aliases` must be a list of strings.")
    return found
