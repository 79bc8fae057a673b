"""Other servers: how far they are, and trying them again (Synapse's "Federation API")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.api.admin import audit
from homeserver.api.admin.paging import Page
from homeserver.core.errors import invalid_param, not_found
from homeserver.core.ids import ServerName
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint
from storage import destinations
from storage.database import Database
from storage.destinations import KnownServer

_PATH = "/_synapse/admin/v1/federation/destinations"
_ONE = f"{_PATH}/{{destination}}"


class DestinationsQuery(Page, frozen=True):
    order_by: Literal[
        "destination",
        "retry_last_ts",
        "retry_interval",
        "failure_ts",
        "last_successful_stream_ordering",
    ] = "destination"
    destination: str | None = None


class Destination(msgspec.Struct):
    destination: str
    retry_last_ts: int
    retry_interval: int
    failure_ts: int | None
    last_successful_stream_ordering: int


class Destinations(msgspec.Struct, omit_defaults=True):
    destinations: list[Destination]
    total: int
    next_token: str | None = None


class DestinationRoom(msgspec.Struct):
    room_id: str
    stream_ordering: int


class DestinationRooms(msgspec.Struct, omit_defaults=True):
    rooms: list[DestinationRoom]
    total: int
    next_token: str | None = None


def _shown(server: KnownServer) -> Destination:
    return Destination(
        server.server_name, server.last_try, server.interval, server.failing_since, server.pos
    )


async def _known(db: Database, destination: str) -> KnownServer:
    found = await db.read(destinations.known, destination)
    if found is None:
        raise not_found("Unknown destination.")
    return found


def _text(token: int | None) -> str | None:
    return None if token is None else str(token)


@endpoint("GET", _PATH, auth=Auth.ADMIN, rate="read")
async def get_destinations(query: DestinationsQuery, db: Database) -> Destinations:
    """A page of the servers that share rooms with this one, or are behind."""
    start, limit = query.bounds()
    found, total = await db.read(
        destinations.page,
        query.order_by,
        start,
        limit,
        backwards=query.dir == "b",
        named=query.destination,
    )
    return Destinations([_shown(each) for each in found], total, _text(query.next(total)))


@endpoint("GET", _ONE, auth=Auth.ADMIN, rate="read")
async def get_destination(destination: ServerName, db: Database) -> Destination:
    """One such server."""
    return _shown(await _known(db, destination))


@endpoint("GET", f"{_ONE}/rooms", auth=Auth.ADMIN, rate="read")
async def get_destination_rooms(
    destination: ServerName, query: Page, db: Database
) -> DestinationRooms:
    """The rooms that are shared with a server, and what it has got of them."""
    server = await _known(db, destination)
    start, limit = query.bounds()
    found, total = await db.read(
        destinations.rooms_page, destination, start, limit, backwards=query.dir == "b"
    )
    rooms = [DestinationRoom(room_id, min(pos, server.pos)) for room_id, pos in found]
    return DestinationRooms(rooms, total, _text(query.next(total)))


@endpoint("POST", f"{_ONE}/reset_connection", auth=Auth.ADMIN, rate="write")
async def reset_connection(requester: Requester, destination: ServerName, db: Database) -> Empty:
    """Try a server again at once that could not be reached."""
    await _known(db, destination)
    if not await db.write(destinations.retry_now, destination):
        raise invalid_param("destination: this server is not known to be unreachable.")
    audit.record(requester, "reset_connection", destination)
    return EMPTY


ENDPOINTS = [get_destinations, get_destination, get_destination_rooms, reset_connection]
