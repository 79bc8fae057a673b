"""Whether accounts exist, and whether they are closed (MSC3720)."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from federation.client.requests import FederationClient
from homeserver.core.errors import invalid_param
from homeserver.core.ids import InvalidIdentifier, UserID
from homeserver.core.types import JsonObject
from homeserver.encryption import servers
from storage import users
from storage.database import Database
from storage.transaction import Transaction

MAX_USERS = 1000
"""Users of one question."""
MAX_ANSWER = 1024 * 1024

_PATH = "/_matrix/federation/unstable/org.matrix.msc3720/account_status"


class AccountStatuses:
    """Tells of this server's accounts, and asks other servers for theirs."""

    def __init__(
        self, db: Database, client: FederationClient, clock: IReactorTime, server_name: str
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._server_name = server_name

    async def of(self, user_ids: Sequence[str]) -> tuple[JsonObject, list[str]]:
        """Statuses by user ID, and the users of whom nothing could be learnt.

        Raises MatrixError 400 M_INVALID_PARAM for what is no user ID, or too many.
        """
        wanted = _parse(user_ids)
        local = [user_id for user_id in wanted if user_id.domain == self._server_name]
        remote = {str(user_id): None for user_id in wanted if user_id not in local}
        found: JsonObject = await self._db.read(_local, local) if local else {}
        if remote:
            answers, _ = await servers.ask_all(
                servers.by_server(remote), self._ask, None, self._clock
            )
            for answered in answers.values():
                found |= answered
        return found, [user_id for user_id in wanted if user_id not in found]

    async def of_this_server(self, user_ids: Sequence[str]) -> JsonObject:
        """Statuses of users of this server.

        Raises MatrixError 400 M_INVALID_PARAM as `of`, and for users of other servers.
        """
        wanted = _parse(user_ids)
        if any(user_id.domain != self._server_name for user_id in wanted):
            raise invalid_param("Only users of this server can be asked for.")
        return await self._db.read(_local, wanted)

    async def _ask(
        self, server_name: str, user_ids: dict[str, None], timeout_s: float
    ) -> JsonObject:
        answer = await self._client.post_json(
            server_name,
            _PATH,
            {"user_ids": list(user_ids)},
            timeout_s=timeout_s,
            max_bytes=MAX_ANSWER,
        )
        told = answer.get("account_statuses")
        if not isinstance(told, dict):
            return {}
        statuses = {user_id: _status(told.get(user_id)) for user_id in user_ids}
        return {user_id: status for user_id, status in statuses.items() if status is not None}


def _parse(user_ids: Sequence[str]) -> list[UserID]:
    if len(user_ids) > MAX_USERS:
        raise invalid_param(f"At most {MAX_USERS} users can be asked for at once.")
    try:
        return list(dict.fromkeys(UserID.parse(user_id) for user_id in user_ids))
    except InvalidIdentifier as error:
        raise invalid_param(f"`user_ids`: {error}") from None


def _local(txn: Transaction, user_ids: Sequence[str]) -> JsonObject:
    found: JsonObject = {}
    for user_id in user_ids:
        user = users.get_user(txn, user_id)
        if user is None:
            found[user_id] = {"exists": False}
        else:
            found[user_id] = {"exists": True, "deactivated": user.deactivated}
    return found


def _status(told: object) -> JsonObject | None:
    """What another server says of an account, if it has the right form."""
    if not isinstance(told, dict) or not isinstance(told.get("exists"), bool):
        return None
    if not told["exists"]:
        return {"exists": False}
    is_deactivated = told.get("deactivated")
    if not isinstance(is_deactivated, bool):
        return None
    return {"exists": True, "deactivated": is_deactivated}
