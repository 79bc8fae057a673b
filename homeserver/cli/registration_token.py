"""`hearth registration-token`: tokens with which people can register."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from config.types import Duration
from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import Failure, config_option, load_config

if TYPE_CHECKING:
    from homeserver.app import Homeserver


@click.group("registration-token")
def registration_token_group() -> None:
    """Make, list and remove registration tokens."""


@registration_token_group.command("add")
@config_option
@click.argument("token", required=False)
@click.option("--uses", type=click.IntRange(min=1), help="How often it can be used.")
@click.option("--expires", metavar="TIME", help="After how long it ends, such as 12h or 30d.")
def add(config_file: str, token: str | None, uses: int | None, expires: str | None) -> None:
    """Make TOKEN, or a random one, and show it."""
    config = load_config(config_file)
    expires_ts = None
    if expires is not None:
        try:
            expires_ts = int(time.time() * 1000) + Duration.parse(expires)
        except ValueError:
            raise Failure(f"{expires} is no length of time such as 12h or 30d.") from None

    async def act(hs: Homeserver) -> None:
        from homeserver.users.registration_tokens import RegistrationTokens

        tokens = hs.services[RegistrationTokens]
        click.echo(await tokens.create(token, uses_allowed=uses, expires_ts=expires_ts))

    with_homeserver(config, act)


@registration_token_group.command("list")
@config_option
def list_(config_file: str) -> None:
    """List all tokens: how often they were used and can be, and when they end."""
    config = load_config(config_file)

    async def act(hs: Homeserver) -> None:
        from homeserver.users.registration_tokens import RegistrationTokens

        for row in await hs.services[RegistrationTokens].list_all():
            uses = f"{row.completed}/{'any' if row.uses_allowed is None else row.uses_allowed}"
            ends = "never"
            if row.expires_ts is not None:
                moment = datetime.fromtimestamp(row.expires_ts / 1000, UTC)
                ends = moment.isoformat(timespec="minutes")
            click.echo(f"{row.token}\t{uses}\t{ends}")

    with_homeserver(config, act)


@registration_token_group.command("remove")
@config_option
@click.argument("token")
def remove(config_file: str, token: str) -> None:
    """Remove TOKEN: nobody can register with it any more."""
    config = load_config(config_file)

    async def act(hs: Homeserver) -> None:
        from homeserver.users.registration_tokens import RegistrationTokens

        if not await hs.services[RegistrationTokens].remove(token):
            raise Failure(f"There is no registration token {token}.")
        click.echo(f"Removed {token}.")

    with_homeserver(config, act)
