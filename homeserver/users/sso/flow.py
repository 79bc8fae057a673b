"""The way of somebody who signs on elsewhere (Client-server API, "SSO client
login/authentication").

A browser is sent to a provider with a state that only it may bring back: its cookie says that it
is the same one. What is to be known of it meanwhile is in the database, for a limited time; each
state is good once. Back here, a person who has no account chooses a name where it does not follow
from what the provider says, and people are asked before an unknown client gets their login.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias, TypeVar

import structlog
from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import (
    MatrixError,
    forbidden,
    invalid_param,
    not_found,
    user_deactivated,
    user_locked,
)
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.login import Login
from homeserver.users.secret_tokens import new_token, token_hash
from homeserver.users.sso import people, redirects
from homeserver.users.sso.people import (
    Back,
    Person,
    Provider,
    ProviderFailed,
    SignOnRefused,
    Suggestion,
    Ticket,
)
from homeserver.users.sso.people_here import PeopleHere, Stranger
from homeserver.users.stages import PASSWORD, SSO
from homeserver.users.uia import Flows, InteractiveAuth
from storage import sso_sessions, users
from storage.database import Database
from storage.sso_sessions import CONFIRMING, NAMING, SENT, SsoSessionRow
from storage.transaction import Transaction

MAX_SESSIONS = 10_000
"""People on their way at a time; beyond that the oldest are forgotten."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SignOnRules:
    """What the configuration says; times in milliseconds. `terms`: whether documents must be
    accepted."""

    known_clients: Sequence[str]
    session_lifetime_ms: int
    token_lifetime_ms: int
    terms: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A provider with what clients and people are told of it, and what it means here."""

    provider_id: str
    name: str
    icon: str | None
    brand: str | None
    provider: Provider
    mapping: people.Mapping
    registration: bool = True
    existing_users: bool = False
    choose_localpart: bool = False


@dataclass(frozen=True, slots=True)
class SentThere:
    """To the provider, with the secret that the browser is to keep."""

    url: str
    browser: str


@dataclass(frozen=True, slots=True)
class SentBack:
    """To the client, with a login token."""

    url: str


@dataclass(frozen=True, slots=True)
class AskedForName:
    """A name is to be chosen, or the terms to be accepted."""

    session: str
    provider: str
    suggestion: Suggestion
    localpart: str
    fixed: bool = False
    """Whether this is the name, so that only the terms are asked about."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class AskedAboutClient:
    """Whether the login is to be handed to this client."""

    session: str
    client: str
    user_id: str


@dataclass(frozen=True, slots=True)
class StageDone:
    """A stage of interactive authentication is done."""


Step: TypeAlias = SentBack | AskedForName | AskedAboutClient | StageDone


