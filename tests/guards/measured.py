"""What is run to be measured: `python -m tests.guards.measured [instructions|allocations]`.

instructions: for Valgrind, which counts each process apart. Each function is called N times in a
process of its own, and twice as often in another: the difference is what N calls cost, whatever
Python needed to start. All processes are forked from one, so that they find the same memory;
those of the reference before anything of the product is loaded.
Prints a JSON object for each: name, calls, process.

allocations: prints by name how many blocks of memory the result of a call keeps
(`sys.getallocatedblocks`), and the most bytes that a call had at a time (tracemalloc).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc

from tests.guards.guarded import INTERPRETER, REFERENCE, Guarded, Work

WARMING = 30
"""Calls before those that count: the interpreter adapts, and caches fill."""
_KEPT = 200


def instructions() -> None:
    # When garbage is looked for depends on all that was made before, by whatever module.
    gc.disable()
    # What a dictionary or a cache of the interpreter costs depends on what else it is in use for.
    _count(REFERENCE, INTERPRETER)
    from tests.guards.functions import FUNCTIONS

    for name, guarded in FUNCTIONS.items():
        if name != REFERENCE:
            _count(name, guarded)


def _count(name: str, guarded: Guarded) -> None:
    for calls in (guarded.times, 2 * guarded.times):
        child = os.fork()
        if not child:
            _call(guarded, calls)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"{name} failed")
        print(json.dumps({"name": name, "calls": calls, "process": child}), flush=True)


def _call(guarded: Guarded, calls: int) -> None:
    work = guarded.make()
    for _ in range(min(WARMING, guarded.times)):
        work()
    for _ in range(calls):
        work()


def allocations() -> None:
    from tests.guards.functions import FUNCTIONS

    found = {}
    for name, guarded in FUNCTIONS.items():
        work = guarded.make()
        for _ in range(WARMING):
            work()
        found[name] = {"blocks": _kept(work), "bytes": _most(work)}
    print(json.dumps(found))


def _kept(work: Work) -> float:
    """Blocks for each result that is kept."""
    results: list[object] = [None] * _KEPT
    for number in range(_KEPT):  # free lists are used up
        results[number] = work()
    more: list[object] = [None] * _KEPT
    before = sys.getallocatedblocks()
    for number in range(_KEPT):
        more[number] = work()
    return round((sys.getallocatedblocks() - before) / _KEPT, 1)


def _most(work: Work) -> int:
    """Bytes at a time."""
    tracemalloc.start()
    try:
        work()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    gc.disable()
    {"instructions": instructions, "allocations": allocations}[sys.argv[1]]()
