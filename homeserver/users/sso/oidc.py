"""OpenID Connect: asking a provider who somebody is (OpenID Connect Core, section 3.1).

The code flow with PKCE. What the provider signs must be signed with one of its public keys; its
answers are bounded, and redirects are not followed.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

from twisted.internet.interfaces import IReactorTime

from config.model import SsoProvider
from federation.client.errors import RemoteError
from homeserver.core.types import JsonObject
from homeserver.outbound.http import OutgoingHttpClient, json_object
from homeserver.users.sso.id_tokens import Expected, check_id_token
from homeserver.users.sso.kept import Kept
from homeserver.users.sso.people import (
    Back,
    Person,
    ProviderFailed,
    SignOnRefused,
    Ticket,
    subject_of,
)

if TYPE_CHECKING:
    from federation.client.https import HttpAnswer

TIMEOUT_S = 10.0
KEEP_S = 3600.0
"""For how long a provider's description and keys are kept."""

_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_JSON = {"Accept": "application/json"}
_FORM = "application/x-www-form-urlencoded"

Clients = Callable[[str], OutgoingHttpClient]


class OidcProvider:
    """One provider. `clients` says with what a URL is asked; people come back to `callback`."""

    def __init__(
        self, settings: SsoProvider, clients: Clients, clock: IReactorTime, callback: str
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._clock = clock
        self._callback = callback
        self._metadata = Kept(clock, KEEP_S, self._discover)
        self._keys = Kept(clock, KEEP_S, self._fetch_keys)

    async def address(self, ticket: Ticket, *, again: bool, register: bool) -> str:
        """See `Provider.address`."""
        metadata = await self._metadata.get()
        fields = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._callback,
            "scope": " ".join(self._settings.scopes),
            "state": ticket.state,
            "nonce": ticket.nonce,
            "code_challenge": _challenge(ticket.verifier),
            "code_challenge_method": "S256",
        }
        prompts = metadata.get("prompt_values_supported")
        if again:
            fields["prompt"] = "login"
        elif register and isinstance(prompts, list) and "create" in prompts:
            fields["prompt"] = "create"
        url: str = metadata["authorization_endpoint"]
        return f"{url}{'&' if '?' in url else '?'}{urlencode(fields, quote_via=quote)}"

    async def person(self, ticket: Ticket, back: Back) -> Person:
        """See `Provider.person`."""
        metadata = await self._metadata.get()
        issuer = back.fields.get("iss")
        if issuer is not None and issuer != self._settings.issuer:
            raise ProviderFailed("the answer is another provider's (iss)")
        if error := back.get("error"):
            raise SignOnRefused(f"You were not logged in there ({error[:100]}).")
        code = back.get("code")
        if not code:
            raise SignOnRefused("You were not logged in there.")
        tokens = await self._exchange(metadata, code, ticket.verifier)
        claims = await self._claims(tokens.get("id_token"), ticket.nonce)
        subject = subject_of(claims.get("sub"))
        if self._settings.userinfo and isinstance(metadata.get("userinfo_endpoint"), str):
            more = await self._userinfo(metadata["userinfo_endpoint"], tokens)
            if more.get("sub") != subject:
                raise ProviderFailed("what it tells of the person is of another one (sub)")
            claims = {**claims, **more}
        return Person(subject, claims)

    # What the provider is asked

    async def _discover(self) -> JsonObject:
        url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._get(url, _JSON)
        if found.get("issuer") != self._settings.issuer:
            raise ProviderFailed(f"it calls itself {str(found.get('issuer'))[:200]!r}")
        for name in _ENDPOINTS:
            if not _is_https(found.get(name)):
                raise ProviderFailed(f"its {name} is no HTTPS address")
        return found

    async def _fetch_keys(self) -> JsonObject:
        metadata = await self._metadata.get()
        return await self._get(metadata["jwks_uri"], _JSON)

    async def _exchange(self, metadata: JsonObject, code: str, verifier: str) -> JsonObject:
        settings = self._settings
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        headers = {**_JSON, "Content-Type": _FORM}
        if settings.client_secret is not None and settings.client_auth == "basic":
            # Each is encoded as in a form first (RFC 6749, section 2.3.1).
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(settings.client_secret)}"
            headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        else:
            fields["client_id"] = settings.client_id
            if settings.client_secret is not None:
                fields["client_secret"] = settings.client_secret
        body = urlencode(fields).encode("ascii")
        answer = await self._ask("POST", metadata["token_endpoint"], headers, body)
        found = json_object(answer)
        if answer.status != 200 or found is None:
            error = str((found or {}).get("error", ""))[:100]
            if error == "invalid_grant":
                raise SignOnRefused("Your login there is over. Begin again.")
            raise ProviderFailed(f"its token endpoint answered {answer.status} {error}")
        return found

    async def _claims(self, id_token: Any, nonce: str) -> JsonObject:
        expected = Expected(
            self._settings.issuer, self._settings.client_id, nonce, self._clock.seconds()
        )
        keys = await self._keys.get()
        claims = check_id_token(id_token, keys, expected)
        if claims is None:
            # It may have new keys. This is not done again and again.
            claims = check_id_token(id_token, await self._keys.renew(), expected)
        if claims is None:
            raise ProviderFailed("its ID token is not signed with any of its keys")
        return claims

    async def _userinfo(self, url: str, tokens: JsonObject) -> JsonObject:
        token = tokens.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ProviderFailed("it gave no access token")
        if not _is_https(url):
            raise ProviderFailed("its userinfo_endpoint is no HTTPS address")
        return await self._get(url, {**_JSON, "Authorization": f"Bearer {token}"})

    async def _get(self, url: str, headers: dict[str, str]) -> JsonObject:
        answer = await self._ask("GET", url, headers, None)
        found = json_object(answer)
        if answer.status != 200 or found is None:
            raise ProviderFailed(f"{url[:200]} answered {answer.status}, or no JSON object")
        return found

    async def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> HttpAnswer:
        try:
            return await self._clients(url).request(method, url, headers, body, timeout_s=TIMEOUT_S)
        except RemoteError as error:
            raise ProviderFailed(f"{url[:200]}: {error.reason}") from None


def _challenge(verifier: str) -> str:
    """Of PKCE (RFC 7636, section 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def _is_https(url: Any) -> bool:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and not parts.fragment
