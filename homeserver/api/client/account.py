"""A user's own account (Client-server API, "Account management", "Current account information")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.api.client.login import LoginSettings
from homeserver.core.errors import forbidden, guest_access_forbidden, missing_token
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.accounts import Accounts
from homeserver.users.contacts import Contacts
from homeserver.users.passwords import Passwords
from homeserver.users.stages import EMAIL
from homeserver.users.uia import InteractiveAuth, Operation
from homeserver.users.validation import PASSWORD as FOR_PASSWORD
from homeserver.users.validation import EmailValidation
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, endpoint
from storage import threepids
from storage.transaction import Transaction


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


@endpoint(
    "POST", "/_matrix/client/v3/account/password", auth=Auth.OPTIONAL_ACCESS_TOKEN, rate="login"
)
async def change_password(
    requester: Requester | None,
    body: PasswordBody,
    request: Request,
    settings: LoginSettings,
    passwords: Passwords,
    uia: InteractiveAuth,
    accounts: Accounts,
    contacts: Contacts,
    validation: EmailValidation,
) -> Empty:
    """Change a password: one's own, or that of the account whose e-mail address was proved."""
    if requester is not None and requester.is_guest:
        raise guest_access_forbidden()
    if not settings.passwords:
        raise forbidden("Passwords are switched off on this homeserver.")
    flows = [] if requester is None else list(await uia.owner_flows(requester))
    flows += [[EMAIL]] if validation.available else []
    if not flows:
        raise missing_token()
    passwords.check_new(body.new_password)
    told = {"logout_devices": body.logout_devices}
    operation = Operation(request, requester, body.auth, told, email_for=FOR_PASSWORD)
    confirmed = await uia.confirm(operation, flows)
    proved = confirmed.completed.get(EMAIL)
    if requester is not None and confirmed.completed.keys() - {EMAIL}:
        user_id = requester.user_id
        proved = None
    else:
        assert proved is not None
        user_id = await _owner(proved, requester, contacts)

    def use_up(txn: Transaction) -> None:
        if proved is not None:
            uia.consume_in(txn, confirmed)
            validation.use_in(txn, proved["sid"])
            if threepids.get_user(txn, proved["medium"], proved["address"]) != user_id:
                raise forbidden("This address belongs to the account no more.")

    await accounts.set_password(
        user_id,
        body.new_password,
        logout_devices=body.logout_devices,
        keep_device=None if requester is None else requester.device_id,
        also=use_up,
    )
    return EMPTY


async def _owner(proved: JsonObject, requester: Requester | None, contacts: Contacts) -> UserID:
    """The account whose address was proved. Raises MatrixError 403 M_FORBIDDEN."""
    owner = await contacts.owner(proved["medium"], proved["address"])
    if owner is None or (requester is not None and owner != requester.user_id):
        raise forbidden("This address is not the account's.")
    return owner


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
    contacts: Contacts,
) -> DeactivateAnswer:
    """Close the requester's account for good."""
    operation = Operation(request, requester, body.auth, {"erase": body.erase})
    await uia.confirm_owner(operation, trust_appservices=True)
    withdrawn = await contacts.unbind_all(requester.user_id)
    await accounts.deactivate(requester.user_id, erase=body.erase)
    return DeactivateAnswer("success" if withdrawn else "no-support")


ENDPOINTS = [whoami, change_password, deactivate]