class SingleSignOn:
    """Leads people to providers and back. All methods raise MatrixError, for a page."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        rules: SignOnRules,
        providers: Mapping[str, Known],
        people_here: PeopleHere,
        login: Login,
        uia: InteractiveAuth,
    ) -> None:
        self._db = db
        self._clock = clock
        self._rules = rules
        self.providers = providers
        self._people = people_here
        self._login = login
        self._uia = uia

    def known(self, provider_id: str) -> Known:
        """A provider. Raises MatrixError 404 M_NOT_FOUND."""
        found = self.providers.get(provider_id)
        if found is None:
            raise not_found("There is no such way to log in here.")
        return found

    async def proofs_of(self, user_id: str) -> Flows:
        """The ways in which the owner of an account can prove again who they are."""
        user = await self._db.read(users.get_user, user_id)
        there = await self._people.providers_of(user_id)
        flows = [[SSO]] if there & self.providers.keys() else []
        if not flows or (user is not None and user.password_hash is not None):
            return [[PASSWORD], *flows]
        return flows

    async def providers_of(self, user_id: str) -> list[Known]:
        """The providers with which the owner of an account can log in again."""
        there = await self._people.providers_of(user_id)
        return [each for each in self.providers.values() if each.provider_id in there]

    # There

    async def begin(
        self, provider_id: str, redirect_url: str, browser: str | None, *, register: bool = False
    ) -> SentThere:
        """Send somebody to a provider who wants to log in with a client.

        Raises MatrixError: 404, 400 M_INVALID_PARAM, 502 (the provider does not answer).
        """
        known = self.known(provider_id)
        details = {"redirect": redirects.checked(redirect_url)}
        return await self._send(known, details, browser, register=register)

    async def begin_stage(
        self, provider_id: str, uia_session: str, user_id: str, browser: str | None
    ) -> SentThere:
        """Send somebody to a provider who has to prove again who they are."""
        known = self.known(provider_id)
        if provider_id not in await self._people.providers_of(user_id):
            raise not_found("You have not logged in that way before.")
        details = {"uia": uia_session, "user_id": user_id}
        return await self._send(known, details, browser, again=True)

    async def _send(
        self,
        known: Known,
        details: JsonObject,
        browser: str | None,
        *,
        again: bool = False,
        register: bool = False,
    ) -> SentThere:
        ticket = Ticket(new_token(), new_token(), new_token())
        url = await self._asking(
            known, known.provider.address(ticket, again=again, register=register)
        )
        if browser is None or not _TOKEN.fullmatch(browser):
            browser = new_token()
        details = {**details, "nonce": ticket.nonce, "verifier": ticket.verifier}
        row = self._row(token_hash(browser), SENT, known.provider_id, details)
        await self._db.write(self._insert, ticket.state, row)
        return SentThere(url, browser)

    async def _asking(self, known: Known, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except ProviderFailed as error:
            _log.warning(
                "A single sign-on provider failed", id=known.provider_id, reason=str(error)
            )
            raise MatrixError(
                502, "M_UNKNOWN", f"{known.name} does not answer as it should. Try again later."
            ) from None
        except SignOnRefused as error:
            raise forbidden(str(error)) from None

    # Back

    async def returned(self, fields: dict[str, str], browser: str | None) -> Step:
        """Somebody comes back from a provider, with the fields of the query."""
        state = fields.get("state", "")
        row = await self._take(sso_sessions.take, state, browser, SENT)
        known = self.known(row.provider)
        ticket = Ticket(state, row.details["nonce"], row.details["verifier"])
        person = await self._asking(known, known.provider.person(ticket, Back(fields)))
        try:
            known.mapping.check(person)
        except SignOnRefused as error:
            raise forbidden(str(error)) from None
        if "uia" in row.details:
            return await self._prove(known, person, row.details)
        return await self._enter(known, person, row)

    async def _prove(self, known: Known, person: Person, details: JsonObject) -> Step:
        user_id = await self._people.known(known.provider_id, person.subject)
        if user_id is None or user_id != details["user_id"]:
            raise forbidden("You logged in as somebody else there.")
        await self._check(user_id)
        await self._uia.complete_proved(details["uia"], SSO, user_id)
        return StageDone()

    async def _enter(self, known: Known, person: Person, row: SsoSessionRow) -> Step:
        redirect = row.details["redirect"]
        user_id = await self._people.known(known.provider_id, person.subject)
        if user_id is not None:
            return await self._hand_over(user_id, redirect, row)
        stranger = Stranger(known.provider_id, person.subject, known.mapping.suggestion(person))
        if known.existing_users:
            user_id = await self._people.connect_existing(stranger)
            if user_id is not None:
                return await self._hand_over(user_id, redirect, row)
        if not known.registration:
            raise forbidden("You have no account on this homeserver.")
        self._people.check_new()
        localpart = stranger.suggestion.localpart
        fixed, error = bool(localpart) and not known.choose_localpart, ""
        if fixed:
            try:
                if self._rules.terms:
                    await self._people.check_name(localpart)
                else:
                    user_id = await self._people.create(stranger, localpart)
                    return await self._hand_over(user_id, redirect, row)
            except MatrixError as refused:
                if refused.status != 400:
                    raise
                fixed, error = False, refused.error
        details = {
            "redirect": redirect,
            "subject": person.subject,
            "suggestion": asdict(stranger.suggestion),
            "fixed": fixed,
        }
        session = await self._next(NAMING, details, row)
        return AskedForName(session, known.name, stranger.suggestion, localpart, fixed, error)

    async def name(
        self, session: str, browser: str | None, localpart: str, *, accepted: bool
    ) -> Step:
        """Somebody has chosen a name, and accepted the terms."""
        row = await self._take(sso_sessions.get, session, browser, NAMING)
        known = self.known(row.provider)
        suggestion = Suggestion(**row.details["suggestion"])
        stranger = Stranger(row.provider, row.details["subject"], suggestion)
        fixed = bool(row.details["fixed"])
        if fixed:
            localpart = suggestion.localpart
        if self._rules.terms and not accepted:
            error = "Please accept the terms."
            return AskedForName(session, known.name, suggestion, localpart, fixed, error)
        try:
            user_id = await self._people.create(stranger, localpart.strip())
        except MatrixError as refused:
            if refused.status != 400:
                raise
            return AskedForName(session, known.name, suggestion, localpart, fixed, refused.error)
        await self._take(sso_sessions.take, session, browser, NAMING)
        return await self._hand_over(user_id, row.details["redirect"], row)

    async def confirm(self, session: str, browser: str | None) -> SentBack:
        """Somebody wants their login to be handed to the client."""
        if browser is None:
            raise _over()
        hashes = token_hash(session), token_hash(browser)
        url = await self._db.write(self._confirm, *hashes)
        if url is None:
            raise _over()
        return SentBack(url)

    def _confirm(self, txn: Transaction, session_hash: bytes, browser_hash: bytes) -> str | None:
        row = sso_sessions.take(txn, session_hash, browser_hash, CONFIRMING, self._now())
        if row is None:
            return None
        return self._grant(txn, row.details["redirect"], row.details["user_id"])

    async def _hand_over(self, user_id: UserID, redirect: str, row: SsoSessionRow) -> Step:
        await self._check(user_id)
        if redirects.is_known(redirect, self._rules.known_clients):
            return SentBack(await self._db.write(self._grant, redirect, user_id))
        session = await self._next(CONFIRMING, {"redirect": redirect, "user_id": user_id}, row)
        return AskedAboutClient(session, redirects.shown(redirect), user_id)

    def _grant(self, txn: Transaction, redirect: str, user_id: str) -> str:
        token = self._login.create_token_in(txn, UserID(user_id), self._rules.token_lifetime_ms)
        return redirects.with_token(redirect, token.token)

    async def _check(self, user_id: UserID) -> None:
        """Raises MatrixError: 403 M_USER_DEACTIVATED, 401 M_USER_LOCKED."""
        user = await self._db.read(users.get_user, user_id)
        if user is None or user.deactivated:
            raise user_deactivated()
        if user.locked:
            raise user_locked()

    # Sessions

    def _row(
        self, browser_hash: bytes, stage: str, provider: str, details: JsonObject
    ) -> SsoSessionRow:
        expires_ts = self._now() + self._rules.session_lifetime_ms
        return SsoSessionRow(browser_hash, stage, provider, details, expires_ts)

    def _insert(self, txn: Transaction, session: str, row: SsoSessionRow) -> None:
        sso_sessions.insert(txn, token_hash(session), row, self._now(), MAX_SESSIONS)

    async def _next(self, stage: str, details: JsonObject, row: SsoSessionRow) -> str:
        """Go on with another session: the one before was seen by the provider."""
        session = new_token()
        following = self._row(row.browser_hash, stage, row.provider, details)
        await self._db.write(self._insert, session, following)
        return session

    async def _take(
        self,
        how: Callable[[Transaction, bytes, bytes, str, int], SsoSessionRow | None],
        session: str,
        browser: str | None,
        stage: str,
    ) -> SsoSessionRow:
        if browser is None or not _TOKEN.fullmatch(session):
            raise _over()
        hashes = token_hash(session), token_hash(browser)
        use = self._db.read if how is sso_sessions.get else self._db.write
        row = await use(how, *hashes, stage, self._now())
        if row is None:
            raise _over()
        return row

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _over() -> MatrixError:
    return invalid_param(
        "This login is over, or was begun in another browser. Go back to your client and begin "
        "again."
    )
