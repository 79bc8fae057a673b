"""Pushes to browsers and other clients of push services: Web Push (RFC 8030, 8291, 8292; MSC4174).

What is sent is encrypted for the client, so that the push service learns nothing but when. The
service knows this server by one key, which all processes share and which is made when it is first
asked for.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from federation.client.errors import RemoteError
from homeserver.core import pushers as kinds
from homeserver.core.types import JsonObject
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.push.gateways import DELIVERED, FAILED, REFUSED, REJECTED, Answer, unfit
from storage import pushers, vapid_keys
from storage.database import Database
from storage.jobs import Job
from storage.pushers import PusherRow

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

MAX_BODY = 4096
"""Bytes that every push service takes (RFC 8030, section 7.2)."""
_OVERHEAD = 16 + 4 + 1 + 65 + 1 + 16
MAX_TEXT = MAX_BODY - _OVERHEAD
TTL_S = 172_800
TOKEN_S = 12 * 3600
"""How long a token shows who this server is; it is used for half of that."""
_MAX_ANSWER = 64 * 1024
_FORBIDDEN = 403
_GONE = (_FORBIDDEN, 404, 410)
_TOO_LARGE = 413


def is_public_key(key: bytes) -> bool:
    """Whether bytes are a point on the curve P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
    except ValueError:
        return False
    return True


def encrypted(text: bytes, client_key: bytes, auth: bytes, *, sender: Any = None) -> bytes:
    """A text that only the client can read (RFC 8291), with a key for this text alone.

    Raises ValueError for a key that is none.
    """
    import http_ece
    from cryptography.hazmat.primitives.asymmetric import ec

    own = sender or ec.generate_private_key(ec.SECP256R1())
    try:
        sealed: bytes = http_ece.encrypt(
            text, private_key=own, dh=client_key, auth_secret=auth, version="aes128gcm", rs=MAX_BODY
        )
    except http_ece.ECEException as error:
        raise ValueError(str(error)) from error
    return sealed


class _Token(NamedTuple):
    header: str
    until: float


class VapidKey:
    """The key by which push services know this server.

    Parameters: `contact`, where they write to if something is wrong: `mailto:` or `https:`;
    `offered`, whether anything is pushed.
    """

    def __init__(
        self, db: Database, clock: IReactorTime, contact: str, *, offered: bool = True
    ) -> None:
        self.offered = offered
        self._db = db
        self._clock = clock
        self._contact = contact
        self._key: ECKey | None = None
        self._public = ""
        self._tokens: dict[str, _Token] = {}

    async def public_key(self) -> str:
        """The public key as clients hand it to their browser: uncompressed, base64 for URLs."""
        await self._loaded()
        return self._public

    async def authorization(self, url: str) -> str:
        """The header `Authorization` for a push to a URL (RFC 8292, section 3)."""
        key = await self._loaded()
        parts = urlsplit(url)
        audience = f"{parts.scheme}://{parts.netloc}"
        now = self._clock.seconds()
        known = self._tokens.get(audience)
        if known is None or known.until <= now:
            from joserfc import jwt

            claims = {"aud": audience, "exp": int(now) + TOKEN_S, "sub": self._contact}
            token = jwt.encode({"alg": "ES256", "typ": "JWT"}, claims, key)
            known = _Token(f"vapid t={token}, k={self._public}", now + TOKEN_S / 2)
            if len(self._tokens) >= 1000:
                self._tokens.clear()
            self._tokens[audience] = known
        return known.header

    async def _loaded(self) -> ECKey:
        if self._key is None:
            # Where nobody is pushed to by a browser, none of the libraries is loaded.
            from cryptography.hazmat.primitives.asymmetric import ec
            from cryptography.hazmat.primitives.serialization import (
                Encoding,
                PublicFormat,
                load_pem_private_key,
            )
            from joserfc.jwk import ECKey

            stored = await self._db.read(vapid_keys.get)
            if stored is None:
                stored = await self._db.write(vapid_keys.get_or_make, _new_key)
            private = load_pem_private_key(stored.encode("ascii"), None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise ValueError("The stored VAPID key is not one of the curve P-256.")
            public = private.public_key()
            point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            self._public = urlsafe_b64encode(point).rstrip(b"=").decode("ascii")
            self._key = ECKey.import_key(stored)
        return self._key


def _new_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


class WebPush:
    """Sends to push services."""

    def __init__(
        self,
        http: OutgoingHttpClient,
        key: VapidKey,
        db: Database,
        clock: IReactorTime,
        timeout_s: float,
    ) -> None:
        self._http = http
        self._key = key
        self._db = db
        self._clock = clock
        self._timeout = timeout_s

    async def send(self, pusher: PusherRow, body: JsonObject) -> Answer:
        """One attempt; never raises for what the other side does."""
        notification = body["notification"]
        text = _encode(notification)
        if len(text) > MAX_TEXT:
            # Clients fetch what did not fit.
            small = {key: notification[key] for key in _SMALL if key in notification}
            text = _encode(small)
            if len(text) > MAX_TEXT:
                text = _encode({**small, "devices": []})
        return await self._send(pusher, text, str(notification.get("prio", "high")))

    async def activate(self, job: Job) -> None:
        """Send a client the token that it has to send back. Raises RemoteError to be tried
        again."""
        payload = job.payload
        pusher = await self._db.read(pushers.get, payload["user"], payload["app"], payload["key"])
        if pusher is None or pusher.ack_token is None:
            return
        if (pusher.ack_expires_ts or 0) <= int(self._clock.seconds() * 1000):
            return
        text = _encode({"app_id": pusher.app_id, "ack_token": pusher.ack_token})
        answer = await self._send(pusher, text, "high")
        if answer.outcome == REJECTED:
            await self._db.write(pushers.delete, [pusher])
        elif answer.outcome not in (DELIVERED, REFUSED):
            raise RemoteError(pusher.gateway, answer.detail)

    async def _send(self, pusher: PusherRow, text: bytes, priority: str) -> Answer:
        settings = pusher.settings
        url = str(settings.get("url", ""))
        key, auth = kinds.decoded(pusher.pushkey), kinds.decoded(str(settings.get("auth", "")))
        try:
            sealed = encrypted(text, key or b"", auth or b"")
        except ValueError as error:
            return Answer(REJECTED, f"nothing can be encrypted for it: {error}")
        headers = {
            "TTL": str(TTL_S),
            "Urgency": "high" if priority == "high" else "normal",
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": await self._key.authorization(url),
        }
        try:
            answer = await self._http.request(
                "POST", url, headers, sealed, max_bytes=_MAX_ANSWER, timeout_s=self._timeout
            )
        except RemoteError as error:
            return Answer(FAILED, str(error), is_down=True)
        if 200 <= answer.status < 300:
            return Answer(DELIVERED)
        if answer.status == _FORBIDDEN and b"jwt" in answer.body.lower():
            # What is wrong is this server's clock or `push.vapid_contact`, not the subscription.
            return Answer(FAILED, "the push service does not accept who this server says it is")
        if answer.status in _GONE:
            return Answer(REJECTED, f"the push service answered {answer.status}")
        if answer.status == _TOO_LARGE:
            return Answer(REFUSED, "the push service says that it is too large")
        return unfit(answer)


_SMALL = ("event_id", "room_id", "prio", "counts", "devices")


def _encode(content: JsonObject) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
