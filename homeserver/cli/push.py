"""`hearth push`: why somebody was notified, or was not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import config_option, load_config
from homeserver.cli.user import user_id_of

if TYPE_CHECKING:
    from homeserver.app import Homeserver
    from storage.push_log import Entry
    from storage.push_queue import FailingGateway
    from storage.pushers import PusherRow


@click.group("push")
def push_group() -> None:
    """Look into notifications."""


@push_group.command("list")
@config_option
@click.argument("name", required=False)
def list_(config_file: str, name: str | None) -> None:
    """List pushers, of NAME or of everybody: user, kind, app, device, state, where it leads."""
    config = load_config(config_file)
    only = None if name is None else user_id_of(name, config)

    async def act(hs: Homeserver) -> None:
        from storage import pushers

        users = [str(only)] if only is not None else await hs.db.read(pushers.users)
        for user_id in sorted(users):
            for row in await hs.db.read(pushers.of_user, user_id):
                click.echo(pusher_line(row))

    with_homeserver(config, act)


@push_group.command("log")
@config_option
@click.argument("name")
@click.option("-n", "--number", metavar="NUMBER", default=50, help="How many lines at most.")
def log(config_file: str, name: str, number: int) -> None:
    """Tell what became of the notifications of NAME, the newest last.

    Time, outcome, kind and app of the pusher, room, event, attempts, and why.
    """
    config = load_config(config_file)
    user_id = user_id_of(name, config)

    async def act(hs: Homeserver) -> None:
        from storage import push_log, push_queue, pushers, rooms

        rows = await hs.db.read(pushers.of_user, user_id)
        if not rows:
            click.echo(f"{user_id} has no pusher: nothing is sent.", err=True)
        for row in rows:
            waiting = await hs.db.read(push_queue.count_waiting, row.pusher_nid)
            for sentence in state(row, waiting):
                click.echo(sentence, err=True)
        gateways = {row.gateway for row in rows}
        for failing in await hs.db.read(push_queue.failing, gateways):
            click.echo(gateway_line(failing), err=True)
        entries = await hs.db.read(push_log.of_user, user_id, number)
        nids = {entry.room_nid for entry in entries if entry.room_nid is not None}
        known = await hs.db.read(rooms.get_many, nids)
        for entry in reversed(entries):
            room = known.get(entry.room_nid or 0)
            click.echo(log_line(entry, room.room_id if room is not None else ""))

    with_homeserver(config, act)


def state(row: PusherRow, waiting: int) -> list[str]:
    """What is to be known of a pusher, in sentences."""
    found = []
    what = f"The pusher {_quoted(row.app_id)} ({row.kind}, {_short(row.pushkey)})"
    if not row.enabled:
        found.append(f"{what} is switched off.")
    elif not row.activated:
        found.append(f"{what} was never activated: its client did not answer.")
    if waiting:
        found.append(f"{what} has {waiting} waiting.")
    return found


def pusher_line(row: PusherRow) -> str:
    """A pusher in one line. What clients wrote is quoted, and cannot control a terminal."""
    states = {"off": not row.enabled, "not activated": not row.activated}
    told = ", ".join(word for word, is_so in states.items() if is_so) or "on"
    url = row.settings.get("url")
    columns = [
        row.user_id,
        row.kind,
        _quoted(row.app_id),
        row.device_id,
        told,
        _quoted(str(url)) if url else _quoted(row.pushkey),
    ]
    return "\t".join(columns)


def log_line(entry: Entry, room_id: str) -> str:
    """What became of one notification, in one line."""
    columns = [
        _time(entry.last_ts),
        entry.outcome,
        entry.kind,
        _quoted(entry.app_id),
        room_id,
        entry.event_id or "",
        str(entry.attempts),
        _quoted(entry.detail),
    ]
    return "\t".join(columns).rstrip()


def gateway_line(failing: FailingGateway) -> str:
    """Why nothing goes to a gateway."""
    return (
        f"{failing.gateway} has not answered as it should since {_time(failing.failing_since)}; "
        f"it is asked again at {_time(failing.retry_ts)}."
    )


def _time(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _short(pushkey: str) -> str:
    return _quoted(pushkey if len(pushkey) <= 20 else f"{pushkey[:17]}...")


def _quoted(text: str) -> str:
    quoted = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return quoted if quoted == text else f'"{quoted}"'
