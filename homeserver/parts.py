"""What the builders of the composition root share: the services by type, and the common parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from config import Config
from homeserver.core.signing import SigningKey
from homeserver.telemetry.metrics import Metrics
from storage.bus import Bus
from storage.database import Database
from storage.feed import Feed
from storage.jobs import Handler

T = TypeVar("T")


class Services:
    """The objects that endpoints are given, by type."""

    def __init__(self) -> None:
        self._by_type: dict[Any, Any] = {}

    def add(self, service: T) -> T:
        """Register a service under its own type."""
        self._by_type[type(service)] = service
        return service

    def add_as(self, kind: Any, service: T) -> T:
        """Register a service under the protocol that it follows."""
        self._by_type[kind] = service
        return service

    def following(self, kind: Any) -> Any:
        """The service that was registered under a protocol."""
        return self._by_type[kind]

    def __getitem__(self, kind: type[T]) -> T:
        found: T = self._by_type[kind]
        return found

    def as_mapping(self) -> Mapping[Any, Any]:
        """For the router."""
        return self._by_type


@dataclass(slots=True)
class Parts:
    """What every builder below needs."""

    config: Config
    reactor: Any
    db: Database
    bus: Bus
    feed: Feed
    metrics: Metrics
    keys: list[SigningKey]
    services: Services
    stops: list[Callable[[], Awaitable[object] | None]]
    jobs: dict[str, Handler] = field(default_factory=dict)
