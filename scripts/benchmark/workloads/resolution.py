"""State resolution alone, without a server: both resolvers on the same fork, in memory."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from scripts.benchmark.context import Context
from scripts.benchmark.resolving import by_synapse_file, fork
from scripts.benchmark.servers import ROOT, Hearth

VERSIONS = ("11", "12")
"""Room versions whose resolution differs."""


_FROM_DATABASE = (
    ("stored", "reading included"),
    ("cold", "reading, empty caches"),
    ("first", "reading, empty caches, never resolved before"),
)


class Different(Exception):
    """The servers do not agree on the state."""


async def run(ctx: Context) -> None:
    """Measure one version after the other. Raises Different, RuntimeError."""
    sizes = ctx.sizes
    ctx.note(
        f"Two branches of a room of {sizes.resolve_state:,} members differ in "
        f"{sizes.resolve_conflicts:,} entries of state, power levels among them; the least of "
        f"{sizes.resolve_times} times. Both resolvers begin with all events in memory, read and "
        "with their auth events at hand, and come to the same state. Hearth's walks through auth "
        "chains itself; Synapse's asks its database for their difference, in whose place there is "
        "a plain walk. What reading takes is not in these figures; the last ones have it for "
        "Hearth, with a database of SQLite. Synapse's would read the same events, parse all of "
        "them, and ask several tables for the difference of auth chains."
    )
    for version in VERSIONS:
        file = ctx.directory / f"fork-{version}.json"
        if not file.exists():
            fork.write(file, fork.branches(version, sizes.resolve_state, sizes.resolve_conflicts))
        answer = await _resolve(ctx, file)
        title = f"room version {version}"
        ctx.cpu(f"resolution.{version}", title, "resolution", min(answer["ms"]) / 1000)
        least = min(
            total - store
            for total, store in zip(
                answer["ms"], answer.get("store_ms") or [0] * len(answer["ms"]), strict=True
            )
        )
        title = f"room version {version}, CPU without what stands in for Synapse's database"
        ctx.value(f"resolution.{version}_alone", title, least, "ms")
        for name, what in _FROM_DATABASE:
            if f"{name}_ms" in answer:
                title = f"room version {version}, CPU from a database, {what}"
                ctx.value(f"resolution.{version}_{name}", title, min(answer[f"{name}_ms"]), "ms")
        _agree(ctx.directory / f"resolved-{version}.txt", answer["digest"])


async def _resolve(ctx: Context, file: Path) -> Any:
    if ctx.kind == Hearth.kind:
        command = [ctx.python, "-m", "scripts.benchmark.resolving.by_hearth"]
    else:
        command = [ctx.python, str(by_synapse_file())]
    process = await asyncio.create_subprocess_exec(
        *command,
        str(file),
        str(ctx.sizes.resolve_times),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
    )
    try:
        said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(complained.decode("utf-8", "replace").strip().splitlines()[-1])
    return json.loads(said)


def _agree(file: Path, digest: str) -> None:
    """All who resolve the same fork have to come to the same."""
    if file.exists() and file.read_text("ascii") != digest:
        raise Different("the resolvers come to different states")
    file.write_text(digest, "ascii")
