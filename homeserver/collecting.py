"""How often Python's garbage collector runs while very much is in hand at once.

A collection is due after so many more objects were made than went away: a sign of garbage, mostly.
The state of a large room, parsed, judged and put together, is hundreds of thousands of objects that
are all in use until it is stored, when counting references frees them. Each collection in between
would look at them, and find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 250_000
"""So many young objects are let be while a large state is in hand: those of 20,000 members. What
of them is garbage is found then, or afterwards: at most some tens of megabytes wait."""

_usual: list[tuple[int, int, int]] = []
"""The thresholds outside, once for each that is inside."""


@contextmanager
def large_states() -> Iterator[None]:
    """Have collections be rarer meanwhile. Used on the reactor thread; several may overlap."""
    usual = _usual[0] if _usual else gc.get_threshold()
    _usual.append(usual)
    # A threshold of 0: somebody has turned collections off.
    if usual[0]:
        gc.set_threshold(max(MANY, usual[0]), *usual[1:])
    try:
        yield
    finally:
        _usual.pop()
        if not _usual:
            gc.set_threshold(*usual)
