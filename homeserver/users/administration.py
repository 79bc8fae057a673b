"""What administrators see of accounts, and do to them (Synapse's "User Admin API").

That the requester is an administrator was checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.ids import UserID
from homeserver.users.account_changes import AccountChange, apply_change
from homeserver.users.accounts import Accounts
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import Profiles
from homeserver.users.sessions import Sessions
from homeserver.web.request import Requester
from storage import (
    accepted_terms,
    cross_signing,
    external_ids,
    profiles,
    rate_overrides,
    threepids,
    tokens,
    user_lists,
    users,
)
from storage.cross_signing import MASTER
from storage.database import Database
from storage.external_ids import ExternalIdRow
from storage.rate_overrides import RateOverride
from storage.threepids import ThreepidRow
from storage.transaction import Transaction
from storage.users import UserRow

KEYS_REPLACEABLE_MS = 10 * 60 * 1000
"""For how long cross-signing keys can be replaced without confirmation."""


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """All that administrators are shown of an account; times in milliseconds."""

    user: UserRow
    displayname: str | None
    avatar_url: str | None
    threepids: Sequence[ThreepidRow]
    external_ids: Sequence[ExternalIdRow]
    last_seen_ts: int | None
    consent: tuple[str, int] | None
    """The version of the policy document that they accepted last, and when."""


class AccountAdministration:
    """Shows and changes accounts of this server."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        accounts: Accounts,
        passwords: Passwords,
        profiles: Profiles,
        sessions: Sessions,
        server_name: str,
    ) -> None:
        self._db = db
        self._clock = clock
        self._accounts = accounts
        self._passwords = passwords
        self._profiles = profiles
        self._sessions = sessions
        self._server_name = server_name

    def check_local(self, user_id: UserID) -> None:
        """Raises MatrixError 400 `M_INVALID_PARAM` for a user of another server."""
        if user_id.domain != self._server_name:
            raise errors.invalid_param("user_id: this user is not of this homeserver.")

    async def known(self, user_id: UserID) -> UserRow:
        """The account, also if it is closed.

        Raises MatrixError: 400 `M_INVALID_PARAM` for users of other servers, 404 `M_NOT_FOUND`.
        """
        self.check_local(user_id)
        return await self._db.read(_known, user_id)

    async def details(self, user_id: UserID) -> AccountDetails:
        """What there is of an account. Raises MatrixError as `known`."""
        self.check_local(user_id)
        return await self._db.read(_details, user_id)

    async def search(
        self,
        wanted: user_lists.Wanted,
        order_by: str,
        start: int,
        limit: int,
        *,
        backwards: bool,
    ) -> tuple[list[user_lists.Listed], int]:
        """Some accounts, and how many there are in all; see `storage.user_lists.page`."""
        return await self._db.read(
            user_lists.page, wanted, order_by, start, limit, backwards=backwards
        )

    # Changing

    async def put(self, requester: Requester, user_id: UserID, change: AccountChange) -> bool:
        """Make an account, or change it; whether it was made.

        Raises MatrixError: 400 `M_INVALID_PARAM`, `M_INVALID_USERNAME`, `M_WEAK_PASSWORD`,
        `M_USER_IN_USE` for a name that nobody can have.
        """
        self.check_local(user_id)
        change.check(requester, user_id)
        hashed = None if change.password is None else await self._passwords.hash(change.password)
        made = await self._db.write(
            apply_change,
            user_id,
            change,
            hashed,
            self._accounts,
            self._sessions,
            int(self._clock.seconds() * 1000),
        )
        for field, value in change.profile.items():
            if (await self.known(user_id)).deactivated:
                await self._db.write(_set_closed_profile, user_id, field, value)
            else:
                await self._profiles.set_field(requester, user_id, field, value or "")
        if change.deactivated:
            await self._accounts.deactivate(user_id)
        return made

    async def set_admin(self, requester: Requester, user_id: UserID, is_admin: bool) -> None:
        """Give or take the rights of an administrator.

        Raises MatrixError as `known`; 400 `M_INVALID_PARAM` for taking one's own.
        """
        self.check_local(user_id)
        if not is_admin and user_id == requester.user_id:
            raise errors.invalid_param("admin: you cannot take your own rights away.")
        if is_admin and (await self.known(user_id)).deactivated:
            raise errors.invalid_param("admin: this account is closed.")
        await self._accounts.set_admin(user_id, is_admin)

    async def set_suspended(self, requester: Requester, user_id: UserID, suspended: bool) -> None:
        """Suspend an account, or lift that. Raises MatrixError as `known`; 400
        `M_INVALID_PARAM` for one's own."""
        await self.known(user_id)
        if user_id == requester.user_id:
            raise errors.invalid_param("suspend: this is your own account.")
        await self._accounts.set_suspended(user_id, suspended)

    async def set_shadow_banned(self, user_id: UserID, banned: bool) -> None:
        """Let what the user sends reach nobody, or lift that. Raises MatrixError as `known`."""
        self.check_local(user_id)

        def write(txn: Transaction) -> None:
            _known(txn, user_id)
            users.set_shadow_banned(txn, user_id, banned)
            txn.invalidate(tokens.CACHE, user_id)

        await self._db.write(write)

    # Limits

    async def rate_override(self, user_id: UserID) -> RateOverride | None:
        """The limit that was set for a user. Raises MatrixError as `known`."""
        await self.known(user_id)
        return await self._db.read(rate_overrides.get, user_id)

    async def override_rate(self, user_id: UserID, limit: RateOverride | None) -> None:
        """Set a limit for a user; None: that of the configuration. Raises MatrixError as
        `known`."""
        await self.known(user_id)
        if limit is None:
            await self._db.write(rate_overrides.delete, user_id)
        else:
            await self._db.write(rate_overrides.put, user_id, limit)

    # Cross-signing

    async def allow_key_replacement(self, user_id: UserID) -> int:
        """Let the user replace cross-signing keys without confirmation; until when, in
        milliseconds.

        Raises MatrixError: as `known`; 404 `M_NOT_FOUND` if there are none.
        """
        self.check_local(user_id)
        until_ms = int(self._clock.seconds() * 1000) + KEYS_REPLACEABLE_MS

        def write(txn: Transaction) -> None:
            _known(txn, user_id)
            if MASTER not in cross_signing.of_user(txn, user_id):
                raise errors.not_found("The user has no master cross-signing key.")
            users.set_keys_replaceable(txn, user_id, until_ms)

        await self._db.write(write)
        return until_ms


def _known(txn: Transaction, user_id: str) -> UserRow:
    user = users.get_user(txn, user_id)
    if user is None:
        raise errors.not_found("User not found.")
    return user


def _details(txn: Transaction, user_id: str) -> AccountDetails:
    user = _known(txn, user_id)
    profile = profiles.get_profile(txn, user_id)
    return AccountDetails(
        user,
        profile.get("displayname"),
        profile.get("avatar_url"),
        threepids.of_user(txn, user_id),
        external_ids.of_user(txn, user_id),
        user_lists.last_seen(txn, user_id),
        accepted_terms.newest(txn, user_id),
    )


def _set_closed_profile(txn: Transaction, user_id: str, field: str, value: str | None) -> None:
    # Nobody is told: the account is in no rooms.
    if value:
        profiles.put_field(txn, user_id, field, value)
    else:
        profiles.delete_field(txn, user_id, field)
