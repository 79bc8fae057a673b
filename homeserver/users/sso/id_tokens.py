"""Checking ID tokens (OpenID Connect Core, section 3.1.3.7)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import import_key
from joserfc.jws import deserialize_compact, extract_compact

from homeserver.core import canonical
from homeserver.core.types import JsonObject
from homeserver.users.sso.people import ProviderFailed

LEEWAY_S = 120
"""How far the clocks of a provider and of this server may be apart."""
MAX_CHARACTERS = 64 * 1024

_MAX_KEYS = 20
_KINDS = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "PS256": "RSA",
    "PS384": "RSA",
    "PS512": "RSA",
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "EdDSA": "OKP",
    "Ed25519": "OKP",
}
"""Algorithms with public keys, and their keys. Others are refused: "none" signs nothing, and
those with a secret prove nothing that the secret's other holders could not claim."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an ID token must say. `now` in seconds."""

    issuer: str
    client_id: str
    nonce: str
    now: float


def check_id_token(token: Any, keys: JsonObject, expected: Expected) -> JsonObject | None:
    """The claims of an ID token; None if none of these keys (a JWK set) has signed it.

    Raises ProviderFailed for one that is malformed or says something else.
    """
    if not isinstance(token, str) or len(token) > MAX_CHARACTERS or not token.isascii():
        raise ProviderFailed("it gave no ID token")
    try:
        header = extract_compact(token.encode("ascii")).headers()
    except (JoseError, ValueError, TypeError) as error:
        raise ProviderFailed(f"its ID token is malformed: {error}") from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _KINDS:
        raise ProviderFailed(f"its ID token is signed with {str(algorithm)[:20]}")
    for key in _candidates(keys, header, algorithm):
        try:
            payload = deserialize_compact(token, import_key(key), [algorithm]).payload
        except (JoseError, ValueError, TypeError):
            continue
        return _checked(payload, expected)
    return None


def _candidates(keys: JsonObject, header: JsonObject, algorithm: str) -> list[JsonObject]:
    """The keys that may have signed."""
    listed = keys.get("keys")
    kid = header.get("kid")
    found = [
        key
        for key in (listed if isinstance(listed, list) else [])
        if isinstance(key, dict)
        and key.get("kty") == _KINDS[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.get("kid", kid) == kid)
    ]
    return found[:_MAX_KEYS]


def _checked(payload: bytes, expected: Expected) -> JsonObject:
    try:
        claims = canonical.parse_object(payload)
    except canonical.NotJSON:
        raise ProviderFailed("its ID token holds no JSON object") from None
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != expected.issuer:
        raise ProviderFailed("its ID token is of another issuer (iss)")
    if expected.client_id not in audiences:
        raise ProviderFailed("its ID token is for another client (aud)")
    if claims.get("azp", expected.client_id) != expected.client_id:
        raise ProviderFailed("its ID token was issued to another client (azp)")
    if len(audiences) > 1 and "azp" not in claims:
        raise ProviderFailed("its ID token is for several clients and names none (azp)")
    _check_times(claims, expected.now)
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode("utf-8", "replace"), expected.nonce.encode()
    ):
        raise ProviderFailed("its ID token is of another login (nonce)")
    return claims


def _check_times(claims: JsonObject, now: float) -> None:
    if _time(claims, "exp") + LEEWAY_S <= now:
        raise ProviderFailed("its ID token has expired (exp)")
    begins = [_time(claims, name) for name in ("iat", "nbf") if name == "iat" or name in claims]
    if max(begins) - LEEWAY_S > now:
        raise ProviderFailed("its ID token is of the future (iat, nbf)")


def _time(claims: JsonObject, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProviderFailed(f"its ID token does not say when it is good ({name})")
    return value
