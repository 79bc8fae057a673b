"""`hearth media`: files, on the database and the store; the server may be running or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import Failure, config_option, load_config
from homeserver.core.media import parse_uri

if TYPE_CHECKING:
    from homeserver.app import Homeserver
    from homeserver.media.sweeping import Findings
    from storage.media import MediaRow

BY = "the command line"
"""Who quarantined a file, when no administrator is named."""


@click.group("media")
def media_group() -> None:
    """See, withhold and remove files, and check the store."""


@media_group.command("check")
@config_option
@click.option("--contents", is_flag=True, help="Read every file, to see whether it was changed.")
@click.option("--dry-run", is_flag=True, help="Only tell what is wrong.")
def check(config_file: str, contents: bool, dry_run: bool) -> None:
    """Prove that files and database fit together, and repair what does not.

    Ends with status 1 if something was wrong. The server may be running.
    """
    problems = False

    async def act(hs: Homeserver) -> None:
        nonlocal problems
        from homeserver.media.sweeping import Sweeping

        findings = await hs.services[Sweeping].check(repair=not dry_run, contents=contents)
        tell(findings, repaired=not dry_run)
        problems = not findings.is_clean

    with_homeserver(load_config(config_file), act)
    if problems:
        raise SystemExit(1)


def tell(findings: Findings, *, repaired: bool) -> None:
    """What a check has found."""
    done = "removed" if repaired else "found"
    for row in findings.lost:
        click.echo(f"lost\t{row.uri}\t{row.uploader or '-'}\t{row.size} bytes")
    for count, what in (
        (len(findings.unfinished), f"unfinished files {done}"),
        (len(findings.orphans), f"files without a row {done}"),
        (len(findings.lost), f"rows without their file {done}"),
        (findings.lost_thumbnails, f"thumbnails without their file {done}"),
        (findings.miscounted, f"wrong counts {'corrected' if repaired else 'found'}"),
    ):
        if count:
            click.echo(f"{count} {what}.")
    verdict = "All is well" if findings.is_clean else "The rest is well"
    click.echo(f"{verdict}: {findings.files} files, {findings.size} bytes.")


@media_group.command("list")
@config_option
@click.option("--user", metavar="USER_ID", help="Only what this user has sent.")
def list_(config_file: str, user: str | None) -> None:
    """List files: URI, kind, bytes, type, who sent it, and whether it is withheld."""

    async def act(hs: Homeserver) -> None:
        from storage import media

        last = ("", "")
        while rows := await hs.db.read(media.after, *last, 500, user):
            for row in rows:
                click.echo(line(row))
            last = (rows[-1].server_name, rows[-1].media_id)

    with_homeserver(load_config(config_file), act)


def line(row: MediaRow) -> str:
    """A file in one line."""
    marks = [f"quarantined by {row.quarantined_by}"] if row.quarantined_by else []
    marks += ["protected"] if row.protected else []
    columns = [row.uri, row.kind, str(row.size), row.content_type, row.uploader or "-", *marks]
    return "\t".join(columns)


@media_group.command("delete")
@config_option
@click.argument("uris", metavar="URI...", nargs=-1, required=True)
def delete(config_file: str, uris: tuple[str, ...]) -> None:
    """Remove files for good, by their mxc URIs."""
    names = [_parsed(uri) for uri in uris]

    async def act(hs: Homeserver) -> None:
        from homeserver.media.removal import MediaRemoval
        from storage import media

        rows = [await hs.db.read(media.get, *name) for name in names]
        found = [row for row in rows if row is not None]
        await hs.services[MediaRemoval].delete(found)
        click.echo(f"Removed {len(found)} of {len(names)}.")

    with_homeserver(load_config(config_file), act)


@media_group.command("quarantine")
@config_option
@click.option("--undo", is_flag=True, help="Give them again.")
@click.option("--user", metavar="USER_ID", help="All that a user has sent.")
@click.option("--room", metavar="ROOM_ID", help="All that is named in a room, unencrypted.")
@click.option("--hash", "sha256", metavar="SHA256", help="A content, also when it comes again.")
@click.argument("uris", metavar="[URI...]", nargs=-1)
def quarantine(
    config_file: str,
    undo: bool,
    user: str | None,
    room: str | None,
    sha256: str | None,
    uris: tuple[str, ...],
) -> None:
    """Give files to nobody: by their mxc URIs, user, room or content."""
    names = [_parsed(uri) for uri in uris]
    if undo and (user or room):
        raise Failure("--undo takes URIs or --hash.")

    async def act(hs: Homeserver) -> None:
        from homeserver.media.administration import MediaAdministration
        from homeserver.media.removal import MediaRemoval

        removal = hs.services[MediaRemoval]
        count = await removal.quarantine(names, None if undo else BY, even_protected=True)
        if user:
            count += await removal.quarantine_user(user, BY)
        if room:
            count += await hs.services[MediaAdministration].quarantine_room(room, BY)
        if sha256:
            blocked = sha256.lower()
            count += await (removal.unblock(blocked) if undo else removal.block(blocked, BY))
        click.echo(f"Changed {count} files.")

    with_homeserver(load_config(config_file), act)


def _parsed(uri: str) -> tuple[str, str]:
    name = parse_uri(uri)
    if name is None:
        raise Failure(f"{uri} is no mxc URI.")
    return name
