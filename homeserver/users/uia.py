"""User-interactive authentication (Client-server API, "User-Interactive Authentication API").

- A request without `auth` is answered 401 with flows and a new session, whatever the flows.
- A session belongs to one method, path and user. Once a stage is done it belongs to one body
  too, secrets left out; before that it proves nothing and the body may still change.
- The stages of a flow are done in order; done ones are kept and not asked again.
- A finished session lets the same request through again until it expires.

Sessions are in the database: any process can go on with any of them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from homeserver.core import canonical
from homeserver.core.errors import MatrixError, bad_json, forbidden
from homeserver.core.types import JsonObject
from homeserver.web.request import Request, Requester
from storage import uia_sessions
from storage.database import Database
from storage.transaction import Transaction
from storage.uia_sessions import UiaSessionRow

SESSION_LIFETIME_MS = 60 * 60 * 1000

_KEPT = ("threepid_creds", "threepidCreds")
"""What is kept of an `auth` that may become right by itself."""

Flows = Sequence[Sequence[str]]


class StageFailed(Exception):
    """An attempt at a stage failed; the client may try again.

    `pending`: what was handed in may become right by itself, say when a link is opened.
    """

    def __init__(self, errcode: str, error: str, *, pending: bool = False) -> None:
        super().__init__(f"{errcode}: {error}")
        self.errcode = errcode
        self.error = error
        self.pending = pending


@dataclass(frozen=True, slots=True)
class Asked:
    """For whom and what a stage is done.

    `email_for`: what a proof of an e-mail address is needed for, a purpose of
    `homeserver.users.validation`. `address`: of whoever tries, for limits and captchas.
    """

    user_id: str | None
    email_for: str | None = None
    address: str = ""


class Stage(Protocol):
    """One way of proving something."""

    def params(self) -> JsonObject | None:
        """What clients are told in `params`."""

    async def check(self, auth: JsonObject, asked: Asked) -> Any:
        """Judge an attempt; returns what it established, as JSON.

        Raises StageFailed if the client may try again, MatrixError if the request is refused.
        """


class AuthenticationRequired(MatrixError):
    """401 with the flows, and with an error only if an attempt failed."""

    def __init__(self, response: JsonObject, failed: StageFailed | None = None) -> None:
        errcode = failed.errcode if failed else "M_UNAUTHORIZED"
        error = failed.error if failed else "Additional authentication is required."
        super().__init__(401, errcode, error, **response)
        self._failed = failed is not None

    def body(self) -> JsonObject:
        """The JSON object of the response."""
        return super().body() if self._failed else dict(self.extra)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A finished authentication: what its stages established, what came of an earlier try."""

    session_id: str
    completed: JsonObject
    outcome: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """What is to be confirmed: the request, and the parts of its body that are no secrets."""

    request: Request
    requester: Requester | None
    auth: JsonObject | None
    body: JsonObject
    email_for: str | None = None

    @property
    def asked(self) -> Asked:
        user_id = self.requester.user_id if self.requester else None
        return Asked(user_id, self.email_for, self.request.remote_address)

    @property
    def name(self) -> str:
        user_id = self.requester.user_id if self.requester else ""
        return f"{self.request.method} {self.request.path} {user_id}"

    @property
    def body_hash(self) -> bytes:
        return hashlib.sha256(canonical.encode_lenient(self.body)).digest()


