"""Calls by which users of this server join, leave, knock on and are invited to rooms elsewhere.

Server-Server API, "Joining Rooms", "Knocking upon a room", "Inviting to a room", "Leaving Rooms",
"Third-party invites". The shapes of answers are checked here; what they say is for the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from federation.client.errors import BadAnswer, RemoteHttpError
from federation.client.requests import FederationClient, federation_path
from homeserver.core.ids import InvalidIdentifier, ServerName
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject

MAX_JOIN_ANSWER = 200 * 1024 * 1024
"""Bytes of an answer to send_join: the state of a very large room and its auth chain."""

MAX_ANSWER = 1024 * 1024
"""Bytes of any other answer: a template, or an event, or some state of a room."""

MAX_SERVERS = 50_000
"""Servers of a room that are taken from an answer with partial state."""

HANDSHAKE_TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 300.0
"""A resident server needs time to collect the state of a large room."""

_V1, _V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


@dataclass(frozen=True, slots=True)
class Template:
    """The answer to make_join, make_leave and make_knock.

    `event` is any JSON object; `room_version` is "1" where the server named none.
    """

    event: JsonObject
    room_version: str


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """The answer to send_join.

    The PDUs of `state` and `auth_chain` are any JSON values; `event` is the join with more
    signatures, if the server gave it. `servers` is None unless members were left out.
    """

    state: Sequence[Any]
    auth_chain: Sequence[Any]
    event: JsonObject | None
    members_omitted: bool
    servers: tuple[str, ...] | None


class MembershipCalls:
    """Asks other servers for changes of membership; everything raises `RemoteError`."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def make_join(
        self, destination: str, room_id: str, user_id: str, versions: Collection[str]
    ) -> Template:
        """Ask for a template of a join; `versions` are the room versions that can be joined."""
        return await self._make("make_join", destination, room_id, user_id, versions)

    async def make_knock(
        self, destination: str, room_id: str, user_id: str, versions: Collection[str]
    ) -> Template:
        """Ask for a template of a knock."""
        return await self._make("make_knock", destination, room_id, user_id, versions)

    async def make_leave(self, destination: str, room_id: str, user_id: str) -> Template:
        """Ask for a template of the end of an invite, a knock or a stay."""
        return await self._make("make_leave", destination, room_id, user_id, ())

    async def send_join(
        self,
        destination: str,
        room_id: str,
        event_id: str,
        pdu: JsonObject,
        *,
        omit_members: bool = False,
    ) -> JoinAnswer:
        """Have a signed join put into its room; version 1 where the server knows no other."""
        parts = (room_id, event_id)
        query = {"omit_members": "true"} if omit_members else None
        try:
            answer = await self._client.put_json(
                destination,
                federation_path(_V2 + "/send_join/{}/{}", *parts),
                pdu,
                query=query,
                timeout_s=JOIN_TIMEOUT_S,
                max_bytes=MAX_JOIN_ANSWER,
            )
        except RemoteHttpError as error:
            if not is_unrecognized(error):
                raise
            answer = await self._put_v1(
                destination,
                federation_path(_V1 + "/send_join/{}/{}", *parts),
                pdu,
                JOIN_TIMEOUT_S,
                MAX_JOIN_ANSWER,
            )
        return _join_answer(destination, answer)

    async def send_leave(
        self, destination: str, room_id: str, event_id: str, pdu: JsonObject
    ) -> None:
        """Have a signed leave put into its room; version 1 where the server knows no other."""
        parts = (room_id, event_id)
        try:
            await self._client.put_json(
                destination,
                federation_path(_V2 + "/send_leave/{}/{}", *parts),
                pdu,
                timeout_s=HANDSHAKE_TIMEOUT_S,
                max_bytes=MAX_ANSWER,
            )
        except RemoteHttpError as error:
            if not is_unrecognized(error):
                raise
            await self._put_v1(destination, federation_path(_V1 + "/send_leave/{}/{}", *parts), pdu)

    async def send_knock(
        self, destination: str, room_id: str, event_id: str, pdu: JsonObject
    ) -> list[Any]:
        """Have a signed knock put into its room; the PDUs of `knock_room_state`, unchecked."""
        answer = await self._client.put_json(
            destination,
            federation_path(_V1 + "/send_knock/{}/{}", room_id, event_id),
            pdu,
            timeout_s=HANDSHAKE_TIMEOUT_S,
            max_bytes=MAX_ANSWER,
        )
        state = answer.get("knock_room_state", answer.get("knock_state_events", []))
        return _list(destination, state, "knock_room_state")

    async def invite(
        self,
        destination: str,
        room_id: str,
        event_id: str,
        pdu: JsonObject,
        version: RoomVersion,
        room_state: Sequence[JsonObject],
    ) -> JsonObject:
        """Tell a server of an invite of its user; the event as that server returned it.

        Version 1 of the call is used only for room versions that it can speak of, and only where
        the server knows no other.
        """
        body: JsonObject = {
            "event": pdu,
            "invite_room_state": list(room_state),
            "room_version": version.identifier,
        }
        path = federation_path(_V2 + "/invite/{}/{}", room_id, event_id)
        try:
            answer = await self._client.put_json(
                destination, path, body, timeout_s=HANDSHAKE_TIMEOUT_S, max_bytes=MAX_ANSWER
            )
        except RemoteHttpError as error:
            if not (is_unrecognized(error) and version.invite_v1_fallback):
                raise
            old = {**pdu, "unsigned": {"invite_room_state": list(room_state)}}
            answer = await self._put_v1(
                destination, federation_path(_V1 + "/invite/{}/{}", room_id, event_id), old
            )
        event = answer.get("event")
        if not isinstance(event, dict):
            raise BadAnswer(destination, "the answer to an invite has no event")
        return event

    async def exchange_third_party_invite(
        self, destination: str, room_id: str, pdu: JsonObject
    ) -> None:
        """Ask the server of a third-party invite's sender to make a real invite of it."""
        await self._client.put_json(
            destination,
            federation_path(_V1 + "/exchange_third_party_invite/{}", room_id),
            pdu,
            timeout_s=HANDSHAKE_TIMEOUT_S,
            max_bytes=MAX_ANSWER,
        )

    async def _make(
        self,
        call: str,
        destination: str,
        room_id: str,
        user_id: str,
        versions: Collection[str],
    ) -> Template:
        answer = await self._client.get_json(
            destination,
            federation_path(_V1 + "/" + call + "/{}/{}", room_id, user_id),
            query={"ver": list(versions)} if versions else None,
            timeout_s=HANDSHAKE_TIMEOUT_S,
            max_bytes=MAX_ANSWER,
        )
        event, version = answer.get("event"), answer.get("room_version", "1")
        if not isinstance(event, dict):
            raise BadAnswer(destination, f"the answer to {call} has no event")
        if not isinstance(version, str):
            raise BadAnswer(destination, f"the answer to {call} has a room_version of no sense")
        return Template(event, version)

    async def _put_v1(
        self,
        destination: str,
        path: str,
        body: JsonObject,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
        max_bytes: int = MAX_ANSWER,
    ) -> JsonObject:
        """A call of version 1, which answers with `[200, {...}]`."""
        answer = await self._client.request(
            "PUT", destination, path, body=body, timeout_s=timeout_s, max_bytes=max_bytes
        )
        if not (isinstance(answer, list) and len(answer) == 2 and isinstance(answer[1], dict)):
            raise BadAnswer(destination, "the answer is not a pair of a number and an object")
        return answer[1]


