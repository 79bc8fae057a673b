"""Twisted's epoll loop, with a short way to the connections of clients.

For whatever is ready the loop opens a context for Twisted's log, asks for a prefix of its lines,
and looks whether the descriptor is still one. A connection of `homeserver.web.prompt` that has
something to read needs none of that. Everything else goes Twisted's way.

Twisted keeps when something is due by the time of day. Where somebody sets the clock back by an
hour, nothing would be due for that hour; so what is pending is moved with the clock.
"""

from __future__ import annotations

from select import EPOLLIN
from time import monotonic
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

from homeserver.web.prompt import PromptServer

_SET_BACK_S = 0.5
"""Less is not told from a clock that is corrected slowly."""


class PromptReactor(EPollReactor):
    """See the module."""

    _ahead: float | None = None
    """Of the time of day, how far it is ahead of the time that nobody sets."""

    def _look_at_clock(self) -> None:
        found: Any = self
        before, self._ahead = self._ahead, found.seconds() - monotonic()
        if before is not None and before - self._ahead > _SET_BACK_S:
            for call in found._pendingTimedCalls:  # in an order that does not change
                call.time -= before - self._ahead

    def timeout(self) -> float | None:
        """As Twisted's; asked in each turn."""
        self._look_at_clock()
        longest: float | None = super().timeout()
        return longest

    def doPoll(self, timeout: float | None) -> None:
        """Wait for at most `timeout` seconds (None: until something is ready), and do what is."""
        found: Any = self
        selectables: dict[int, Any] = found._selectables
        ready = found._poller.poll(-1 if timeout is None else timeout, len(selectables))
        # Now, as what is put off from here on goes by the clock as it is.
        self._look_at_clock()
        for fd, event in ready:
            # One that was ready may be gone by what another has done.
            selectable = selectables.get(fd)
            if event == EPOLLIN and type(selectable) is PromptServer:
                try:
                    why: Any = selectable.doRead()
                except BaseException as error:
                    # As Twisted: what a protocol raises ends its connection.
                    log.err()  # type: ignore[no-untyped-call]
                    why = error
                if why:
                    found._disconnectSelectable(selectable, why, True)
            elif selectable is not None:
                log.callWithLogger(  # type: ignore[no-untyped-call]
                    selectable, found._doReadOrWrite, selectable, fd, event
                )

    doIteration = doPoll


def install() -> None:
    """Make it the reactor of the process. To be called before the reactor is imported."""
    installReactor(PromptReactor())  # type: ignore[no-untyped-call]
