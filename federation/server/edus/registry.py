"""Who takes which EDUs (Server-Server API, "EDUs"). Types that nobody takes are ignored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from homeserver.core.types import JsonObject
from storage.errors import StorageError

PATIENCE_S = 20.0
"""Seconds that EDUs that may be lost can take before the transaction goes on without them."""

Handler = Callable[[str, Sequence[JsonObject]], Awaitable[object]]
"""Given the sending server and the contents of all EDUs of a type in one transaction, in order."""

SingleHandler = Callable[[str, JsonObject], Awaitable[object]]
"""The same for one EDU."""

_log = structlog.get_logger(__name__)


class EduHandlers:
    """The handlers of EDUs by type.

    The transaction is answered when they have returned: what must not be lost is stored then, and
    no handler waits for other servers. A handler may raise StorageError: then the transaction
    fails, and its sender repeats it. Any other failure is logged and concerns those EDUs only.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._handlers: dict[str, Handler] = {}
        self._may_be_lost: set[str] = set()

    def add(self, edu_type: str, handler: Handler, *, may_be_lost: bool = False) -> None:
        """Have EDUs of a type handled, those of one transaction together.

        Parameters: `may_be_lost`, whether the answer does not wait for long.
        """
        self._handlers[edu_type] = handler
        if may_be_lost:
            self._may_be_lost.add(edu_type)

    def add_single(self, edu_type: str, handler: SingleHandler) -> None:
        """Have EDUs of a type handled one after the other."""

        async def handle(origin: str, contents: Sequence[JsonObject]) -> None:
            for content in contents:
                try:
                    await handler(origin, content)
                except StorageError:
                    raise
                except Exception as error:
                    _failed(origin, edu_type, error)

        self.add(edu_type, handle)

    async def receive(self, origin: str, edus: Sequence[Any]) -> None:
        """Take the EDUs of a transaction, whose number the caller bounds. Raises StorageError."""
        by_type: dict[str, list[JsonObject]] = {}
        for edu in edus:
            if not isinstance(edu, dict):
                continue
            edu_type, content = edu.get("edu_type"), edu.get("content")
            # An unhashable type, say a list, is none that is known either.
            if (
                isinstance(edu_type, str)
                and isinstance(content, dict)
                and edu_type in self._handlers
            ):
                by_type.setdefault(edu_type, []).append(content)
        for edu_type, contents in by_type.items():
            await self._handle(origin, edu_type, contents)

    async def _handle(self, origin: str, edu_type: str, contents: Sequence[JsonObject]) -> None:
        async def handle() -> None:
            await self._handlers[edu_type](origin, contents)

        work = Deferred.fromCoroutine(handle())
        if edu_type in self._may_be_lost:
            work.addTimeout(PATIENCE_S, self._clock)
        try:
            await work
        except StorageError:
            raise
        except DeferredTimeout:
            _log.warning("EDUs took too long", origin=origin, edu_type=edu_type)
        except Exception as error:
            _failed(origin, edu_type, error)


def _failed(origin: str, edu_type: str, error: Exception) -> None:
    _log.error("EDUs failed", origin=origin, edu_type=edu_type, exc_info=error)
