"""Events that arrive before what they come after.

Server-Server API, "Backfilling and retrieving missing events". The server that sent the events is
asked for what lies between them and the room's head. Where that leaves a gap, the state before
the gap's last events is asked for, and the room goes on from there; the gap is noted, and
filled later when somebody wants to read it (`homeserver.rooms.backfill`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import structlog

from homeserver.core import gaps
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.rooms.fetch import Errand, Fetcher, Store
from homeserver.rooms.judged import NOT_ADDED, Judged, KnownState
from storage import history, rooms
from storage.database import Database
from storage.transaction import Transaction

ROUNDS = 10
"""Requests for missing events on one occasion."""
PAGE = 20
"""Events that are asked for in one such request: the most that servers give."""
MAX_COLLECTED = 400
"""Events that are held for one occasion."""
MAX_ANCHORS = 20
"""Events for which the state before them is asked for on one occasion."""

_log = structlog.get_logger(__name__)


class MissingEvents:
    """Adds received events, after getting what they need."""

    def __init__(self, db: Database, fetcher: Fetcher, receiver: Store) -> None:
        self._db = db
        self._fetcher = fetcher
        self._receiver = receiver

    async def receive(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> dict[str, Judged]:
        """What became of each of the events, by ID.

        Parameters: `events` are checked (`federation.client.pdus`) and of this room; `origin` is
        the server that sent them, and is asked first for what is missing. What cannot be
        completed is `NOT_ADDED`, with a reason; it may be tried again later.
        """
        judged = await self._receiver.add(room_id, events)
        lacking = _lacking(events, judged)
        if not lacking:
            return judged
        errand = await self._fetcher.errand(room_id, version, [origin])
        collected = dict(lacking)
        if any(judged[event_id].missing_prev for event_id in lacking):
            await self._walk_back(errand, origin, collected)
        fetched = len(collected) - len(lacking)
        judged |= await self._complete(errand, collected, lacking)
        lacking = _lacking(events, judged)
        if lacking and fetched:
            # What was fetched could not be used: the room goes on right before the events.
            judged |= await self._complete(errand, dict(lacking), lacking)
            lacking = _lacking(events, judged)
        for event_id in lacking:
            judged[event_id] = judged[event_id]._replace(reason=_reason(judged[event_id], errand))
        _log.info(
            "missing events looked for",
            room_id=room_id,
            origin=origin,
            events=len(events),
            fetched=fetched,
            outliers=errand.outliers,
            refused=errand.refused,
            not_added=len(lacking),
            problems=errand.notes,
        )
        return judged

    async def _walk_back(self, errand: Errand, origin: str, collected: dict[str, Event]) -> None:
        """Add to `collected` what lies between these events and the room's head."""

        def read(txn: Transaction) -> tuple[tuple[str, ...], int]:
            room = rooms.get(txn, errand.room_id)
            if room is None:
                return (), 0
            return room.extremities, history.first_depth(txn, room.room_nid)

        earliest, min_depth = await self._db.read(read)
        for _ in range(ROUNDS):
            missing = gaps.edge(collected, await self._placed(collected))
            if not missing or len(collected) >= MAX_COLLECTED:
                return
            latest = sorted(missing, key=lambda name: (collected[name].depth, name))
            answer = await self._fetcher.ask(
                errand,
                origin,
                lambda server, latest=latest: self._fetcher.source.get_missing_events(  # type: ignore[misc]
                    server,
                    errand.room_id,
                    earliest=earliest,
                    latest=latest,
                    limit=PAGE,
                    min_depth=min_depth,
                ),
            )
            if not answer:
                return
            checked = await self._fetcher.check(errand, answer)
            wanted = {name for names in missing.values() for name in names}
            fresh = gaps.ancestors(wanted, checked.values())
            known = await self._fetcher.known(fresh)
            fresh = {
                name: event
                for name, event in fresh.items()
                if name not in collected and not (name in known and known[name].placed)
            }
            if not fresh:
                errand.note(f"{origin}: none of {len(answer)} events was asked for")
                return
            collected |= dict(list(fresh.items())[: MAX_COLLECTED - len(collected)])

    async def _placed(self, collected: Mapping[str, Event]) -> set[str]:
        names = {name for event in collected.values() for name in event.prev_event_ids}
        known = await self._fetcher.known(names - collected.keys())
        return {name for name, item in known.items() if item.placed}

    async def _complete(
        self, errand: Errand, collected: dict[str, Event], wanted: Collection[str]
    ) -> dict[str, Judged]:
        """Add `collected`, with states where it begins; what became of those `wanted`."""
        states = await self._anchors(errand, collected)
        await self._fetcher.store_auth(errand, collected)
        judged = await self._receiver.add(errand.room_id, list(collected.values()), states=states)
        return {event_id: judged[event_id] for event_id in wanted}

    async def _anchors(self, errand: Errand, collected: dict[str, Event]) -> dict[str, KnownState]:
        """States before those of the events whose predecessors nobody gave.

        An event of which some predecessors are here stands on all of them: the missing ones are
        got too, with the states before them, so that what is known here counts in the
        resolution, whatever the other server says.
        """
        states: dict[str, KnownState] = {}
        missing = gaps.edge(collected, await self._placed(collected))
        for event_id in sorted(missing, key=lambda name: (collected[name].depth, name)):
            if len(states) >= MAX_ANCHORS:
                errand.note(f"more than {MAX_ANCHORS} gaps")
                break
            event = collected[event_id]
            if len(missing[event_id]) == len(set(event.prev_event_ids)):
                state = await self._fetcher.state_before(errand, event)
                if state is not None:
                    states[event_id] = state
                continue
            for name in missing[event_id]:
                if name not in collected:
                    await self._fetch_anchor(errand, name, collected, states)
        return states

    async def _fetch_anchor(
        self,
        errand: Errand,
        event_id: str,
        collected: dict[str, Event],
        states: dict[str, KnownState],
    ) -> None:
        event = await self._fetcher.event(errand, event_id)
        if event is None:
            return
        alone = {event_id: event}
        if gaps.edge(alone, await self._placed(alone)):
            state = await self._fetcher.state_before(errand, event)
            if state is None:
                return
            states[event_id] = state
        collected[event_id] = event


def _lacking(events: Sequence[Event], judged: Mapping[str, Judged]) -> dict[str, Event]:
    """The events that were not added for want of others."""
    names = {event.event_id for event in events if judged[event.event_id].status == NOT_ADDED}
    if not any(judged[name].missing_prev or judged[name].missing_auth for name in names):
        return {}
    return {event.event_id: event for event in events if event.event_id in names}


def _reason(judged: Judged, errand: Errand) -> str:
    parts = []
    if judged.missing_prev:
        parts.append(f"{len(judged.missing_prev)} predecessors are missing")
    if judged.missing_auth:
        parts.append(f"{len(judged.missing_auth)} auth events are missing")
    parts += errand.notes[:2]
    return "; ".join(parts) or judged.reason or "not added"
