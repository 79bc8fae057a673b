"""`hearth room`: what an operator wants to know of a room."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import config_option, load_config

if TYPE_CHECKING:
    from homeserver.app import Homeserver
    from storage.room_tasks import RoomTask


@click.group("room")
def room_group() -> None:
    """Look into rooms, and remove them or what is old in them."""


@room_group.command("list")
@config_option
@click.option("--search", help="Only rooms with this in their name or alias.")
@click.option("--limit", default=1000, show_default=True, help="At most so many, the largest.")
def list_rooms(config_file: str, search: str | None, limit: int) -> None:
    """List rooms with the numbers of their members, of all servers and of this one."""

    async def act(hs: Homeserver) -> None:
        from homeserver.rooms.room_list import RoomList, Selection

        selection = Selection("joined_members", term=search or None)
        found, _ = await hs.services[RoomList].page(selection, 0, limit)
        for room in found:
            name = room.name or room.canonical_alias or ""
            counts = f"{room.joined_members}\t{room.joined_local_members}"
            click.echo(f"{room.room_id}\t{counts}\t{' '.join(name.split())}")

    with_homeserver(load_config(config_file), act)


@room_group.command()
@config_option
@click.argument("room_id")
@click.option("--block", is_flag=True, help="Nobody of this server can join it again.")
@click.option("--force", is_flag=True, help="Also if users of this server cannot leave it.")
@click.option("--keep", is_flag=True, help="Have everybody leave, but remove nothing.")
def delete(config_file: str, room_id: str, block: bool, force: bool, keep: bool) -> None:
    """Have the users of this server leave ROOM_ID, and remove every trace of it."""

    async def act(hs: Homeserver) -> None:
        from homeserver.core.ids import UserID
        from homeserver.rooms.deletion import Deletion, RoomDeletion

        config = hs.config
        by = UserID.of(config.server_notices.localpart, config.server_name)
        wanted = Deletion(by, block=block, purge=not keep, force_purge=force)
        task_id = await hs.services[RoomDeletion].begin(room_id, wanted)
        told = (await _done(hs, task_id)).progress["shutdown"]
        click.echo(f"{len(told['kicked_users'])} users have left.")
        for user_id in told["failed_to_kick_users"]:
            click.echo(f"{user_id} could not leave.")

    with_homeserver(load_config(config_file), act)


@room_group.command("purge-history")
@config_option
@click.argument("room_id")
@click.option("--before-event", "event_id", help="Purge what comes before this event.")
@click.option(
    "--before", type=click.DateTime(), help="Purge what is older than this time (of this machine)."
)
@click.option("--local-events", is_flag=True, help="Also what this server's users sent.")
def purge_history(
    config_file: str,
    room_id: str,
    event_id: str | None,
    before: datetime | None,
    local_events: bool,
) -> None:
    """Remove the older part of the history of ROOM_ID. State is kept."""
    if (event_id is None) is (before is None):
        raise click.UsageError("Give one of --before-event and --before.")

    async def act(hs: Homeserver) -> None:
        from homeserver.rooms.purge import HistoryPurge, Point

        ts = int(before.timestamp() * 1000) if before is not None else None
        task_id = await hs.services[HistoryPurge].purge_before(
            room_id, Point(event_id, ts), delete_local_events=local_events
        )
        task = await _done(hs, task_id)
        click.echo(f"{task.progress.get('deleted', 0)} events were deleted.")

    with_homeserver(load_config(config_file), act)


async def _done(hs: Homeserver, task_id: str) -> RoomTask:
    """Work on a task until it is over, whether a server does so, too, or not."""
    from homeserver.cli.options import Failure
    from homeserver.rooms.room_tasks import RoomTasks
    from storage.room_tasks import FAILED

    tasks = hs.services[RoomTasks]
    await tasks.work_on(task_id)
    task = await tasks.over(task_id)
    if task is None or task.status == FAILED:
        raise Failure(task.error if task is not None and task.error else "It failed.")
    return task


@room_group.command()
@config_option
@click.argument("room_id")
@click.option("--event", "event_id", help="Explain the state before this event.")
def explain(config_file: str, room_id: str, event_id: str | None) -> None:
    """Tell how the state of ROOM_ID came out of a fork: the branches, the conflicting events, the
    order in which they were tried, and the result."""

    async def act(hs: Homeserver) -> None:
        from homeserver.rooms.explain import explain as explained
        from storage.state import StateStore

        states = hs.services[StateStore]
        found = await hs.db.read(explained, states, room_id, event_id)
        for line in found.lines():
            click.echo(line)

    with_homeserver(load_config(config_file), act)
