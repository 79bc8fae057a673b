"""A line in the log for each change that an administrator makes: who, what, to whom."""

from __future__ import annotations

import structlog

from homeserver.web.request import Requester

_log = structlog.get_logger(__name__)


def record(requester: Requester, action: str, subject: str, **details: object) -> None:
    """Log that an administrator did something to a user, room, token or server.

    `details` must not hold secrets. Of an administrator who acts as another both are told.
    """
    if requester.puppeteer is not None:
        details["acting_as"] = requester.user_id
    who = requester.puppeteer or requester.user_id
    _log.info("administrator", admin=who, action=action, subject=subject, **details)
