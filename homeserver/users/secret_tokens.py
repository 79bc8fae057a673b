"""Random tokens and identifiers, and the hashes under which tokens are stored."""

from __future__ import annotations

import hashlib
import secrets
import string


def new_token() -> str:
    """An unguessable token (256 bits) of URL-safe characters."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored of a token: its SHA-256, enough for a random text of 256 bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_device_id() -> str:
    """A device ID for a client that gave none."""
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))


def new_localpart() -> str:
    """A localpart for a user who gave none, of the permitted characters."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(12))
