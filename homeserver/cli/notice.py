"""`hearth notice`: telling users something as the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import Failure, config_option, load_config
from homeserver.cli.user import user_id_of

if TYPE_CHECKING:
    from homeserver.app import Homeserver


@click.group("notice")
def notice_group() -> None:
    """Tell users something as the server."""


@notice_group.command("send")
@config_option
@click.argument("name")
@click.argument("text")
def send(config_file: str, name: str, text: str) -> None:
    """Send TEXT to the user NAME."""
    config = load_config(config_file)
    user_id = user_id_of(name, config)
    if not text.strip():
        raise Failure("There is nothing to send.")

    async def act(hs: Homeserver) -> None:
        from homeserver.rooms.notices import ServerNotices

        event_id = await hs.services[ServerNotices].send(user_id, text)
        click.echo(f"Sent {event_id} to {user_id}.")

    with_homeserver(config, act)
