"""Costs of core functions against the budgets in tests/guards/budgets.json: see `scripts/guards`.

Instructions are counted by Valgrind's cachegrind (callgrind counts the same in twice the time),
with hashes and addresses that are not random: the same code gives nearly the same figure, on a busy
machine as on an idle one. Figures depend on how Python was built, on the versions of some
libraries, and on the instruction sets that these use, so that budgets are kept with what they were
made with, and with the cost of a piece of plain Python: where that differs, figures are shown and
nothing is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.run_tests import install_packages
from tests.guards.guarded import REFERENCE

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = ROOT / "tests" / "guards" / "budgets.json"
HEADROOM = {"instructions": 1.05, "bytes": 1.05, "blocks": 1.05}
"""How much of a budget may be used: more is a failure."""
_SAME_BUILD = 0.01
_EXTENSIONS = frozenset({"adx", "aes", "avx2", "bmi2", "pclmulqdq", "sha_ni", "sse4_2"})
_LIBRARIES = ("httptools", "msgspec", "orjson", "pynacl")

Costs = dict[str, dict[str, float]]
"""By name of the function and kind of cost."""


class CannotMeasure(Exception):
    """Nothing can be measured here."""


@dataclass(slots=True)
class Budgets:
    """What functions may cost, what that was measured with, and why it was raised."""

    made_with: dict[str, str] = field(default_factory=dict)
    costs: Costs = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Budgets:
        if not BUDGETS.exists():
            return cls()
        stored = json.loads(BUDGETS.read_text("utf-8"))
        functions: dict[str, dict[str, Any]] = stored["functions"]
        reasons = {name: each["reason"] for name, each in functions.items() if "reason" in each}
        costs = {
            name: {kind: each[kind] for kind in HEADROOM if kind in each}
            for name, each in functions.items()
        }
        return cls(stored["made_with"], costs, reasons)

    def write(self) -> None:
        functions: dict[str, dict[str, Any]] = {}
        for name, costs in self.costs.items():
            functions[name] = dict(costs)
            if name in self.reasons:
                functions[name]["reason"] = self.reasons[name]
        stored = {"made_with": self.made_with, "functions": functions}
        BUDGETS.write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", "utf-8")


def surroundings() -> dict[str, str]:
    """What figures depend on besides the code."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"python": f"{platform.python_implementation()} {python}", **libraries} | {
        "machine": platform.machine(),
        "processor": _processor(),
    }


