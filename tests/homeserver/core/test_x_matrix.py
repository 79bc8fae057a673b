"""The X-Matrix header."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.x_matrix import MalformedAuthorization, XMatrix, parse

USUAL = XMatrix("a.example:8448", "b.example", "ed25519:k_1", "ab+/c")

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
_blanks = st.text(" \t", max_size=3)
_cases = st.sampled_from([str.lower, str.upper, str.title])


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ParseTest(SynchronousTestCase):
    def refused(self, *headers: str) -> None:
        for header in headers:
            try:
                found = parse(header)
            except MalformedAuthorization:
                continue
            self.fail(f"{header!r} was read as {found}")

    def test_the_usual_form(self) -> None:
        """Shows KEY-7."""
        header = (
            'X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:k_1",sig="ab+/c"'
        )
        self.assertEqual(parse(header), [USUAL])

    def test_blanks_and_case(self) -> None:
        """Shows KEY-7."""
        header = (
            'x-matrix   Sig="ab+/c" \t,\tKEY = "ed25519:k_1",,  Destination="b.example" , '
            'ORIGIN="a.example:8448" '
        )
        self.assertEqual(parse(header), [USUAL])

    def test_values_without_quotes(self) -> None:
        """Shows KEY-7."""
        header = "X-Matrix origin=a.example:8448, destination=b.example,key=ed25519:k_1 ,sig=ab+/c"
        self.assertEqual(parse(header), [USUAL])
        (address,) = parse("X-Matrix origin=[::1]:80,key=ed25519:1,sig=YQ==")
        self.assertEqual((address.origin, address.signature), ("[::1]:80", "YQ=="))

    def test_backslashes(self) -> None:
        """Shows KEY-7."""
        header = (
            r'X-Matrix origin="a\.example:\8448",destination="b.example",'
            r'key="ed25519:k_1",sig="ab+\/c",odd="a \" quote, and \\"'
        )
        self.assertEqual(parse(header), [USUAL])

    def test_unknown_parameters(self) -> None:
        """Shows KEY-7."""
        header = (
            'X-Matrix new="x,origin=evil",origin="a.example:8448",destination="b.example",'
            'other=1,key="ed25519:k_1",sig="ab+/c",last=""'
        )
        self.assertEqual(parse(header), [USUAL])

    def test_no_destination(self) -> None:
        """Shows KEY-8."""
        (found,) = parse('X-Matrix origin="a",key="k",sig="s"')
        self.assertEqual(found, XMatrix("a", None, "k", "s"))

    def test_several_signatures(self) -> None:
        header = 'X-Matrix origin=a,key=k,sig=s, X-Matrix origin=a,key=l,sig="t"'
        self.assertEqual([found.key_id for found in parse(header)], ["k", "l"])

    def test_what_is_refused(self) -> None:
        self.refused(
            "",
            "Bearer abc",
            "X-Matrix",
            "X-Matrix ,,,",
            'X-Matrixorigin="a",key="k",sig="s"',
            "X-Matrix origin=a,key=k",
            'X-Matrix origin="",key="k",sig="s"',
            'X-Matrix origin="a",key="k",sig="s',
            'X-Matrix origin="a" key="k" sig="s"',
            'X-Matrix origin="a",key="k",sig="s",origin="b"',
            'X-Matrix origin="a",key="k",sig="s"x',
            "X-Matrix origin=a,key=k,sig=s,X-Matrix ",
            'X-Matrix origin="a",key="k",="s",sig="s"',
            "X-Matrix " + ",".join(f"p{n}=x" for n in range(5000)) + ",origin=a,key=k,sig=s",
            ", ".join(["X-Matrix origin=a,key=k,sig=s"] * 11),
        )

    @given(_texts, st.none() | _texts, _texts, _texts, st.data())
    def test_what_is_written_is_read(
        self, origin: str, destination: str | None, key: str, sig: str, data: st.DataObject
    ) -> None:
        """Shows KEY-7."""
        values = {"origin": origin, "key": key, "sig": sig, "unknown": "x"}
        if destination is not None:
            values["destination"] = destination
        parts = [
            data.draw(_cases)(name) + data.draw(_blanks) + "=" + data.draw(_blanks) + quote(value)
            for name, value in data.draw(st.permutations(list(values.items())))
        ]
        header = "X-Matrix " + (data.draw(_blanks) + "," + data.draw(_blanks)).join(parts)
        self.assertEqual(parse(header), [XMatrix(origin, destination, key, sig)])

    @given(st.text() | st.text('X-Matrix ,="\\orignkeys', max_size=60).map("X-Matrix ".__add__))
    def test_any_text_is_read_or_refused(self, header: str) -> None:
        try:
            found = parse(header)
        except MalformedAuthorization:
            return
        self.assertTrue(found)
        for credential in found:
            self.assertTrue(credential.origin and credential.key_id and credential.signature)
