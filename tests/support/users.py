"""Accounts, login and profiles over a router and a database, without rooms."""

from __future__ import annotations

from typing import Any

import structlog
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from config.model import OutgoingHttp, Rate, RateLimits
from federation.client.signer import RequestSigner
from federation.server import openid as federation_openid
from homeserver.api.client import (
    account,
    admin_register,
    capabilities,
    devices,
    login,
    openid,
    profiles,
    registration,
    versions,
    voip,
    well_known,
)
from homeserver.core.signing import generate_signing_key
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.push.web_push import VapidKey
from homeserver.users.accounts import Accounts
from homeserver.users.appservices import Appservices
from homeserver.users.contacts import Contacts
from homeserver.users.device_activity import DeviceActivity
from homeserver.users.devices import Devices
from homeserver.users.hooks import UserHooks
from homeserver.users.housekeeping import UserHousekeeping
from homeserver.users.identity_servers import IdentityServers
from homeserver.users.login import Login
from homeserver.users.openid import OpenId
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import Profiles
from homeserver.users.registration import Registration, RegistrationRules
from homeserver.users.registration_tokens import RegistrationTokens
from homeserver.users.sessions import Sessions
from homeserver.users.stages import (
    DummyStage,
    PasswordStage,
    RegistrationTokenStage,
    TermsStage,
)
from homeserver.users.turn import Turn
from homeserver.users.uia import InteractiveAuth
from homeserver.users.validation import EmailValidation, ValidationRules
from homeserver.web.limits import MemoryRateLimiter
from homeserver.web.router import Router
from storage.database import Database
from tests.support.client import Answer, Client
from tests.support.databases import migrated_database, open_test_database, reactor

SERVER_NAME = "hearth.test"
ENDPOINTS = [
    each
    for module in (
        account,
        admin_register,
        capabilities,
        devices,
        federation_openid,
        login,
        openid,
        profiles,
        registration,
        versions,
        voip,
        well_known,
    )
    for each in module.ENDPOINTS
]
OPEN = RegistrationRules(
    enabled=True, without_verification=True, guests=True, shared_secret="a shared secret"
)
UNLIMITED = RateLimits(enabled=False)
LIMITED = RateLimits(
    login=Rate(per_second=0.1, burst=3),
    registration=Rate(per_second=0.1, burst=3),
    token_check=Rate(per_second=0.1, burst=3),
    login_token=Rate(per_second=0.01, burst=3),
)


class UserServer:
    """The services of `homeserver.users` of one process, with a router and a client.

    `clock` is the services' time; `hooks` are empty.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        rules: RegistrationRules = OPEN,
        limits: RateLimits = UNLIMITED,
        passwords: bool = True,
        discovery: well_known.WellKnown | None = None,
        turn: Turn | None = None,
        terms: dict[str, Any] | None = None,
        sessions: dict[str, Any] | None = None,
    ) -> None:
        self.url = ""
        self.db = db
        self.clock = clock
        self.hooks = UserHooks()
        self.limiter = MemoryRateLimiter(limits, clock)
        self.passwords = Passwords(reactor, cost="low")
        self.activity = DeviceActivity(db, clock)
        self.sessions = Sessions(db, clock, self.hooks, self.activity, **(sessions or {}))
        self.accounts = Accounts(db, clock, self.hooks, self.passwords, self.sessions, SERVER_NAME)
        self.login = Login(
            db,
            clock,
            self.passwords,
            SERVER_NAME,
            limit_attempts=lambda key: self.limiter.spend("login", key),
        )
        self.validation = EmailValidation(db, clock, ValidationRules(""), None)
        stages: dict[str, Any] = {
            "m.login.dummy": DummyStage(),
            "m.login.password": PasswordStage(self.login),
            "m.login.registration_token": RegistrationTokenStage(db, clock),
            "m.login.terms": TermsStage(terms or {}),
        }
        self.uia = InteractiveAuth(db, clock, stages)
        self.registration_tokens = RegistrationTokens(db, clock)
        self.openid = OpenId(db, clock)
        self.housekeeping = UserHousekeeping(db, clock)
        services: list[Any] = [
            db,
            self.accounts,
            self.login,
            self.openid,
            self.passwords,
            self.registration_tokens,
            self.sessions,
            self.uia,
            self.validation,
            Appservices(()),
            Contacts(db, clock, self.validation, _no_identity_servers(), self.uia),
            Devices(db, self.hooks, self.sessions, self.activity),
            Profiles(db, self.hooks, SERVER_NAME),
            Registration(db, clock, rules, self.accounts, self.passwords, self.sessions, self.uia),
            capabilities.CapabilitySettings("12", passwords),
            login.LoginSettings(SERVER_NAME, passwords),
            discovery or well_known.WellKnown(),
            turn or Turn(clock),
            VapidKey(db, clock, "https://example.org", offered=False),
        ]
        router = Router(
            ENDPOINTS,
            {type(each): each for each in services},
            self.sessions,
            clock=clock,
            log=structlog.get_logger(),
            rate_limiter=self.limiter,
        )
        self.client = Client(router)

    async def add_user(self, name: str = "alice", password: str = "wonderland") -> User:
        """An account with a session, made without the API."""
        user_id = self.accounts.new_user_id(name)
        await self.accounts.create(user_id, password)
        return await self.log_in(name, password)

    async def log_in(self, name: str, password: str, **wanted: Any) -> User:
        """A session of an account, made by `POST /login`."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password,
            **wanted,
        }
        status, answer = await self.client.post("/_matrix/client/v3/login", body)
        assert status == 200, answer
        return User(self, name, password, answer)


def _no_identity_servers() -> IdentityServers:
    """None is trusted, so none is asked."""
    signer = RequestSigner(SERVER_NAME, generate_signing_key("1", bytes(32)))
    return IdentityServers(OutgoingHttpClient(reactor, OutgoingHttp()), signer, ())


class User:
    """A logged-in user; `answer` is what the login answered."""

    def __init__(
        self, server: UserServer, name: str, password: str, answer: dict[str, Any]
    ) -> None:
        self.name = name
        self.password = password
        self.answer = answer
        self.user_id: str = answer["user_id"]
        self.device_id: str = answer["device_id"]
        self.token: str = answer["access_token"]
        self.client = server.client.with_token(self.token)

    async def whoami(self) -> Answer:
        return await self.client.get("/_matrix/client/v3/account/whoami")

    def proof(self, session: str | None = None) -> dict[str, Any]:
        """An `auth` that does the password stage."""
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "password": self.password,
        }
        return auth if session is None else {**auth, "session": session}

    async def confirmed(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Make a request, and again with the password when asked for it."""
        status, answer = await self.client.request(method, path, body)
        assert status == 401, (status, answer)
        assert "errcode" not in answer, answer
        proof = self.proof(answer["session"])
        return await self.client.request(method, path, {**body, "auth": proof})


async def make_user_server(test: TestCase, **options: Any) -> UserServer:
    """A server on a new database that is closed after the test. Options as of `UserServer`."""
    url = migrated_database(test)
    db = await open_test_database(test, url=url)
    server = same_database(test, db, **options)
    server.url = url
    return server


def same_database(test: TestCase, db: Database, **options: Any) -> UserServer:
    """A server with other options on a database that is open."""
    clock = options.pop("clock", None)
    if clock is None:
        clock = Clock()
        clock.advance(1_700_000_000)
    server = UserServer(db, clock, **options)
    test.addCleanup(server.passwords.close)
    return server
