"""Hostile requests for every declared endpoint, derived from its declaration.

Bodies come from the JSON Schema of the endpoint's body type: each key left out, each value of
every wrong type; then what is wrong for any endpoint: no JSON, bad UTF-8, NUL, lone surrogates,
numbers out of range, great depth, great size. Paths and queries are treated alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from homeserver.core.types import JsonObject
from homeserver.web.endpoint import EndpointDeclaration
from homeserver.web.schema import is_identifier
from homeserver.web.signature import Signature, read_signature

WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**53,
    2**70,
    1.5,
    "",
    "x",
    "\x00",
    "a" * 70_000,
    [],
    [None],
    [{}],
    {},
    {"": None},
    {"\x00": {"\x00": "\x00"}},
)
"""Values that are wrong in most places; one of them is right in some, which does no harm."""

RAW: tuple[bytes, ...] = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"\xff\xfe",
    b'{"a": "\xff"}',
    b'{"a": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"a": "\\u0000", "\\u0000": 1}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": 1e400}',
    b'{"a": 99999999999999999999999999}',
    b'{"a": -0.0}',
    b'{"a": ' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    b'{"a": "' + b"x" * 100_000 + b'"}',
    b"\xef\xbb\xbf{}",
)
"""Bodies that no endpoint should choke on."""

SEGMENTS: tuple[str, ...] = (
    "%00",
    "%ff",
    "%ED%A0%80",
    "%",
    "%2F",
    "x",
    "x" * 300,
    quote("!unknown:hearth.test"),
    quote("@unknown:hearth.test"),
    quote("#unknown:hearth.test"),
    quote("$unknown"),
    quote("💥"),
    "-1",
    "9" * 30,
)
"""Path segments: malformed, or naming what does not exist."""


class Case(NamedTuple):
    """A request to send."""

    method: str
    path: str
    body: bytes


def cases(declaration: EndpointDeclaration, values: dict[str, str]) -> Iterator[Case]:
    """The hostile requests for one endpoint.

    `values` are good values for path parameters, by name.
    """
    signature = read_signature(declaration)
    path = _fill(declaration.path, values)
    good = example(signature.body)
    for other in _paths(declaration.path, values):
        yield Case(declaration.method, other, _json(good))
    if signature.query is not None:
        for query in _queries(signature):
            yield Case(declaration.method, f"{path}?{query}", _json(good))
    if declaration.method in ("GET", "HEAD") or declaration.stream_body:
        return
    for raw in RAW:
        yield Case(declaration.method, path, raw)
    for body in _bodies(signature.body, good):
        yield Case(declaration.method, path, _json(body))


def _json(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def _fill(template: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        template = template.replace("{" + name + "}", quote(value, safe=""))
    while "{" in template:
        start, end = template.index("{"), template.index("}")
        template = template[:start] + "x" + template[end + 1 :]
    return template


def _paths(template: str, values: dict[str, str]) -> Iterator[str]:
    parts = template.split("/")
    for number, part in enumerate(parts):
        if part.startswith("{"):
            for segment in SEGMENTS:
                changed = [*parts[:number], segment, *parts[number + 1 :]]
                yield _fill("/".join(changed), values)


def _queries(signature: Signature) -> Iterator[str]:
    names = _fields(signature.query)
    for name in names:
        # Where one can wait, nobody waits for the default time.
        rest = "&timeout=0" if "timeout" in names and name != "timeout" else ""
        for value in ("", "x", "-1", "1.5", "9" * 30, "%00", "%ff", "[", "{}", "true", "null"):
            yield f"{name}={value}{rest}"
        yield f"{name}=1&{name}=2{rest}"


def _fields(kind: Any) -> list[str]:
    schema = msgspec.inspect.type_info(kind)
    return [field.encode_name for field in getattr(schema, "fields", ())]


def _bodies(kind: Any, good: Any) -> Iterator[Any]:
    if not isinstance(good, dict):
        return
    names = _fields(kind) if kind is not JsonObject else []
    for name in names or ("membership", "reason", "msgtype", "type", "user_id", "content"):
        yield {key: value for key, value in good.items() if key != name}
        for wrong in WRONG:
            yield {**good, name: wrong}


def example(kind: Any) -> Any:
    """A body of the right shape with the required keys."""
    if kind is None:
        return None
    if kind is JsonObject:
        return {}
    return _example(msgspec.inspect.type_info(kind), 0)


def _example(info: Any, depth: int) -> Any:
    name = type(info).__name__
    if name == "StructType":
        return {
            field.encode_name: _example(field.type, depth + 1)
            for field in info.fields
            if field.required and depth < 5
        }
    if name == "UnionType":
        return _example(info.types[0], depth)
    if name == "LiteralType":
        return info.values[0]
    if name == "CustomType" and is_identifier(info.cls):
        sigil = {"UserID": "@x:", "RoomID": "!x:", "RoomAlias": "#x:", "EventID": "$x:"}
        return sigil.get(info.cls.__name__, "") + "hearth.test"
    simple: dict[str, Any] = {
        "StrType": "x",
        "IntType": info.ge if getattr(info, "ge", None) is not None else 1,
        "BoolType": True,
        "FloatType": 1,
        "ListType": [],
        "DictType": {},
    }
    return simple.get(name)
