"""`hearth reports`: what users reported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from homeserver.cli.acting import with_homeserver
from homeserver.cli.options import config_option, load_config

if TYPE_CHECKING:
    from homeserver.app import Homeserver
    from storage.reports import Report


@click.group("reports")
def reports_group() -> None:
    """Read what users reported."""


@reports_group.command("list")
@config_option
@click.option(
    "--after", metavar="NUMBER", default=0, help="Only reports behind the one of this number."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each report.")
def list_(config_file: str, after: int, as_json: bool) -> None:
    """List reports: number, time, who reported, what, and why."""

    async def act(hs: Homeserver) -> None:
        from storage.reports import after as reports_after

        last = after
        while found := await hs.db.read(reports_after, last, 500):
            for report in found:
                click.echo(json.dumps(report._asdict()) if as_json else line(report))
            last = found[-1].report_id

    with_homeserver(load_config(config_file), act)


def line(report: Report) -> str:
    """A report in one line. What users wrote is quoted, and cannot control a terminal."""
    time = datetime.fromtimestamp(report.received_ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    about = [part for part in (report.room_id, report.event_id, report.user_id) if part]
    columns = [
        str(report.report_id),
        time,
        report.reporter,
        report.kind,
        " ".join(_quoted(part) for part in about),
        _quoted(report.reason, always=True),
    ]
    return "\t".join(columns)


def _quoted(text: str, *, always: bool = False) -> str:
    quoted = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return f'"{quoted}"' if always or quoted != text else quoted
