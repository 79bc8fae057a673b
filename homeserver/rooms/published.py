"""The published room directory (client-server API, "Published room directory").

Rooms are listed the largest first, equal ones by number. A page is found again by its edge, the
size and number of a room, and not by a count of rooms: what comes and goes before it shifts
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.cache import Cache, weigh_both
from homeserver.core import errors
from homeserver.core.ids import RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.aliases import moderates
from homeserver.rooms.description import RoomDescription, describe
from homeserver.rooms.remote_rooms import RemoteRooms
from homeserver.web.request import Requester
from storage import published, rooms
from storage.database import Database
from storage.transaction import Transaction

MAX_PAGE = 500
"""Rooms in one answer."""

_TOKEN = re.compile(r"([np])([0-9]{1,15})-([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rooms a client asks for.

    Parameters:
        limit: rooms in the answer; None or 0: as many as fit.
        since: `next_batch` or `prev_batch` of an earlier answer.
        term: text that the name, topic or canonical alias must hold, in any case.
        room_types: types of the rooms, None among them for rooms without; None: all.
        instance_id: the list of this network, instead of the public one.
        all_networks: the lists of all networks too.
    """

    limit: int | None = None
    since: str | None = None
    term: str | None = None
    room_types: Sequence[str | None] | None = None
    instance_id: str | None = None
    all_networks: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """An answer; tokens are None where the list ends."""

    rooms: Sequence[RoomDescription]
    next_batch: str | None
    prev_batch: str | None
    total: int


@dataclass(frozen=True, slots=True)
class _Entry:
    room_nid: int
    head_version: int
    room: RoomDescription

    @property
    def edge(self) -> tuple[int, int]:
        return -self.room.num_joined_members, self.room_nid


def require_publication(policy: str, requester: Requester) -> None:
    """Refuse whoever may not put rooms on the public list.

    Parameters: `policy`, one of `anyone`, `admins`, `nobody`. Raises MatrixError 403
    `M_FORBIDDEN`.
    """
    if policy == "anyone" or (policy == "admins" and requester.is_admin):
        return
    raise errors.forbidden("You may not publish rooms on this server.")


