"""Pushes to push gateways (push gateway API, "Homeserver behaviour")."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from federation.client.errors import RemoteError
from homeserver.core.types import JsonObject
from homeserver.outbound.http import OutgoingHttpClient, json_object
from storage.pushers import PusherRow

if TYPE_CHECKING:
    from federation.client.https import HttpAnswer

DELIVERED, REJECTED, REFUSED, FAILED, BUSY = "delivered", "rejected", "refused", "failed", "busy"
MAX_PAUSE_MS = 3_600_000
"""For how long a gateway can have itself left alone at a time."""
_MAX_ANSWER = 64 * 1024


class Answer(NamedTuple):
    """What became of one attempt.

    `outcome`: delivered; rejected: the pusher is to be removed; refused: this one push is hopeless;
    failed: to be tried again; busy: likewise, after `retry_after_ms`. `is_down`: others would fail
    there too.
    """

    outcome: str
    detail: str = ""
    retry_after_ms: int = 0
    is_down: bool = False


class Channel(Protocol):
    """A way to tell a device something."""

    async def send(self, pusher: PusherRow, body: JsonObject) -> Answer: ...


class Gateways:
    """Sends to the gateways that pushers name."""

    def __init__(self, http: OutgoingHttpClient, timeout_s: float) -> None:
        self._http = http
        self._timeout = timeout_s

    async def send(self, pusher: PusherRow, body: JsonObject) -> Answer:
        """One attempt; never raises for what the other side does."""
        try:
            answer = await self._http.post_json(
                str(pusher.settings.get("url", "")),
                body,
                max_bytes=_MAX_ANSWER,
                timeout_s=self._timeout,
            )
        except RemoteError as error:
            return Answer(FAILED, str(error), is_down=True)
        if not 200 <= answer.status < 300:
            return unfit(answer)
        found = json_object(answer)
        rejected = found.get("rejected") if found is not None else None
        if isinstance(rejected, list) and pusher.pushkey in rejected:
            return Answer(REJECTED, "the gateway rejected the pushkey")
        # What it took is not sent again, whatever else it says.
        return Answer(DELIVERED, "" if isinstance(rejected, list) else "with an unusable answer")


def unfit(answer: HttpAnswer) -> Answer:
    """What an answer means that is not 2xx."""
    detail = f"answered {answer.status}"
    if answer.status in (429, 503):
        pause = retry_after(answer)
        if pause or answer.status == 429:
            return Answer(BUSY, detail, pause or 1_000)
    return Answer(FAILED, detail, is_down=answer.status >= 500)


def retry_after(answer: HttpAnswer) -> int:
    """For how many milliseconds the other side wants to be left alone; 0: it does not say."""
    text = answer.headers.get("retry-after", "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return 0
    return min(int(text) * 1000, MAX_PAUSE_MS)
