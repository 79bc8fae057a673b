"""Twisted's epoll loop, with a short way to the connections of clients.

For whatever is ready the loop opens a context for Twisted's log, asks for a prefix of its lines,
and looks whether the descriptor is still one. A connection of `homeserver.web.prompt` that has
something to read needs none of that. Everything else goes Twisted's way.
"""

from __future__ import annotations

from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

from homeserver.web.prompt import PromptServer


class PromptReactor(EPollReactor):
    """See the module."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for at most `timeout` seconds (None: until something is ready), and do what is."""
        found: Any = self
        selectables: dict[int, Any] = found._selectables
        ready = found._poller.poll(-1 if timeout is None else timeout, len(selectables))
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
