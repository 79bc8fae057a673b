"""Key objects of end-to-end encryption: their shape and their signatures.

Client-server API, "End-to-End Encryption" and "Cross-signing". Keys are JSON objects that users
sign; a public key is unpadded base64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.core import canonical
from homeserver.core.errors import MatrixError, bad_json, invalid_param, too_large
from homeserver.core.signing import SignatureError, parse_verify_key, verify_json
from homeserver.core.types import JsonObject

MAX_KEY_BYTES = 65_536
"""Of the JSON of one device's keys or of one cross-signing key."""
MAX_ONE_TIME_KEY_BYTES = 8_192
MAX_NAME_BYTES = 255
"""Of device IDs, key IDs and algorithms."""


class BadKey(ValueError):
    """A key object does not have the form that it must have."""


@dataclass(frozen=True, slots=True)
class CrossSigningKey:
    """A checked cross-signing key; `json` is the whole object."""

    usage: str
    public_key: str
    json: JsonObject

    @property
    def key_id(self) -> str:
        return f"ed25519:{self.public_key}"


def invalid_signature(error: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_SIGNATURE", error)


def is_name(text: object) -> bool:
    """Whether this can be a device ID, key ID or algorithm."""
    return (
        isinstance(text, str)
        and 0 < (len(text) if text.isascii() else len(text.encode())) <= MAX_NAME_BYTES
        and "\0" not in text
    )


def check_device_keys(keys: Any, user_id: str, device_id: str) -> None:
    """Check the form of a device's identity keys, and whose they are. Raises BadKey."""
    if not isinstance(keys, dict):
        raise BadKey("Device keys must be an object.")
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id:
        raise BadKey("The keys are not those of this user and device.")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(each, str) for each in algorithms):
        raise BadKey("algorithms must be a list of strings.")
    _check_public_keys(keys)
    if "signatures" not in keys:
        raise BadKey("Device keys have signatures.")
    _check_signatures(keys)
    _check_size(keys)


def check_self_signature(keys: JsonObject) -> None:
    """Check the signature of a device on its own keys, if there is one.

    Keys that the device has not signed are of no use to others, but do no harm either. Raises
    MatrixError 400 M_INVALID_SIGNATURE.
    """
    user_id, key_id = keys["user_id"], f"ed25519:{keys['device_id']}"
    if key_id in keys["signatures"].get(user_id, {}) and not is_signed(
        keys, user_id, key_id, keys["keys"].get(key_id, "")
    ):
        raise invalid_signature("The signature of the device on its keys is not valid.")


def check_cross_signing_key(key: Any, user_id: str, usage: str) -> CrossSigningKey:
    """Check the form of a cross-signing key of a user. Raises BadKey."""
    if not isinstance(key, dict):
        raise BadKey("A cross-signing key must be an object.")
    if key.get("user_id") != user_id:
        raise BadKey("The key is of another user.")
    usages = key.get("usage")
    if not isinstance(usages, list) or usage not in usages:
        raise BadKey(f"usage must be a list with {usage}.")
    _check_public_keys(key)
    if len(key["keys"]) != 1:
        raise BadKey("A cross-signing key has exactly one public key.")
    ((key_id, public_key),) = key["keys"].items()
    if key_id != f"ed25519:{public_key}" or not is_name(public_key):
        raise BadKey("The ID of a cross-signing key is ed25519: and the public key.")
    try:
        parse_verify_key(public_key)
    except ValueError as error:
        raise BadKey(str(error)) from None
    _check_signatures(key)
    _check_size(key)
    return CrossSigningKey(usage, public_key, key)


def split_key_id(key_id: str) -> tuple[str, str]:
    """Algorithm and ID of a key. Raises MatrixError 400 M_INVALID_PARAM."""
    algorithm, colon, name = key_id.partition(":")
    if not colon or not is_name(algorithm) or not is_name(name):
        raise invalid_param("The name of a key is an algorithm, a colon and a key ID.")
    return algorithm, name


def check_one_time_keys(keys: Sequence[Any]) -> list[bytes]:
    """Check one-time or fallback keys; the canonical JSON of each.

    Raises MatrixError: 400 M_BAD_JSON, 413 M_TOO_LARGE.
    """
    for key in keys:
        if not isinstance(key, str) and not (
            isinstance(key, dict) and isinstance(key.get("key"), str)
        ):
            raise bad_json("A key is a string, or an object with a string `key`.")
    try:
        encoded = canonical.encode_each(keys)
    except canonical.CanonicalJSONError as error:
        raise bad_json(str(error)) from None
    if encoded and max(map(len, encoded)) > MAX_ONE_TIME_KEY_BYTES:
        raise too_large("A key is too large.")
    return encoded


def is_signed(obj: JsonObject, user_id: str, key_id: str, public_key: str) -> bool:
    """Whether a user has signed an object with a public key."""
    try:
        verify_json(obj, user_id, key_id, parse_verify_key(public_key))
    except (SignatureError, ValueError):
        return False
    return True


def own_part(key: JsonObject, user_id: str) -> JsonObject:
    """A key object without `unsigned` and without signatures of others than the user."""
    kept = {name: value for name, value in key.items() if name not in ("unsigned", "signatures")}
    signatures: Mapping[str, Any] | None = key.get("signatures")
    if signatures is not None:
        kept["signatures"] = {user_id: signatures[user_id]} if user_id in signatures else {}
    return kept


def signed_part(key: JsonObject) -> bytes:
    """What signatures cover. Raises CanonicalJSONError."""
    return canonical.encode(
        {name: value for name, value in key.items() if name not in ("unsigned", "signatures")}
    )


def _check_public_keys(obj: JsonObject) -> None:
    keys = obj.get("keys")
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise BadKey("keys must be an object of strings.")


def _check_signatures(obj: JsonObject) -> None:
    signatures = obj.get("signatures", {})
    if not isinstance(signatures, dict) or not all(
        isinstance(by_user, dict) and all(isinstance(each, str) for each in by_user.values())
        for by_user in signatures.values()
    ):
        raise BadKey("signatures must be an object of objects of strings.")


def _check_size(obj: JsonObject) -> None:
    try:
        encoded = canonical.encode(obj)
    except canonical.CanonicalJSONError as error:
        raise BadKey(str(error)) from None
    if len(encoded) > MAX_KEY_BYTES:
        raise BadKey("A key object is too large.")
