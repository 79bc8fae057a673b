"""The bus: hints from process to process, over Redis or, in a single process, in memory.

Messages are small and may be lost; the truth is in the database. A bus says when it may have
lost some (`on_gap`): after a subscription took effect, and after a connection was restored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import structlog
from twisted.internet.defer import Deferred, succeed

Callback = Callable[[bytes], None]
Unsubscribe = Callable[[], None]
GapListener = Callable[[Collection[str]], None]

_log = structlog.get_logger(__name__)


class Bus(Protocol):
    """Used on the reactor thread."""

    @property
    def reliable(self) -> bool:
        """Whether what other processes publish reaches this one at the moment."""

    def publish(self, channel: str, payload: bytes) -> None:
        """Send to every subscriber of every process. Never raises; may be lost."""

    def publish_all(self, channels: Collection[str], payload: bytes) -> None:
        """The same on each of many channels, for the price of few."""

    def subscribe(self, channel: str, callback: Callback) -> Unsubscribe:
        """Have `callback(payload)` called for each message, until the returned function is."""

    def on_gap(self, listener: GapListener) -> None:
        """Have `listener(channels)` called when messages on them may have been missed."""

    def close(self) -> Deferred[None]: ...


class Subscriptions:
    """Who listens to which channel in this process."""

    def __init__(self) -> None:
        self.channels: dict[str, list[Callback]] = {}
        self._gap_listeners: list[GapListener] = []

    def add(self, channel: str, callback: Callback) -> None:
        self.channels.setdefault(channel, []).append(callback)

    def remove(self, channel: str, callback: Callback) -> bool:
        """Whether that was the last one on the channel."""
        callbacks = self.channels[channel]
        callbacks.remove(callback)
        if callbacks:
            return False
        del self.channels[channel]
        return True

    def deliver(self, channel: str, payload: bytes) -> None:
        for callback in tuple(self.channels.get(channel, ())):
            try:
                callback(payload)
            except Exception:
                _log.exception("A subscriber failed", channel=channel)

    def on_gap(self, listener: GapListener) -> None:
        self._gap_listeners.append(listener)

    def gap(self, channels: Collection[str]) -> None:
        for listener in self._gap_listeners:
            listener(channels)


class MemoryBus:
    """A bus within one process. Delivers on the next turn of the reactor, as a network would."""

    reliable = False  # of other processes, such as a command line, it hears nothing

    def __init__(self, reactor: _CallsLater) -> None:
        self._reactor = reactor
        self._subscriptions = Subscriptions()
        self._closed = False

    def publish(self, channel: str, payload: bytes) -> None:
        if channel in self._subscriptions.channels and not self._closed:
            self._reactor.callLater(0, self._deliver, channel, payload)

    def publish_all(self, channels: Collection[str], payload: bytes) -> None:
        for channel in channels:
            self.publish(channel, payload)

    def _deliver(self, channel: str, payload: bytes) -> None:
        if not self._closed:
            self._subscriptions.deliver(channel, payload)

    def subscribe(self, channel: str, callback: Callback) -> Unsubscribe:
        self._subscriptions.add(channel, callback)
        return once(lambda: self._subscriptions.remove(channel, callback))

    def on_gap(self, listener: GapListener) -> None:
        self._subscriptions.on_gap(listener)

    def close(self) -> Deferred[None]:
        self._closed = True
        return succeed(None)


class _CallsLater(Protocol):
    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> object: ...


def once(fn: Callable[[], object]) -> Unsubscribe:
    """`fn`, called the first time only."""
    done = False

    def call() -> None:
        nonlocal done
        if not done:
            done = True
            fn()

    return call
