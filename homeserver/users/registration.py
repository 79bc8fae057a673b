"""Registration: who may make an account, and making it.

Flows follow the configuration: a registration token, a captcha, terms and an e-mail address where
they are asked for, else nothing to prove (`m.login.dummy`) if the operator allows that, else nobody
can register. Administrators' scripts register with a shared secret instead.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import (
    MatrixError,
    forbidden,
    invalid_username,
    missing_param,
    unknown,
)
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.users.accounts import Accounts
from homeserver.users.passwords import Passwords
from homeserver.users.secret_tokens import new_token, token_hash
from homeserver.users.sessions import Grant, NewSession, Sessions
from homeserver.users.stages import DUMMY, EMAIL, RECAPTCHA, REGISTRATION_TOKEN, TERMS
from homeserver.users.uia import Confirmed, InteractiveAuth, Operation
from homeserver.users.validation import EmailValidation, in_use
from storage import (
    accepted_terms,
    one_time_tokens,
    profiles,
    registration_tokens,
    threepids,
    tokens,
)
from storage.database import Database
from storage.transaction import Transaction

NONCE_LIFETIME_MS = 60_000
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class RegistrationRules:
    """Who may register. `terms`: policy documents must be accepted."""

    enabled: bool = False
    without_verification: bool = False
    require_token: bool = False
    guests: bool = False
    shared_secret: str | None = None
    terms: bool = False
    captcha: bool = False
    email: bool = False
    require_email: bool = False

    @property
    def flows(self) -> Sequence[Sequence[str]]:
        """What must be proved to register; empty if nobody can.

        Where an e-mail address can be given but need not, that is a flow of its own; without a
        token, a captcha or leave to prove nothing, the address is what is proved.
        """
        stages = [REGISTRATION_TOKEN] if self.require_token else []
        stages += [RECAPTCHA] if self.captcha else []
        stages += [TERMS] if self.terms else []
        without_email = self.require_token or self.captcha or self.without_verification
        if self.require_email or (self.email and not without_email):
            return [[*stages, EMAIL]]
        if not without_email:
            return []
        if self.email:
            # Without the dummy the one flow would be the beginning of the other.
            return [[*stages, DUMMY], [*stages, EMAIL]]
        return [stages or [DUMMY]]


@dataclass(frozen=True, slots=True)
class WantedAccount:
    """What a client asks for when it registers."""

    username: str | None
    password: str | None
    session: NewSession
    inhibit_login: bool = False
    guest_access_token: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """A new account, with a session unless that was declined."""

    user_id: UserID
    grant: Grant | None


@dataclass(frozen=True, slots=True)
class SharedSecretAccount:
    """What an administrator's script asks for."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    user_type: str | None = None
    displayname: str | None = None


_Create: TypeAlias = Callable[..., Registered]


