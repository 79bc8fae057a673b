"""Logging in: who is meant, is the password right, tokens for a further client.

An unknown user, a wrong password and an account without password are answered alike, after
the same work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import (
    MatrixError,
    bad_json,
    forbidden,
    missing_param,
    unknown,
    user_deactivated,
    user_locked,
)
from homeserver.core.ids import InvalidIdentifier, UserID, map_localpart
from homeserver.core.threepids import MSISDN, InvalidAddress, canonical
from homeserver.core.types import JsonObject
from homeserver.users.passwords import Passwords
from homeserver.users.secret_tokens import new_token, token_hash
from storage import one_time_tokens, threepids, users
from storage.database import Database
from storage.transaction import Transaction
from storage.users import UserRow

LOGIN_TOKEN_LIFETIME_MS = 120_000


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A token with which one further client can log in once."""

    token: str
    expires_in_ms: int


class Login:
    """Finds users by what they call themselves and checks what they know.

    `limit_attempts` is asked before each check of a password with a key for the account; it
    raises MatrixError 429 M_LIMIT_EXCEEDED when there were too many.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        passwords: Passwords,
        server_name: str,
        *,
        limit_attempts: Callable[[str], Awaitable[None]] | None = None,
        token_lifetime_ms: int = LOGIN_TOKEN_LIFETIME_MS,
    ) -> None:
        self._db = db
        self._clock = clock
        self._passwords = passwords
        self._server_name = server_name
        self._limit_attempts = limit_attempts
        self._token_lifetime_ms = token_lifetime_ms

    async def resolve(self, body: JsonObject) -> UserID | None:
        """The user that a login body or auth dict names, if there may be one.

        Reads `identifier` (m.id.user, m.id.thirdparty, m.id.phone), or the older top-level
        `user`, `medium` and `address`. Raises MatrixError 400 for a malformed one.
        """
        identifier = body.get("identifier")
        if identifier is None:
            if body.get("user") is not None:
                identifier = {"type": "m.id.user", "user": body["user"]}
            elif body.get("medium") is not None:
                identifier = {**body, "type": "m.id.thirdparty"}
            else:
                raise missing_param("identifier")
        if not isinstance(identifier, dict):
            raise bad_json("identifier must be an object.")
        kind = _text(identifier, "type")
        if kind == "m.id.user":
            return await self._by_name(_text(identifier, "user"))
        if kind == "m.id.thirdparty":
            medium = _text(identifier, "medium")
            return await self._by_threepid(medium, _text(identifier, "address"))
        if kind == "m.id.phone":
            _text(identifier, "country")
            number = identifier.get("phone", identifier.get("number"))
            if number is None:
                raise missing_param("phone")
            if not isinstance(number, str):
                raise bad_json("phone must be a string.")
            return await self._by_phone(number)
        raise unknown("Unknown type of identifier.")

    async def _by_name(self, name: str) -> UserID | None:
        """A full user ID or a localpart, in any case."""
        try:
            exact = UserID.parse(name) if name.startswith("@") else self._local(name)
        except InvalidIdentifier:
            return None
        if exact.domain != self._server_name:
            return None
        if await self._db.read(users.exists, exact):
            return exact
        try:
            return self._local(map_localpart(exact.localpart))
        except InvalidIdentifier:
            return None

    def _local(self, localpart: str) -> UserID:
        return UserID.of(localpart, self._server_name)

    async def _by_threepid(self, medium: str, address: str) -> UserID | None:
        try:
            address = canonical(medium, address)
        except InvalidAddress:
            return None
        found = await self._db.read(threepids.get_user, medium, address)
        return None if found is None else UserID(found)

    async def _by_phone(self, number: str) -> UserID | None:
        """A number in international form; for others all numbering plans would be needed."""
        return await self._by_threepid(MSISDN, number)

    async def check_password(self, user_id: UserID | None, password: str) -> UserRow:
        """The account, if this is its password. None stands for a user that there is not.

        Raises MatrixError: 403 M_FORBIDDEN (wrong, or no such user), 403 M_USER_DEACTIVATED,
        401 M_USER_LOCKED.
        """
        if user_id is not None and self._limit_attempts is not None:
            await self._limit_attempts(f"password of {user_id}")
        user = None if user_id is None else await self._db.read(users.get_user, user_id)
        stored = user.password_hash if user else None
        right = await self._passwords.verify(password, stored)
        if user is not None and user.deactivated:
            raise user_deactivated()
        if user is None or stored is None or not right:
            raise forbidden("Wrong user name or password.")
        if user.locked:
            raise user_locked()
        if self._passwords.is_outdated(stored):
            renewed = await self._passwords.hash_again(password)
            if await self._db.write(users.replace_password_hash, user.user_id, stored, renewed):
                user = user._replace(password_hash=renewed)
        return user

    async def check_active(self, user_id: UserID) -> UserRow:
        """The account, for somebody who needs no password. Raises MatrixError: 403 M_FORBIDDEN
        (no such user), M_USER_DEACTIVATED, 401 M_USER_LOCKED."""
        user = await self._db.read(users.get_user, user_id)
        if user is None:
            raise forbidden("There is no such account.")
        if user.deactivated:
            raise user_deactivated()
        if user.locked:
            raise user_locked()
        return user

    def create_token_in(
        self, txn: Transaction, user_id: UserID, lifetime_ms: int | None = None
    ) -> LoginToken:
        """A token for one login of a further client, soon to be used."""
        token = new_token()
        lifetime_ms = self._token_lifetime_ms if lifetime_ms is None else lifetime_ms
        expires_ts = self._now() + lifetime_ms
        one_time_tokens.insert(txn, one_time_tokens.LOGIN, token_hash(token), user_id, expires_ts)
        return LoginToken(token, lifetime_ms)

    async def redeem_token(self, token: str) -> UserRow:
        """The account that a login token is for; the token is used up.

        Raises MatrixError: 403 M_FORBIDDEN, 403 M_USER_DEACTIVATED, 401 M_USER_LOCKED.
        """
        user = await self._db.write(self._redeem, token_hash(token))
        if user is None:
            raise forbidden("This login token is not valid.")
        if user.deactivated:
            raise user_deactivated()
        if user.locked:
            raise user_locked()
        return user

    def _redeem(self, txn: Transaction, hashed: bytes) -> UserRow | None:
        taken = one_time_tokens.take(txn, one_time_tokens.LOGIN, hashed, self._now())
        return users.get_user(txn, taken[0]) if taken and taken[0] else None

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _text(value: JsonObject, key: str) -> str:
    found = value.get(key)
    if found is None:
        raise missing_param(key)
    if not isinstance(found, str):
        raise MatrixError(400, "M_BAD_JSON", f"{key} must be a string.")
    return found
