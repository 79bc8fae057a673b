"""Composition of what administrators do to rooms."""

from __future__ import annotations

from homeserver.parts import Parts
from homeserver.rooms.administration import RoomAdministration
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import Appender
from homeserver.rooms.blocking import RoomBlocks
from homeserver.rooms.create import RoomCreation
from homeserver.rooms.deletion import RoomDeletion
from homeserver.rooms.membership import Membership
from homeserver.rooms.purge import HistoryPurge
from homeserver.rooms.room_list import RoomList
from homeserver.rooms.room_tasks import RoomTasks
from homeserver.rooms.send import Sending
from homeserver.rooms.shutdown import RoomShutdown
from homeserver.rooms.state_collection import StateCollection
from homeserver.users.hooks import UserHooks
from storage import gone_rooms
from storage.jobs import JobRunner

AT_ONCE = 2
"""Purges and deletions that one process works on at a time."""


def build_room_administration(parts: Parts) -> None:
    """Purges and deletions of rooms, and looking into them."""
    services, db, reactor = parts.services, parts.db, parts.reactor
    server_name = parts.config.server_name
    tasks = services.add(RoomTasks(db, parts.feed, reactor))
    collection = services.add(StateCollection(db))
    services.add(HistoryPurge(db, tasks, collection, reactor, server_name))
    shutdown = RoomShutdown(db, services[RoomCreation], services[Membership], services[Sending])
    services.add(RoomDeletion(db, tasks, shutdown, reactor, server_name))
    services[UserHooks].deactivated.append(gone_rooms.delete_all)
    services.add(RoomBlocks(db, reactor))
    services.add(RoomList(db))
    services.add(
        RoomAdministration(
            db,
            services[Appender],
            services[Membership],
            services[Sending],
            services[Aliases],
            server_name,
        )
    )


def start_room_administration(parts: Parts) -> None:
    """Work on what was begun. Other jobs do not wait for these, which may take hours."""
    db, tasks = parts.db, parts.services[RoomTasks]
    runner = JobRunner(
        db,
        parts.feed,
        parts.reactor,
        db.process_token,
        {RoomTasks.KIND: tasks.run},
        concurrency=AT_ONCE,
    )
    runner.start()
    parts.stops.append(runner.stop)
