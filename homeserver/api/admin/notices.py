"""Server notices (Synapse's "Server Notices")."""

from __future__ import annotations

import hashlib

import msgspec

from homeserver.api.admin import audit
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.notices import ServerNotices
from homeserver.users.administration import AccountAdministration
from homeserver.web.endpoint import Auth, Requester, endpoint

_PATH = "/_synapse/admin/v1/send_server_notice"


class NoticeBody(msgspec.Struct, frozen=True):
    user_id: UserID
    content: JsonObject
    type: str = "m.room.message"
    state_key: str | None = None


class NoticeAnswer(msgspec.Struct):
    event_id: str


async def _send(
    requester: Requester,
    body: NoticeBody,
    txn_id: str | None,
    administration: AccountAdministration,
    notices: ServerNotices,
) -> NoticeAnswer:
    administration.check_local(body.user_id)
    if txn_id is not None:
        # All notices are of one sender: each administrator has transactions of their own.
        named = f"{requester.user_id}\n{txn_id}".encode("utf-8", "surrogatepass")
        txn_id = hashlib.sha256(named).hexdigest()
    event_id = await notices.send_event(
        body.user_id, body.type, body.content, state_key=body.state_key, txn_id=txn_id
    )
    audit.record(requester, "send_notice", body.user_id, event_id=event_id)
    return NoticeAnswer(event_id)


@endpoint("POST", _PATH, auth=Auth.ADMIN, rate="write")
async def send_notice(
    requester: Requester,
    body: NoticeBody,
    administration: AccountAdministration,
    notices: ServerNotices,
) -> NoticeAnswer:
    """Tell a user something as the server."""
    return await _send(requester, body, None, administration, notices)


@endpoint("PUT", f"{_PATH}/{{txn_id}}", auth=Auth.ADMIN, rate="write")
async def put_notice(
    requester: Requester,
    txn_id: str,
    body: NoticeBody,
    administration: AccountAdministration,
    notices: ServerNotices,
) -> NoticeAnswer:
    """Tell a user something as the server, once."""
    return await _send(requester, body, txn_id, administration, notices)


ENDPOINTS = [send_notice, put_notice]
