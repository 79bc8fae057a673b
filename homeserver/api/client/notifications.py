"""What the requester was notified of (Client-server API, "Listing Notifications")."""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.core.types import JsonObject
from homeserver.rooms.notifications import Notifications
from homeserver.web.endpoint import Auth, Requester, endpoint


class Wanted(msgspec.Struct, frozen=True):
    """Which notifications are asked for."""

    from_: str | None = msgspec.field(default=None, name="from")
    limit: Annotated[int, msgspec.Meta(le=2**31)] | None = None
    only: str | None = None


class NotificationsAnswer(msgspec.Struct, omit_defaults=True):
    notifications: list[JsonObject]
    next_token: str | None = None


@endpoint("GET", "/_matrix/client/v3/notifications", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_notifications(
    requester: Requester, query: Wanted, notifications: Notifications
) -> NotificationsAnswer:
    """A page of notifications, the newest first."""
    page = await notifications.page(requester.user_id, query.from_, query.limit, query.only)
    return NotificationsAnswer(page.notifications, page.next_token)


ENDPOINTS = [get_notifications]
