"""Asking other servers for profiles, their public rooms, and what is in spaces.

Server-server API, "Querying for information", "Published room directory", "Spaces". Answers are
bounded, and checked only for the form in which they come: what is in them is judged by those who
use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from federation.client.errors import BadAnswer
from federation.client.requests import FederationClient, federation_path
from homeserver.core.types import JsonObject

MAX_PROFILE = 128 * 1024
MAX_ROOM_LIST = 4 * 1024 * 1024
MAX_SPACE = 4 * 1024 * 1024
"""Largest answers, in bytes."""
TIMEOUT_S = 10.0

_V1 = "/_matrix/federation/v1"


@dataclass(frozen=True, slots=True)
class RoomListAnswer:
    """A page of another server's public rooms."""

    rooms: Sequence[JsonObject]
    next_batch: str | None
    prev_batch: str | None
    total: int | None


@dataclass(frozen=True, slots=True)
class SpaceAnswer:
    """A room, and the rooms in it if it is a space."""

    room: JsonObject
    children: Sequence[JsonObject]
    inaccessible: frozenset[str]


class QueryCalls:
    """Asks other servers; everything raises `RemoteError`."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def profile(self, destination: str, user_id: str) -> JsonObject:
        """The whole profile of one of the server's users."""
        return await self._client.get_json(
            destination,
            f"{_V1}/query/profile",
            query={"user_id": user_id},
            timeout_s=TIMEOUT_S,
            max_bytes=MAX_PROFILE,
        )

    async def public_rooms(self, destination: str, wanted: JsonObject) -> RoomListAnswer:
        """A page of the server's public rooms. `wanted` is the body of the request."""
        answer = await self._client.post_json(
            destination,
            f"{_V1}/publicRooms",
            wanted,
            timeout_s=TIMEOUT_S,
            max_bytes=MAX_ROOM_LIST,
        )
        chunk = answer.get("chunk")
        if not isinstance(chunk, list):
            raise BadAnswer(destination, "the list of rooms has no rooms")
        total = answer.get("total_room_count_estimate")
        return RoomListAnswer(
            [room for room in chunk if isinstance(room, dict)],
            _text(answer.get("next_batch")),
            _text(answer.get("prev_batch")),
            total if type(total) is int and total >= 0 else None,
        )

    async def space(self, destination: str, room_id: str, *, suggested_only: bool) -> SpaceAnswer:
        """A room and its children, as far as this server may know of them."""
        answer = await self._client.get_json(
            destination,
            federation_path(f"{_V1}/hierarchy/{{}}", room_id),
            query={"suggested_only": "true" if suggested_only else "false"},
            timeout_s=TIMEOUT_S,
            max_bytes=MAX_SPACE,
        )
        room = answer.get("room")
        if not isinstance(room, dict) or room.get("room_id") != room_id:
            raise BadAnswer(destination, "the answer is not about the room that was asked for")
        children, inaccessible = answer.get("children"), answer.get("inaccessible_children")
        return SpaceAnswer(
            room,
            [child for child in _entries(children) if isinstance(child, dict)],
            frozenset(name for name in _entries(inaccessible) if isinstance(name, str)),
        )


def _entries(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 2048 else None
