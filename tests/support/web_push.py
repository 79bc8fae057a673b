"""A push service and a browser: takes encrypted pushes, checks who sent them, and decrypts."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey
from twisted.trial.unittest import TestCase

from homeserver.core.pushers import decoded
from tests.support.network import eventually
from tests.support.server import User
from tests.support.web import Asked, WebServer


def encoded(value: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


class Browser:
    """One subscription: a pair of keys, a secret, and the address of its push service.

    `answers`: statuses of the next answers instead of 201; `keys`: the VAPID keys that were shown.
    """

    def __init__(self, test: TestCase) -> None:
        self._web = WebServer(test, self._answer)
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)
        self.answers: list[int | tuple[int, Any, dict[str, str]]] = []
        self.heard: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.keys: set[str] = set()
        self.faults: list[str] = []
        test.addCleanup(lambda: test.assertEqual(self.faults, []))

    @property
    def url(self) -> str:
        return f"{self._web.url}/push/some-id?x=1"

    @property
    def pushkey(self) -> str:
        point = self._private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        return encoded(point)

    def pusher(self, **changes: Any) -> dict[str, Any]:
        """The body of a request that has this told."""
        body: dict[str, Any] = {
            "kind": "webpush",
            "app_id": "org.example.web",
            "pushkey": self.pushkey,
            "app_display_name": "Web",
            "device_display_name": "Browser",
            "lang": "en",
            "data": {"url": self.url, "auth": encoded(self._auth)},
        }
        return {**body, **changes}

    def _answer(self, asked: Asked) -> Any:
        try:
            self._check(asked)
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")
        if self.answers:
            answer = self.answers.pop(0)
            return answer if isinstance(answer, tuple) else (answer, {})
        text = http_ece.decrypt(
            asked.body, private_key=self._private, auth_secret=self._auth, version="aes128gcm"
        )
        self.heard.append(json.loads(text))
        return 201, b"", {"Location": f"{self._web.url}/message/1"}

    def _check(self, asked: Asked) -> None:
        """What RFC 8030, 8188, 8291 and 8292 demand."""
        headers = asked.headers
        self.headers.append(headers)
        assert (asked.method, asked.path) == ("POST", "/push/some-id?x=1"), asked.path
        assert headers["content-encoding"] == "aes128gcm"
        assert headers["ttl"] == "172800" and headers["urgency"] in ("high", "normal")
        assert len(asked.body) <= 4096, len(asked.body)
        scheme, _, rest = headers["authorization"].partition(" ")
        assert scheme == "vapid", scheme
        given = dict(part.strip().split("=", 1) for part in rest.split(","))
        point = decoded(given["k"])
        assert point is not None and len(point) == 65
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        token = jwt.decode(given["t"], ECKey.import_key(pem))
        assert token.claims["aud"] == self._web.url, token.claims
        assert token.claims["sub"].startswith(("mailto:", "https://")), token.claims
        self.keys.add(given["k"])

    async def told(self, count: int) -> list[dict[str, Any]]:
        """What was heard, once it is so much."""
        await eventually(lambda: len(self.heard) >= count, f"{count} pushes: {self.heard}")
        assert len(self.heard) == count, self.heard
        return self.heard

    async def activate(self, user: User) -> None:
        """Set a pusher, and send back the token that comes."""
        status, answer = await user.call("POST", "/pushers/set", self.pusher())
        assert (status, answer) == (201, {}), (status, answer)
        [told] = await self.told(1)
        assert told.keys() == {"app_id", "ack_token"}, told
        await user.ok("POST", "/pushers/ack", told)
        self.heard.clear()
