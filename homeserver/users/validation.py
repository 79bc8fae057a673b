"""Proving that an e-mail address is one's own: a message with a link, and opening the link.

A client begins a session with a secret of its own; who has the session's ID, the secret and the
token of a message has proved the address. A session is good for one purpose: a link that was
opened to add an address sets no new password.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, invalid_param, missing_param
from homeserver.core.threepids import EMAIL, InvalidAddress, canonical_email, is_client_secret
from homeserver.outbound.mail import Mailer
from homeserver.users.secret_tokens import new_token, token_hash
from storage import threepids, validations
from storage.database import Database
from storage.transaction import Transaction
from storage.validations import ADD, PASSWORD, REGISTER, ValidationRow

__all__ = ["ADD", "PASSWORD", "REGISTER", "EmailValidation", "Proved", "ValidationRules"]

PAGE = "_matrix/static/client/email/validate"
MAX_FAILURES = 10
MAX_SEND_ATTEMPT = 2**31
_MAX_LINK = 2_000
_PROOF_LIFETIME_MS = 24 * 60 * 60 * 1000
"""For how long a validated session counts."""


@dataclass(frozen=True, slots=True)
class ValidationRules:
    """Which addresses are taken, and what is told about them. Times in milliseconds."""

    base_url: str
    lifetime_ms: int = 3_600_000
    allowed_domains: tuple[str, ...] = ()
    conceal_registered: bool = False


@dataclass(frozen=True, slots=True)
class Proved:
    """An address that was proved, and with which session."""

    sid: str
    medium: str
    address: str
    validated_ts: int


class EmailValidation:
    """Begins sessions, sends messages, takes tokens. Without a mailer nothing is offered.

    `limit_messages` is asked before each message with a key for its receiver; it raises
    MatrixError 429 M_LIMIT_EXCEEDED when there were too many.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        rules: ValidationRules,
        mailer: Mailer | None,
        *,
        limit_messages: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._rules = rules
        self._mailer = mailer
        self._limit_messages = limit_messages

    @property
    def available(self) -> bool:
        """Whether this server sends e-mail at all."""
        return self._mailer is not None

    async def request(
        self,
        purpose: str,
        email: str,
        client_secret: str,
        send_attempt: int,
        next_link: str | None = None,
    ) -> str:
        """Send a link to an address, unless that was done for this attempt; the session's ID.

        Raises MatrixError: 400 M_THREEPID_MEDIUM_NOT_SUPPORTED, M_INVALID_PARAM,
        M_THREEPID_IN_USE, M_THREEPID_NOT_FOUND, 403 M_THREEPID_DENIED, 429 M_LIMIT_EXCEEDED
        (Client-server API, "POST /register/email/requestToken" and its like).
        """
        if self._mailer is None:
            raise medium_not_supported("This server sends no e-mail.")
        address = self._checked_address(email)
        if not is_client_secret(client_secret):
            raise invalid_param("A client_secret has 1 to 255 characters: A-Z a-z 0-9 . = _ -")
        if not 0 <= send_attempt <= MAX_SEND_ATTEMPT:
            raise invalid_param("send_attempt is out of range.")
        if next_link is not None and not _is_web_address(next_link):
            raise invalid_param("next_link must be a URL of the web.")
        if await self._db.read(self._is_repetition, purpose, address, client_secret, send_attempt):
            return await self._db.write(
                self._request, purpose, address, client_secret, send_attempt, next_link
            )
        if self._limit_messages is not None:
            await self._limit_messages(f"mail to {address}")
        return await self._db.write(
            self._request, purpose, address, client_secret, send_attempt, next_link
        )

    def _is_repetition(
        self, txn: Transaction, purpose: str, address: str, client_secret: str, attempt: int
    ) -> bool:
        found = validations.find(txn, purpose, EMAIL, address, client_secret, self._now())
        return found is not None and found.send_attempt >= attempt

    def _checked_address(self, email: str) -> str:
        try:
            address = canonical_email(email)
        except InvalidAddress as error:
            raise invalid_param(f"This is not a valid e-mail address: {error}.")
        allowed = self._rules.allowed_domains
        if allowed and address.rpartition("@")[2] not in allowed:
            raise MatrixError(403, "M_THREEPID_DENIED", "Addresses of this domain are not taken.")
        return address

    def _request(
        self,
        txn: Transaction,
        purpose: str,
        address: str,
        client_secret: str,
        send_attempt: int,
        next_link: str | None,
    ) -> str:
        is_known = threepids.get_user(txn, EMAIL, address) is not None
        fits = is_known if purpose == PASSWORD else not is_known
        if not fits and not self._rules.conceal_registered:
            raise in_use() if is_known else _not_found()
        now_ms = self._now()
        expires_ts = now_ms + self._rules.lifetime_ms
        new = ValidationRow(
            secrets.token_urlsafe(18).replace("-", "."),
            purpose,
            EMAIL,
            address,
            client_secret,
            -1,
            None,
            0,
            now_ms,
            expires_ts,
            None,
        )
        session = validations.begin(txn, new)
        if session.send_attempt >= send_attempt or session.validated_ts is not None:
            return session.sid
        assert self._mailer is not None
        token = new_token()
        validations.sent(txn, session.sid, token_hash(token), send_attempt, next_link)
        if fits:
            link = self._link(session.sid, client_secret, token)
            self._mailer.enqueue_in(txn, purpose, address, {"link": link}, expires_ts)
        else:
            # Whoever asked learns nothing; the owner of the address does.
            template = "taken" if is_known else "unknown"
            self._mailer.enqueue_in(txn, template, address, {}, expires_ts)
        return session.sid

    def _link(self, sid: str, client_secret: str, token: str) -> str:
        query = urlencode({"sid": sid, "client_secret": client_secret, "token": token})
        return f"{self._rules.base_url}{PAGE}?{query}"

    async def submit(self, sid: str, client_secret: str, token: str) -> ValidationRow:
        """Take the token of a message; the session, now validated.

        Raises MatrixError 400: M_TOKEN_INCORRECT, M_SESSION_EXPIRED, M_NO_VALID_SESSION.
        """
        outcome = await self._db.write(self._submit, sid, client_secret, token)
        if isinstance(outcome, MatrixError):
            raise outcome
        return outcome

    def _submit(
        self, txn: Transaction, sid: str, client_secret: str, token: str
    ) -> ValidationRow | MatrixError:
        """Errors are returned, so that the count of failures is committed."""
        session = validations.get(txn, sid, client_secret)
        if session is None:
            return _no_session()
        now_ms = self._now()
        if session.expires_ts <= now_ms or session.failures >= MAX_FAILURES:
            return MatrixError(400, "M_SESSION_EXPIRED", "This link has expired.")
        if not validations.has_token(txn, sid, token_hash(token)):
            validations.failed(txn, sid)
            return MatrixError(400, "M_TOKEN_INCORRECT", "This is not the token that was sent.")
        validations.validated(txn, sid, now_ms, now_ms + _PROOF_LIFETIME_MS)
        return session

    async def proved(self, sid: str, client_secret: str, purpose: str) -> Proved:
        """The address that a client has proved for a purpose.

        Raises MatrixError 400: M_SESSION_NOT_VALIDATED, M_SESSION_EXPIRED, M_NO_VALID_SESSION.
        """
        return await self._db.read(self.proved_in, sid, client_secret, purpose)

    def proved_in(self, txn: Transaction, sid: str, client_secret: str, purpose: str) -> Proved:
        """`proved`, as part of a transaction."""
        session = validations.get(txn, sid, client_secret)
        if session is None or session.purpose != purpose:
            raise _no_session()
        if session.expires_ts <= self._now():
            raise MatrixError(400, "M_SESSION_EXPIRED", "This session has expired.")
        if session.validated_ts is None:
            raise MatrixError(
                400, "M_SESSION_NOT_VALIDATED", "The link in the message was not opened yet."
            )
        return Proved(sid, session.medium, session.address, session.validated_ts)

    def use_in(self, txn: Transaction, sid: str) -> None:
        """Use a proof up. Raises MatrixError 400 M_NO_VALID_SESSION if that was done."""
        if not validations.delete(txn, sid):
            raise _no_session()

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def credentials(given: object, name: str = "threepid_creds") -> tuple[str, str]:
    """Session ID and client secret that a client hands in. Raises MatrixError 400."""
    if given is None:
        raise missing_param(name)
    if not isinstance(given, dict):
        raise MatrixError(400, "M_BAD_JSON", f"{name} must be an object.")
    found = []
    for key in ("sid", "client_secret"):
        value = given.get(key)
        if value is None:
            raise missing_param(f"{name}.{key}")
        if not isinstance(value, str):
            raise MatrixError(400, "M_BAD_JSON", f"{name}.{key} must be a string.")
        if not is_client_secret(value):
            raise invalid_param(f"{name}.{key} is not valid.")
        found.append(value)
    return found[0], found[1]


def medium_not_supported(error: str) -> MatrixError:
    return MatrixError(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", error)


def in_use() -> MatrixError:
    return MatrixError(400, "M_THREEPID_IN_USE", "This address belongs to an account already.")


def _not_found() -> MatrixError:
    return MatrixError(400, "M_THREEPID_NOT_FOUND", "This address belongs to no account here.")


def _no_session() -> MatrixError:
    return MatrixError(400, "M_NO_VALID_SESSION", "There is no such session.")


def _is_web_address(link: str) -> bool:
    if len(link) > _MAX_LINK or not link.isascii() or not link.isprintable() or " " in link:
        return False
    try:
        parts = urlsplit(link)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        )
    except ValueError:
        return False
