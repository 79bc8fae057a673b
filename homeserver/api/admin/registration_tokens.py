"""Registration tokens (Synapse's "Registration Tokens")."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from homeserver.api.admin import audit
from homeserver.core.errors import invalid_param
from homeserver.users.registration_tokens import RegistrationTokens, random_token
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint
from storage.registration_tokens import RegistrationTokenRow

_TOKENS = "/_synapse/admin/v1/registration_tokens"
MAX_LENGTH = 64


class ValidQuery(msgspec.Struct, frozen=True):
    valid: bool | None = None


class Token(msgspec.Struct):
    """`pending` is 0: uses are counted when somebody has registered, and not reserved before."""

    token: str
    uses_allowed: int | None
    pending: int
    completed: int
    expiry_time: int | None


class Tokens(msgspec.Struct):
    registration_tokens: list[Token]


class NewToken(msgspec.Struct, frozen=True):
    token: str | None = None
    uses_allowed: int | None = None
    expiry_time: int | None = None
    length: int = 16


class TokenChange(msgspec.Struct, frozen=True):
    uses_allowed: int | UnsetType | None = UNSET
    expiry_time: int | UnsetType | None = UNSET


def _token(row: RegistrationTokenRow) -> Token:
    return Token(row.token, row.uses_allowed, 0, row.completed, row.expires_ts)


def _check(uses: int | UnsetType | None, expiry: int | UnsetType | None, now_ms: int) -> None:
    if isinstance(uses, int) and uses < 0:
        raise invalid_param("uses_allowed: not negative, or null.")
    if isinstance(expiry, int) and expiry < now_ms:
        raise invalid_param("expiry_time: this time is past.")


@endpoint("GET", _TOKENS, auth=Auth.ADMIN, rate="read")
async def get_tokens(query: ValidQuery, tokens: RegistrationTokens) -> Tokens:
    """All tokens, or those that can, or cannot, be used."""
    return Tokens([_token(row) for row in await tokens.listed(query.valid)])


@endpoint("POST", f"{_TOKENS}/new", auth=Auth.ADMIN, rate="write", optional_body=True)
async def create_token(requester: Requester, body: NewToken, tokens: RegistrationTokens) -> Token:
    """Make a token."""
    if not 0 < body.length <= MAX_LENGTH:
        raise invalid_param(f"length: from 1 to {MAX_LENGTH}.")
    _check(body.uses_allowed, body.expiry_time, tokens.now_ms())
    name = random_token(body.length) if body.token is None else body.token
    made = await tokens.create(name, uses_allowed=body.uses_allowed, expires_ts=body.expiry_time)
    audit.record(requester, "create_registration_token", made, uses_allowed=body.uses_allowed)
    return Token(made, body.uses_allowed, 0, 0, body.expiry_time)


@endpoint("GET", f"{_TOKENS}/{{token}}", auth=Auth.ADMIN, rate="read")
async def get_token(token: str, tokens: RegistrationTokens) -> Token:
    """One token."""
    return _token(await tokens.get(token))


@endpoint("PUT", f"{_TOKENS}/{{token}}", auth=Auth.ADMIN, rate="write", optional_body=True)
async def put_token(
    requester: Requester, token: str, body: TokenChange, tokens: RegistrationTokens
) -> Token:
    """Change how often and how long a token can be used."""
    _check(body.uses_allowed, body.expiry_time, tokens.now_ms())

    def change(row: RegistrationTokenRow) -> RegistrationTokenRow:
        if body.uses_allowed is not UNSET:
            row = row._replace(uses_allowed=body.uses_allowed)
        if body.expiry_time is not UNSET:
            row = row._replace(expires_ts=body.expiry_time)
        return row

    row = await tokens.change(token, change)
    audit.record(requester, "change_registration_token", token, uses_allowed=row.uses_allowed)
    return _token(row)


@endpoint("DELETE", f"{_TOKENS}/{{token}}", auth=Auth.ADMIN, rate="write")
async def delete_token(requester: Requester, token: str, tokens: RegistrationTokens) -> Empty:
    """Remove a token."""
    if not await tokens.remove(token):
        await tokens.get(token)  # tells that there is none
    audit.record(requester, "delete_registration_token", token)
    return EMPTY


ENDPOINTS = [get_tokens, create_token, get_token, put_token, delete_token]
