"""Application services as users: who they are, whom they may be, and what is theirs alone
(Application Service API, "Client-Server API Extensions")."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime

from homeserver.core.appservices import AppserviceRegistration
from homeserver.core.errors import (
    MatrixError,
    exclusive,
    forbidden,
    missing_token,
    user_deactivated,
)
from homeserver.core.ids import RoomAlias, UserID
from homeserver.users.device_activity import DeviceActivity
from homeserver.users.secret_tokens import token_hash
from homeserver.web.request import Authenticator, Request, Requester
from homeserver.web.schema import parse_query
from homeserver.web.tokens import sent_token
from storage import devices, users
from storage.database import Database
from storage.transaction import Transaction
from storage.users import UserRow

APPSERVICE = "m.login.application_service"


class Appservices:
    """The application services of the configuration."""

    def __init__(self, registrations: Sequence[AppserviceRegistration]) -> None:
        self.all = tuple(registrations)
        self._by_token = {token_hash(each.as_token): each for each in registrations}
        self._by_id = {each.appservice_id: each for each in registrations}

    def get(self, appservice_id: str) -> AppserviceRegistration | None:
        """The service of an ID."""
        return self._by_id.get(appservice_id)

    def of_token(self, token: str | None) -> AppserviceRegistration | None:
        """The service whose token this is."""
        if token is None or not self._by_token:
            return None
        return self._by_token.get(token_hash(token))

    def knows_token(self, token: str) -> bool:
        """Whether this is the token of a service."""
        return self.of_token(token) is not None

    def of_request(self, request: Request) -> AppserviceRegistration:
        """The service that sent a request to an endpoint that needs no token of others.

        Raises MatrixError: 401 M_MISSING_TOKEN, 403 M_FORBIDDEN.
        """
        token = sent_token(request, self.knows_token)
        if token is None:
            raise missing_token()
        found = self.of_token(token)
        if found is None:
            raise forbidden("This is not the token of an application service.")
        return found

    # What is theirs alone

    def claims_user(self, user_id: str) -> bool:
        """Whether a user is some service's alone."""
        return any(each.claims_user(user_id) for each in self.all)

    def check_user(self, registration: AppserviceRegistration, user_id: UserID) -> None:
        """Raises MatrixError 400 M_EXCLUSIVE for users that are not a service's."""
        if not registration.owns_user(user_id):
            raise exclusive("This user ID is not in the application service's namespace.")
        self._check_others(registration.appservice_id, user_id)

    def _check_others(self, appservice_id: str, user_id: str) -> None:
        others = (each for each in self.all if each.appservice_id != appservice_id)
        if any(each.claims_user(user_id) for each in others):
            raise exclusive("This user ID belongs to another application service.")

    def check_alias(self, requester: Requester, alias: RoomAlias) -> None:
        """Raises MatrixError 400 M_EXCLUSIVE: an alias that is a service's alone, or of a
        service, one that is not its own."""
        own = None if requester.appservice_id is None else self.get(requester.appservice_id)
        if own is not None and not own.owns_alias(alias):
            raise exclusive("This alias is not in the application service's namespace.")
        if any(each is not own and each.claims_alias(alias) for each in self.all):
            raise exclusive("This alias is reserved by an application service.")

    def owns_alias(self, requester: Requester, alias: RoomAlias) -> bool:
        """Whether a request comes of the service whose alias this is."""
        own = None if requester.appservice_id is None else self.get(requester.appservice_id)
        return own is not None and own.owns_alias(alias)


class AppserviceAuthenticator:
    """Finds out who sent a request: a service in some user's name, or a user."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        appservices: Appservices,
        others: Authenticator,
        activity: DeviceActivity,
    ) -> None:
        self._db = db
        self._clock = clock
        self._appservices = appservices
        self._others = others
        self._activity = activity

    def authenticate(self, token: str, request: Request) -> Coroutine[Any, Any, Requester]:
        """The user in whose name a request is made ("Identity assertion").

        Raises MatrixError: 401 M_UNKNOWN_TOKEN; 403 M_FORBIDDEN outside the namespace or for
        users that there are not, M_USER_DEACTIVATED; 400 M_UNKNOWN_DEVICE.
        """
        registration = self._appservices.of_token(token)
        if registration is None:
            return self._others.authenticate(token, request)
        return self._asserted_by(registration, request)

    async def _asserted_by(
        self, registration: AppserviceRegistration, request: Request
    ) -> Requester:
        user_id, device_id = _asserted(request)
        wanted = registration.sender if user_id is None else user_id
        if not registration.owns_user(wanted):
            raise forbidden("The application service may not act as this user.")
        user, has_device = await self._db.read(_load, wanted, device_id)
        if user is None:
            raise forbidden("The application service has not registered this user.")
        if user.deactivated:
            raise user_deactivated()
        if device_id is not None and not has_device:
            raise MatrixError(400, "M_UNKNOWN_DEVICE", "This user has no such device.")
        if device_id is not None:
            now_ms = int(self._clock.seconds() * 1000)
            agent = request.user_agent or ""
            self._activity.seen(wanted, device_id, now_ms, request.remote_address, agent)
        return Requester(
            user_id=UserID(wanted),
            device_id=device_id,
            is_guest=user.is_guest,
            is_admin=user.is_admin,
            appservice_id=registration.appservice_id,
            is_shadow_banned=user.shadow_banned,
            is_locked=user.locked,
            is_suspended=user.suspended,
            is_rate_limited=registration.rate_limited and wanted != registration.sender,
        )


def _asserted(request: Request) -> tuple[str | None, str | None]:
    """The user and device in whose name a request is to be made."""
    if "_id=" not in request.raw_query:
        return None, None
    query = parse_query(request.raw_query)
    users_named = query.get("user_id", [])
    devices_named = query.get("device_id") or query.get("org.matrix.msc3202.device_id") or []
    return (
        users_named[0] if users_named and users_named[0] else None,
        devices_named[0] if devices_named and devices_named[0] else None,
    )


def _load(txn: Transaction, user_id: str, device_id: str | None) -> tuple[UserRow | None, bool]:
    user = users.get_user(txn, user_id)
    if user is None or device_id is None:
        return user, False
    return user, devices.get_device(txn, user_id, device_id) is not None
