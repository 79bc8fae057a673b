"""Whether accounts exist, and whether they are closed (MSC3720)."""

from __future__ import annotations

import msgspec

from homeserver.core.types import JsonObject
from homeserver.users.account_status import AccountStatuses
from homeserver.web.endpoint import Auth, Requester, endpoint


class StatusBody(msgspec.Struct, frozen=True):
    user_ids: list[str]


@endpoint(
    "POST",
    "/_matrix/client/unstable/org.matrix.msc3720/account_status",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
)
async def post_account_status(
    requester: Requester, body: StatusBody, statuses: AccountStatuses
) -> JsonObject:
    """The statuses of accounts of this server and of others."""
    if not body.user_ids:
        return {}
    found, failures = await statuses.of(body.user_ids)
    return {"account_statuses": found, "failures": failures}


ENDPOINTS = [post_account_status]
