"""What a connection knows of those around it, and the states that it has."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from homeserver.telemetry.logs import Logger
from homeserver.web.deadlines import Deadlines
from homeserver.web.http_head import HttpLimits, Network
from homeserver.web.known_heads import KnownHeads
from homeserver.web.request import BodyPlan, Request
from homeserver.web.responses import Response

if TYPE_CHECKING:
    from homeserver.web.http_connection import HttpConnection


class Application(Protocol):
    """What answers requests: see `homeserver.web.router.Router`."""

    def body_plan(self, request: Request) -> BodyPlan: ...

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]: ...


class Owner(Protocol):
    """What a connection asks of its factory."""

    application: Application
    limits: HttpLimits
    trusted_proxies: tuple[Network, ...]
    log: Logger
    connections: set[HttpConnection]
    deadlines: Deadlines
    heads: KnownHeads
    running: int
    is_stopping: bool

    def now(self) -> float: ...

    def compress(self, coding: str, data: bytes) -> bytes | Awaitable[bytes]: ...


class State(IntEnum):
    HEAD = 0
    BODY = 1
    BUSY = 2
    DISCARD = 3
    CLOSING = 4
