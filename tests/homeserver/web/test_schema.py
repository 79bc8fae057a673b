from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.errors import MatrixError
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.web.schema import (
    BodyDecoder,
    QueryDecoder,
    decode_percent,
    json_schema,
    parse_query,
    path_converter,
)


class Colour(Enum):
    RED = "red"


class Part(msgspec.Struct):
    user: UserID


class Thing(msgspec.Struct):
    name: str = ""
    count: int = 0
    parts: list[Part] = []
    by_user: dict[UserID, list[int]] = {}
    content: dict[str, Any] = {}
    colour: Colour = Colour.RED


class Query(msgspec.Struct):
    text: str | None = None
    number: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    ratio: float = 0.5
    flag: bool | None = None
    rooms: list[RoomID] = []
    choice: Literal["a", "b"] = "a"
    from_: str | None = msgspec.field(name="from", default=None)


def decoder(
    kind: Any = Thing, *, optional: bool = False, lenient: bool = False, strict: bool = False
) -> BodyDecoder:
    return BodyDecoder(kind, optional=optional, lenient=lenient, strict=strict)


class SchemaTestCase(SynchronousTestCase):
    def refuses(self, errcode: str, function: Any, *args: Any) -> MatrixError:
        with self.assertRaises(MatrixError, msg=args) as caught:
            function(*args)
        error: MatrixError = caught.exception
        self.assertEqual((error.status, error.errcode), (400, errcode), args)
        return error


