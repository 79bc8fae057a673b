"""Local accounts: making, changing and closing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import exclusive, invalid_username, not_found, user_in_use
from homeserver.core.ids import InvalidIdentifier, UserID, map_localpart
from homeserver.users.hooks import UserHooks
from homeserver.users.passwords import Passwords
from homeserver.users.secret_tokens import new_localpart
from homeserver.users.sessions import Sessions
from storage import one_time_tokens, profiles, threepids, tokens, users
from storage.database import Database
from storage.transaction import Transaction
from storage.users import UserRow

_FlagSetter: TypeAlias = Callable[[Transaction, str, bool], bool]


class Accounts:
    """Makes, changes and closes the accounts of one server name.

    `reserved`: user IDs that only accounts of a type can have, with that type.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        hooks: UserHooks,
        passwords: Passwords,
        sessions: Sessions,
        server_name: str,
        reserved: Mapping[str, str] | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._hooks = hooks
        self._passwords = passwords
        self._sessions = sessions
        self._server_name = server_name
        self._reserved = reserved or {}
        self.claimed: Callable[[str], bool] = lambda user_id: False
        """Whether a user ID is an application service's alone."""

    # Finding

    async def get(self, user_id: str) -> UserRow | None:
        """The account of a user ID, also when deactivated."""
        return await self._db.read(users.get_user, user_id)

    def new_user_id(self, name: str | None) -> UserID:
        """The user ID that an account of this name gets; a random one without a name.

        Raises MatrixError: 400 M_INVALID_USERNAME.
        """
        try:
            localpart = new_localpart() if name is None else map_localpart(name)
            return UserID.of(localpart, self._server_name)
        except InvalidIdentifier as error:
            raise invalid_username(f"This user name cannot be used: {error.reason}.")

    async def check_available(self, user_id: UserID) -> None:
        """Raises MatrixError 400: M_EXCLUSIVE if only an application service could make such an
        account, M_USER_IN_USE if there is, or was, one."""
        self._check_claimed(user_id)
        if user_id in self._reserved or await self._db.read(users.exists, user_id):
            raise user_in_use()

    def _check_claimed(self, user_id: str) -> None:
        if self.claimed(user_id):
            raise exclusive("This user ID is reserved by an application service.")

    # Making

    async def create(
        self,
        user_id: UserID,
        password: str | None,
        *,
        is_admin: bool = False,
        user_type: str | None = None,
    ) -> None:
        """Make an account. Raises MatrixError: 400 M_USER_IN_USE, M_WEAK_PASSWORD."""
        hashed = None if password is None else await self._passwords.hash(password)
        await self._db.write(
            self.create_in, user_id, hashed, is_admin=is_admin, user_type=user_type
        )

    def create_in(
        self,
        txn: Transaction,
        user_id: UserID,
        password_hash: str | None,
        *,
        is_guest: bool = False,
        is_admin: bool = False,
        user_type: str | None = None,
        by_appservice: bool = False,
    ) -> None:
        """Make an account as part of a transaction. Raises MatrixError 400: M_USER_IN_USE,
        M_EXCLUSIVE."""
        if not by_appservice:
            self._check_claimed(user_id)
        if self._reserved.get(user_id, user_type) != user_type:
            raise user_in_use()
        row = UserRow(
            user_id=user_id,
            password_hash=password_hash,
            user_type=user_type,
            is_guest=is_guest,
            is_admin=is_admin,
            locked=False,
            suspended=False,
            erased=False,
            deactivated_ts=None,
            created_ts=self._now(),
        )
        if not users.insert_user(txn, row):
            raise user_in_use()

    def upgrade_guest_in(
        self, txn: Transaction, user_id: UserID, password_hash: str | None
    ) -> None:
        """Make a guest a full user. Raises MatrixError 400 M_USER_IN_USE if it is none."""
        if not users.upgrade_guest(txn, user_id, password_hash):
            raise user_in_use()
        txn.invalidate(tokens.CACHE, user_id)

    # Changing

    async def set_password(
        self,
        user_id: str,
        new_password: str,
        *,
        logout_devices: bool = True,
        keep_device: str | None = None,
        also: Callable[[Transaction], None] | None = None,
    ) -> None:
        """Change a password and log out all devices but one, if `logout_devices`.

        `also` is done in the same transaction, first. Raises MatrixError: 400 M_WEAK_PASSWORD,
        404 M_NOT_FOUND.
        """
        hashed = await self._passwords.hash(new_password)
        await self._db.write(self._set_password, user_id, hashed, logout_devices, keep_device, also)

    def _set_password(
        self,
        txn: Transaction,
        user_id: str,
        hashed: str,
        logout: bool,
        keep: str | None,
        also: Callable[[Transaction], None] | None,
    ) -> None:
        if also is not None:
            also(txn)
        user = users.get_user(txn, user_id)
        if user is None:
            raise not_found("There is no such account.")
        if user.deactivated:
            raise not_found("This account is closed for good.")
        users.set_password_hash(txn, user_id, hashed)
        if logout:
            one_time_tokens.delete_of_user(txn, user_id)
            self._sessions.end_all_in(txn, user_id, keep)

    async def set_admin(self, user_id: str, is_admin: bool) -> None:
        """Make a user a server administrator, or no longer one. Raises MatrixError 404."""
        await self._db.write(self._set_flag, users.set_admin, user_id, is_admin)

    async def set_locked(self, user_id: str, locked: bool) -> None:
        """Lock or unlock an account. Raises MatrixError 404."""
        await self._db.write(self._set_flag, users.set_locked, user_id, locked)

    async def set_suspended(self, user_id: str, suspended: bool) -> None:
        """Suspend an account, or lift that. Raises MatrixError 404."""
        await self._db.write(self._set_flag, users.set_suspended, user_id, suspended)

    def _set_flag(self, txn: Transaction, setter: _FlagSetter, user_id: str, value: bool) -> None:
        if not setter(txn, user_id, value):
            raise not_found("There is no such account.")
        if (setter is users.set_admin) != value:
            # An administrator no more, or locked: nor does anybody go on in their name.
            tokens.delete_by_puppeteer(txn, user_id)
        txn.invalidate(tokens.CACHE, user_id)

    # Closing

    async def deactivate(self, user_id: UserID, *, erase: bool = False) -> None:
        """Close an account for good: sessions end, contacts go, it leaves its rooms.

        With `erase` its profile goes too and newcomers to its rooms see its events redacted.
        Closing a closed account again is no error. Raises MatrixError 404 for an unknown user.
        """
        await self._db.write(self._deactivate, user_id, erase)

    def _deactivate(self, txn: Transaction, user_id: UserID, erase: bool) -> None:
        if not users.exists(txn, user_id):
            raise not_found("There is no such account.")
        users.deactivate(txn, user_id, self._now(), erase)
        threepids.delete_of_user(txn, user_id)
        tokens.delete_puppets(txn, user_id)
        if erase:
            profiles.delete_profile(txn, user_id)
            for hook in self._hooks.erase:
                hook(txn, user_id)
        for hook in self._hooks.deactivated:
            hook(txn, user_id)
        self._sessions.end_all_in(txn, user_id)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
