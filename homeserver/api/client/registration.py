"""Registering (Client-server API, "Account registration", "Guest Access")."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.api.client.login import LoginSettings, new_session
from homeserver.core.errors import bad_json, missing_param
from homeserver.core.types import JsonObject
from homeserver.users.appservices import APPSERVICE, Appservices
from homeserver.users.registration import Registered, Registration, WantedAccount
from homeserver.users.registration_tokens import RegistrationTokens
from homeserver.users.uia import Operation
from homeserver.users.validation import REGISTER
from homeserver.web.endpoint import Auth, Request, endpoint


class RegisterQuery(msgspec.Struct):
    kind: Literal["user", "guest"] = "user"


class RegisterBody(msgspec.Struct):
    auth: JsonObject | None = None
    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    guest_access_token: str | None = None


class RegisterAnswer(msgspec.Struct, omit_defaults=True):
    user_id: str
    home_server: str
    access_token: str | None = None
    device_id: str | None = None
    refresh_token: str | None = None
    expires_in_ms: int | None = None


class AvailableQuery(msgspec.Struct):
    username: str


class AvailableAnswer(msgspec.Struct):
    available: bool


class TokenQuery(msgspec.Struct):
    token: str


class TokenAnswer(msgspec.Struct):
    valid: bool


def register_answer(registered: Registered, server_name: str) -> RegisterAnswer:
    """What a new account is told."""
    answer = RegisterAnswer(registered.user_id, server_name)
    grant = registered.grant
    if grant is not None:
        answer.access_token = grant.access_token
        answer.device_id = grant.device_id
        answer.refresh_token = grant.refresh_token
        answer.expires_in_ms = grant.expires_in_ms
    return answer


@endpoint("POST", "/_matrix/client/v3/register", auth=Auth.NONE, rate="registration")
async def register(
    body: JsonObject,
    query: RegisterQuery,
    request: Request,
    registration: Registration,
    settings: LoginSettings,
    appservices: Appservices,
) -> RegisterAnswer:
    """Make an account, and log it in."""
    if query.kind == "guest":
        name = body.get("initial_device_display_name")
        session = new_session(request, None, name if isinstance(name, str) else None, False)
        registered = await registration.register_guest(session)
        return register_answer(registered, settings.server_name)
    wanted = _wanted(body)
    session = new_session(
        request, wanted.device_id, wanted.initial_device_display_name, wanted.refresh_token
    )
    if body.get("type") == APPSERVICE:
        service = appservices.of_request(request)
        if wanted.username is None:
            raise missing_param("username")
        registered = await registration.register_for_appservice(
            lambda user_id: appservices.check_user(service, user_id),
            wanted.username,
            None if wanted.inhibit_login else session,
        )
        return register_answer(registered, settings.server_name)
    # A session that has proved something is good for one user name only.
    operation = Operation(request, None, wanted.auth, {"username": wanted.username}, REGISTER)
    registered = await registration.register(
        operation,
        WantedAccount(
            username=wanted.username,
            password=wanted.password,
            session=session,
            inhibit_login=wanted.inhibit_login,
            guest_access_token=wanted.guest_access_token,
        ),
    )
    return register_answer(registered, settings.server_name)


def _wanted(body: JsonObject) -> RegisterBody:
    """The body of a user's registration; of a guest's, all but the device name is ignored."""
    try:
        return msgspec.convert(body, RegisterBody)
    except msgspec.ValidationError as error:
        raise bad_json(str(error)) from error


@endpoint("GET", "/_matrix/client/v3/register/available", auth=Auth.NONE, rate="login")
async def get_available(query: AvailableQuery, registration: Registration) -> AvailableAnswer:
    """Whether a user name can be registered."""
    await registration.check_available(query.username)
    return AvailableAnswer(True)


@endpoint(
    "GET",
    "/_matrix/client/v1/register/m.login.registration_token/validity",
    auth=Auth.NONE,
    rate="token_check",
)
async def get_token_validity(
    query: TokenQuery, registration: Registration, tokens: RegistrationTokens
) -> TokenAnswer:
    """Whether a registration token can be used."""
    registration.check_open()
    return TokenAnswer(await tokens.is_valid(query.token))


ENDPOINTS = [register, get_available, get_token_validity]
