"""The bus over Redis' publish and subscribe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import structlog
import txredisapi
from twisted.internet.defer import Deferred, DeferredList, succeed

from storage.bus import Callback, GapListener, Subscriptions, Unsubscribe, once
from storage.redis import RedisAddress, RedisClient

PREFIX = "hearth:"
ALL = "*"
"""The channel on which a process says that it could not publish for a while."""
TOGETHER = "+"
"""The channel of messages for many channels, which are named in them. All processes hear those."""
FEW = 4
"""Channels up to which each gets a message: only who listens has work with it then."""
PING_SECONDS = 2.0
"""Between two signs of life that are asked for: where Redis or the network is gone without a
word, nothing else would tell."""
DOUBTFUL = 2
"""Pings without an answer after which hints may be lost."""
GONE = 5
"""Pings without an answer after which the connection is given up."""
_RETRY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class RedisBus:
    """See `storage.bus.Bus`. Reconnects by itself; while it cannot, hints of others are missed.

    Parameters: `prefix` keeps apart several servers that share one Redis.
    """

    def __init__(self, address: RedisAddress, reactor: Any, prefix: str = PREFIX) -> None:
        self._prefix = prefix.encode()
        self._subscriptions = Subscriptions()
        self._publisher: RedisClient = address.client(reactor)
        self._connection: Any = None
        self._closed = False
        self._reactor = reactor
        self._retry: Any = None
        self._factory = _SubscriberFactory(self, address)
        address.start(reactor, self._factory)
        self._first: Deferred[None] | None = Deferred()

    @classmethod
    async def connect(cls, url: str, reactor: Any, prefix: str = PREFIX) -> RedisBus:
        """A bus that is connected. Raises ValueError for a URL that is none."""
        bus = cls(RedisAddress.parse(url), reactor, prefix)
        if bus._first is not None:
            await bus._first
        return bus

    @property
    def reliable(self) -> bool:
        return self._connection is not None and self._connection.unanswered < DOUBTFUL

    def publish(self, channel: str, payload: bytes) -> None:
        if self._closed:
            return
        sent = self._publisher.command("PUBLISH", self._prefix + channel.encode(), payload)
        sent.addErrback(self._unsent)

    def publish_all(self, channels: Collection[str], payload: bytes) -> None:
        if len(channels) <= FEW:
            for channel in channels:
                self.publish(channel, payload)
            return
        # Each with its length, as a channel or a payload may hold any character.
        parts = [payload, *map(str.encode, channels)]
        self.publish(TOGETHER, b"".join(b"%d:%s" % (len(part), part) for part in parts))

    def _unsent(self, _: object) -> None:
        """Nobody heard a hint: as soon as possible, tell everybody to look for themselves."""
        if self._retry is None and not self._closed:
            self._retry = self._reactor.callLater(_RETRY_SECONDS, self._tell_all)

    def _tell_all(self) -> None:
        self._retry = None
        sent = self._publisher.command("PUBLISH", self._prefix + ALL.encode(), b"")
        sent.addErrback(self._unsent)

    def subscribe(self, channel: str, callback: Callback) -> Unsubscribe:
        is_new = channel not in self._subscriptions.channels
        self._subscriptions.add(channel, callback)
        if is_new and self._connection is not None:
            self._connection.ask("SUBSCRIBE", [self._prefix + channel.encode()])

        def unsubscribe() -> None:
            last = self._subscriptions.remove(channel, callback)
            if last and self._connection is not None:
                self._connection.ask("UNSUBSCRIBE", [self._prefix + channel.encode()])

        return once(unsubscribe)

    def on_gap(self, listener: GapListener) -> None:
        self._subscriptions.on_gap(listener)

    def close(self) -> Deferred[None]:
        if self._closed:
            return succeed(None)
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        both = DeferredList([self._factory.disconnect(), self._publisher.close()])
        return both.addCallback(lambda _: None)

    # From the subscriber's connection

    def _connected(self, connection: _Subscriber) -> None:
        self._connection = connection
        channels = [ALL, TOGETHER, *self._subscriptions.channels]
        connection.ask("SUBSCRIBE", [self._prefix + name.encode() for name in channels])
        first, self._first = self._first, None
        if first is not None:
            first.callback(None)
        else:
            _log.info("Connected to Redis again")

    def _lost(self, connection: _Subscriber) -> None:
        if self._connection is connection:
            self._connection = None
            if not self._closed:
                _log.warning("Lost the connection to Redis; connecting again")

    def _subscribed(self, channel: bytes) -> None:
        name = channel.removeprefix(self._prefix).decode()
        if name in self._subscriptions.channels:
            self._subscriptions.gap([name])

    def _message(self, channel: bytes, payload: bytes) -> None:
        name = channel.removeprefix(self._prefix).decode("utf-8", "replace")
        if name == ALL:
            self._subscriptions.gap(list(self._subscriptions.channels))
        elif name == TOGETHER:
            self._messages(payload)
        else:
            self._subscriptions.deliver(name, payload)

    def _messages(self, together: bytes) -> None:
        try:
            payload, *channels = _parts(together)
        except ValueError:
            _log.warning("A message of another program came over Redis", channel=TOGETHER)
            return
        for channel in channels:
            name = channel.decode("utf-8", "replace")
            if name in self._subscriptions.channels:
                self._subscriptions.deliver(name, payload)


def _parts(together: bytes) -> list[bytes]:
    """What `RedisBus.publish_all` put together. Raises ValueError."""
    parts, at = [], 0
    while at < len(together):
        colon = together.index(b":", at)
        start, at = colon + 1, colon + 1 + int(together[at:colon])
        if not start <= at <= len(together):
            raise ValueError("a length is wrong")
        parts.append(together[start:at])
    return parts


class _Subscriber(txredisapi.SubscriberProtocol):  # type: ignore[misc]
    """A connection in subscribed state. Replies to (un)subscribing are messages like others."""

    unanswered = DOUBTFUL
    """Pings since anything came; until then no subscription is known to have taken effect."""
    _next_ping: Any = None

    def connectionMade(self) -> Any:
        made = super().connectionMade()
        if made is None:
            self._announce(None)
            return None
        return made.addCallback(self._announce)

    def _announce(self, result: Any) -> Any:
        self.factory.bus._connected(self)
        self._ping_later()
        return result

    def _ping_later(self) -> None:
        self._next_ping = self.factory.bus._reactor.callLater(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        self._next_ping = None
        if self.unanswered >= GONE:
            self.transport.abortConnection()
            return
        self.unanswered += 1
        self.ask("PING", [])
        self._ping_later()

    def connectionLost(self, why: Any) -> Any:
        next_ping, self._next_ping = self._next_ping, None
        if next_ping is not None:
            next_ping.cancel()
        self.factory.bus._lost(self)
        return super().connectionLost(why)

    def ask(self, command: str, channels: list[bytes]) -> None:
        """Subscribe, unsubscribe or ping, without waiting: the answer comes as a message."""
        parts = [command.encode(), *channels]
        data = b"*%d\r\n" % len(parts)
        for part in parts:
            data += b"$%d\r\n%s\r\n" % (len(part), part)
        self.transport.write(data)

    def replyReceived(self, reply: Any) -> None:
        self.unanswered = 0
        if isinstance(reply, list) and reply[:1] == [b"pong"]:
            return
        if isinstance(reply, list) and len(reply) == 3:
            kind, channel, payload = reply
            if kind == b"message":
                self.factory.bus._message(channel, payload)
                return
            if kind == b"subscribe":
                self.factory.bus._subscribed(channel)
                return
            if kind == b"unsubscribe":
                return
        super().replyReceived(reply)


class _SubscriberFactory(txredisapi.SubscriberFactory):  # type: ignore[misc]
    protocol = _Subscriber
    maxDelay = 2

    def __init__(self, bus: RedisBus, address: RedisAddress) -> None:
        super().__init__(isLazy=True)
        self.bus = bus
        self.charset = None
        self.convertNumbers = False
        self.password = address.password
        self.username = address.username
