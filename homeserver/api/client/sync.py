"""Syncing (client-server API, same heading)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.sync.filters import Filters
from homeserver.sync.long_poll import Sync, Wish
from homeserver.sync.request import SyncRequest
from homeserver.web.endpoint import Auth, RawJson, Request, Requester, endpoint
from homeserver.web.slicing import is_large

_ROOMS = 2
"""Below how many levels of the answer there are rooms."""


class SyncQuery(msgspec.Struct, frozen=True):
    """`timeout` in milliseconds."""

    filter: str | None = None
    since: str | None = None
    full_state: bool = False
    set_presence: Literal["offline", "online", "unavailable"] = "online"
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    use_state_after: bool = False
    unstable_use_state_after: bool = msgspec.field(
        default=False, name="org.matrix.msc4222.use_state_after"
    )


@endpoint("GET", "/_matrix/client/v3/sync", auth=Auth.GUEST_OK, long_poll=True)
async def get_sync(
    requester: Requester, query: SyncQuery, request: Request, sync: Sync, filters: Filters
) -> JsonObject | RawJson:
    """What happened since a token, as soon as something has."""
    # Empty is what some clients send for "none".
    token = SyncToken.parse(query.since) if query.since else None
    parsed = await filters.parse(requester.user_id, query.filter)
    wanted = SyncRequest(
        user_id=requester.user_id,
        device_id=requester.device_id or "",
        since=token.durable if token else None,
        ephemeral_since=token.ephemeral if token else None,
        to_device_since=token.to_device if token else None,
        filter=parsed,
        sticky_since=token.sticky if token else None,
        full_state=query.full_state,
        use_state_after=query.use_state_after or query.unstable_use_state_after,
    )
    old_names = query.unstable_use_state_after and not query.use_state_after
    wish = Wish(query.timeout, query.set_presence, request.on_shutdown, old_names)
    request.settle()
    del query, token, parsed  # they would be kept while it waits
    answer = await sync.sync(wanted, wish)
    if isinstance(answer, bytes):
        return RawJson(answer)
    if is_large(answer, _ROOMS):
        return RawJson(await sync.slicer.encode(answer, _ROOMS))
    return answer


ENDPOINTS = [get_sync]