class InteractiveAuth:
    """Keeps sessions and leads clients through `stages` (by name)."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        stages: Mapping[str, Stage],
        *,
        lifetime_ms: int = SESSION_LIFETIME_MS,
    ) -> None:
        self._db = db
        self._clock = clock
        self._stages = dict(stages)
        self._lifetime_ms = lifetime_ms
        self.proofs_of: Callable[[str], Awaitable[Flows]] | None = None
        """The ways in which the owner of an account can prove again who they are."""

    async def confirm_owner(
        self, operation: Operation, *, trust_appservices: bool = False
    ) -> Confirmed:
        """`confirm`, with whatever proves that the requester owns their account.

        With `trust_appservices` application services need prove nothing; then there is no session.
        """
        assert operation.requester is not None
        if trust_appservices and operation.requester.appservice_id is not None:
            return Confirmed("", {}, None)
        return await self.confirm(operation, await self.owner_flows(operation.requester))

    async def owner_flows(self, requester: Requester) -> Flows:
        """The flows of `confirm_owner`."""
        if self.proofs_of is None:
            return [["m.login.password"]]
        return await self.proofs_of(requester.user_id)

    async def confirm(self, operation: Operation, flows: Flows) -> Confirmed:
        """Let a request through once its sender has done all stages of one of the flows.

        Raises AuthenticationRequired (401) until then, MatrixError 403 M_FORBIDDEN if the session
        was begun for something else.
        """
        auth = operation.auth
        if not auth:
            raise self._required(flows, await self._begin(operation, flows))
        session = await self.resume(operation)
        if session is None:
            failed = StageFailed("M_UNKNOWN", "This session is unknown or has expired.")
            begun = await self._begin(operation, flows)
            if "session" in auth:
                raise self._required(flows, begun, failed)
            session = begun
        if _finished(session.completed, flows):
            return Confirmed(session.session_id, session.completed, session.outcome)
        stage = auth.get("type")
        if stage is None:
            return await self._poll(operation, flows, session)
        if stage in session.completed:
            raise self._required(flows, session)
        established = await self._attempt(operation, flows, session, stage)
        completed = await self._db.write(
            uia_sessions.complete_stage,
            session.session_id,
            stage,
            established,
            operation.body_hash,
        )
        if not _finished(completed, flows):
            raise self._required(flows, session._replace(completed=completed))
        return Confirmed(session.session_id, completed, None)

    async def _poll(self, operation: Operation, flows: Flows, session: UiaSessionRow) -> Confirmed:
        """Only the session is sent: have stages been done elsewhere meanwhile?"""
        completed = session.completed
        for stage, auth in session.details.get("pending", {}).items():
            if stage in completed:
                continue
            try:
                established = await self._stages[stage].check(auth, operation.asked)
            except StageFailed:
                continue
            completed = await self._db.write(
                uia_sessions.complete_stage,
                session.session_id,
                stage,
                established,
                operation.body_hash,
            )
        if not _finished(completed, flows):
            raise self._required(flows, session._replace(completed=completed))
        return Confirmed(session.session_id, completed, None)

    # Elsewhere: the pages of this server

    async def session(self, session_id: str) -> UiaSessionRow | None:
        """A session that goes on, for the page of a stage."""
        if "\x00" in session_id:
            return None
        return await self._db.read(uia_sessions.get, session_id, self._now())

    def params_of(self, stage: str) -> JsonObject | None:
        """What clients are told of a stage."""
        known = self._stages.get(stage)
        return None if known is None else known.params()

    async def complete_elsewhere(
        self, session: UiaSessionRow, stage: str, auth: JsonObject, address: str
    ) -> None:
        """Do a stage on its page. Raises StageFailed, MatrixError.

        What is handed in and not yet right is kept, and judged again when the client asks.
        """
        flows = session.details.get("flows", [])
        checker = self._stages.get(stage)
        if checker is None or not any(stage in flow for flow in flows):
            raise forbidden("This is no stage of what the session is for.")
        if stage in session.completed:
            return
        details = session.details
        asked = Asked(details.get("user_id"), details.get("email_for"), address)
        try:
            established = await checker.check(auth, asked)
        except StageFailed as failed:
            if failed.pending:
                await self._db.write(uia_sessions.set_pending, session.session_id, stage, auth)
            raise
        await self._db.write(
            uia_sessions.complete_stage, session.session_id, stage, established, None
        )

    async def complete_proved(self, session_id: str, stage: str, established: Any) -> None:
        """Note that a stage was done elsewhere. Raises MatrixError 403 M_FORBIDDEN."""
        session = await self.session(session_id)
        flows = [] if session is None else session.details.get("flows", [])
        if not any(stage in flow for flow in flows):
            raise forbidden("What you wanted to confirm is over. Begin again in your client.")
        await self._db.write(uia_sessions.complete_stage, session_id, stage, established, None)

    async def resume(self, operation: Operation) -> UiaSessionRow | None:
        """The session that `auth` names; None if it names none, or one that has ended.

        Raises MatrixError: 403 M_FORBIDDEN if it was begun for something else, 400 M_BAD_JSON.
        """
        auth = operation.auth or {}
        for key in ("session", "type"):
            if key in auth and not isinstance(auth[key], str):
                raise bad_json(f"auth.{key} must be a string.")
        session_id = auth.get("session")
        if session_id is None or "\x00" in session_id:
            return None
        session = await self._db.read(uia_sessions.get, session_id, self._now())
        if session is None:
            return None
        changed = session.body_hash is not None and session.body_hash != operation.body_hash
        if session.operation != operation.name or changed:
            raise forbidden("This session was begun for another request.")
        return session

    def record_outcome_in(self, txn: Transaction, confirmed: Confirmed, outcome: Any) -> None:
        """Keep what came of the request, for its repetition; part of the request's transaction."""
        uia_sessions.set_outcome(txn, confirmed.session_id, outcome)

    def consume_in(self, txn: Transaction, confirmed: Confirmed) -> None:
        """End a session whose request must not be repeated without asking again.

        Raises AuthenticationRequired's status 403 if another request has used it up.
        """
        if not uia_sessions.delete(txn, confirmed.session_id):
            raise forbidden("This session has been used.")

    async def _begin(self, operation: Operation, flows: Flows) -> UiaSessionRow:
        now_ms = self._now()
        details = {
            "flows": [list(flow) for flow in flows],
            "user_id": operation.asked.user_id,
            "email_for": operation.email_for,
        }
        return await self._db.write(
            uia_sessions.insert,
            secrets.token_urlsafe(18),
            operation.name,
            now_ms,
            now_ms + self._lifetime_ms,
            details,
        )

    async def _attempt(
        self, operation: Operation, flows: Flows, session: UiaSessionRow, stage: str
    ) -> Any:
        checker = self._stages.get(stage)
        if checker is None or not _is_next(stage, session.completed, flows):
            failed = StageFailed("M_FORBIDDEN", "This stage is not the next one of any flow.")
            raise self._required(flows, session, failed)
        assert operation.auth is not None
        try:
            return await checker.check(operation.auth, operation.asked)
        except StageFailed as failed:
            if failed.pending:
                kept = {key: operation.auth[key] for key in _KEPT if key in operation.auth}
                await self._db.write(uia_sessions.set_pending, session.session_id, stage, kept)
            raise self._required(flows, session, failed)

    def _required(
        self, flows: Flows, session: UiaSessionRow, failed: StageFailed | None = None
    ) -> AuthenticationRequired:
        params = {}
        for stage in sorted({stage for flow in flows for stage in flow}):
            known = self._stages.get(stage)
            told = known.params() if known else None
            if told is not None:
                params[stage] = told
        response: JsonObject = {
            "flows": [{"stages": list(flow)} for flow in flows],
            "params": params,
            "session": session.session_id,
        }
        if session.completed:
            response["completed"] = list(session.completed)
        return AuthenticationRequired(response, failed)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _finished(completed: JsonObject, flows: Flows) -> bool:
    return any(all(stage in completed for stage in flow) for flow in flows)


def _is_next(stage: str, completed: JsonObject, flows: Flows) -> bool:
    """Whether some flow has this stage, and all that come before it are done."""
    return any(
        stage in flow and all(earlier in completed for earlier in flow[: list(flow).index(stage)])
        for flow in flows
    )
