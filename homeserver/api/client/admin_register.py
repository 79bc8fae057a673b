"""Registration with a shared secret, as existing scripts of administrators do it.

The protocol is the one of Synapse's `register_new_matrix_user`: HMAC-SHA1 with the secret over
nonce, user name, password and "admin" or "notadmin" (and the user type), separated by NUL.
"""

from __future__ import annotations

import msgspec

from homeserver.api.client.login import LoginSettings, new_session
from homeserver.api.client.registration import RegisterAnswer, register_answer
from homeserver.users.registration import Registration, SharedSecretAccount
from homeserver.web.endpoint import Auth, Request, endpoint

_PATH = "/_synapse/admin/v1/register"

# A script makes many accounts from one address, and those there are do not wait and try again.
# The secret is not one to be found by guessing at this rate.
_RATE = "read"


class NonceAnswer(msgspec.Struct):
    nonce: str


class SharedSecretBody(msgspec.Struct):
    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    user_type: str | None = None
    displayname: str | None = None


@endpoint("GET", _PATH, auth=Auth.NONE, rate=_RATE)
async def get_register_nonce(registration: Registration) -> NonceAnswer:
    """A nonce for one registration."""
    return NonceAnswer(await registration.new_nonce())


@endpoint("POST", _PATH, auth=Auth.NONE, rate=_RATE)
async def register_with_shared_secret(
    body: SharedSecretBody, request: Request, registration: Registration, settings: LoginSettings
) -> RegisterAnswer:
    """Make an account, an administrator's perhaps, and log it in."""
    wanted = SharedSecretAccount(
        nonce=body.nonce,
        username=body.username,
        password=body.password,
        mac=body.mac,
        admin=body.admin,
        user_type=body.user_type,
        displayname=body.displayname,
    )
    registered = await registration.register_with_secret(
        wanted, new_session(request, None, None, False)
    )
    return register_answer(registered, settings.server_name)


ENDPOINTS = [get_register_nonce, register_with_shared_secret]
