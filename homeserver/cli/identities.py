"""`hearth user identities`: with whom of single sign-on providers an account is connected."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import Failure, config_option, load_config
from homeserver.cli.user import user_id_of

if TYPE_CHECKING:
    from homeserver.app import Homeserver


@click.command("identities")
@config_option
@click.argument("name")
@click.option("--link", nargs=2, metavar="PROVIDER ID", help="Let this person use the account.")
@click.option("--unlink", nargs=2, metavar="PROVIDER ID", help="Let them use it no more.")
def identities(
    config_file: str, name: str, link: tuple[str, str] | None, unlink: tuple[str, str] | None
) -> None:
    """List the single sign-on identities of NAME: provider, the provider's ID, since when."""
    config = load_config(config_file)
    user_id = user_id_of(name, config)
    known = {provider.id for provider in config.sso.providers}
    if config.cas is not None:
        known.add(config.cas.id)
    if link and link[0] not in known:
        raise Failure(f"{link[0]} is no provider of the configuration (sso.providers, cas).")

    async def act(hs: Homeserver) -> None:
        from homeserver.users.sso.people_here import PeopleHere
        from storage import users

        people = hs.services[PeopleHere]
        if await hs.db.read(users.get_user, user_id) is None:
            raise Failure(f"There is no account {user_id}.")
        if unlink and not await people.disconnect(user_id, *unlink):
            raise Failure(f"{user_id} is not connected with {unlink[1]} of {unlink[0]}.")
        if link:
            await people.connect(user_id, *link)
        for row in await people.connections(user_id):
            added = datetime.fromtimestamp(row.added_ts / 1000, UTC).date()
            click.echo("\t".join([row.provider, row.external_id, added.isoformat()]))

    with_homeserver(config, act)
