"""Mailboxes in which two devices meet for a moment, as when a new one logs in with a QR code.

A mailbox holds one small text, which either side replaces, and lives for minutes. It is not
worth a row: alone, a process keeps mailboxes in memory; several share them in Redis. There is
room for `CAPACITY` of them; beyond that the oldest make way.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime

CAPACITY = 1_000
LIFETIME_MS = 120_000


class Mailbox(NamedTuple):
    """`token` changes with `data`; times are milliseconds since 1970."""

    data: bytes
    token: str
    modified_ms: int
    expires_ms: int


class RendezvousStore(Protocol):
    """Mailboxes by their secret IDs."""

    async def create(self, mailbox_id: str, data: bytes) -> Mailbox:
        """Open a mailbox."""

    async def get(self, mailbox_id: str) -> Mailbox | None:
        """A mailbox; None if it is gone."""

    async def replace(self, mailbox_id: str, token: str, data: bytes) -> Mailbox | None:
        """Replace what a mailbox holds if its token is this one.

        The mailbox as it is now: with another token and other data, if it was not replaced. A
        repeated request with the same data is one that succeeded.
        """

    async def delete(self, mailbox_id: str) -> bool:
        """Close a mailbox; False if there was none."""

    async def close(self) -> None:
        """Let go of connections."""


def new_token() -> str:
    """A token for a text that is stored."""
    return secrets.token_urlsafe(9)


class MemoryRendezvous:
    """See `RendezvousStore`."""

    def __init__(self, clock: IReactorTime, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._boxes: OrderedDict[str, Mailbox] = OrderedDict()

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def create(self, mailbox_id: str, data: bytes) -> Mailbox:
        now = self._now()
        # All live equally long, so that the first are the first to end.
        while self._boxes:
            first = next(iter(self._boxes))
            if self._boxes[first].expires_ms > now and len(self._boxes) < self._capacity:
                break
            del self._boxes[first]
        box = Mailbox(data, new_token(), now, now + LIFETIME_MS)
        self._boxes[mailbox_id] = box
        return box

    async def get(self, mailbox_id: str) -> Mailbox | None:
        box = self._boxes.get(mailbox_id)
        return None if box is None or box.expires_ms <= self._now() else box

    async def replace(self, mailbox_id: str, token: str, data: bytes) -> Mailbox | None:
        box = await self.get(mailbox_id)
        if box is None or box.token != token:
            return box
        box = Mailbox(data, new_token(), self._now(), box.expires_ms)
        self._boxes[mailbox_id] = box
        return box

    async def delete(self, mailbox_id: str) -> bool:
        found = await self.get(mailbox_id)
        self._boxes.pop(mailbox_id, None)
        return found is not None

    async def close(self) -> None:
        return
