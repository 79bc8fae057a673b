"""The stages of interactive authentication (Client-server API, "Authentication types")."""

from __future__ import annotations

from typing import Any

import structlog
from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError
from homeserver.core.errors import MatrixError, bad_json, forbidden, missing_param
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.users.login import Login
from homeserver.users.registration_tokens import is_well_formed
from homeserver.users.uia import Asked, StageFailed
from homeserver.users.validation import EmailValidation, credentials
from storage import registration_tokens
from storage.database import Database

DUMMY = "m.login.dummy"
PASSWORD = "m.login.password"
REGISTRATION_TOKEN = "m.login.registration_token"
TERMS = "m.login.terms"
EMAIL = "m.login.email.identity"
RECAPTCHA = "m.login.recaptcha"
SSO = "m.login.sso"

_MAX_CAPTCHA = 8_192

_log = structlog.get_logger(__name__)


class DummyStage:
    """Proves nothing."""

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        return True


class PasswordStage:
    """The requester gives their password again."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        if asked.user_id is None:
            raise forbidden("A password proves nothing without an access token.")
        password = auth.get("password")
        if password is None:
            raise missing_param("auth.password")
        if not isinstance(password, str):
            raise bad_json("auth.password must be a string.")
        named = auth.get("identifier") is not None or auth.get("user") is not None
        claimed = await self._login.resolve(auth) if named else UserID(asked.user_id)
        try:
            user = await self._login.check_password(claimed, password)
        except MatrixError as error:
            if error.status != 403:
                raise
            raise StageFailed(error.errcode, "Wrong password.")
        if user.user_id != asked.user_id:
            raise forbidden("This is the password of another user.")
        return user.user_id


class RegistrationTokenStage:
    """A token that allows registering; it is counted when the account is made."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
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

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        return {name: policy["version"] for name, policy in self._policies.items()}


class EmailStage:
    """The link in a message was opened: an address is proved for what is asked for."""

    def __init__(self, validation: EmailValidation) -> None:
        self._validation = validation

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        if asked.email_for is None:
            raise forbidden("An e-mail address proves nothing here.")
        given = auth.get("threepid_creds", auth.get("threepidCreds"))
        sid, client_secret = credentials(given, "auth.threepid_creds")
        try:
            proved = await self._validation.proved(sid, client_secret, asked.email_for)
        except MatrixError as error:
            # Clients ask again and again until the link was opened.
            pending = error.errcode == "M_SESSION_NOT_VALIDATED"
            raise StageFailed("M_UNAUTHORIZED", error.error, pending=pending)
        return {
            "sid": proved.sid,
            "medium": proved.medium,
            "address": proved.address,
            "validated_ts": proved.validated_ts,
        }


class SsoStage:
    """The requester logs in again with a single sign-on provider; that is done on a page."""

    def params(self) -> JsonObject | None:
        return None

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        raise StageFailed("M_UNAUTHORIZED", "This stage is done on its page.")


class RecaptchaStage:
    """A captcha, judged by reCAPTCHA or a service that is compatible with it."""

    def __init__(
        self, http: OutgoingHttpClient, verify_url: str, public_key: str, private_key: str
    ) -> None:
        self._http = http
        self._verify_url = verify_url
        self._public_key = public_key
        self._private_key = private_key

    def params(self) -> JsonObject | None:
        return {"public_key": self._public_key}

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        response = auth.get("response")
        if response is None:
            raise missing_param("auth.response")
        if not isinstance(response, str):
            raise bad_json("auth.response must be a string.")
        if not response or len(response) > _MAX_CAPTCHA or not response.isprintable():
            raise StageFailed("M_UNAUTHORIZED", "The captcha was not solved.")
        fields = {"secret": self._private_key, "response": response}
        if asked.address:
            fields["remoteip"] = asked.address
        try:
            verdict = await self._http.post_form(self._verify_url, fields)
        except RemoteError as error:
            _log.warning("The captcha could not be verified", reason=error.reason)
            raise StageFailed("M_UNKNOWN", "The captcha cannot be verified at present.")
        if verdict.get("success") is not True:
            raise StageFailed("M_UNAUTHORIZED", "The captcha was not solved.")
        return True
