"""Reading what a server says its signing keys are (Server-Server API, "Publishing Keys")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from homeserver.core import canonical
from homeserver.core.signing import (
    ALGORITHM,
    MAX_KEY_VALIDITY_MS,
    SignatureError,
    decode_base64,
    encode_base64,
    parse_verify_key,
    signatures_of,
    verify_json,
)
from homeserver.core.types import JsonObject
from storage.server_keys import Answer, NewKey

MAX_KEYS = 200
"""An answer with more keys than these is refused."""

_KEY_ID = re.compile(rf"{ALGORITHM}:[!-~]{{1,120}}")
_MAX_TS = 2**53 - 1


class BadKeyAnswer(Exception):
    """An answer is malformed, of another server, or not properly signed."""


def read_answer(answer: JsonObject, server_name: str, now_ms: int, *, is_direct: bool) -> Answer:
    """The keys of `server_name` from an answer. Raises BadKeyAnswer.

    At least one of the listed keys must have signed it, and no signature by a listed key may be
    wrong. Keys of other algorithms than Ed25519 are passed over. Validity counts for a week from
    now at most.
    """
    if answer.get("server_name") != server_name:
        raise BadKeyAnswer(f"It is not of {server_name}.")
    valid_until_ts = min(_timestamp(answer, "valid_until_ts"), now_ms + MAX_KEY_VALIDITY_MS)
    keys: dict[str, NewKey] = {}
    for key_id, entry in _entries(answer, "old_verify_keys"):
        expired_ts = min(_timestamp(entry, "expired_ts"), now_ms)
        keys[key_id] = NewKey(_public_key(entry), expired_ts, True)
    current = {key_id: _public_key(entry) for key_id, entry in _entries(answer, "verify_keys")}
    keys |= {key_id: NewKey(key, valid_until_ts, False) for key_id, key in current.items()}
    if len(keys) > MAX_KEYS:
        raise BadKeyAnswer(f"It has more than {MAX_KEYS} keys.")
    _check_signatures(answer, server_name, current)
    json = canonical.encode(answer).decode()
    return Answer(server_name, keys, valid_until_ts, now_ms, is_direct, json)


def _check_signatures(answer: JsonObject, server_name: str, keys: dict[str, str]) -> None:
    signed_with = [key_id for key_id in signatures_of(answer, server_name) if key_id in keys]
    if not signed_with:
        raise BadKeyAnswer("It is not signed with any of its keys.")
    for key_id in signed_with:
        try:
            verify_json(answer, server_name, key_id, parse_verify_key(keys[key_id]))
            # Besides the signed part: signatures and `unsigned` are stored and passed on too.
            canonical.check(answer, strict=True)
        except (SignatureError, canonical.CanonicalJSONError) as error:
            raise BadKeyAnswer(str(error)) from None


def _entries(answer: JsonObject, name: str) -> Iterator[tuple[str, JsonObject]]:
    entries = answer.get(name, {})
    if not isinstance(entries, dict):
        raise BadKeyAnswer(f"{name} is not an object.")
    for key_id, entry in entries.items():
        if not key_id.startswith(f"{ALGORITHM}:"):
            continue
        if not isinstance(entry, dict) or not _KEY_ID.fullmatch(key_id):
            raise BadKeyAnswer(f"{name} is malformed.")
        yield key_id, entry


def _public_key(entry: JsonObject) -> str:
    text: Any = entry.get("key")
    if not isinstance(text, str):
        raise BadKeyAnswer("A key is missing.")
    try:
        parse_verify_key(text)
        return encode_base64(decode_base64(text))
    except ValueError as error:
        raise BadKeyAnswer(f"A key is malformed: {error}") from None


def _timestamp(entry: JsonObject, name: str) -> int:
    value: Any = entry.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_TS:
        raise BadKeyAnswer(f"{name} is not a time.")
    return value