class Registration:
    """Registers users, guests, and accounts for administrators' scripts."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        rules: RegistrationRules,
        accounts: Accounts,
        passwords: Passwords,
        sessions: Sessions,
        uia: InteractiveAuth,
        validation: EmailValidation | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._rules = rules
        self._accounts = accounts
        self._passwords = passwords
        self._sessions = sessions
        self._uia = uia
        self._validation = validation

    def check_open(self) -> None:
        """Raises MatrixError 403 M_FORBIDDEN where people cannot register themselves."""
        if not self._rules.enabled:
            raise forbidden("Registration is not enabled on this homeserver.")
        if not self._rules.flows:
            raise forbidden(
                "Registration is not possible on this homeserver: its configuration names no way"
                " of verification, and does not allow registration without it."
            )

    async def check_available(self, username: str) -> None:
        """Raises MatrixError: 403, 400 M_USER_IN_USE, 400 M_INVALID_USERNAME."""
        self.check_open()
        await self._accounts.check_available(self._accounts.new_user_id(username))

    # Users

    async def register(self, operation: Operation, wanted: WantedAccount) -> Registered:
        """Register a user, once interactive authentication is done.

        Raises AuthenticationRequired (401), MatrixError: 403 M_FORBIDDEN, 400 M_USER_IN_USE,
        M_INVALID_USERNAME, M_WEAK_PASSWORD, M_MISSING_PARAM.
        """
        self.check_open()
        earlier = await self._uia.resume(operation)
        if earlier is not None and earlier.outcome is not None:
            return await self._again(earlier.outcome, wanted)
        guest = await self._guest(wanted)
        if wanted.username is not None:
            user_id = self._accounts.new_user_id(wanted.username)
            if guest != user_id:
                await self._accounts.check_available(user_id)
        if wanted.password is not None:
            self._passwords.check_new(wanted.password)
        confirmed = await self._uia.confirm(operation, self._rules.flows)
        if wanted.password is None:
            raise missing_param("password")
        hashed = await self._passwords.hash(wanted.password)
        return await self._with_name(self._create, confirmed, wanted, guest, hashed)

    async def _with_name(
        self, create: _Create, confirmed: Confirmed, wanted: WantedAccount, *args: object
    ) -> Registered:
        """Create under the wanted name, or under random names until one is free."""
        for attempt in range(_ATTEMPTS):
            user_id = self._accounts.new_user_id(wanted.username)
            try:
                return await self._db.write(create, user_id, confirmed, wanted, *args)
            except MatrixError as error:
                taken = error.errcode == "M_USER_IN_USE"
                if wanted.username is not None or not taken or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _create(
        self,
        txn: Transaction,
        user_id: UserID,
        confirmed: Confirmed,
        wanted: WantedAccount,
        guest: UserID | None,
        password_hash: str,
    ) -> Registered:
        token = confirmed.completed.get(REGISTRATION_TOKEN)
        if token is not None and not registration_tokens.use(txn, token, self._now()):
            error = "This registration token has been used up or has expired."
            raise MatrixError(401, "M_UNAUTHORIZED", error)
        if guest is not None:
            self._accounts.upgrade_guest_in(txn, user_id, password_hash)
        else:
            self._accounts.create_in(txn, user_id, password_hash)
        self._add_email_in(txn, user_id, confirmed.completed.get(EMAIL))
        accepted_terms.put(txn, user_id, confirmed.completed.get(TERMS, {}), self._now())
        grant = None
        outcome: JsonObject = {"user_id": user_id}
        if not wanted.inhibit_login:
            grant = self._sessions.begin_in(txn, user_id, wanted.session)
            outcome["device_id"] = grant.device_id
        self._uia.record_outcome_in(txn, confirmed, outcome)
        return Registered(user_id, grant)

    def _add_email_in(self, txn: Transaction, user_id: UserID, proved: JsonObject | None) -> None:
        """The address that was proved becomes the account's; the proof is used up."""
        if proved is None:
            return
        assert self._validation is not None
        self._validation.use_in(txn, proved["sid"])
        medium, address, validated_ts = proved["medium"], proved["address"], proved["validated_ts"]
        if not threepids.add(txn, medium, address, user_id, self._now(), validated_ts):
            raise in_use()

    async def _again(self, outcome: JsonObject, wanted: WantedAccount) -> Registered:
        """The registration of a finished session is repeated: its answer was lost.

        The session is no proof of identity for a login, so the password must be the account's.
        """
        user_id = UserID(outcome["user_id"])
        user = await self._accounts.get(user_id)
        stored = None if user is None else user.password_hash
        if not await self._passwords.verify(wanted.password or "", stored):
            raise forbidden("This session has registered an account with another password.")
        if wanted.inhibit_login or "device_id" not in outcome:
            return Registered(user_id, None)
        session = replace(wanted.session, device_id=outcome["device_id"])
        return Registered(user_id, await self._sessions.begin(user_id, session))

    # Application services

    async def register_for_appservice(
        self, check: Callable[[UserID], None], username: str, session: NewSession | None
    ) -> Registered:
        """Make an account of an application service, which `check` lets have it or not.

        Raises MatrixError 400: M_EXCLUSIVE, M_USER_IN_USE, M_INVALID_USERNAME.
        """
        user_id = self._accounts.new_user_id(username)
        check(user_id)
        return await self._db.write(self._create_for_appservice, user_id, session)

    def _create_for_appservice(
        self, txn: Transaction, user_id: UserID, session: NewSession | None
    ) -> Registered:
        self._accounts.create_in(txn, user_id, None, by_appservice=True)
        grant = None if session is None else self._sessions.begin_in(txn, user_id, session)
        return Registered(user_id, grant)

    # Guests

    async def register_guest(self, session: NewSession) -> Registered:
        """Make a guest account with a session. Raises MatrixError 403 M_FORBIDDEN."""
        if not self._rules.guests:
            raise forbidden("This homeserver takes no guests.")
        wanted = WantedAccount(None, None, replace(session, device_id=None))
        return await self._with_name(self._create_guest, Confirmed("", {}, None), wanted)

    def _create_guest(
        self, txn: Transaction, user_id: UserID, confirmed: Confirmed, wanted: WantedAccount
    ) -> Registered:
        self._accounts.create_in(txn, user_id, None, is_guest=True)
        return Registered(user_id, self._sessions.begin_in(txn, user_id, wanted.session))

    async def _guest(self, wanted: WantedAccount) -> UserID | None:
        """The guest who becomes a user (Guest Access: same localpart, and the guest's token)."""
        if wanted.guest_access_token is None:
            return None
        hashed = token_hash(wanted.guest_access_token)
        row = await self._db.query(tokens.get_access_token, hashed)
        if row is None or not row.is_guest:
            raise forbidden("This is not the access token of a guest.")
        if wanted.username is None:
            raise missing_param("username")
        guest = UserID(row.user_id)
        if self._accounts.new_user_id(wanted.username) != guest:
            raise invalid_username("A guest keeps their user name when registering.")
        return guest

    # Administrators' scripts

    def _secret(self) -> str:
        secret = self._rules.shared_secret
        if secret is None:
            raise unknown("Registration with a shared secret is not enabled.")
        return secret

    async def new_nonce(self) -> str:
        """A nonce for one registration with the shared secret, good for a minute.

        Raises MatrixError 400 M_UNKNOWN if no secret is configured.
        """
        self._secret()
        nonce = new_token()
        await self._db.write(
            one_time_tokens.insert,
            one_time_tokens.NONCE,
            token_hash(nonce),
            None,
            self._now() + NONCE_LIFETIME_MS,
        )
        return nonce

    async def register_with_secret(
        self, wanted: SharedSecretAccount, session: NewSession
    ) -> Registered:
        """Register as an administrator's script does, where the HMAC-SHA1 is right.

        Raises MatrixError: 400 M_UNKNOWN (nonce), 403 M_UNKNOWN (HMAC), 400 M_USER_IN_USE,
        M_INVALID_USERNAME, M_WEAK_PASSWORD.
        """
        secret = self._secret()
        parts = [wanted.nonce, wanted.username, wanted.password]
        parts.append("admin" if wanted.admin else "notadmin")
        if wanted.user_type is not None:
            parts.append(wanted.user_type)
        message = "\x00".join(parts).encode("utf-8", "surrogatepass")
        expected = hmac.new(secret.encode(), message, hashlib.sha1).hexdigest()
        given = wanted.mac.lower().encode("utf-8", "surrogatepass")
        right = hmac.compare_digest(expected.encode(), given)
        if "\x00" in wanted.username + wanted.password + (wanted.user_type or ""):
            raise unknown("A user name or password cannot hold U+0000.")
        nonce_hash = token_hash(wanted.nonce)
        if not await self._db.write(self._take_nonce, nonce_hash):
            raise unknown("This nonce is unknown or has expired.")
        if not right:
            raise unknown("The HMAC is wrong.", status=403)
        user_id = self._accounts.new_user_id(wanted.username)
        hashed = await self._passwords.hash(wanted.password)
        return await self._db.write(self._create_with_secret, user_id, hashed, wanted, session)

    def _take_nonce(self, txn: Transaction, nonce_hash: bytes) -> bool:
        taken = one_time_tokens.take(txn, one_time_tokens.NONCE, nonce_hash, self._now())
        return taken is not None

    def _create_with_secret(
        self,
        txn: Transaction,
        user_id: UserID,
        password_hash: str,
        wanted: SharedSecretAccount,
        session: NewSession,
    ) -> Registered:
        self._accounts.create_in(
            txn, user_id, password_hash, is_admin=wanted.admin, user_type=wanted.user_type
        )
        if wanted.displayname:
            profiles.put_field(txn, user_id, "displayname", wanted.displayname)
        return Registered(user_id, self._sessions.begin_in(txn, user_id, session))

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
