"""Loops that run each second, or every few: those of one clock run together.

Each time that a process wakes costs more than most of what such a loop does.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

_GRID_S = 1.0
_begun: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""When the first loop of a clock was started: processes do not all wake at the same time."""


def start_ticking(loop: LoopingCall, interval: float, now: bool = False) -> Deferred[Any]:
    """As `loop.start`, whose clock is set; after its first wait it runs on the grid of the clock.

    `interval`: seconds, of which the second wait may take up to one less.
    """
    clock: Any = loop.clock
    seconds = clock.seconds()
    past = (seconds - _begun.setdefault(clock, seconds)) % _GRID_S
    ended: Deferred[Any] = loop.start(interval, now)
    if loop.starttime is not None:
        loop.starttime = seconds - past
    return ended
