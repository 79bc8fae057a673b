"""Logging in and out (Client-server API, "Login", "Refreshing access tokens")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from homeserver.api.client.well_known import WellKnown
from homeserver.core.errors import forbidden, missing_param, unknown
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.appservices import APPSERVICE, Appservices
from homeserver.users.login import Login, LoginToken
from homeserver.users.sessions import Grant, NewSession, Sessions
from homeserver.users.stages import PASSWORD, SSO
from homeserver.users.uia import InteractiveAuth, Operation
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, endpoint
from storage.database import Database
from storage.transaction import Transaction
from storage.users import UserRow


class IdentityProvider(msgspec.Struct, frozen=True, omit_defaults=True):
    """A single sign-on provider, as clients show it."""

    id: str
    name: str
    icon: str | None = None
    brand: str | None = None


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """What of the configuration decides on logging in."""

    server_name: str
    passwords: bool = True
    providers: Sequence[IdentityProvider] = ()
    appservices: bool = False


class LoginFlow(msgspec.Struct, omit_defaults=True):
    type: str
    get_login_token: bool | None = None
    identity_providers: list[IdentityProvider] | None = None


class LoginFlows(msgspec.Struct):
    flows: list[LoginFlow]


class LoginBody(msgspec.Struct):
    type: str
    identifier: JsonObject | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class LoginAnswer(msgspec.Struct, omit_defaults=True):
    user_id: str
    access_token: str
    device_id: str
    home_server: str
    refresh_token: str | None = None
    expires_in_ms: int | None = None
    well_known: JsonObject | None = None


class RefreshBody(msgspec.Struct):
    refresh_token: str


class RefreshAnswer(msgspec.Struct, omit_defaults=True):
    access_token: str
    refresh_token: str | None = None
    expires_in_ms: int | None = None


class AuthBody(msgspec.Struct):
    auth: JsonObject | None = None


class LoginTokenAnswer(msgspec.Struct):
    login_token: str
    expires_in_ms: int


def new_session(
    request: Request, device_id: str | None, display_name: str | None, refresh: bool
) -> NewSession:
    """The session that a request asks for."""
    return NewSession(
        device_id, display_name, refresh, request.remote_address, request.user_agent or ""
    )


@endpoint("GET", "/_matrix/client/v3/login", auth=Auth.NONE, rate="read")
async def get_login_flows(settings: LoginSettings) -> LoginFlows:
    """The ways to log in."""
    flows = [LoginFlow(PASSWORD)] if settings.passwords else []
    if settings.providers:
        flows.append(LoginFlow(SSO, identity_providers=list(settings.providers)))
    if settings.appservices:
        flows.append(LoginFlow(APPSERVICE))
    # Login tokens are asked for with a proof: without a way to give one nobody can get one.
    can_prove = settings.passwords or bool(settings.providers)
    flows.append(LoginFlow("m.login.token", get_login_token=can_prove or None))
    return LoginFlows(flows)


@endpoint("POST", "/_matrix/client/v3/login", auth=Auth.NONE, rate="login")
async def post_login(
    body: LoginBody,
    request: Request,
    login: Login,
    sessions: Sessions,
    settings: LoginSettings,
    well_known: WellKnown,
    appservices: Appservices,
) -> LoginAnswer:
    """Log in with a password or a login token, or as an application service."""
    if body.type == PASSWORD and settings.passwords:
        user = await _by_password(body, login)
    elif body.type == "m.login.token":
        if body.token is None:
            raise missing_param("token")
        user = await login.redeem_token(body.token)
    elif body.type == APPSERVICE:
        user = await _by_appservice(body, request, login, appservices)
    else:
        raise unknown("This login type is not supported.")
    wanted = new_session(
        request, body.device_id, body.initial_device_display_name, body.refresh_token
    )
    grant = await sessions.begin(UserID(user.user_id), wanted, user)
    return _answer(grant, settings.server_name, well_known)


async def _by_password(body: LoginBody, login: Login) -> UserRow:
    if body.password is None:
        raise missing_param("password")
    return await login.check_password(await _named(body, login), body.password)


async def _by_appservice(
    body: LoginBody, request: Request, login: Login, appservices: Appservices
) -> UserRow:
    registration = appservices.of_request(request)
    named = await _named(body, login)
    if named is None:
        raise forbidden("There is no such account.")
    appservices.check_user(registration, named)
    return await login.check_active(named)


async def _named(body: LoginBody, login: Login) -> UserID | None:
    return await login.resolve(
        {
            "identifier": body.identifier,
            "user": body.user,
            "medium": body.medium,
            "address": body.address,
        }
    )


def _answer(grant: Grant, server_name: str, well_known: WellKnown) -> LoginAnswer:
    return LoginAnswer(
        user_id=grant.user_id,
        access_token=grant.access_token,
        device_id=grant.device_id,
        home_server=server_name,
        refresh_token=grant.refresh_token,
        expires_in_ms=grant.expires_in_ms,
        well_known=well_known.client,
    )


@endpoint(
    "POST",
    "/_matrix/client/v1/login/get_token",
    auth=Auth.ACCESS_TOKEN,
    rate="login_token",
    also=("/_matrix/client/unstable/org.matrix.msc3882/login/get_token",),
    optional_body=True,
)
async def get_login_token(
    requester: Requester,
    body: AuthBody,
    request: Request,
    settings: LoginSettings,
    uia: InteractiveAuth,
    login: Login,
    db: Database,
) -> LoginTokenAnswer:
    """A token with which a further client of the requester can log in once."""
    if not settings.passwords and not settings.providers:
        raise forbidden("Login tokens need a password here, and passwords are switched off.")
    operation = Operation(request, requester, body.auth, {})
    confirmed = await uia.confirm_owner(operation)

    def create(txn: Transaction) -> LoginToken:
        uia.consume_in(txn, confirmed)
        return login.create_token_in(txn, requester.user_id)

    token = await db.write(create)
    return LoginTokenAnswer(token.token, token.expires_in_ms)


@endpoint(
    "POST",
    "/_matrix/client/v3/refresh",
    auth=Auth.NONE,
    rate="login",
    also=("/_matrix/client/v1/refresh",),
)
async def refresh(body: RefreshBody, sessions: Sessions) -> RefreshAnswer:
    """New tokens for a refresh token."""
    grant = await sessions.refresh(body.refresh_token)
    return RefreshAnswer(grant.access_token, grant.refresh_token, grant.expires_in_ms)


@endpoint("POST", "/_matrix/client/v3/logout", auth=Auth.GUEST_OK, locked_ok=True)
async def logout(requester: Requester, sessions: Sessions) -> Empty:
    """End the session; its device goes with it."""
    if requester.device_id is not None:
        await sessions.end(requester.user_id, requester.device_id)
    elif requester.puppeteer is not None and requester.token_hash is not None:
        await sessions.end_token(requester.token_hash)
    else:
        raise unknown("This access token belongs to no device.")
    return EMPTY


@endpoint("POST", "/_matrix/client/v3/logout/all", auth=Auth.GUEST_OK, locked_ok=True)
async def logout_all(requester: Requester, sessions: Sessions) -> Empty:
    """End all sessions of the requester; all devices go with them."""
    await sessions.end_all(requester.user_id)
    return EMPTY


ENDPOINTS = [
    get_login_flows,
    post_login,
    get_login_token,
    refresh,
    logout,
    logout_all,
]