def is_unrecognized(error: RemoteHttpError) -> bool:
    """Whether a server says that it does not know the endpoint.

    Old servers answer 404 without an error code, or 400 with `M_UNRECOGNIZED`.
    """
    if error.errcode == "M_UNRECOGNIZED":
        return error.status in (400, 404, 405)
    return error.status in (404, 405) and error.errcode is None


def _join_answer(destination: str, answer: JsonObject) -> JoinAnswer:
    event = answer.get("event")
    if event is not None and not isinstance(event, dict):
        raise BadAnswer(destination, "'event' is not an object")
    omitted = answer.get("members_omitted", False)
    if not isinstance(omitted, bool):
        raise BadAnswer(destination, "'members_omitted' is not a boolean")
    servers = None
    if omitted:
        named = _list(destination, answer.get("servers_in_room"), "servers_in_room")
        servers = tuple(dict.fromkeys(s for s in named[:MAX_SERVERS] if _is_server_name(s)))
    return JoinAnswer(
        _list(destination, answer.get("state"), "state"),
        _list(destination, answer.get("auth_chain"), "auth_chain"),
        event,
        omitted,
        servers,
    )


def _list(destination: str, value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadAnswer(destination, f"'{name}' is not a list")
    return value


def _is_server_name(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ServerName.parse(value)
    except InvalidIdentifier:
        return False
    return True
