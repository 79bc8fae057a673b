"""Transports that write at once, and coroutines that run at once.

Both save the event loop a turn where there is nothing to wait for, which is the usual case: an
answer fits the socket's buffer, and a handler finds what it needs in memory.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any, TypeVar

from twisted.internet import tcp
from twisted.internet.defer import Deferred

T = TypeVar("T")


class PromptServer(tcp.Server):
    """A connection whose writes go to the kernel at once, unless earlier ones still wait.

    Twisted's own waits for the event loop to say that the socket can be written to: two system
    calls and a turn of the loop more for each answer. What the kernel does not take waits as
    usual, in order; so does what it refuses, since only the event loop can end a connection.
    """

    def write(self, data: bytes) -> None:
        if self.dataBuffer or self._tempDataBuffer or not self.connected or self.TLS:
            super().write(data)  # type: ignore[no-untyped-call]
            return
        if self._writeDisconnected or not data:
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            super().write(data[sent:])  # type: ignore[no-untyped-call]


def write_at_once(port: Any) -> None:
    """Have the connections that a listening TCP port will accept write at once."""
    port.transport = PromptServer


def run(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T] | None:
    """Run a coroutine, in a context of its own, until it ends or waits for a Deferred.

    Returns None if it has ended, which costs a quarter of what `Deferred.fromCoroutine` does;
    else a Deferred that fires when it ends. Raises what the coroutine raises before it waits.
    """
    context = copy_context()
    try:
        awaited = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return context.run(Deferred.fromCoroutine, _rest(coroutine, awaited))


def _rest(
    coroutine: Coroutine[Deferred[Any], Any, T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, T]:
    """Go on with a coroutine that waits for `awaited`."""
    try:
        while True:
            try:
                result = yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