class PublishedRooms:
    """Lists rooms, and puts them on the list.

    Parameters:
        publication: see `require_publication`.
        without_auth: whether the list is shown to people who are not logged in.
    """

    def __init__(
        self, db: Database, server_name: str, publication: str, without_auth: bool
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._publication = publication
        self._without_auth = without_auth
        self._remote: RemoteRooms | None = None
        self._is_served = False
        # Good while the room's head is the same, in whatever process it changes.
        self._entries: Cache[int, _Entry] = Cache("published_rooms", weigh_both, share=0.2)
        self.caches = (self._entries,)

    def federate(self, remote: RemoteRooms, *, served: bool) -> None:
        """Other servers can be asked for their lists, and if `served` are given this one."""
        self._remote = remote
        self._is_served = served

    async def page(
        self, requester: Requester | None, wanted: Wanted, server: str | None = None
    ) -> Page:
        """A page of the list.

        Parameters: `server`, whose list; None: this server's.

        Raises:
            MatrixError: 401 `M_MISSING_TOKEN`; 400 `M_INVALID_PARAM`; 502 `M_UNKNOWN` for the
                list of a server that does not give it.
        """
        if requester is None and not self._without_auth:
            raise errors.missing_token()
        if server is None or server == self._server_name:
            return await self.own_page(wanted)
        _check(wanted)
        if self._remote is None:
            raise errors.not_found(f"The room directory of {server} cannot be reached.")
        listed = await self._remote.listed(server, _body(wanted))
        return Page(listed.rooms, listed.next_batch, listed.prev_batch, listed.total)

    async def served_page(self, wanted: Wanted) -> Page:
        """A page of this server's list for another server.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` if it is not given out; 400 `M_INVALID_PARAM`.
        """
        if not self._is_served:
            raise errors.forbidden("This server does not show its rooms to others.")
        return await self.own_page(wanted)

    async def own_page(self, wanted: Wanted) -> Page:
        """A page of this server's list. Raises MatrixError 400 `M_INVALID_PARAM`."""
        _check(wanted)
        since = _parse(wanted.since) if wanted.since is not None else None
        entries = await self._db.read(self._listed, wanted)
        return _cut(entries, min(wanted.limit or MAX_PAGE, MAX_PAGE), since)

    async def visibility(self, room_id: RoomID) -> str:
        """`public` if the room is on the list, else `private`. Raises MatrixError 404."""
        return await self._db.read(_visibility, room_id)

    async def set_visibility(self, requester: Requester, room_id: RoomID, visibility: str) -> None:
        """Put a room on the list (`public`), or take it off (`private`).

        Raises:
            MatrixError: 403 `M_FORBIDDEN` for others than moderators of the room and
                administrators of the server; 404 `M_NOT_FOUND`.
        """
        publish = visibility == "public"
        await self._db.write(
            _set_visibility, room_id, requester, self._publication if publish else None
        )

    async def set_in_network(
        self, appservice_id: str, network_id: str, room_id: RoomID, visibility: str
    ) -> None:
        """Put a room on the list of a network that an application service bridges, or take it
        off. Raises MatrixError 404 `M_NOT_FOUND`."""
        instance_id = f"{appservice_id}|{network_id}"
        await self._db.write(_set_in_network, instance_id, room_id, visibility == "public")

    def _listed(self, txn: Transaction, wanted: Wanted) -> list[_Entry]:
        versions = published.rooms(txn, wanted.instance_id, all_networks=wanted.all_networks)
        kept = ((nid, self._entries.get(nid)) for nid in versions)
        known = {nid: entry for nid, entry in kept if entry is not None}
        stale = [
            nid for nid in versions if nid not in known or known[nid].head_version != versions[nid]
        ]
        if stale:
            fresh = self._describe(txn, stale, versions)
            known |= fresh
            self._entries.update(fresh)
        entries = [entry for entry in known.values() if _matches(entry.room, wanted)]
        entries.sort(key=lambda entry: entry.edge)
        return entries

    def _describe(
        self, txn: Transaction, room_nids: Sequence[int], versions: dict[int, int]
    ) -> dict[int, _Entry]:
        found = {}
        for start in range(0, len(room_nids), MAX_PAGE):
            rows = rooms.get_many(txn, room_nids[start : start + MAX_PAGE])
            for nid, room in describe(txn, list(rows.values())).items():
                found[nid] = _Entry(nid, versions[nid], room)
        return found


def _check(wanted: Wanted) -> None:
    if wanted.all_networks and wanted.instance_id is not None:
        raise errors.invalid_param(
            "`third_party_instance_id` cannot be used with `include_all_networks`."
        )
    if wanted.limit is not None and wanted.limit < 0:
        raise errors.invalid_param("`limit` must not be negative.")


def _body(wanted: Wanted) -> JsonObject:
    """The request for another server's list."""
    chosen: JsonObject = {}
    if wanted.term:
        chosen["generic_search_term"] = wanted.term
    if wanted.room_types is not None:
        chosen["room_types"] = list(wanted.room_types)
    body: JsonObject = {"limit": min(wanted.limit or MAX_PAGE, MAX_PAGE)}
    if wanted.since is not None:
        body["since"] = wanted.since
    if chosen:
        body["filter"] = chosen
    if wanted.all_networks:
        body["include_all_networks"] = True
    if wanted.instance_id is not None:
        body["third_party_instance_id"] = wanted.instance_id
    return body


def _matches(room: RoomDescription, wanted: Wanted) -> bool:
    if not room.num_joined_members:
        return False
    if wanted.room_types is not None and room.room_type not in wanted.room_types:
        return False
    if not wanted.term:
        return True
    term = wanted.term.casefold()
    texts = (room.name, room.topic, room.canonical_alias)
    return any(term in text.casefold() for text in texts if text is not None)


def _cut(entries: Sequence[_Entry], limit: int, since: tuple[str, tuple[int, int]] | None) -> Page:
    start, end = 0, limit
    if since is not None:
        direction, edge = since
        if direction == "n":
            start = next((n for n, item in enumerate(entries) if item.edge > edge), len(entries))
            end = start + limit
        else:
            end = next((n for n, item in enumerate(entries) if item.edge >= edge), len(entries))
            start = max(0, end - limit)
    shown = entries[start:end]
    return Page(
        [entry.room for entry in shown],
        _token("n", shown[-1]) if shown and end < len(entries) else None,
        _token("p", shown[0]) if shown and start > 0 else None,
        len(entries),
    )


def _token(direction: str, entry: _Entry) -> str:
    return f"{direction}{entry.room.num_joined_members}-{entry.room_nid}"


def _parse(token: str) -> tuple[str, tuple[int, int]]:
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise errors.invalid_param("`since` is no token of the room directory.")
    return found[1], (-int(found[2]), int(found[3]))


def _visibility(txn: Transaction, room_id: str) -> str:
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        raise errors.not_found("This room is not known here.")
    return "public" if published.is_published(txn, room_nid) else "private"


def _set_visibility(
    txn: Transaction, room_id: str, requester: Requester, policy: str | None
) -> None:
    room = rooms.get(txn, room_id)
    if room is None:
        raise errors.not_found("This room is not known here.")
    if not requester.is_admin and not moderates(txn, room, requester.user_id):
        raise errors.forbidden("Only moderators of the room may change the directory.")
    if policy is not None:
        require_publication(policy, requester)
    if not requester.is_shadow_banned:
        published.set_published(txn, room.room_nid, policy is not None)


def _set_in_network(txn: Transaction, instance_id: str, room_id: str, is_published: bool) -> None:
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        raise errors.not_found("This room is not known here.")
    published.set_in_network(txn, instance_id, room_nid, is_published)