def _processor() -> str:
    """Instruction sets for which libraries have code of their own."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return "unknown"
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return " ".join(sorted(_EXTENSIONS.intersection(flags[1].split()))) if flags else "unknown"


def difference_of(budgets: Budgets, here: dict[str, str], measured: Costs) -> str | None:
    """Why these figures cannot be compared with those budgets; None if they can."""
    for name, value in here.items():
        known = budgets.made_with.get(name)
        if known != value:
            return f"the budgets were made with {name} {known}, this is {value}"
    usual = budgets.costs.get(REFERENCE, {}).get("instructions", 0)
    now = measured[REFERENCE]["instructions"]
    if abs(now - usual) > _SAME_BUILD * usual:
        return "this Python was built otherwise than the one that the budgets were made with"
    return None


def problems(budgets: Budgets, measured: Costs) -> list[str]:
    """What costs more than it may, and what has no budget or no function."""
    found = []
    for name, costs in measured.items():
        if name not in budgets.costs:
            found.append(f"{name} has no budget: run scripts/guards --update")
            continue
        for kind, cost in costs.items():
            budget = budgets.costs[name].get(kind, 0)
            if name != REFERENCE and _exceeds(kind, cost, budget):
                more = 100 * (cost / budget - 1) if budget else 100
                found.append(f"{name}: {cost:,.0f} {kind}, {more:.1f} % above {budget:,.0f}")
    found += [f"{name} has a budget and is no more" for name in budgets.costs.keys() - measured]
    return found


def _exceeds(kind: str, cost: float, budget: float) -> bool:
    # A block or a hundred bytes come and go with how libraries are built.
    allowance = {"instructions": 0, "bytes": 100, "blocks": 1}[kind]
    return cost > max(budget * HEADROOM[kind], budget + allowance)


def updated(budgets: Budgets, measured: Costs, reason: str | None) -> tuple[Budgets, list[str]]:
    """The budgets with what became less; more only with a `reason`. And what was not raised."""
    new = Budgets(budgets.made_with, {}, {})
    refused = []
    for name, costs in measured.items():
        known = budgets.costs.get(name, {})
        new.costs[name] = {}
        if name in budgets.reasons:
            new.reasons[name] = budgets.reasons[name]
        for kind, cost in costs.items():
            budget = known.get(kind)
            if budget is None or cost <= budget or name == REFERENCE:
                new.costs[name][kind] = cost
            elif not _exceeds(kind, cost, budget):
                new.costs[name][kind] = budget
            elif reason is None:
                new.costs[name][kind] = budget
                refused.append(f"{name}: {cost:,.0f} {kind} instead of {budget:,.0f}")
            else:
                new.costs[name][kind] = cost
                new.reasons[name] = reason
    return new, refused


# Measuring


def measure() -> Costs:
    """Raises CannotMeasure, CalledProcessError."""
    if sys.platform != "linux":
        raise CannotMeasure("this is not Linux")
    valgrind = find_valgrind()
    with tempfile.TemporaryDirectory(prefix="hearth-guards-") as directory:
        command = [
            *_without_random_addresses(),
            valgrind,
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            f"--log-file={directory}/%p",
            *_measured("instructions"),
        ]
        lines = _run(command).splitlines()
        counted = {int(path.name): _collected(path) for path in Path(directory).iterdir()}
    found: Costs = {}
    for name, instructions in instructions_of(lines, counted):
        found[name] = {"instructions": instructions}
    for name, costs in json.loads(_run(_measured("allocations"))).items():
        if name != REFERENCE:
            found[name].update(costs)
    return found


def instructions_of(lines: list[str], counted: dict[int, int]) -> Iterator[tuple[str, int]]:
    """Instructions of one call, from what processes did and what they cost.

    Of two processes one made twice as many calls as the other.
    """
    entries = [json.loads(line) for line in lines]
    for first, second in zip(entries[::2], entries[1::2], strict=True):
        more = counted[second["process"]] - counted[first["process"]]
        yield first["name"], round(more / (second["calls"] - first["calls"]))


def _collected(log: Path) -> int:
    match = re.search(r"I +refs: +([0-9,]+)", log.read_text("utf-8", "replace"))
    return int(match[1].replace(",", "")) if match else 0


def _measured(what: str) -> list[str]:
    # Without what tests and logs would load for their looks: under Valgrind that takes long.
    start = (
        "import runpy, sys; sys.modules |= {'hypothesis': None, 'rich': None}; "
        "runpy.run_module('tests.guards.measured', run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", start, what]


def _run(command: list[str]) -> str:
    """What a command prints, with nothing random and nothing of the caller's around it."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _without_random_addresses() -> list[str]:
    """`setarch`, where this system has and permits it."""
    command = ["setarch", "-R"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except OSError:
        return []
    return command if allowed else []


def find_valgrind() -> str:
    """Valgrind, installed if that is possible. Raises CannotMeasure."""
    if shutil.which("valgrind") is None:
        advice = install_packages(["valgrind"])
        if advice is not None or shutil.which("valgrind") is None:
            raise CannotMeasure(f"there is no Valgrind. {advice or ''}".rstrip())
    return "valgrind"


# The command


def show(measured: Costs, budgets: Budgets) -> None:
    """Print a table."""
    print(f"{'for one call':34} {'instructions':>14} {'budget':>12} {'blocks':>8} {'bytes':>8}")
    for name, costs in measured.items():
        budget = budgets.costs.get(name, {}).get("instructions")
        figures = [
            _figure(costs.get("instructions"), 14),
            _figure(budget, 12),
            _figure(costs.get("blocks"), 8),
            _figure(costs.get("bytes"), 8),
        ]
        print(f"{name:34}", *figures)


def _figure(value: float | None, width: int) -> str:
    return " " * width if value is None else f"{value:>{width},}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/guards", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="fail if a budget is exceeded")
    what.add_argument("--update", action="store_true", help="lower budgets to what is measured")
    parser.add_argument("--reason", help="with --update: why budgets have to be raised")
    options = parser.parse_args(arguments)
    try:
        measured = measure()
    except CannotMeasure as error:
        print(f"Not measured: {error}")
        return 0
    budgets = Budgets.read()
    show(measured, budgets)
    if options.update:
        return update(budgets, measured, options.reason)
    difference = difference_of(budgets, surroundings(), measured)
    if difference is not None:
        print(f"Not compared: {difference}.")
        return 0
    found = problems(budgets, measured)
    print("\n".join(found) or f"{len(measured)} functions, all within their budgets")
    return 1 if found and options.check else 0


def update(budgets: Budgets, measured: Costs, reason: str | None) -> int:
    """Write new budgets; the exit status."""
    here = surroundings()
    difference = difference_of(budgets, here, measured) if budgets.costs else None
    if difference is not None and reason is None:
        print(f"Nothing is updated: {difference}. Say so as a --reason to measure all anew.")
        return 1
    if difference is not None:
        budgets = Budgets(costs={name: {} for name in measured})
        budgets.reasons = dict.fromkeys(measured, reason or "")
    new, refused = updated(budgets, measured, reason)
    new.made_with = here
    new.write()
    for each in refused:
        print(f"Not raised without a --reason: {each}")
    return 1 if refused else 0
