"""Sticky events (MSC4354): everybody in the room is told of them for up to an hour."""

from __future__ import annotations

from homeserver.core.types import JsonObject

KEY = "msc4354_sticky"
"""Of events, and of the section of `/sync`."""
TTL_KEY = "msc4354_sticky_duration_ttl_ms"
MAX_MS = 3_600_000


def duration_of(pdu: JsonObject) -> int | None:
    """For how many milliseconds an event is sticky; None: it is no sticky event."""
    found = pdu.get(KEY)
    duration = found.get("duration_ms") if isinstance(found, dict) else None
    if not isinstance(duration, int) or isinstance(duration, bool) or duration < 0:
        return None
    return min(duration, MAX_MS)


def end_of(pdu: JsonObject, received_ms: int) -> int | None:
    """Until when an event is sticky that came at this time; None: it is no sticky event."""
    duration = duration_of(pdu)
    return None if duration is None else min(received_ms, pdu["origin_server_ts"]) + duration


def left_of(pdu: JsonObject, now_ms: int) -> int | None:
    """For how long an event is sticky from now on, as far as it tells; None: not (any more)."""
    end = end_of(pdu, now_ms)
    return end - now_ms if end is not None and end > now_ms else None
