"""Transports that write at once, and coroutines that run at once.

Both save the event loop a turn where there is nothing to wait for, which is the usual case: an
answer fits the socket's buffer, and a handler finds what it needs in memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from twisted.internet import main, tcp
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")

_NAME = "HttpConnection,server"


class PromptServer(tcp.Server):
    """A connection whose writes go to the kernel at once, unless earlier ones still wait.

    Twisted's own waits for the event loop to say that the socket can be written to: two system
    calls and a turn of the loop more for each answer. What the kernel does not take waits as
    usual, in order; so does what it refuses, since only the event loop can end a connection.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Texts of its own for each connection take as much as its socket; nothing shows them.
        self.logstr = self.repstr = _NAME

    def doRead(self) -> Any:
        """Read once, as Twisted does; returns why the connection is over, if it is."""
        try:
            data = self.socket.recv(self.bufferSize)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

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


class Running:
    """A coroutine that waits. `Deferred.fromCoroutine` does the same, with a dozen objects more for
    each: clients wait by the thousand."""

    __slots__ = ("_awaited", "_context", "_coroutine", "_ended")

    def __init__(
        self,
        coroutine: Coroutine[Deferred[Any], Any, Any],
        context: Context,
        awaited: Deferred[Any],
        ended: Callable[[Any], object],
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._awaited = awaited
        self._ended = ended
        awaited.addBoth(self._go_on)

    def cancel(self) -> None:
        """Cancel what it waits for. It ends when the coroutine does."""
        self._awaited.cancel()

    def _go_on(self, result: Any) -> None:
        coroutine = self._coroutine
        try:
            if isinstance(result, Failure):
                awaited = self._context.run(result.throwExceptionIntoGenerator, coroutine)
            else:
                awaited = self._context.run(coroutine.send, result)
        except StopIteration as end:
            value = end.value
        except BaseException:
            value = Failure()  # type: ignore[no-untyped-call]
        else:
            # Without a result, or the coroutine would not wait for it.
            self._awaited = awaited
            awaited.addBoth(self._go_on)
            return
        self._ended(value)


def run(
    coroutine: Coroutine[Deferred[Any], Any, T], ended: Callable[[T | Failure], object]
) -> Running | T:
    """Run a coroutine, in a context of its own, until it ends or waits for a Deferred.

    Returns what it returns if it has ended, which costs a quarter of what `Deferred.fromCoroutine`
    does. Else `ended` is called when it ends, with what it returns or how it failed. Raises what
    the coroutine raises before it waits.
    """
    context = copy_context()
    try:
        awaited = context.run(coroutine.send, None)
    except StopIteration as end:
        value: T = end.value
        return value
    return Running(coroutine, context, awaited, ended)


async def until(awaited: Awaitable[None]) -> None:
    """For `run`: what ends with something else."""
    await awaited
