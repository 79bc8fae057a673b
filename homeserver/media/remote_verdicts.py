"""What clients are told when another server gives no file, and when it is asked again."""

from __future__ import annotations

from typing import NamedTuple

from federation.client.errors import BadAnswer, InvalidDestination, RemoteError, RemoteHttpError


class Verdict(NamedTuple):
    """The answer to clients; after how many seconds the server is asked again, twice as long
    each time up to `longest_s`; 0 for at once."""

    status: int
    errcode: str
    first_s: float
    longest_s: float


_MINUTE = 60.0
_HOUR = 3600.0
NOT_FOUND = Verdict(404, "M_NOT_FOUND", 5 * _MINUTE, 24 * _HOUR)
NOT_YET = Verdict(504, "M_NOT_YET_UPLOADED", 0, 0)
TOO_LARGE = Verdict(502, "M_TOO_LARGE", 24 * _HOUR, 24 * _HOUR)
NO_ANSWER = Verdict(502, "M_UNKNOWN", 20.0, _HOUR)
BUSY = Verdict(502, "M_UNKNOWN", 10.0, 5 * _MINUTE)


def verdict_on(error: RemoteError) -> Verdict:
    """What to make of a fault."""
    if isinstance(error, InvalidDestination):
        return NOT_FOUND
    if isinstance(error, RemoteHttpError):
        return _on_answer(error)
    if isinstance(error, BadAnswer) and error.reason == "its answer is too large":
        return TOO_LARGE
    return NO_ANSWER


def _on_answer(error: RemoteHttpError) -> Verdict:
    if error.errcode == "M_TOO_LARGE":
        return TOO_LARGE
    if error.errcode == "M_NOT_YET_UPLOADED":
        return NOT_YET
    if error.status == 429:
        return BUSY
    return NOT_FOUND if error.status in (400, 403, 404, 410) else NO_ANSWER
