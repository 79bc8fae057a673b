"""Which command is meant, and how failures are told."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import homeserver
from homeserver.cli.config import config_group
from homeserver.cli.identities import identities
from homeserver.cli.media import media_group
from homeserver.cli.notice import notice_group
from homeserver.cli.push import push_group
from homeserver.cli.registration_token import registration_token_group
from homeserver.cli.reports import reports_group
from homeserver.cli.room import room_group
from homeserver.cli.run import run
from homeserver.cli.user import user_group

_HELP = {"--help", "-h", "--version"}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96})
@click.version_option(homeserver.__version__, prog_name="hearth", message="%(prog)s %(version)s")
def hearth() -> None:
    """Hearth, a Matrix homeserver.

    Without a command, `hearth -c FILE` runs the server.
    """


@hearth.command()
def version() -> None:
    """Show the version."""
    click.echo(f"hearth {homeserver.__version__}")


hearth.add_command(run)
hearth.add_command(config_group)
hearth.add_command(user_group)
user_group.add_command(identities)
hearth.add_command(room_group)
hearth.add_command(reports_group)
hearth.add_command(notice_group)
hearth.add_command(push_group)
hearth.add_command(media_group)
hearth.add_command(registration_token_group)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0].startswith("-") and words[0] not in _HELP:
        words.insert(0, "run")
    hearth.main(words, prog_name="hearth")
