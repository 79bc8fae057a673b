"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.benchmark.sizes import FULL, QUICK, Sizes, override
from scripts.benchmark.workloads import WORKLOADS
from scripts.interop import SYNAPSE

DEFAULT_OUT = Path("build") / "bench"


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure and where to write it. `report`: result files to write the report of."""

    sizes: Sizes
    preset: str
    workloads: tuple[str, ...]
    rounds: int
    out: Path
    database: str
    synapse: bool
    synapse_python: str | None
    keep: bool
    report: tuple[Path, ...]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure Hearth and Synapse, taking turns, and write a report.",
        epilog="Workloads: "
        + "; ".join(f"{name} ({workload.title})" for name, workload in WORKLOADS.items())
        + ".",
    )
    preset = parser.add_mutually_exclusive_group()
    preset.add_argument("--quick", action="store_true", help="small sizes, one round (the default)")
    preset.add_argument("--full", action="store_true", help="the sizes of docs/performance.md")
    parser.add_argument("--only", metavar="WORKLOADS", help="some of them, with commas between")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 1, or 3 with --full")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"default: {DEFAULT_OUT}"
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="F",
        help="of the shape of 200 users in 300 rooms of 300 members, which is 1",
    )
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--no-synapse", action="store_true", help="measure Hearth alone")
    parser.add_argument(
        "--synapse-python",
        default=os.environ.get(SYNAPSE),
        metavar="PATH",
        help="that has Synapse; default: one in .venv/synapse, where it is installed",
    )
    parser.add_argument("--set", action="append", default=[], metavar="SIZE=N", help="see sizes.py")
    parser.add_argument("--keep", action="store_true", help="keep the servers' files")
    parser.add_argument(
        "--report",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="measure nothing: write the report of result files into DIR; of a workload that is "
        "in several, that of the last counts",
    )
    return parser


def parse(arguments: list[str]) -> Options:
    """Read the command line. Raises SystemExit, after telling what is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    preset = "full" if given.full else "quick"
    try:
        sizes = override(FULL if given.full else QUICK, given.set)
    except ValueError as error:
        parser.error(str(error))
    if given.scale is not None:
        if not 0 < given.scale <= 1:
            parser.error("--scale is above 0, and at most 1")
        sizes = replace(sizes, scale=given.scale)
    chosen = given.only.split(",") if given.only else list(WORKLOADS)
    for name in chosen:
        if name not in WORKLOADS:
            parser.error(f"no such workload: {name}; there are {', '.join(WORKLOADS)}")
    rounds = given.rounds if given.rounds is not None else 3 if given.full else 1
    if rounds < 1:
        parser.error("--rounds is at least 1")
    return Options(
        sizes=sizes,
        preset=preset,
        workloads=tuple(name for name in WORKLOADS if name in chosen),
        rounds=rounds,
        out=given.out,
        database=given.database,
        synapse=not given.no_synapse,
        synapse_python=given.synapse_python,
        keep=given.keep,
        report=tuple(given.report),
    )
