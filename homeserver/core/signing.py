"""Hashes and signatures of JSON objects and events.

Rules: Appendices, "Signing JSON"; Server-Server API, "Signing Events".

- `signatures` and `unsigned` are never signed;
- an event's content hash also leaves `hashes` out;
- an event is signed in its redacted form, so that redaction does not break the signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey as NaclSigningKey
from nacl.signing import VerifyKey

from homeserver.core import canonical
from homeserver.core.ids import domain_of
from homeserver.core.redaction import redact
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject

ALGORITHM = "ed25519"
_PREFIX = f"{ALGORITHM}:"
MAX_KEY_VALIDITY_MS = 7 * 24 * 3600 * 1000
"""A published `valid_until_ts` counts for at most this long from now."""


class SignatureError(Exception):
    """A signature is missing, malformed or wrong."""


class SigningKeyFileError(ValueError):
    """The text of a signing key file is malformed."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private Ed25519 key with its version.

    `expired_ts` (ms): when it was retired; such a key signs no more (Server-Server API,
    "Publishing Keys", `old_verify_keys`).
    """

    version: str
    key: NaclSigningKey
    alg: str = ALGORITHM
    expired_ts: int | None = None

    @property
    def key_id(self) -> str:
        return f"{self.alg}:{self.version}"

    @property
    def verify_key(self) -> VerifyKey:
        return self.key.verify_key

    @property
    def public_base64(self) -> str:
        """The public key as it is published."""
        return encode_base64(bytes(self.key.verify_key))

    def sign(self, message: bytes) -> bytes:
        """The bare signature of `message`."""
        return self.key.sign(message).signature


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A public key of a server.

    `valid_until_ts` (ms) is as published with the key; for an entry of `old_verify_keys` it is
    `expired_ts`.
    """

    verify_key: VerifyKey
    valid_until_ts: int