class BodyTests(SchemaTestCase):
    def test_struct(self) -> None:
        thing = decoder().decode(
            b'{"name":"\xc3\xab","parts":[{"user":"@a:b"}],"by_user":{"@a:b":[1]},"more":1.5}'
        )
        self.assertEqual(thing.name, "ë")
        self.assertIsInstance(thing.parts[0].user, UserID)
        self.assertEqual(thing.by_user, {"@a:b": [1]})

    def test_messages_name_the_place(self) -> None:
        """Shows HTTP-3."""
        for body, errcode, place in (
            (b'{"parts":[{}]}', "M_MISSING_PARAM", "parts[0].user"),
            (b'{"parts":[{"user":1}]}', "M_BAD_JSON", "$.parts[0].user"),
            (b'{"parts":[{"user":"a"}]}', "M_INVALID_PARAM", "$.parts[0].user"),
            (b'{"parts":[{"user":"@a:b\\u0000"}]}', "M_INVALID_PARAM", "$.parts[0].user"),
            (b'{"by_user":{"a":[]}}', "M_INVALID_PARAM", "$.by_user"),
            (b'{"count":"1"}', "M_BAD_JSON", "$.count"),
            (b'{"count":1.0}', "M_BAD_JSON", "$.count"),
            (b'{"count":true}', "M_BAD_JSON", "$.count"),
            (b'{"name":null}', "M_BAD_JSON", "$.name"),
            (b'{"colour":"blue"}', "M_INVALID_PARAM", "$.colour"),
            (b'{"colour":7}', "M_BAD_JSON", "$.colour"),
        ):
            error = self.refuses(errcode, decoder().decode, body)
            self.assertIn(place, error.error)

    def test_not_json(self) -> None:
        """Shows HTTP-3, HTTP-4."""
        for body in (
            b"",
            b" ",
            b"{",
            b"{}}",
            b"{'a':1}",
            b'{"a":1,}',
            b'{"name":1',
            b'{"name":1,}',
            b'{"name":"\\ud800"}',
            b'{"x":"\xff"}',
            b'{"\xc3":1}',
            b'{"x":NaN}',
            b'\xef\xbb\xbf{"name":"x"}',
            '{"name":"x"}'.encode("utf-16"),
        ):
            self.refuses("M_NOT_JSON", decoder().decode, body)
            self.refuses("M_NOT_JSON", decoder(JsonObject).decode, body)

    def test_not_an_object(self) -> None:
        for body in (b"[]", b'"x"', b"1", b"null", b"true"):
            self.refuses("M_BAD_JSON", decoder().decode, body)
            self.refuses("M_BAD_JSON", decoder(JsonObject).decode, body)

    def test_empty(self) -> None:
        """Shows HTTP-6."""
        self.assertEqual(decoder(optional=True).decode(b""), Thing())
        self.assertEqual(decoder(JsonObject, optional=True).decode(b""), {})
        self.refuses("M_MISSING_PARAM", decoder(Part, optional=True).decode, b"")

    def test_deep(self) -> None:
        for depth in (600, 5000, 100_000):
            body = b'{"x":' + b"[" * depth + b"]" * depth + b"}"
            for kind in (Thing, JsonObject):
                with self.assertRaises(MatrixError) as caught:
                    decoder(kind, strict=True).decode(body)
                self.assertIn(caught.exception.errcode, ("M_BAD_JSON", "M_NOT_JSON"))
        with self.assertRaises(MatrixError):
            decoder().decode(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")

    def test_nothing_that_cannot_be_stored(self) -> None:
        self.refuses("M_INVALID_PARAM", decoder().decode, b'{"name":"a\\u0000b"}')
        self.refuses("M_INVALID_PARAM", decoder().decode, b'{"content":{"\\u0000":1}}')
        self.refuses("M_BAD_JSON", decoder().decode, b'{"count":9007199254740992}')
        self.refuses("M_BAD_JSON", decoder().decode, b'{"count":' + b"9" * 100 + b"}")
        self.assertEqual(decoder().decode(b'{"name":"\\\\u0000"}').name, "\\u0000")
        self.assertEqual(decoder().decode(b'{"count":9007199254740991}').count, 2**53 - 1)
        self.assertEqual(decoder().decode(b'{"name":"12345678901234567890"}').count, 0)

    def test_strict(self) -> None:
        """Shows HTTP-5."""
        for number in (b"1.0", b"1e3", b"9007199254740992", b"-9007199254740992"):
            body = b'{"content":{"a":[{"b":%s}]}}' % number
            self.refuses("M_BAD_JSON", decoder(strict=True).decode, body)
            self.refuses("M_BAD_JSON", decoder(JsonObject).decode, body)
            decoder(JsonObject, lenient=True).decode(body)
        self.assertEqual(decoder().decode(b'{"content":{"a":1.5}}').content, {"a": 1.5})

    @given(st.binary())
    def test_any_bytes(self, body: bytes) -> None:
        for kind in (Thing, JsonObject):
            try:
                decoder(kind).decode(body)
            except MatrixError as error:
                self.assertEqual(error.status, 400)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("@a:b"),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.text() | st.sampled_from(["name", "parts", "by_user"]), inner)
            ),
        )
    )
    def test_any_json(self, value: Any) -> None:
        import json

        body = json.dumps(value).encode()
        for kind in (Thing, JsonObject):
            try:
                decoder(kind).decode(body)
            except MatrixError as error:
                self.assertEqual(error.status, 400)


class Fixed(msgspec.Struct, frozen=True):
    since: str | None = None
    number: int = 0


class FixedWithList(msgspec.Struct, frozen=True):
    names: list[str] = []


class SharedQueryTests(SchemaTestCase):
    def test_what_cannot_change_is_read_once(self) -> None:
        decoder = QueryDecoder(Fixed)
        found = decoder.decode("since=s1_2&number=3")
        self.assertEqual(found, Fixed("s1_2", 3))
        self.assertIs(decoder.decode("since=s1_2&number=3"), found)
        self.assertEqual(decoder.decode("since=s1_3&number=3"), Fixed("s1_3", 3))
        self.assertEqual(QueryDecoder(FixedWithList).decode("since=s1_2&number=3"), FixedWithList())
        for _ in range(2):
            self.refuses("M_INVALID_PARAM", decoder.decode, "number=x")

    def test_what_can_change_is_its_own(self) -> None:
        for kind, query in ((Query, "text=a"), (FixedWithList, "names=a")):
            decoder = QueryDecoder(kind)
            self.assertEqual(decoder.decode(query), decoder.decode(query))
            self.assertIsNot(decoder.decode(query), decoder.decode(query))

    def test_secrets_and_long_ones_are_not_kept(self) -> None:
        decoder = QueryDecoder(Fixed)
        for query in ("since=s1&access_token=secret", "since=" + "x" * 600):
            self.assertIsNot(decoder.decode(query), decoder.decode(query))


