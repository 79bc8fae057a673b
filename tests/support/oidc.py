"""An OpenID Connect provider on loopback: it signs, checks codes, secrets and PKCE, and can lie."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.network import reactor, server_tls

CLIENT_ID = "hearth"
SECRET = "a secret: with %&+ in it"
ALICE = {
    "sub": "4711",
    "preferred_username": "alice",
    "name": "Alice Liddell",
    "email": "Alice@example.org",
    "email_verified": True,
}
Change = Callable[[dict[str, Any]], Any]


class OidcServer:
    """A provider. `people` are who is logged in there, in turn, the last for ever.

    What it says can be changed: `claims`, `header`, `metadata` are called with what it would say
    and may change that; `sign` makes the ID token; `answers` maps a path to (status, body) or
    None for no answer at all.
    """

    def __init__(self, test: TestCase, *people: dict[str, Any]) -> None:
        self.people = list(people) or [ALICE]
        self.key = RSAKey.generate_key(2048, {"kid": "first"}, auto_kid=False)
        self.keys: list[Any] = [self.key]
        self.asked: list[str] = []
        self.prompts: list[str | None] = []
        self.answers: dict[str, tuple[int, Any] | None] = {}
        self.claims: Change = lambda claims: None
        self.userinfo: Change = lambda claims: None
        self.metadata: Change = lambda metadata: None
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        self.auth = "basic"
        self._codes: dict[str, dict[str, Any]] = {}
        self._tokens: dict[str, dict[str, Any]] = {}
        site: Any = Site(_Everything(self))
        self._port = reactor.listenSSL(0, site, server_tls(), interface="127.0.0.1")
        self._site = site
        self._stopped = False
        self.name = f"localhost:{self._port.getHost().port}"
        self.issuer = f"https://{self.name}/realm"
        test.addCleanup(self.stop)

    def config(self, provider_id: str = "work", **more: Any) -> dict[str, Any]:
        """This provider in a homeserver's configuration."""
        return {
            "id": provider_id,
            "name": "Example Ltd",
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "client_secret": SECRET,
            **more,
        }

    def stop(self) -> Deferred[Any]:
        """Be away."""
        if self._stopped:
            return maybeDeferred(lambda: None)
        self._stopped = True
        stopped = maybeDeferred(self._port.stopListening)
        for channel in list(getattr(self._site, "_open", [])):
            channel.abortConnection()
        return stopped

    def signed(self, claims: dict[str, Any]) -> str:
        """An ID token as it should be."""
        header = {"alg": "RS256", "kid": self.key.kid}
        return jws.serialize_compact(header, json.dumps(claims), self.key, ["RS256"])

    def log_in(self, location: str) -> str:
        """What a browser meets that follows `location`: where the provider sends it back."""
        asked = urlsplit(location)
        assert f"https://{asked.netloc}" == f"https://{self.name}", location
        assert asked.path == "/realm/authorize", location
        query = dict(parse_qsl(asked.query, strict_parsing=True))
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        person = self.people.pop(0) if len(self.people) > 1 else self.people[0]
        self.prompts.append(query.get("prompt"))
        code = f"code{len(self._codes)}"
        self._codes[code] = {**query, "person": person}
        back = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    # What it answers

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any] | None:
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        if path == "/realm/.well-known/openid-configuration":
            base = self.issuer
            metadata = {
                "issuer": base,
                "authorization_endpoint": f"{base}/authorize",
                "token_endpoint": f"{base}/token",
                "userinfo_endpoint": f"{base}/userinfo",
                "jwks_uri": f"{base}/keys",
                "prompt_values_supported": ["login", "create"],
            }
            self.metadata(metadata)
            return 200, metadata
        if path == "/realm/keys":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        if path == "/realm/token":
            return self._token(headers, dict(parse_qsl(body.decode(), keep_blank_values=True)))
        if path == "/realm/userinfo":
            token = headers.get("authorization", "").removeprefix("Bearer ")
            if token not in self._tokens:
                return 401, {"error": "invalid_token"}
            claims = dict(self._tokens[token])
            self.userinfo(claims)
            return 200, claims
        return 404, {}

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, Any]:
        if self._client(headers, form) != (CLIENT_ID, SECRET):
            return 401, {"error": "invalid_client"}
        issued = self._codes.pop(form.get("code", ""), None)
        challenge = urlsafe_b64encode(
            hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        )
        right = (
            issued is not None
            and form.get("grant_type") == "authorization_code"
            and form.get("redirect_uri") == issued["redirect_uri"]
            and challenge.rstrip(b"=").decode() == issued["code_challenge"]
        )
        if issued is None or not right:
            return 400, {"error": "invalid_grant"}
        person = issued["person"]
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": person["sub"],
            "iat": now,
            "exp": now + 300,
            "nonce": issued["nonce"],
        }
        self.claims(claims)
        token = f"token{len(self.asked)}"
        self._tokens[token] = person
        return 200, {
            "access_token": token,
            "token_type": "Bearer",
            "id_token": self.sign(claims),
        }

    def _client(self, headers: dict[str, str], form: dict[str, str]) -> tuple[str, str]:
        if self.auth == "post":
            return form.get("client_id", ""), form.get("client_secret", "")
        sent = headers.get("authorization", "").removeprefix("Basic ")
        name, _, secret = b64decode(sent).decode().partition(":")
        return unquote_plus(name), unquote_plus(secret)


def other_key(kind: str = "RSA") -> Any:
    """A key that is not the provider's; of the same name."""
    parameters: Any = {"kid": "first"}
    if kind == "EC":
        return ECKey.generate_key("P-256", parameters, auto_kid=False)
    return RSAKey.generate_key(2048, parameters, auto_kid=False)


class _Everything(Resource):
    isLeaf = True

    def __init__(self, server: OidcServer) -> None:
        super().__init__()
        self._server = server

    def render(self, request: Any) -> Any:
        headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        answer = self._server.answer(request.path.decode(), headers, request.content.read())
        if answer is None:
            return NOT_DONE_YET
        status, body = answer
        request.setResponseCode(status)
        if isinstance(body, bytes):
            return body
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps(body).encode()
