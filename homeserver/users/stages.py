"""The stages of interactive authentication (Client-server API, "Authentication types")."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, bad_json, forbidden, missing_param
from homeserver.core.types import JsonObject
from homeserver.users.login import Login
from homeserver.users.registration_tokens import is_well_formed
from homeserver.users.uia import StageFailed
from homeserver.web.request import Requester
from storage import registration_tokens
from storage.database import Database

DUMMY = "m.login.dummy"
PASSWORD = "m.login.password"
REGISTRATION_TOKEN = "m.login.registration_token"
TERMS = "m.login.terms"


class DummyStage:
    """Proves nothing."""

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, requester: Requester | None) -> Any:
        return True


class PasswordStage:
    """The requester gives their password again."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, requester: Requester | None) -> Any:
        if requester is None:
            raise forbidden("A password proves nothing without an access token.")
        password = auth.get("password")
        if password is None:
            raise missing_param("auth.password")
        if not isinstance(password, str):
            raise bad_json("auth.password must be a string.")
        named = auth.get("identifier") is not None or auth.get("user") is not None
        claimed = await self._login.resolve(auth) if named else requester.user_id
        try:
            user = await self._login.check_password(claimed, password)
        except MatrixError as error:
            if error.status != 403:
                raise
            raise StageFailed(error.errcode, "Wrong password.")
        if user.user_id != requester.user_id:
            raise forbidden("This is the password of another user.")
        return user.user_id


class RegistrationTokenStage:
    """A token that allows registering; it is counted when the account is made."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, requester: Requester | None) -> Any:
        token = auth.get("token")
        if token is None:
            raise missing_param("auth.token")
        if not isinstance(token, str):
            raise bad_json("auth.token must be a string.")
        now_ms = int(self._clock.seconds() * 1000)
        if not is_well_formed(token) or not await self._db.read(
            registration_tokens.is_valid, token, now_ms
        ):
            raise StageFailed("M_UNAUTHORIZED", "This registration token is not valid.")
        return token


class TermsStage:
    """Policy documents are accepted; what was shown is kept with the session.

    `policies`: as in `params`, "Terms of service at registration": for each document its
    `version`, and by language its `name` and `url`.
    """

    def __init__(self, policies: JsonObject) -> None:
        self._policies = policies

    def params(self) -> JsonObject | None:
        return {"policies": self._policies}

    async def check(self, auth: JsonObject, requester: Requester | None) -> Any:
        return {name: policy["version"] for name, policy in self._policies.items()}
