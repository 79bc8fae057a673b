"""What federation costs: `python -m tests.measure.federation [WHAT …] [--synapse PYTHON]`.

WHAT: join, transactions, delivery, destinations, dead; all by default. Real server processes over
loopback TLS, with all others played by one process. CPU is that of the server and of its database.
With `--synapse`, the Python of a virtual environment that has matrix-synapse (or the environment
variable HEARTH_TEST_INTEROP), Synapse does the same in turn. On a machine with other work, give
`--rounds`: the least of each figure is what to read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path

from tests.interop.servers import INTEROP
from tests.measure import delivery, destinations, joining, transactions
from tests.measure.instances import use_synapse
from tests.measure.lab import Lab

WHAT = ("join", "transactions", "delivery", "destinations", "dead")


async def run(options: argparse.Namespace, directory: Path) -> None:
    kinds = tuple(options.kinds.split(","))
    if options.synapse:
        use_synapse(options.synapse)
    else:
        kinds = tuple(kind for kind in kinds if kind != "synapse")
    lab = Lab(directory, kinds, tuple(options.databases.split(",")), options.rounds)
    for what in options.what or WHAT:
        if what == "join":
            await joining.measure(lab, options.members, options.servers, options.room_version)
        elif what == "transactions":
            await transactions.measure(lab, options.transactions)
        elif what == "delivery":
            await delivery.measure(lab, options.messages)
        elif what == "destinations":
            await destinations.measure_alive(lab, options.destinations)
        else:
            await destinations.measure_dead(lab, options.dead)
    lab.summary()
    if options.out:
        options.out.write_text(json.dumps(lab.figures, indent=1), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("--synapse", default=os.environ.get(INTEROP), metavar="PYTHON")
    parser.add_argument("--kinds", default="synapse,hearth")
    parser.add_argument("--databases", default="postgres,sqlite")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--members", type=int, default=10_000, help="of the room that is joined")
    parser.add_argument("--servers", type=int, default=50, help="that they are users of")
    parser.add_argument("--room-version", default="11")
    parser.add_argument("--transactions", type=int, default=40)
    parser.add_argument("--messages", type=int, default=100, help="that are delivered")
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--dead", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--keep", type=Path, help="a directory for the servers' files")
    options = parser.parse_args()
    if unknown := set(options.what) - set(WHAT):
        parser.error(f"unknown: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="hearth-measure-") as temporary:
        # PostgreSQL may have to run as another user.
        Path(temporary).chmod(0o755)
        asyncio.run(run(options, options.keep or Path(temporary)))


if __name__ == "__main__":
    main()
