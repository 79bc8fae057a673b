"""The pushers of this server's users (client-server API, "Client Behaviour" of push).

A pusher goes with the session that set it; one for e-mail stays until the address goes. Pushers
that browsers are reached by must first show that they hear (MSC4174).
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core import pushers as rules
from homeserver.core.errors import MatrixError, invalid_param, not_found, user_limit_exceeded
from homeserver.core.pushers import WantedPusher
from homeserver.core.threepids import InvalidAddress, canonical_email
from homeserver.core.types import JsonObject
from storage import clock as log_clock
from storage import devices as device_rows
from storage import jobs, pushers, threepids
from storage.database import Database
from storage.pushers import PusherRow
from storage.transaction import Transaction

MAX_PUSHERS = 100
"""Of one user."""
ACK_LIFETIME_MS = 5 * 60_000
ACTIVATION = "webpush activation"
"""The kind of job that sends a browser the token that it has to send back."""
_EXPLAINED = "https://spec.matrix.org/latest/client-server-api/#push-notifications"

ValidKey = Callable[[bytes], bool]
"""Whether a P-256 public key is a point on the curve."""


@dataclass(frozen=True, slots=True)
class PusherRules:
    """What the operator allows."""

    allow_http: bool = False
    email: bool = False
    valid_key: ValidKey = lambda key: True


class Pushers:
    """Sets and lists pushers."""

    def __init__(self, db: Database, clock: IReactorTime, allowed: PusherRules) -> None:
        self._db = db
        self._clock = clock
        self._allowed = allowed

    async def of_user(self, user_id: str) -> list[PusherRow]:
        """All pushers of a user."""
        return await self._db.read(pushers.of_user, user_id)

    async def set(self, user_id: str, device_id: str, body: JsonObject) -> bool:
        """Add, change or remove a pusher; whether it has yet to be activated.

        Raises MatrixError: 400 for what is no valid pusher; 400 M_THREEPID_NOT_FOUND for mail to
        an address that is not the user's; 403 M_USER_LIMIT_EXCEEDED.
        """
        wanted = rules.parse(body, allow_http=self._allowed.allow_http)
        if wanted.kind == rules.EMAIL:
            wanted = self._to_own_address(wanted)
        if wanted.kind == rules.WEBPUSH:
            key = rules.decoded(wanted.pushkey)
            if key is None or not self._allowed.valid_key(key):
                raise invalid_param("pushkey is not a point on the curve P-256.")
        return await self._db.write(self._set, user_id, device_id, wanted)

    def _to_own_address(self, wanted: WantedPusher) -> WantedPusher:
        if not self._allowed.email:
            raise invalid_param("kind: this server sends no notifications by e-mail.")
        try:
            address = canonical_email(wanted.pushkey)
        except InvalidAddress as error:
            raise invalid_param(f"pushkey is not a valid e-mail address: {error}.") from None
        return WantedPusher(
            wanted.kind,
            wanted.app_id,
            address,
            wanted.app_display_name,
            wanted.device_display_name,
            wanted.profile_tag,
            wanted.lang,
            wanted.data,
            wanted.append,
            wanted.enabled,
            wanted.gateway,
        )

    def _set(self, txn: Transaction, user_id: str, device_id: str, wanted: WantedPusher) -> bool:
        old = pushers.get(txn, user_id, wanted.app_id, wanted.pushkey)
        if wanted.kind is None:
            if old is not None:
                pushers.delete(txn, [old])
            return False
        if wanted.kind == rules.EMAIL:
            owner = threepids.get_user(txn, "email", wanted.pushkey)
            if owner != user_id:
                raise MatrixError(
                    400, "M_THREEPID_NOT_FOUND", "pushkey: this is not an address of yours."
                )
        elif device_id and not device_rows.lock_device(txn, user_id, device_id):
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "This session has ended.")
        if old is None and pushers.count(txn, user_id) >= MAX_PUSHERS:
            raise user_limit_exceeded(
                _EXPLAINED, error=f"An account has at most {MAX_PUSHERS} pushers. Remove some."
            )
        if not wanted.append:
            pushers.delete(txn, pushers.others(txn, user_id, wanted.app_id, wanted.pushkey))
        row = self._row(txn, user_id, device_id, wanted, old)
        pushers.put(txn, row)
        if row.ack_token is not None and row.ack_token != (old.ack_token if old else None):
            payload = {"user": user_id, "app": row.app_id, "key": row.pushkey}
            jobs.enqueue(txn, ACTIVATION, payload, self._now())
        return row.ack_token is not None and not row.activated

    def _row(
        self,
        txn: Transaction,
        user_id: str,
        device_id: str,
        wanted: WantedPusher,
        old: PusherRow | None,
    ) -> PusherRow:
        assert wanted.kind is not None, "removals are handled before"
        now, settings = self._now(), wanted.data or {}
        same = old is not None and old.kind == wanted.kind and _reached(old) == _reached_by(wanted)
        activated = wanted.kind != rules.WEBPUSH or (same and old is not None and old.activated)
        text = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
        return PusherRow(
            pusher_nid=old.pusher_nid if old else pushers.new_number(txn),
            user_id=user_id,
            app_id=wanted.app_id,
            pushkey=wanted.pushkey,
            kind=wanted.kind,
            app_display_name=wanted.app_display_name,
            device_display_name=wanted.device_display_name,
            profile_tag=wanted.profile_tag,
            lang=wanted.lang,
            data=text,
            device_id=device_id,
            enabled=wanted.enabled is not False,
            activated=activated,
            ack_token=None if activated else str(uuid.uuid4()),
            ack_expires_ts=None if activated else now + ACK_LIFETIME_MS,
            secret=old.secret if old else secrets.token_urlsafe(24),
            gateway=wanted.gateway,
            set_ts=now,
            since=old.since if old else log_clock.position(txn),
            badge=None,
            mailed_ts=None,
            mail_pause=None,
        )

    async def acknowledge(self, user_id: str, app_id: str, token: str) -> None:
        """A browser has heard the token that was sent to it (MSC4174).

        Raises MatrixError: 404 M_NOT_FOUND without such a pusher; 400
        M_UNKNOWN_ACTIVATION_TOKEN, M_EXPIRED_ACTIVATION_TOKEN.
        """
        await self._db.write(self._acknowledge, user_id, app_id, token)

    def _acknowledge(self, txn: Transaction, user_id: str, app_id: str, token: str) -> None:
        found = [
            row
            for row in pushers.of_user(txn, user_id)
            if row.app_id == app_id and row.kind == rules.WEBPUSH
        ]
        if not found:
            raise not_found("You have no pusher of kind webpush with this app_id.")
        named = [row for row in found if row.ack_token == token]
        if not named:
            raise MatrixError(400, "M_UNKNOWN_ACTIVATION_TOKEN", "ack_token is not known.")
        if (named[0].ack_expires_ts or 0) <= self._now():
            raise MatrixError(
                400, "M_EXPIRED_ACTIVATION_TOKEN", "ack_token has expired. Set the pusher again."
            )
        pushers.activate(txn, named[0].pusher_nid)
        txn.invalidate(pushers.CHANGED, user_id)

    async def by_link(self, token: str) -> PusherRow | None:
        """The pusher for e-mail that a link in a message names; None if it is gone."""
        number, secret = _split(token)
        return await self._db.read(pushers.by_secret, number, secret)

    async def remove_by_link(self, token: str) -> None:
        """Remove the pusher that a link in a message names. That it is gone is no error."""
        number, secret = _split(token)
        await self._db.write(_remove_by_secret, number, secret)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def link_token(row: PusherRow) -> str:
    """What names a pusher in links of messages."""
    return f"{row.pusher_nid}-{row.secret}"


def _split(token: str) -> tuple[int, str]:
    number, _, secret = token.partition("-")
    if not (number.isascii() and number.isdigit() and len(number) <= 15):
        return 0, ""
    return int(number), secret


def _remove_by_secret(txn: Transaction, number: int, secret: str) -> None:
    row = pushers.by_secret(txn, number, secret)
    if row is not None:
        pushers.delete(txn, [row])


def _reached(row: PusherRow) -> tuple[object, object]:
    settings = row.settings
    return settings.get("url"), settings.get("auth")


def _reached_by(wanted: WantedPusher) -> tuple[object, object]:
    settings = wanted.data or {}
    return settings.get("url"), settings.get("auth")


def shown(row: PusherRow) -> JsonObject:
    """A pusher as clients are shown it."""
    found: JsonObject = {
        "pushkey": row.pushkey,
        "kind": row.kind,
        "app_id": row.app_id,
        "app_display_name": row.app_display_name,
        "device_display_name": row.device_display_name,
        "lang": row.lang,
        "data": row.settings,
        "enabled": row.enabled,
        "device_id": row.device_id,
        rules.ENABLED_UNSTABLE: row.enabled,
        "org.matrix.msc3881.device_id": row.device_id,
    }
    if row.profile_tag is not None:
        found["profile_tag"] = row.profile_tag
    if row.kind == rules.WEBPUSH:
        found["activated"] = row.activated
        found["data"] = {**row.settings, "activated": row.activated}
    return found
