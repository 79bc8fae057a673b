"""A token bucket as a pure function: the caller keeps the state and the clock.

Client-server API, "Rate limiting". A bucket holds at most `burst` tokens and gains `per_second`
of them each second; what is allowed takes tokens, what is refused takes none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000
"""Longest wait that is told to a client, in milliseconds."""

# absorbs rounding, so that whoever waits for exactly `retry_after_ms` is let through
_EPSILON = 1e-6


class Decision(NamedTuple):
    """`level` and `last_ms` are the new state; `retry_after_ms` is 0 if allowed."""

    allowed: bool
    level: float
    last_ms: int
    retry_after_ms: int


def take(
    level: float,
    last_ms: int,
    now_ms: int,
    per_second: float,
    burst: float,
    cost: float = 1.0,
) -> Decision:
    """Take `cost` tokens (at most `burst`) out of a bucket that held `level` at `last_ms`.

    A new bucket has `level == burst`. With `per_second <= 0` a bucket never refills.
    """
    # Without min and max, since every request comes by. A clock that went backwards adds nothing.
    tokens = level if level > 0.0 else 0.0
    if now_ms > last_ms and per_second > 0:
        tokens += (now_ms - last_ms) * per_second / 1000
    if tokens > burst:
        tokens = burst
    if cost > burst:
        cost = burst
    if burst > 0 and tokens + _EPSILON >= cost:
        return Decision(True, tokens - cost if tokens > cost else 0.0, now_ms, 0)
    if per_second <= 0 or burst <= 0:
        return Decision(False, tokens, now_ms, MAX_RETRY_AFTER_MS)
    # The smallest rates make it infinite.
    wait_ms = math.ceil(min((cost - tokens) / per_second * 1000, MAX_RETRY_AFTER_MS))
    return Decision(False, tokens, now_ms, max(1, wait_ms))


def full_at_ms(level: float, last_ms: int, per_second: float, burst: float) -> int | None:
    """When the bucket is full again and may be forgotten, in ms; None if that never happens."""
    if level >= burst:
        return last_ms
    if per_second <= 0:
        return None
    left_ms = (burst - level) / per_second * 1000
    return last_ms + math.ceil(left_ms) if left_ms < math.inf else None
