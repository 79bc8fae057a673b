from __future__ import annotations

import json
from typing import Any

import canonicaljson
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import canonical
from homeserver.core.canonical import CanonicalJSONError, NotJSON

QUICK = settings(max_examples=200, deadline=None)

INTEGERS = st.integers(canonical.MIN_INT, canonical.MAX_INT)
SCALARS = st.none() | st.booleans() | INTEGERS | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=30,
)


def nested(depth: int) -> Any:
    """Lists in lists, `depth` of them."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


class EncodeTest(TestCase):
    def test_published_examples(self) -> None:
        """The examples of the appendix. Shows ID-1."""
        examples = (
            ("{}", "{}"),
            ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
            ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
            (
                """{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile":
                {"display_name": "John Doe", "three_pids": [{"medium": "email", "address":
                "john.doe@example.org"}, {"medium": "msisdn", "address": "123456789"}]}}}""",
                '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe",'
                '"three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":'
                '"123456789","medium":"msisdn"}]},"success":true}}',
            ),
            ('{"a": "日本語"}', '{"a":"日本語"}'),
            ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
            (r'{"a": "\u65E5"}', '{"a":"日"}'),
            ('{"a": null}', '{"a":null}'),
            ('{"a": -0}', '{"a":0}'),
        )
        for text, expected in examples:
            self.assertEqual(canonical.encode(canonical.parse(text)), expected.encode())

    def test_key_order(self) -> None:
        """Keys are sorted by code point, where UTF-16 would order otherwise. Shows ID-1."""
        value = {"\uff5e": 1, "\U0001f4a5": 2, "a": 3, "B": 4, "": 5}
        self.assertEqual(
            canonical.encode(value), '{"":5,"B":4,"a":3,"\uff5e":1,"\U0001f4a5":2}'.encode()
        )

    def test_escapes(self) -> None:
        """Short escapes where there are some, raw UTF-8 for all but controls. Shows ID-1."""
        self.assertEqual(
            canonical.encode('\b\t\n\f\r"\\/\x00\x1f\x7f\u2028é'),
            rb'"\b\t\n\f\r\"\\/\u0000\u001f' + '\x7f\u2028é"'.encode(),
        )

    def test_refused(self) -> None:
        """Floats, integers out of range, -0 as a float, other things. Shows ID-1."""
        for value in (
            1.0,
            -0.0,
            0.1,
            1e10,
            1e16,
            1e300,
            -1e-300,
            5e-324,
            -123.456e-50,
            float("nan"),
            float("inf"),
            2**53,
            -(2**53),
            2**64,
            2**70,
            -(2**70),
            "\ud800",
            {"\udfff": 1},
            {1: 2},
            {None: 1},
            b"x",
            {1, 2},
            object(),
        ):
            for wrapped in (
                value,
                [value],
                {"a": value},
                [1, value],
                [value, 1],
                [-1, value, {}],
                {"a": value, "b": [[value]]},
                {"a": ["a:1.5", value]},
            ):
                with self.assertRaises(CanonicalJSONError, msg=repr(value)):
                    canonical.encode(wrapped)
                with self.assertRaises(CanonicalJSONError, msg=repr(value)):
                    canonical.check(wrapped, strict=True)

    def test_limits_fit(self) -> None:
        """Shows ID-1."""
        value = [2**53 - 1, -(2**53) + 1, 0, True, False, None]
        self.assertEqual(
            canonical.encode(value), b"[9007199254740991,-9007199254740991,0,true,false,null]"
        )
        canonical.check(value, strict=True)

    def test_texts_that_look_like_floats(self) -> None:
        value = {"body": "see:1.5,2e9,[3.0", "n": [None, "null,null"]}
        self.assertEqual(canonical.encode(value), canonicaljson.encode_canonical_json(value))

    @QUICK
    @given(VALUES)
    @example({"\x7f": "\u2028\u2029\x00", "𝄞": ["\ufffe\uffff"]})
    def test_equals_canonicaljson(self, value: Any) -> None:
        """The independent encoder gives the same bytes for random values. Shows ID-1."""
        encoded = canonical.encode(value)
        self.assertEqual(encoded, canonicaljson.encode_canonical_json(value))
        self.assertEqual(canonical.encode_lenient(value), encoded)
        self.assertEqual(canonical.parse(encoded), value)
        canonical.check(value, strict=True)

    @QUICK
    @given(st.recursive(SCALARS | st.floats() | st.integers(), st.lists, max_leaves=10))
    def test_refuses_what_check_refuses(self, value: Any) -> None:
        """The quick path and the walk agree on what is canonical. Shows ID-1."""
        try:
            canonical.check(value, strict=True)
        except CanonicalJSONError:
            with self.assertRaises(CanonicalJSONError):
                canonical.encode(value)
        else:
            self.assertEqual(canonical.encode(value), canonicaljson.encode_canonical_json(value))


class DepthTest(TestCase):
    def test_deep(self) -> None:
        """Nesting beyond the fast encoder's limit is encoded all the same."""
        for depth in (253, 254, 255, 300, canonical.MAX_DEPTH):
            expected = b"[" * depth + b"]" * depth
            self.assertEqual(canonical.encode(nested(depth)), expected)
            self.assertEqual(canonical.encode_plain(nested(depth)), expected)

    def test_too_deep(self) -> None:
        """Beyond the limit there is an error of our own, never a RecursionError."""
        with self.assertRaises(CanonicalJSONError):
            canonical.encode(nested(canonical.MAX_DEPTH + 1))
        for encode in (canonical.encode, canonical.encode_lenient, canonical.encode_plain):
            with self.assertRaises(CanonicalJSONError):
                encode(nested(100_000))
        for strict in (True, False):
            with self.assertRaises(CanonicalJSONError):
                canonical.check({"a": nested(100_000)}, strict)

    def test_parsing(self) -> None:
        self.assertEqual(canonical.parse("[" * 600 + "]" * 600), nested(600))
        for opener in ("[" * 100_000, '{"a":' * 100_000, "[1234567890123456789," * 100_000):
            with self.assertRaises(NotJSON):
                canonical.parse(opener)
        # at the edge of what the parsers take: whichever gives up, it is not JSON then
        for depth in range(900, 1030, 10):
            deep = "[" * depth + "12345678901234567890" + "]" * depth
            try:
                parsed = canonical.parse(deep)
            except NotJSON:
                continue
            for _ in range(depth):
                (parsed,) = parsed
            self.assertEqual(parsed, 12345678901234567890)


