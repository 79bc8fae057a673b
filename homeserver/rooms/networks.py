"""Looking up other networks that bridges connect (client-server API, "Third-party Networks").

What is known of them is known to the application services, each of which is asked. One that does
not answer, or not with what it should, has nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.errors import not_found
from homeserver.core.types import JsonObject

T = TypeVar("T")
Fields = Mapping[str, str]
_log = structlog.get_logger(__name__)


class Network(Protocol):
    """An application service that knows other networks; `name` is its ID.

    Locations and users are searched by `fields` of a protocol, or by what stands for them here.
    """

    name: str
    protocols: Sequence[str]

    async def metadata(self, protocol: str) -> JsonObject | None: ...

    async def locations(self, protocol: str, fields: Fields) -> Sequence[JsonObject]: ...

    async def users(self, protocol: str, fields: Fields) -> Sequence[JsonObject]: ...

    async def location_of(self, alias: str) -> Sequence[JsonObject]: ...

    async def user_of(self, user_id: str) -> Sequence[JsonObject]: ...


class ThirdPartyNetworks:
    """All that is known of other networks. `networks` may be added to at start-up."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self.networks: list[Network] = list(networks)

    async def protocols(self) -> dict[str, JsonObject]:
        """What is known of each protocol."""
        names = sorted({name for network in self.networks for name in network.protocols})
        found = {name: await self._metadata(name) for name in names}
        return {name: metadata for name, metadata in found.items() if metadata is not None}

    async def protocol(self, protocol: str) -> JsonObject:
        """What is known of a protocol. Raises MatrixError 404 `M_NOT_FOUND`."""
        found = await self._metadata(protocol)
        if found is None:
            raise not_found("There is no such protocol here.")
        return found

    async def locations(self, protocol: str, fields: Fields) -> list[JsonObject]:
        """Rooms that lead to places of a network. Raises MatrixError 404 `M_NOT_FOUND`."""
        asked = [each.locations(protocol, fields) for each in self._of(protocol)]
        return await self._merged(asked, "No such place is known here.")

    async def users(self, protocol: str, fields: Fields) -> list[JsonObject]:
        """Users who stand for those of a network. Raises MatrixError 404 `M_NOT_FOUND`."""
        asked = [each.users(protocol, fields) for each in self._of(protocol)]
        return await self._merged(asked, "No such user is known here.")

    async def location_of(self, alias: str) -> list[JsonObject]:
        """What an alias stands for. Raises MatrixError 404 `M_NOT_FOUND`."""
        asked = [each.location_of(alias) for each in self.networks]
        return await self._merged(asked, "This alias stands for nothing known here.")

    async def user_of(self, user_id: str) -> list[JsonObject]:
        """Whom a user ID stands for. Raises MatrixError 404 `M_NOT_FOUND`."""
        asked = [each.user_of(user_id) for each in self.networks]
        return await self._merged(asked, "This user stands for nobody known here.")

    def _of(self, protocol: str) -> list[Network]:
        return [each for each in self.networks if protocol in each.protocols]

    async def _metadata(self, protocol: str) -> JsonObject | None:
        """The first answer, with the instances of all."""
        networks = self._of(protocol)
        answers = await _all([each.metadata(protocol) for each in networks])
        merged: JsonObject | None = None
        instances: list[Any] = []
        for network, answer in zip(networks, answers, strict=True):
            if not isinstance(answer, dict):
                continue
            merged = merged if merged is not None else answer
            given = answer.get("instances")
            for instance in given if isinstance(given, list) else ():
                if isinstance(instance, dict):
                    name = f"{network.name}|{instance.get('network_id', '')}"
                    instances.append({"instance_id": name, **instance})
        return None if merged is None else {**merged, "instances": instances}

    async def _merged(
        self, asked: Sequence[Awaitable[Sequence[JsonObject]]], none: str
    ) -> list[JsonObject]:
        found = [
            each
            for answer in await _all(asked)
            if isinstance(answer, list | tuple)
            for each in answer
            if isinstance(each, dict)
        ]
        if not found:
            raise not_found(none)
        return found


async def _all(asked: Sequence[Awaitable[T]]) -> list[T | None]:
    """The answers to all at once, in order; None for those that failed."""

    async def guarded(each: Awaitable[T]) -> T | None:
        try:
            return await each
        except Exception as problem:
            _log.warning("An application service did not answer", reason=str(problem))
            return None

    waiting: list[Deferred[T | None]] = [Deferred.fromCoroutine(guarded(each)) for each in asked]
    return list(await gatherResults(waiting))
