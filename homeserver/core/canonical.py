"""Canonical JSON and strict JSON parsing.

Rules (Appendices, "Canonical JSON"): keys sorted by code point, no blanks, UTF-8, only the
short escapes, integers within ±(2^53 - 1), no floats, no -0. Room versions 1 to 5 tolerate
floats and larger integers: `encode_lenient`.

orjson writes the canonical form of every value inside these bounds. What it treats otherwise
is looked for before its output is used: floats, NaN (written as null), and nesting beyond 254.
Parsing, it turns integers beyond 64 bits into floats, so that bodies with long digit runs are
parsed again by the standard library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import canonicaljson
import msgspec
import orjson

MAX_INT = 2**53 - 1
MIN_INT = -MAX_INT
MAX_DEPTH = 512
"""Deeper nesting of arrays and objects is refused when encoding."""

_ENCODE = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
# A float in orjson's output, once digits and signs are deleted, brackets and commas are colons
# and dots are "e", is one or two "e" between colons; NaN is written as null. Strings may hold
# such runs as well: the value is then walked to find out. (A regular expression for this takes
# ten times as long as the encoding.)
_PUNCTUATION = bytes.maketrans(b",[]}.", b"::::e")
_NUMBER_CHARACTERS = b"0123456789+-"

# Digits as zeros, everything else as it is.
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_DIGITS = b"0" * 19


class CanonicalJSONError(ValueError):
    """A value has no canonical JSON form."""


class NotJSON(ValueError):
    """A text is not JSON (RFC 8259, in UTF-8, without lone surrogates)."""


def encode(value: Any) -> bytes:
    """The canonical JSON of `value`; raises `CanonicalJSONError`."""
    try:
        encoded = orjson.dumps(value, option=_ENCODE)
    except TypeError:
        # Something orjson cannot write: what it is decides `check`, unless it is only depth.
        check(value, strict=True)
        return encode_lenient(value)
    if not isinstance(value, (dict, list)) or _suspect(encoded):
        check(value, strict=True)
    return encoded


def encode_checked(value: Any) -> bytes:
    """`encode` for a value that is made of what it has let through, and strings."""
    try:
        return orjson.dumps(value, option=_ENCODE)
    except TypeError:
        return encode(value)


def encode_each(values: Sequence[Any]) -> list[bytes]:
    """The canonical JSON of each of these; raises `CanonicalJSONError`.

    They are checked together, which is much faster for many small ones.
    """
    encode(list(values))
    try:
        return [orjson.dumps(value, option=_ENCODE) for value in values]
    except TypeError:  # The nesting of one is too deep for orjson.
        return [encode([value])[1:-1] for value in values]


def encode_lenient(value: Any) -> bytes:
    """The canonical JSON of `value` as room versions 1 to 5 have it.

    Floats and integers of any size are let through; raises `CanonicalJSONError` for the rest.
    """
    try:
        encoded = orjson.dumps(value, option=_ENCODE)
    except TypeError:
        pass  # integers beyond 2^53, deep nesting, or nothing that has such a form
    else:
        if isinstance(value, (dict, list)) and not _suspect(encoded):
            return encoded
    try:
        return canonicaljson.encode_canonical_json(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise CanonicalJSONError(f"No canonical JSON form: {exc}") from None


def encode_plain(value: Any) -> bytes:
    """Ordinary JSON of `value`, for responses and storage: unsorted, floats allowed.

    Raises `CanonicalJSONError` where the value has no JSON form at all.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        # Deep nesting and integers beyond 64 bits, which rooms of versions 1 to 5 may hold.
        try:
            return json.dumps(
                value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            ).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise CanonicalJSONError(f"No JSON form: {exc}") from None


def parse(text: bytes | str) -> Any:
    """Parse JSON strictly; raises `NotJSON`.

    Refuses NaN, infinities, numbers too large for a float, invalid UTF-8, a byte order mark and
    lone surrogates. Integers keep their value whatever their size, so that `check` can judge
    them. Of duplicate keys the last one stays.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise NotJSON(f"Not JSON: {exc}") from None
    data = text.encode() if isinstance(text, str) else text
    if _LONG_DIGITS not in data.translate(_DIGITS):
        return value
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float)
    except (ValueError, RecursionError) as exc:
        raise NotJSON(f"Not JSON: {exc}") from None


def parse_plain(text: bytes) -> tuple[Any, bool]:
    """`parse`, and whether it is sure that the value holds no floats: then `encode_checked` does
    for it what `encode` does."""
    try:
        return _WITHOUT_FLOATS.decode(text), True
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return parse(text), False


def _refuse_float(text: str) -> None:
    raise ValueError("A float.")


_WITHOUT_FLOATS = msgspec.json.Decoder(float_hook=_refuse_float)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Parse a JSON object strictly; raises `NotJSON` for anything else."""
    value = parse(text)
    if not isinstance(value, dict):
        raise NotJSON("Not a JSON object.")
    return value


def check_parsed(value: Any) -> None:
    """`check`, not strict, of what `parse` has returned: fast, since only its depth is in doubt."""
    try:
        orjson.dumps(value)
    except TypeError:
        check(value, strict=False)


def check(value: Any, strict: bool) -> None:
    """Raise `CanonicalJSONError` unless `value` has a canonical JSON form.

    `strict` forbids floats and integers beyond ±(2^53 - 1) (room versions 6 and later); NaN,
    infinities, lone surrogates, keys that are not strings and nesting beyond `MAX_DEPTH` are
    always refused. Works without recursion.
    """
    pending: list[tuple[Iterable[Any], int]] = [((value,), 0)]
    while pending:
        items, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise CanonicalJSONError(f"Nested deeper than {MAX_DEPTH} levels.")
        for item in items:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        raise CanonicalJSONError("A key is not a string.")
                    _check_text(key)
                pending.append((item.values(), depth + 1))
            elif isinstance(item, (list, tuple)):
                pending.append((item, depth + 1))
            elif item is not None and not isinstance(item, bool):
                _check_number(item, strict)


def _suspect(encoded: bytes) -> bool:
    """May this output of orjson hold a float or a NaN?"""
    outline = encoded.translate(_PUNCTUATION, _NUMBER_CHARACTERS)
    return b":e:" in outline or b":ee:" in outline or b":null:" in outline


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise CanonicalJSONError("A string holds a lone surrogate.") from None


def _check_number(number: Any, strict: bool) -> None:
    if isinstance(number, int):
        if strict and not MIN_INT <= number <= MAX_INT:
            raise CanonicalJSONError("An integer is out of range.")
    elif isinstance(number, float):
        if strict:
            raise CanonicalJSONError("Floating-point numbers are not permitted.")
        if not math.isfinite(number):
            raise CanonicalJSONError("NaN and infinities are not permitted.")
    else:
        raise CanonicalJSONError(f"Not a JSON value: {type(number).__name__}.")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number