class LenientTest(TestCase):
    def test_numbers(self) -> None:
        """Room versions 1 to 5 keep floats and large integers. Shows EVT-1."""
        value = {"f": 50.57, "e": 1e22, "i": 2**70, "n": -(2**64)}
        self.assertEqual(
            canonical.encode_lenient(value),
            b'{"e":1e+22,"f":50.57,"i":1180591620717411303424,"n":-18446744073709551616}',
        )
        canonical.check(value, strict=False)
        self.assertEqual(canonical.parse(canonical.encode_lenient(value)), value)
        self.assertEqual(json.loads(canonical.encode_plain(value)), value)

    def test_refused(self) -> None:
        for value in (float("nan"), float("inf"), "\ud800", b"x"):
            with self.assertRaises(CanonicalJSONError):
                canonical.encode_lenient([value])
            with self.assertRaises(CanonicalJSONError):
                canonical.check([value], strict=False)


class ParseTest(TestCase):
    def test_refused(self) -> None:
        for text in (
            b"",
            b"{",
            b"{'a': 1}",
            b"[1,]",
            b"[01]",
            b"[1.]",
            b"NaN",
            b"[Infinity]",
            b"[-Infinity]",
            b"[1e400]",
            b'"\xff"',
            b'"\xed\xa0\x80"',
            b'"\\ud800"',
            b'"\\udc00\\ud800"',
            b"\xef\xbb\xbf{}",
            b"{} {}",
            b'"a\nb"',
            b'["\\ud800", 12345678901234567890]',
            b"[NaN, 12345678901234567890]",
            b"[1e400, 12345678901234567890]",
            b"[" + b"9" * 5000 + b"]",
        ):
            with self.assertRaises(NotJSON, msg=repr(text[:40])):
                canonical.parse(text)
        for characters in ("\ufeff{}", '"\ud800"', "[NaN]"):
            with self.assertRaises(NotJSON, msg=repr(characters)):
                canonical.parse(characters)

    def test_integers_keep_their_value(self) -> None:
        """Also where the fast parser would make floats of them."""
        for number in (2**53, 2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63), -(2**63) - 1, 10**40):
            for text in (f"[{number}]", f"[{number}]".encode()):
                (parsed,) = canonical.parse(text)
                self.assertIs(type(parsed), int)
                self.assertEqual(parsed, number)
                with self.assertRaises(CanonicalJSONError):
                    canonical.encode([parsed])

    def test_accepted(self) -> None:
        self.assertEqual(canonical.parse(rb' {"a" : "\ud83d\udca5\u0000"} '), {"a": "💥\x00"})
        self.assertEqual(canonical.parse('{"a":1,"a":2}'), {"a": 2})
        self.assertEqual(canonical.parse("[1.5,1e3]"), [1.5, 1000.0])
        digits = "1234567890123456789012"
        self.assertEqual(canonical.parse(f'{{"id":"{digits}","x":1.5}}'), {"id": digits, "x": 1.5})

    def test_objects(self) -> None:
        self.assertEqual(canonical.parse_object('{"a":[]}'), {"a": []})
        for text in ("[]", "null", '"{}"'):
            with self.assertRaises(NotJSON):
                canonical.parse_object(text)

    @QUICK
    @given(VALUES | st.integers())
    def test_reads_what_json_writes(self, value: Any) -> None:
        self.assertEqual(canonical.parse(json.dumps(value)), value)
