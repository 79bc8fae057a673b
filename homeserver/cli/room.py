"""`hearth room`: what an operator wants to know of a room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import config_option, load_config

if TYPE_CHECKING:
    from homeserver.app import Homeserver


@click.group("room")
def room_group() -> None:
    """Look into rooms."""


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