class QueryTests(SchemaTestCase):
    def test_values(self) -> None:
        query = QueryDecoder(Query).decode(
            "text=a+b%26%2B&number=7&ratio=1.5&flag=false&rooms=!a:b&rooms=!c:d&choice=b&from=x&z=1"
        )
        self.assertEqual(
            query, Query("a b&+", 7, 1.5, False, [RoomID("!a:b"), RoomID("!c:d")], "b", "x")
        )
        self.assertIsInstance(query.rooms[0], RoomID)
        self.assertEqual(QueryDecoder(Query).decode(""), Query())
        self.assertEqual(QueryDecoder(Query).decode("text=null&text=x").text, "null")
        self.assertEqual(QueryDecoder(Query).decode("text=").text, "")

    def test_bad_values(self) -> None:
        """Shows HTTP-3."""
        for query in (
            "number=x",
            "number=-1",
            "number=101",
            "number=",
            "number=1.0",
            "number=%D9%A1",
            "number=9999999999999999999",
            "number=null",
            "ratio=x",
            "ratio=nan",
            "ratio=inf",
            "flag=yes",
            "flag=True",
            "flag=",
            "rooms=!a:b&rooms=x",
            "choice=c",
            "from=%00",
        ):
            error = self.refuses("M_INVALID_PARAM", QueryDecoder(Query).decode, query)
            if "%00" not in query:
                self.assertIn(query.partition("=")[0], error.error)

    def test_malformed(self) -> None:
        for raw in ("a=%ff", "%ed%a0%80=1", "&".join("a=1" for _ in range(1000))):
            self.refuses("M_INVALID_PARAM", parse_query, raw)

    def test_types_without_a_form(self) -> None:
        class Nested(msgspec.Struct):
            part: Part

        class Mixed(msgspec.Struct):
            either: int | str

        for kind in (Nested, Mixed, int):
            with self.assertRaises(TypeError):
                QueryDecoder(kind)

    @given(st.text())
    def test_any_text(self, raw: str) -> None:
        try:
            QueryDecoder(Query).decode(raw)
        except MatrixError as error:
            self.assertEqual(error.status, 400)


class PathTests(SchemaTestCase):
    def test_converters(self) -> None:
        self.assertEqual(path_converter("x", str)("a"), "a")
        self.assertEqual(path_converter("x", int)("-12"), -12)
        self.assertIsInstance(path_converter("x", UserID)("@a:b"), UserID)
        self.assertEqual(path_converter("x", Literal["a", "b"])("b"), "b")
        self.assertIs(path_converter("x", Colour)("red"), Colour.RED)

    def test_bad_values(self) -> None:
        for kind, text in (
            (int, "x"),
            (int, "9" * 17),
            (UserID, "a"),
            (Literal["a"], "b"),
            (Colour, "blue"),
        ):
            error = self.refuses("M_INVALID_PARAM", path_converter("thing", kind), text)
            self.assertIn("thing", error.error)

    def test_bad_type(self) -> None:
        for kind in (float, dict[str, int], Thing):
            with self.assertRaises(TypeError):
                path_converter("x", kind)

    def test_decoded_once(self) -> None:
        """Shows HTTP-11."""
        self.assertEqual(decode_percent("%2525+%2F"), "%25+/")


class JsonSchemaTests(SynchronousTestCase):
    def test_identifiers(self) -> None:
        schema = json_schema(Part)
        self.assertEqual(
            schema["$defs"]["Part"]["properties"]["user"], {"type": "string", "format": "UserID"}
        )

    def test_unknown_types(self) -> None:
        with self.assertRaises(TypeError):
            json_schema(dict[str, SchemaTestCase])
