"""A user's own account (Client-server API, "Account management", "Current account information")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.api.client.login import LoginSettings
from homeserver.core.errors import forbidden
from homeserver.core.types import JsonObject
from homeserver.users.accounts import Accounts
from homeserver.users.passwords import Passwords
from homeserver.users.stages import PASSWORD
from homeserver.users.uia import InteractiveAuth, Operation
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, endpoint


class WhoamiAnswer(msgspec.Struct, omit_defaults=True):
    user_id: str
    device_id: str | None = None
    is_guest: bool | None = None


class PasswordBody(msgspec.Struct):
    new_password: str
    logout_devices: bool = True
    auth: JsonObject | None = None


class DeactivateBody(msgspec.Struct):
    auth: JsonObject | None = None
    id_server: str | None = None
    erase: bool = False


class DeactivateAnswer(msgspec.Struct):
    id_server_unbind_result: Literal["success", "no-support"]


@endpoint("GET", "/_matrix/client/v3/account/whoami", auth=Auth.GUEST_OK, rate="read")
async def whoami(requester: Requester) -> WhoamiAnswer:
    """Whose access token this is."""
    return WhoamiAnswer(requester.user_id, requester.device_id, requester.is_guest)


@endpoint("POST", "/_matrix/client/v3/account/password", auth=Auth.ACCESS_TOKEN, rate="login")
async def change_password(
    requester: Requester,
    body: PasswordBody,
    request: Request,
    settings: LoginSettings,
    passwords: Passwords,
    uia: InteractiveAuth,
    accounts: Accounts,
) -> Empty:
    """Change the requester's password."""
    if not settings.passwords:
        raise forbidden("Passwords are switched off on this homeserver.")
    passwords.check_new(body.new_password)
    operation = Operation(request, requester, body.auth, {"logout_devices": body.logout_devices})
    await uia.confirm(operation, [[PASSWORD]])
    await accounts.set_password(
        requester.user_id,
        body.new_password,
        logout_devices=body.logout_devices,
        keep_device=requester.device_id,
    )
    return EMPTY


@endpoint(
    "POST",
    "/_matrix/client/v3/account/deactivate",
    auth=Auth.ACCESS_TOKEN,
    rate="login",
    optional_body=True,
)
async def deactivate(
    requester: Requester,
    body: DeactivateBody,
    request: Request,
    uia: InteractiveAuth,
    accounts: Accounts,
) -> DeactivateAnswer:
    """Close the requester's account for good."""
    operation = Operation(request, requester, body.auth, {"erase": body.erase})
    await uia.confirm(operation, [[PASSWORD]])
    await accounts.deactivate(requester.user_id, erase=body.erase)
    # This server binds no contacts at identity servers, so none is left bound.
    return DeactivateAnswer("success")


ENDPOINTS = [whoami, change_password, deactivate]
