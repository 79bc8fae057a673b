"""Whether Redis can be reached when the server starts.

Later Redis may come and go: it carries hints only. At the start an address at which nobody
answers is most likely a mistake, which the operator is told instead of being left to wonder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol

from config import Config
from homeserver.startup import CannotStart
from homeserver.telemetry.logs import Logger
from storage.database import backoff, sleep

if TYPE_CHECKING:
    from storage.redis import RedisAddress

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
_CONNECT_SECONDS = 5.0


async def wait_for_redis(config: Config, reactor: Any, log: Logger) -> None:
    """Return when somebody answers at the address of Redis.

    Tries again with growing pauses for `database.start_timeout`. Raises CannotStart.
    """
    if config.redis is None:
        return
    from storage.redis import RedisAddress

    try:
        address = RedisAddress.parse(config.redis.url)
    except ValueError as error:
        raise CannotStart(f"redis.url cannot be used: {error}") from None
    # Shown without the URL's password.
    shown = address.path if address.path is not None else f"{address.host} port {address.port}"
    give_up_at = reactor.seconds() + config.database.start_timeout.seconds
    attempt = 0
    while True:
        attempt += 1
        try:
            await _connect(address, reactor)
            return
        except (ConnectError, DNSLookupError, OSError) as error:
            if reactor.seconds() >= give_up_at:
                raise CannotStart(
                    f"Cannot reach Redis at {shown}, having tried for "
                    f"{config.database.start_timeout}: {error}"
                ) from None
            delay = backoff(attempt, _FIRST_PAUSE, _LONGEST_PAUSE)
            log.warning("Waiting for Redis", address=shown, reason=str(error), seconds=delay)
        await sleep(reactor, delay)


async def _connect(address: RedisAddress, reactor: Any) -> None:
    from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol

    unix: Any = UNIXClientEndpoint
    connect: Any = connectProtocol
    endpoint: Any
    if address.path is not None:
        endpoint = unix(reactor, address.path, timeout=_CONNECT_SECONDS)
    else:
        endpoint = HostnameEndpoint(
            reactor, address.host.encode(), address.port, timeout=_CONNECT_SECONDS
        )
    connecting = connect(endpoint, Protocol())

    def stop(waiting: Deferred[Any]) -> None:
        # First, because endpoints fail with whatever error fits the step that was cut short.
        waiting.errback(CancelledError())
        connecting.cancel()

    connected: Deferred[Any] = Deferred(stop)
    connecting.addBoth(lambda result: None if connected.called else connected.callback(result))
    protocol = await connected
    protocol.transport.loseConnection()
