"""From the types of a declaration to the values of a request.

Bodies (client-server API, "Common error codes"): not JSON is M_NOT_JSON, a missing key
M_MISSING_PARAM, a value of the wrong type M_BAD_JSON, one of the right type that is not
allowed M_INVALID_PARAM. Query and path parameters: M_MISSING_PARAM or M_INVALID_PARAM.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from homeserver.core import canonical
from homeserver.core.errors import (
    MatrixError,
    bad_json,
    invalid_param,
    missing_param,
    not_json,
)
from homeserver.core.types import JsonObject

MAX_QUERY_FIELDS = 200
UNPARSED: Any = object()
"""In place of the value of a body that was not parsed."""

_MISSING = re.compile(r"Object missing required field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LONG_DIGITS = re.compile(rb"[0-9]{16}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_BOOLEANS = {"true": True, "false": False}


def parse_identifier(kind: Any, value: Any) -> Any:
    """Hook of msgspec for types with a `parse` class method, such as UserID."""
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    if "\0" in value:
        raise ValueError("NUL is not allowed")
    return kind.parse(value)


def is_identifier(kind: Any) -> bool:
    """Whether a type is parsed from a string by its `parse` class method."""
    return isinstance(kind, type) and issubclass(kind, str) and hasattr(kind, "parse")


def explain(error: msgspec.ValidationError) -> MatrixError:
    """The error to answer for a value that does not fit its type."""
    text = str(error)
    missing = _MISSING.match(text)
    if missing is not None:
        name, parent = missing.groups()
        return missing_param(f"{parent}.{name}" if parent else name)
    if isinstance(error.__cause__, TypeError) or ", got `" in text:
        return bad_json(text)
    return invalid_param(text)


class BodyDecoder:
    """Decodes the JSON body of one endpoint to its declared type."""

    __slots__ = ("_decoder", "_is_raw", "_lenient", "_optional", "_strict")

    def __init__(self, kind: Any, *, optional: bool, lenient: bool, strict: bool) -> None:
        self._optional = optional
        self._lenient = lenient
        self._strict = strict
        self._is_raw = kind == JsonObject
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            kind, dec_hook=parse_identifier
        )

    def decode(self, body: bytes, parsed: Any = UNPARSED) -> Any:
        """The value of a body. Raises MatrixError (400).

        Parameters: `parsed`, the body as `canonical.parse` reads it, if at hand.
        """
        if not body and self._optional:
            body = b"{}"
        return self._decode_object(body, parsed) if self._is_raw else self._decode_struct(body)

    def _decode_object(self, body: bytes, parsed: Any) -> JsonObject:
        value = _parse(body) if parsed is UNPARSED else parsed
        if not isinstance(value, dict):
            raise bad_json("The body must be a JSON object.")
        _check_canonical(value, strict=not self._lenient)
        return value

    def _decode_struct(self, body: bytes) -> Any:
        # msgspec does not look at the UTF-8 of keys that the struct does not have.
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_json("The body is not UTF-8.") from error
        try:
            value = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            _parse(body)  # What breaks off behind the first wrong value is not JSON at all.
            raise explain(error) from error
        except msgspec.DecodeError as error:
            raise not_json() from error
        except RecursionError as error:
            raise bad_json("The body is nested too deeply.") from error
        if self._strict:
            _check_canonical(_parse(body), strict=True)
        elif not self._lenient and (b"\\u0000" in body or _LONG_DIGITS.search(body)):
            _check_storable(_parse(body))
        return value


def _parse(body: bytes) -> Any:
    try:
        return canonical.parse(body)
    except canonical.NotJSON as error:
        raise not_json() from error


def _check_canonical(value: Any, *, strict: bool) -> None:
    try:
        if strict:
            # It walks through the value only when there may be something to find.
            canonical.encode(value)
        else:
            # What was parsed may only be nested too deeply.
            canonical.check_parsed(value)
    except canonical.CanonicalJSONError as error:
        raise bad_json(str(error)) from error


def _check_storable(value: Any) -> None:
    """Refuse what no column takes: NUL in text and integers beyond ±(2^53 - 1)."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str):
            if "\0" in item:
                raise invalid_param("NUL characters are not allowed.")
        elif type(item) is int and not canonical.MIN_INT <= item <= canonical.MAX_INT:
            raise bad_json("An integer is out of range.")


