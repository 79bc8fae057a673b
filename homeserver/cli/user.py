"""`hearth user`: accounts, on the database itself; the server may be running or not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from config import Config
from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import Failure, config_option, load_config
from homeserver.core.ids import InvalidIdentifier, UserID

if TYPE_CHECKING:
    from homeserver.app import Homeserver


@click.group("user")
def user_group() -> None:
    """Make, list and close accounts."""


def _password_option(function: Callable[..., None]) -> Callable[..., None]:
    add: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
        "--password",
        metavar="TEXT",
        help="The password; - reads it from standard input. Without this it is asked for.",
    )
    return add(function)


@user_group.command("add")
@config_option
@click.argument("name")
@_password_option
@click.option("--admin", is_flag=True, help="Make the user an administrator of the server.")
def add(config_file: str, name: str, password: str | None, admin: bool) -> None:
    """Make an account for NAME."""
    config = load_config(config_file)
    secret = _read_password(password)

    async def act(hs: Homeserver) -> None:
        from homeserver.users.accounts import Accounts

        accounts = hs.services[Accounts]
        user_id = accounts.new_user_id(_localpart(name, config))
        await accounts.create(user_id, secret, is_admin=admin)
        click.echo(f"Made {user_id}{', an administrator' if admin else ''}.")

    with_homeserver(config, act)


@user_group.command("passwd")
@config_option
@click.argument("name")
@_password_option
@click.option("--keep-sessions", is_flag=True, help="Leave the user logged in everywhere.")
def passwd(config_file: str, name: str, password: str | None, keep_sessions: bool) -> None:
    """Change the password of NAME."""
    config = load_config(config_file)
    user_id = user_id_of(name, config)
    secret = _read_password(password)

    async def act(hs: Homeserver) -> None:
        from homeserver.users.accounts import Accounts

        accounts = hs.services[Accounts]
        await accounts.set_password(user_id, secret, logout_devices=not keep_sessions)
        click.echo(f"Changed the password of {user_id}.")

    with_homeserver(config, act)


@user_group.command("list")
@config_option
def list_(config_file: str) -> None:
    """List all accounts: user ID, when it was made, and what is special about it."""
    config = load_config(config_file)

    async def act(hs: Homeserver) -> None:
        from storage.users import list_users

        after = ""
        while rows := await hs.db.read(list_users, after, 500):
            for row in rows:
                made = datetime.fromtimestamp(row.created_ts / 1000, UTC).date()
                flags = {
                    "admin": row.is_admin,
                    "guest": row.is_guest,
                    "locked": row.locked,
                    "suspended": row.suspended,
                    "deactivated": row.deactivated,
                }
                words = [word for word, is_set in flags.items() if is_set]
                click.echo("\t".join([row.user_id, made.isoformat(), " ".join(words)]).rstrip())
            after = rows[-1].user_id

    with_homeserver(config, act)


@user_group.command("deactivate")
@config_option
@click.argument("name")
@click.option("--erase", is_flag=True, help="Also erase the profile and hide old messages.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def deactivate(config_file: str, name: str, erase: bool, yes: bool) -> None:
    """Close the account of NAME for good: it cannot be opened again."""
    config = load_config(config_file)
    user_id = user_id_of(name, config)
    if not yes:
        click.confirm(f"Close the account {user_id} for good?", abort=True)

    async def act(hs: Homeserver) -> None:
        from homeserver.users.accounts import Accounts

        await hs.services[Accounts].deactivate(user_id, erase=erase)
        click.echo(f"Closed {user_id}.")

    with_homeserver(config, act)


def user_id_of(name: str, config: Config) -> UserID:
    """The user meant by `name`: a localpart or a whole user ID. Raises Failure."""
    try:
        return UserID.of(_localpart(name, config), config.server_name)
    except InvalidIdentifier as error:
        raise Failure(f"{name} is not a user name: {error.reason}.") from None


def _localpart(name: str, config: Config) -> str:
    if not name.startswith("@"):
        return name
    localpart, colon, domain = name[1:].partition(":")
    if colon and domain != config.server_name:
        raise Failure(f"{name} is not a user of this server, {config.server_name}.")
    return localpart


def _read_password(given: str | None) -> str:
    if given == "-":
        given = sys.stdin.readline().rstrip("\r\n")
    elif given is None:
        if not sys.stdin.isatty():
            raise Failure("Give the password with --password, or - to read standard input.")
        given = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not given:
        raise Failure("The password is empty.")
    return given
