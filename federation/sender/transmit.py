"""Makes the transactions of one destination and sends them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from random import Random

import structlog
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError, RemoteHttpError
from federation.client.requests import FederationClient, federation_path
from federation.sender import edus
from federation.sender.destination import Destination, Item, Outgoing
from federation.sender.news import Dispatch, NewsReader, Reading
from homeserver.core.canonical import CanonicalJSONError
from storage import outgoing, outgoing_to_device
from storage.database import Database
from storage.errors import log_failure

MAX_EDUS = 100
MAX_BYTES = 900_000
"""Of a transaction's PDUs, and of its EDUs from the log, once there is one: proxies often refuse
bodies of more than a megabyte or two."""
MAX_TO_DEVICE = 50
MAX_TO_DEVICE_BYTES = 256 * 1024
MAX_PRESENCE = 100
MAX_BACKLOG = 1000
"""A destination that missed more events gets the newest of each room only."""
TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 256 * 1024

_log = structlog.get_logger(__name__)


class Transmitter:
    """Parameters: `read_pos()`, how far the log was read for all destinations; `told(sent)`,
    called after each attempt; `note_apart(destination, positions)`, see `Item.apart`."""

    def __init__(
        self,
        db: Database,
        client: FederationClient,
        clock: IReactorTime,
        reader: NewsReader,
        server_name: str,
        read_pos: Callable[[], int],
        *,
        random: Random,
        told: Callable[[bool], object],
        note_apart: Callable[[Destination, list[int]], object],
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._reader = reader
        self._server_name = server_name
        self._read_pos = read_pos
        self._random = random
        self._told = told
        self._note_apart = note_apart
        self._numbers = itertools.count(1)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def send_next(self, destination: Destination) -> bool:
        """Send one transaction, or the last one again; whether it arrived.

        False also if there is nothing to send. What fails is in the destination's back-off.
        """
        retry_after = None
        try:
            if destination.transaction is None:
                if destination.behind and destination.failing_since is not None:
                    # What it has missed is read once it answers: most dead servers never will.
                    await self._client.probe(destination.name, timeout_s=TIMEOUT_S)
                destination.transaction = await self._build(destination)
            sent = destination.transaction
            if sent is None:
                return False
            answer = await self._client.put_encoded(
                destination.name,
                federation_path("/_matrix/federation/v1/send/{}", sent.txn_id),
                sent.body,
                timeout_s=TIMEOUT_S,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except CancelledError:
            raise
        except RemoteError as error:
            if isinstance(error, RemoteHttpError):
                retry_after = error.retry_after_ms
                if error.status == 413:
                    destination.too_large()
                    self._note(destination, destination.let_go())
        except Exception as error:
            log_failure(
                _log, "A transaction could not be made", error, destination=destination.name
            )
        else:
            if destination.gone:
                return False
            destination.delivered()
            self._told(True)
            _log_refusals(destination.name, answer)
            return True
        if not destination.gone:
            self._note(destination, destination.failed(self._now(), self._random, retry_after))
            self._told(False)
        return False

    def _note(self, destination: Destination, positions: list[int]) -> None:
        if positions:
            self._note_apart(destination, positions)

    # Making a transaction

    async def _build(self, destination: Destination) -> Outgoing | None:
        await self._fill(destination)
        messages, to_device_upto = await self._to_device(destination)
        after = destination.cursor(self._read_pos())
        pdus = _take(destination.pdus, destination.max_pdus)
        bodies = messages + [
            item.body for item in _take(destination.edus, MAX_EDUS - len(messages) - 1)
        ]
        if destination.presence and len(bodies) < MAX_EDUS:
            bodies.append(edus.presence(_pop(destination.presence, MAX_PRESENCE)))
        bodies += _pop(destination.typing, MAX_EDUS - len(bodies))
        if not pdus and not bodies:
            # Looking was all there was to do.
            destination.to_device_after = max(destination.to_device_after, to_device_upto)
            return None
        txn_id = f"{self._db.process_token}{next(self._numbers)}"
        body = b'{"edus":[%b],"origin":"%b","origin_server_ts":%d,"pdus":[%b]}' % (
            b",".join(bodies),
            self._server_name.encode(),
            self._now(),
            b",".join([item.body for item in pdus]),
        )
        return Outgoing(txn_id, body, tuple(pdus), len(bodies), after, to_device_upto)

    async def _to_device(self, destination: Destination) -> tuple[list[bytes], int]:
        """EDUs for devices, and how far the destination has such messages with them."""
        upto = destination.to_device_upto
        if upto <= destination.to_device_after:
            return [], destination.to_device_after
        waiting, is_all = await self._db.read(
            outgoing_to_device.waiting,
            destination.name,
            destination.to_device_after,
            MAX_TO_DEVICE,
            MAX_TO_DEVICE_BYTES,
        )
        found = []
        for message in waiting:
            try:
                found.append(edus.to_device(message.content))
            except (CanonicalJSONError, ValueError):
                _log.warning("A message for a device cannot be sent", pos=message.pos)
        last = waiting[-1].pos if waiting else 0
        return found, max(upto, last) if is_all else last

    # What a destination missed

    async def _fill(self, destination: Destination) -> None:
        """Read what is in the log and not in the queue, as far as one transaction needs it."""
        while destination.behind and not destination.pdus and not destination.edus:
            upto = self._read_pos()
            if destination.catch_up is not None:
                await self._next_newest(destination)
            elif destination.loaded >= upto:
                destination.behind = False
            elif await self._wants_newest(destination, upto):
                await self._begin_newest(destination, upto)
            else:
                reading = Reading(destination.loaded, upto, destination.name)
                news = await self._db.read(self._reader.read, reading)
                _extend(destination, news.dispatches)
                destination.loaded = news.upto
                destination.behind = news.upto < self._read_pos()

    async def _wants_newest(self, destination: Destination, upto: int) -> bool:
        if destination.is_long_dead(self._now()):
            return True
        name, after = destination.name, destination.loaded
        limit = MAX_BACKLOG + 1
        return await self._db.read(outgoing.backlog, name, after, upto, limit) > MAX_BACKLOG

    async def _begin_newest(self, destination: Destination, upto: int) -> None:
        reading = Reading(destination.loaded, upto, destination.name)
        positions, dispatches = await self._db.read(self._reader.newest, reading)
        destination.catch_up = positions
        destination.catch_up_upto = upto
        _extend(destination, dispatches)
        _log.debug("A server gets the newest event of each room", destination=destination.name)
        await self._next_newest(destination)

    async def _next_newest(self, destination: Destination) -> None:
        positions = destination.catch_up or []
        page, destination.catch_up = positions[:50], positions[50:]
        if not page:
            destination.catch_up = None
            destination.loaded = destination.catch_up_upto
            return
        events = await self._db.read(outgoing.events_at, page)
        for event in reversed(events):
            # What goes astray is found again by its position: all are read again from `loaded`.
            destination.pdus.append(Item(event.pos, event.json.encode()))


def _extend(destination: Destination, dispatches: list[Dispatch]) -> None:
    for each in dispatches:
        queue = destination.edus if each.is_edu else destination.pdus
        queue.append(Item(each.pos, each.body, destination.name in each.apart))


def _take(queue: deque[Item], most: int) -> list[Item]:
    """The first items, at least one if there is any."""
    taken: list[Item] = []
    size = 0
    while queue and len(taken) < most:
        size += len(queue[0].body)
        if taken and size > MAX_BYTES:
            break
        taken.append(queue.popleft())
    return taken


def _pop(waiting: dict[object, bytes], most: int) -> list[bytes]:
    keys = list(itertools.islice(waiting, max(most, 0)))
    return [waiting.pop(key) for key in keys]


def _log_refusals(destination: str, answer: object) -> None:
    results = answer.get("pdus") if isinstance(answer, dict) else None
    if not isinstance(results, dict):
        return
    for event_id, result in itertools.islice(results.items(), 50):
        error = result.get("error") if isinstance(result, dict) else None
        if error:
            _log.info(
                "A server refused an event",
                destination=destination,
                event_id=event_id[:255],
                reason=str(error)[:200],
            )
