"""Networks that an application service connects (Application Service API, "Third-party
networks")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from federation.client.errors import BadAnswer
from homeserver.appservices.calls import AppserviceCalls, answered_json
from homeserver.core.appservices import AppserviceRegistration
from homeserver.core.types import JsonObject

_OLD = "/_matrix/app/unstable"
_MOST = 1_000


class AppserviceNetwork:
    """What one service knows. See `homeserver.rooms.networks.Network`."""

    def __init__(self, registration: AppserviceRegistration, calls: AppserviceCalls) -> None:
        self.name = registration.appservice_id
        self.protocols: Sequence[str] = registration.protocols
        self._registration = registration
        self._calls = calls

    async def metadata(self, protocol: str) -> JsonObject | None:
        """What is known of a protocol."""
        found = await self._get(f"/thirdparty/protocol/{quote(protocol, safe='')}", {})
        return found if isinstance(found, dict) else None

    async def locations(self, protocol: str, fields: Mapping[str, str]) -> Sequence[JsonObject]:
        """Rooms that lead to places of a network."""
        return await self._list(f"/thirdparty/location/{quote(protocol, safe='')}", fields)

    async def users(self, protocol: str, fields: Mapping[str, str]) -> Sequence[JsonObject]:
        """Users that stand for people of a network."""
        return await self._list(f"/thirdparty/user/{quote(protocol, safe='')}", fields)

    async def location_of(self, alias: str) -> Sequence[JsonObject]:
        """The places that an alias leads to."""
        return await self._list("/thirdparty/location", {"alias": alias})

    async def user_of(self, user_id: str) -> Sequence[JsonObject]:
        """The people that a user stands for."""
        return await self._list("/thirdparty/user", {"userid": user_id})

    async def _list(self, path: str, fields: Mapping[str, str]) -> Sequence[JsonObject]:
        found = await self._get(path, fields)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            return []
        return found[:_MOST]

    async def _get(self, path: str, fields: Mapping[str, str]) -> Any:
        answer = await self._calls.request(
            self._registration, "GET", path, query=dict(fields), old=_OLD
        )
        if answer.status != 200:
            raise BadAnswer(self.name, f"it answered {answer.status}")
        return answered_json(answer)