def decode_percent(text: str) -> str:
    """Percent-decode one path segment. Raises MatrixError (400 M_INVALID_PARAM).

    Refuses malformed escapes, invalid UTF-8 (so also surrogates) and NUL.
    """
    if "%" in text:
        return _decoded(text) if len(text) <= _REMEMBERED else _decode_percent(text)
    if "\0" in text:
        raise invalid_param("NUL characters are not allowed.")
    return text


def _decode_percent(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise invalid_param("The path has a malformed percent escape.")
    try:
        text = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_param("The path is not UTF-8.") from error
    if "\0" in text:
        raise invalid_param("NUL characters are not allowed.")
    return text


_REMEMBERED = 300
"""Characters of the longest segment that is remembered decoded: identifiers come again."""
_decoded = lru_cache(maxsize=1024)(_decode_percent)


def parse_query(raw: str) -> dict[str, list[str]]:
    """The parameters of a query string, repeated ones in order. Raises MatrixError (400)."""
    if not raw:
        return {}
    pairs = raw.split("&")
    if len(pairs) > MAX_QUERY_FIELDS:
        raise invalid_param("The query string is malformed.")
    values: dict[str, list[str]] = {}
    for pair in pairs:
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if "%" in pair or "+" in pair:
            try:
                name, value = _unquoted(name), _unquoted(value)
            except UnicodeDecodeError as error:
                raise invalid_param("The query string is malformed.") from error
        if "\0" in value or "\0" in name:
            raise invalid_param("NUL characters are not allowed.")
        values.setdefault(name, []).append(value)
    return values


def _unquoted(text: str) -> str:
    """A name or value as `urllib.parse.parse_qsl` reads it. Raises UnicodeDecodeError."""
    return _unquoted_short(text) if len(text) <= _SHORT else _unquote(text)


def _unquote(text: str) -> str:
    return unquote(text.replace("+", " "), errors="strict")


# Clients send the same filter again and again.
_SHORT = 2048
_unquoted_short = lru_cache(512)(_unquote)


class QueryDecoder:
    """Builds the query struct of one endpoint from a query string.

    Raises TypeError for a field whose type has no form in a query string.
    """

    __slots__ = ("_fields", "_is_shared", "_kind")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        info = msgspec.inspect.type_info(kind)
        if not isinstance(info, msgspec.inspect.StructType):
            raise TypeError(f"the query {kind!r} is not a struct")
        self._fields = [
            (field.encode_name, _query_converter(field.encode_name, field.type))
            for field in info.fields
        ]
        self._is_shared = kind.__struct_config__.frozen and not any(
            _has_collection(field.type) for field in info.fields
        )

    def decode(self, raw: str) -> Any:
        """The struct for a query string. Raises MatrixError (400).

        One that nobody can change may be that of another request: clients that wait ask for the
        same.
        """
        if self._is_shared and len(raw) <= _MAX_SHARED and "access_token=" not in raw:
            return _read_query(self, raw)
        return self.read(raw)

    def read(self, raw: str) -> Any:
        """As `decode`, a new struct."""
        given = parse_query(raw)
        values = {
            name: convert(name, given[name]) for name, convert in self._fields if name in given
        }
        try:
            return msgspec.convert(values, self._kind, dec_hook=parse_identifier)
        except msgspec.ValidationError as error:
            fault = explain(error)
            if fault.errcode == "M_BAD_JSON":
                raise invalid_param(fault.error) from error
            raise fault from error


_MAX_SHARED = 512
_read_query = lru_cache(maxsize=512)(QueryDecoder.read)


_COLLECTIONS = (
    msgspec.inspect.ListType,
    msgspec.inspect.SetType,
    msgspec.inspect.FrozenSetType,
    msgspec.inspect.VarTupleType,
)


def _kinds(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    kinds = list(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else [kind]
    return [each for each in kinds if not isinstance(each, msgspec.inspect.NoneType)]


def _has_collection(kind: msgspec.inspect.Type) -> bool:
    return any(isinstance(each, _COLLECTIONS) for each in _kinds(kind))


def _query_converter(name: str, kind: msgspec.inspect.Type) -> Callable[[str, list[str]], Any]:
    inspect = msgspec.inspect
    kinds = _kinds(kind)
    if len(kinds) == 1:
        only = kinds[0]
        if isinstance(only, _COLLECTIONS):
            item = _query_converter(name, only.item_type)
            return lambda name, values: [item(name, [value]) for value in values]
        if isinstance(only, inspect.IntType):
            return _to_int
        if isinstance(only, inspect.BoolType):
            return _to_bool
        if isinstance(only, inspect.FloatType):
            return _to_float
    texts = (inspect.StrType, inspect.CustomType, inspect.LiteralType, inspect.EnumType)
    if kinds and all(isinstance(each, texts) for each in kinds):
        return lambda _name, values: values[0]
    raise TypeError(f"query parameter {name!r} cannot be read from a string")


def _to_int(name: str, values: list[str]) -> int:
    if not _INTEGER.fullmatch(values[0]):
        raise invalid_param(f"Query parameter {name} must be an integer.")
    number = int(values[0])
    if not canonical.MIN_INT <= number <= canonical.MAX_INT:
        raise invalid_param(f"Query parameter {name} is out of range.")
    return number


def _to_bool(name: str, values: list[str]) -> bool:
    try:
        return _BOOLEANS[values[0]]
    except KeyError:
        raise invalid_param(f"Query parameter {name} must be true or false.") from None


def _to_float(name: str, values: list[str]) -> float:
    try:
        number = float(values[0])
    except ValueError:
        number = float("nan")
    if number != number or number in (float("inf"), float("-inf")):
        raise invalid_param(f"Query parameter {name} must be a number.")
    return number


def path_converter(name: str, kind: Any) -> Callable[[str], Any]:
    """What turns a decoded path segment into a parameter of type `kind`.

    Raises TypeError at start-up for a type that a path cannot hold; the converter itself raises
    MatrixError (400 M_INVALID_PARAM).
    """
    if kind is str:
        return str
    if kind is int:
        return lambda text: _path_int(name, text)
    if is_identifier(kind):

        def parse(text: str) -> Any:
            try:
                return kind.parse(text)
            except ValueError as error:
                raise invalid_param(f"{name}: {error}") from error

        return parse
    info = msgspec.inspect.type_info(kind)
    if not isinstance(info, (msgspec.inspect.LiteralType, msgspec.inspect.EnumType)):
        raise TypeError(f"path parameter {name!r} cannot be of type {kind!r}")

    def convert(text: str) -> Any:
        try:
            return msgspec.convert(text, kind)
        except msgspec.ValidationError as error:
            raise invalid_param(f"{name}: {error}") from error

    return convert


def _path_int(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text) or abs(int(text)) > canonical.MAX_INT:
        raise invalid_param(f"{name} must be an integer.")
    return int(text)


def json_schema(kind: Any) -> JsonObject:
    """The JSON Schema of a type; its definitions are under `$defs`."""

    def identifier(custom: type) -> JsonObject:
        if is_identifier(custom):
            return {"type": "string", "format": custom.__name__}
        raise TypeError(f"{custom!r} has no JSON Schema")

    return msgspec.json.schema(kind, schema_hook=identifier)