def encode_base64(data: bytes) -> str:
    """Unpadded standard base64 (Appendices, "Unpadded Base64")."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_base64_urlsafe(data: bytes) -> str:
    """Unpadded URL-safe base64."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64(text: str) -> bytes:
    """Decode standard or URL-safe base64, padded or not; raises `ValueError`."""
    data = text.rstrip("=")
    if "-" in data or "_" in data:
        data = data.translate(_TO_STANDARD)
    try:
        return binascii.a2b_base64(data + "=" * (-len(data) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError(f"Not base64: {exc}") from None


_TO_STANDARD = str.maketrans("-_", "+/")


def generate_signing_key(version: str, seed: bytes) -> SigningKey:
    """The signing key grown from 32 random bytes; raises `ValueError` for another length."""
    if len(seed) != 32:
        raise ValueError("The seed of a signing key has 32 bytes.")
    return SigningKey(version, NaclSigningKey(seed))


def parse_signing_keys(text: str) -> list[SigningKey]:
    """Read a key file; raises `SigningKeyFileError`.

    Its lines are ``ed25519 VERSION SEED``, for a retired key with ``expired_ts=MILLISECONDS``
    after it.
    """
    keys: list[SigningKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) not in (3, 4) or parts[0] != ALGORITHM:
            raise SigningKeyFileError(f"Line {number} is not 'ed25519 VERSION SEED'.")
        try:
            key = generate_signing_key(parts[1], decode_base64(parts[2]))
        except ValueError as exc:
            raise SigningKeyFileError(f"Line {number}: {exc}") from None
        if len(parts) == 4:
            expired = _EXPIRED.fullmatch(parts[3])
            if expired is None:
                raise SigningKeyFileError(
                    f"Line {number} goes on with something other than 'expired_ts=MILLISECONDS'."
                )
            key = replace(key, expired_ts=int(expired[1]))
        if any(key.key_id == other.key_id for other in keys):
            raise SigningKeyFileError(f"Line {number}: there is another key {key.key_id}.")
        keys.append(key)
    return keys


_EXPIRED = re.compile(r"expired_ts=([0-9]{1,15})")


def format_signing_keys(keys: Iterable[SigningKey]) -> str:
    """The text of a key file with these keys."""
    return "".join(
        f"{key.alg} {key.version} {encode_base64(bytes(key.key))}"
        + ("" if key.expired_ts is None else f" expired_ts={key.expired_ts}")
        + "\n"
        for key in keys
    )


def parse_verify_key(text: str) -> VerifyKey:
    """A public key from base64; raises `ValueError`."""
    data = decode_base64(text)
    if len(data) != 32:
        raise ValueError("An Ed25519 public key has 32 bytes.")
    return VerifyKey(data)


def sign_json(obj: JsonObject, server: str, key: SigningKey) -> JsonObject:
    """Add the signature of `server` to `obj`, and return it.

    Raises `CanonicalJSONError`. Signatures already there stay.
    """
    _add_signature(obj, server, key, key.sign(canonical.encode(_signable(obj))))
    return obj


def verify_json(
    obj: JsonObject, server: str, key_id: str, verify_key: VerifyKey, *, lenient: bool = False
) -> None:
    """Raise `SignatureError` unless `server` has signed `obj` with this key.

    `lenient` is for objects that hold events of room versions 1 to 5: they may hold floats and
    large integers.
    """
    signable = _signable(obj)
    try:
        try:
            message = canonical.encode(signable)
        except canonical.CanonicalJSONError:
            if not lenient:
                raise
            # Only now: the strict form is the same where there is one, and made much faster.
            message = canonical.encode_lenient(signable)
    except canonical.CanonicalJSONError as exc:
        raise SignatureError(str(exc)) from None
    _verify(message, signatures_of(obj, server), server, key_id, verify_key)


def signatures_of(obj: Mapping[str, Any], server: str) -> dict[str, str]:
    """The signatures of `server` on `obj` in algorithms that are understood, by key ID."""
    signatures = obj.get("signatures")
    by_server = signatures.get(server) if isinstance(signatures, dict) else None
    if not isinstance(by_server, dict):
        return {}
    return {
        key_id: signature
        for key_id, signature in by_server.items()
        if key_id.startswith(_PREFIX) and isinstance(signature, str)
    }


def content_hash(pdu: JsonObject, version: RoomVersion | None = None) -> bytes:
    """SHA-256 of an event (Server-Server API, "Calculating the content hash for an event").

    Raises `CanonicalJSONError`; without `version` the encoding is that of versions 1 to 5,
    which differs only where later versions refuse the event.
    """
    return hashlib.sha256(_encode(_hashed(pdu), version)).digest()


def content_hash_matches(
    pdu: JsonObject, version: RoomVersion | None = None, *, is_checked: bool = False
) -> bool:
    """Is the event's own `hashes.sha256` right?

    If not, the event goes on in its redacted form (Server-Server API, "Validating hashes and
    signatures on received events").

    Parameters: `is_checked`, whether `event_format.check_pdu` has let the event through.
    """
    hashes = pdu.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(claimed, str):
        return False
    try:
        if is_checked and version is not None:
            found = hashlib.sha256(encode_checked(_hashed(pdu), version)).digest()
        else:
            found = content_hash(pdu, version)
        return claimed == encode_base64(found) or decode_base64(claimed) == found
    except ValueError:
        return False


def reference_hash(pdu: JsonObject, version: RoomVersion) -> bytes:
    """SHA-256 of the redacted event, which is its ID from version 3 on.

    Server-Server API, "Calculating the reference hash for an event". Raises
    `CanonicalJSONError`.
    """
    return hashlib.sha256(redacted_message(pdu, version)).digest()


def event_id_for(pdu: JsonObject, version: RoomVersion, message: bytes | None = None) -> str:
    """The ID of an event in federation form; raises `CanonicalJSONError`.

    `message` is its `redacted_message`, if at hand. In versions 1 and 2 the ID is written in the
    event: `KeyError` if it is not.
    """
    if version.event_format == 1:
        return str(pdu["event_id"])
    if message is None:
        message = redacted_message(pdu, version)
    digest = hashlib.sha256(message).digest()
    return "$" + (
        encode_base64(digest) if version.event_format == 2 else encode_base64_urlsafe(digest)
    )


def hash_and_sign_event(
    pdu: JsonObject, version: RoomVersion, server_name: str, key: SigningKey
) -> bytes:
    """Add content hash and signature to an event of ours; changes `pdu`.

    Returns its `redacted_message`. Server-Server API, "Adding hashes and signatures to outgoing
    events". Raises `CanonicalJSONError`.
    """
    pdu["hashes"] = {"sha256": encode_base64(content_hash(pdu, version))}
    # The content hash has looked at everything that is left here.
    message = checked_message(pdu, version)
    _add_signature(pdu, server_name, key, key.sign(message))
    return message


def encode_checked(pdu: JsonObject, version: RoomVersion) -> bytes:
    """The canonical JSON of an event that has such a form, or of a part of it: it was encoded as a
    whole before, by `hash_and_sign_event` or by `event_format.check_pdu`."""
    if version.strict_canonical_json:
        return canonical.encode_checked(pdu)
    return canonical.encode_lenient(pdu)


def sign_event(pdu: JsonObject, version: RoomVersion, server_name: str, key: SigningKey) -> None:
    """Add a signature alone, as for an invite of another server; changes `pdu`."""
    _add_signature(pdu, server_name, key, key.sign(redacted_message(pdu, version)))


def required_signers(pdu: JsonObject, version: RoomVersion) -> set[str]:
    """The servers that must have signed an event.

    Server-Server API, "Validating hashes and signatures on received events": the server of the
    sender (not for an invite made from a third-party one), the server named in the event ID in
    versions 1 and 2, the authorising server of a restricted join.
    """
    content = pdu.get("content")
    if not isinstance(content, dict):
        content = {}
    is_member = pdu.get("type") == "m.room.member"
    membership = content.get("membership") if is_member else None
    signers = set()
    if not (membership == "invite" and "third_party_invite" in content):
        signers.add(domain_of(str(pdu.get("sender"))))
    if version.event_format == 1:
        signers.add(domain_of(str(pdu.get("event_id"))))
    if version.restricted_joins and membership == "join":
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            signers.add(domain_of(authoriser))
    return signers


def verify_event(
    pdu: JsonObject,
    version: RoomVersion,
    server: str,
    keys: Mapping[str, KnownKey],
    now_ms: int,
    message: bytes | None = None,
) -> None:
    """Raise `SignatureError` unless `server` has signed the event with one of `keys`.

    Server-Server API, "Validating hashes and signatures on received events". Signatures by
    unknown keys are passed over, and from version 5 those by keys not valid at
    `origin_server_ts`; all others must be right, and there must be one. `keys` maps key IDs;
    `message` is the `redacted_message`, if at hand.
    """
    if message is None:
        try:
            message = redacted_message(pdu, version)
        except canonical.CanonicalJSONError as exc:
            raise SignatureError(str(exc)) from None
    signatures = signatures_of(pdu, server)
    verify_signatures(
        signatures, message, version, server, keys, pdu.get("origin_server_ts"), now_ms
    )


def verify_signatures(
    signatures: Mapping[str, str],
    message: bytes,
    version: RoomVersion,
    server: str,
    keys: Mapping[str, KnownKey],
    sent: object,
    now_ms: int,
) -> None:
    """`verify_event` of what was read of an event before.

    Parameters: `signatures`, those of `signatures_of`; `message`, the event's `redacted_message`;
    `sent`, its `origin_server_ts`.
    """
    is_signed = False
    for key_id in signatures:
        key = keys.get(key_id)
        if key is not None and _is_valid(key, sent, version, now_ms):
            _verify(message, signatures, server, key_id, key.verify_key)
            is_signed = True
    if not is_signed:
        raise SignatureError(f"No signature of {server} by a known, valid key.")


def verify_event_with(
    pdu: JsonObject, version: RoomVersion, server: str, key_id: str, verify_key: VerifyKey
) -> None:
    """Raise `SignatureError` unless `server` has signed the event with one certain key."""
    try:
        message = redacted_message(pdu, version)
    except canonical.CanonicalJSONError as exc:
        raise SignatureError(str(exc)) from None
    _verify(message, signatures_of(pdu, server), server, key_id, verify_key)


def key_valid_for(pdu: JsonObject, version: RoomVersion, key: KnownKey, now_ms: int) -> bool:
    """Was the key valid when the event was sent (Room Versions, version 5)?

    Always, up to version 4.
    """
    return _is_valid(key, pdu.get("origin_server_ts"), version, now_ms)


def _is_valid(key: KnownKey, sent: object, version: RoomVersion, now_ms: int) -> bool:
    if not version.key_validity_enforced:
        return True
    valid_until = min(key.valid_until_ts, now_ms + MAX_KEY_VALIDITY_MS)
    return isinstance(sent, int) and sent <= valid_until


def _encode(obj: JsonObject, version: RoomVersion | None) -> bytes:
    if version is not None and version.strict_canonical_json:
        return canonical.encode(obj)
    return canonical.encode_lenient(obj)


def _signable(obj: Mapping[str, Any]) -> JsonObject:
    return {key: value for key, value in obj.items() if key not in ("signatures", "unsigned")}


def redacted_message(pdu: JsonObject, version: RoomVersion) -> bytes:
    """What is signed of an event, and hashed for its ID; raises `CanonicalJSONError`."""
    return _encode(_without_signatures(redact(pdu, version)), version)


def checked_message(pdu: JsonObject, version: RoomVersion) -> bytes:
    """`redacted_message` of an event that has a canonical form: see `encode_checked`."""
    return encode_checked(_without_signatures(redact(pdu, version)), version)


def _hashed(pdu: JsonObject) -> JsonObject:
    hashed = dict(pdu)
    for key in ("unsigned", "signatures", "hashes"):
        hashed.pop(key, None)
    return hashed


def _without_signatures(redacted: JsonObject) -> JsonObject:
    redacted.pop("signatures", None)
    return redacted


def _add_signature(obj: JsonObject, server: str, key: SigningKey, signature: bytes) -> None:
    signatures = obj.setdefault("signatures", {})
    signatures.setdefault(server, {})[key.key_id] = encode_base64(signature)


def _verify(
    message: bytes, signatures: Mapping[str, str], server: str, key_id: str, verify_key: VerifyKey
) -> None:
    encoded = signatures.get(key_id)
    if encoded is None:
        raise SignatureError(f"Not signed by {server} with {key_id}.")
    try:
        verify_key.verify(message, decode_base64(encoded))
    except (CryptoError, ValueError) as exc:
        raise SignatureError(f"Wrong signature of {server} with {key_id}: {exc}") from None
