"""A whole request through engine and router: from the bytes of a client to those of the answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from config.model import Rate, RateLimits
from homeserver.core.ids import UserID
from homeserver.telemetry.metrics import Metrics
from homeserver.web.endpoint import Auth, Request, Requester, endpoint
from homeserver.web.http import HttpFactory
from homeserver.web.limits import MemoryRateLimiter
from homeserver.web.router import Router
from tests.support.log import CapturedLog

_PATH = "/_matrix/client/v3/rooms/{room_id}/typing/{user_id}"
_BODY = b'{"typing":true,"timeout":30000}'
_REQUEST = (
    b"PUT /_matrix/client/v3/rooms/!room%3Aa.example/typing/%40alice%3Aa.example HTTP/1.1\r\n"
    b"Host: matrix.a.example\r\nUser-Agent: Element/1.11\r\nAccept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer 0123456789012345678901234567890123456789012\r\n"
    b"Content-Length: 31\r\n\r\n"
) + _BODY


class _Typing(msgspec.Struct):
    typing: bool
    timeout: int = 0


class _Answer(msgspec.Struct):
    room_id: str
    user_id: str


@endpoint("PUT", _PATH, auth=Auth.ACCESS_TOKEN, rate="read")
async def _put_typing(
    room_id: str, user_id: UserID, requester: Requester, body: _Typing
) -> _Answer:
    return _Answer(room_id, requester.user_id if body.typing else user_id)


class _Tokens:
    """Knows everybody."""

    def __init__(self) -> None:
        self._alice = Requester(UserID("@alice:a.example"), "DEVICE")

    async def authenticate(self, token: str, request: Request) -> Requester:
        return self._alice


class _Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def registerProducer(self, producer: object, streaming: bool) -> None: ...

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 12345)

    def write(self, data: bytes) -> None:
        self.written = data


def whole_request() -> Callable[[], object]:
    clock = Clock()
    log = CapturedLog().logger
    plenty = RateLimits(read=Rate(per_second=1_000_000, burst=1_000_000))
    router = Router(
        [_put_typing],
        {},
        _Tokens(),
        clock=clock,
        log=log,
        rate_limiter=MemoryRateLimiter(plenty, clock),
        observer=Metrics(),
    )
    connection = HttpFactory(router, clock=clock, log=log).buildProtocol(None)
    transport = _Transport()
    assert connection is not None
    connection.makeConnection(transport)  # type: ignore[arg-type]

    def work() -> object:
        connection.dataReceived(_REQUEST)
        return transport.written

    return work
