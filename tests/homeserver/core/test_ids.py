from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core.ids import (
    EventID,
    InvalidIdentifier,
    RoomAlias,
    RoomID,
    ServerName,
    UserID,
    escape_localpart,
    map_localpart,
    valid_new_localpart,
)

QUICK = settings(max_examples=150, deadline=None)


class ServerNameTest(TestCase):
    def test_valid(self) -> None:
        """The specification's examples, and the parts they have. Shows ID-7."""
        cases = {
            "matrix.org": ("matrix.org", None, False),
            "matrix.org:8888": ("matrix.org", 8888, False),
            "1.2.3.4": ("1.2.3.4", None, True),
            "1.2.3.4:1234": ("1.2.3.4", 1234, True),
            "[1234:5678::abcd]": ("[1234:5678::abcd]", None, True),
            "[1234:5678::abcd]:5678": ("[1234:5678::abcd]", 5678, True),
            "localhost": ("localhost", None, False),
            "UPPER.example": ("UPPER.example", None, False),
        }
        for text, (host, port, is_ip) in cases.items():
            name = ServerName.parse(text)
            self.assertEqual((name, name.host, name.port), (text, host, port))
            self.assertEqual(name.is_ip_address, is_ip, text)

    def test_invalid(self) -> None:
        """Malformed names, and ports that are no numbers, are refused. Shows ID-7."""
        for text in (
            "",
            ":80",
            "example.org:",
            "example.org:http",
            "example.org:8448a",
            "example.org:-1",
            "example.org:123456",
            "example.org:65536",
            "example.org:٣",
            "exa mple.org",
            "exa_mple.org",
            "example.org/",
            "bücher.example",
            "example.org\n",
            "[1234:5678::abcd",
            "[12345::1]",
            "[::1]x",
            "[]",
            "::1",
            "1.2.3.256",
            "a" * 256,
        ):
            with self.assertRaises(InvalidIdentifier, msg=text) as caught:
                ServerName.parse(text)
            self.assertEqual(caught.exception.kind, "server name")

    def test_case_matters(self) -> None:
        """Names that differ in case are different servers. Shows ID-7."""
        self.assertNotEqual(ServerName.parse("matrix.org"), ServerName.parse("MATRIX.ORG"))
        self.assertNotEqual(UserID.parse("@u:matrix.org"), UserID.parse("@u:MATRIX.ORG"))


class UserIDTest(TestCase):
    def test_parts(self) -> None:
        user = UserID.parse("@alice:example.org:8448")
        self.assertEqual(user.localpart, "alice")
        self.assertEqual(user.domain, "example.org:8448")
        self.assertIsInstance(user.domain, ServerName)
        self.assertEqual(UserID.of("alice", "example.org"), "@alice:example.org")

    def test_new_localparts(self) -> None:
        """A new user ID has a-z 0-9 . _ = - / + and nothing else. Shows ID-4."""
        self.assertTrue(valid_new_localpart("abcxyz0189._=-/+"))
        for name in ("", "Alice", "al ice", "ål", "a:b", "a@b", "a\n", "a\x00", "a!", "a#"):
            self.assertFalse(valid_new_localpart(name), name)

    def test_registration_names(self) -> None:
        """Upper case is lowered, other characters are refused. Shows ID-4."""
        self.assertEqual(map_localpart("Alice.B"), "alice.b")
        # K is the Kelvin sign, which lower-cases to an ASCII k
        for name in ("", "ali ce", "alicé", "\u212aelvin", "a:b", "Ünal"):
            with self.assertRaises(InvalidIdentifier, msg=name):
                map_localpart(name)

    def test_escaping_foreign_names(self) -> None:
        """The specification's mapping of other character sets."""
        self.assertEqual(escape_localpart("#"), "=23")
        self.assertEqual(escape_localpart("á"), "=c3=a1")
        self.assertEqual(escape_localpart("Jo=Do_e"), "jo=3ddo_e")

    @QUICK
    @given(st.text(min_size=1, max_size=20))
    def test_escaped_names_are_valid(self, name: str) -> None:
        self.assertTrue(valid_new_localpart(escape_localpart(name)))

    def test_historical(self) -> None:
        """Any code point but colon and NUL is accepted, even an empty localpart. Shows ID-5."""
        for localpart in ("", "Alice", "ünï cødé", "a\tb\x7f", "💥", "!#$%"):
            user = UserID.parse(f"@{localpart}:example.org")
            self.assertEqual((user.localpart, user.domain), (localpart, "example.org"))
        for text in ("@a\x00b:example.org", "@a\ud800:example.org", "@alice", "alice:example.org"):
            with self.assertRaises(InvalidIdentifier, msg=repr(text)):
                UserID.parse(text)
        # everything after the first colon is the domain
        with self.assertRaises(InvalidIdentifier):
            UserID.parse("@a:b:example.org")

    def test_compliance(self) -> None:
        """Users with historical IDs are not named outside events. Shows ID-5."""
        for localpart in ("alice", "Alice", "!~#"):
            self.assertTrue(UserID.parse(f"@{localpart}:x").is_compliant, localpart)
        for localpart in ("", "a b", "ü", "a\x7f", "a\t"):
            self.assertFalse(UserID.parse(f"@{localpart}:x").is_compliant, localpart)


class LengthTest(TestCase):
    def test_bytes_are_counted(self) -> None:
        """255 bytes with sigil and domain are the limit for every kind. Shows ID-6."""
        for kind, sigil in ((UserID, "@"), (RoomID, "!"), (RoomAlias, "#"), (EventID, "$")):
            domain = ":x.example"
            room = 255 - len(sigil) - len(domain)
            for filler in ("a", "é", "💥"):
                size = len(filler.encode())
                fits = filler * (room // size) + "a" * (room % size)
                kind.parse(sigil + fits + domain)
                with self.assertRaises(InvalidIdentifier, msg=f"{kind} {filler}"):
                    kind.parse(sigil + fits + "a" + domain)

    def test_domainless(self) -> None:
        """IDs without a domain have the same limit. Shows ID-6, ID-8."""
        for kind, sigil in ((RoomID, "!"), (EventID, "$")):
            kind.parse(sigil + "a" * 254)
            with self.assertRaises(InvalidIdentifier):
                kind.parse(sigil + "a" * 255)


class RoomIDTest(TestCase):
    def test_without_domain(self) -> None:
        """A room ID of version 12 is accepted and offers no domain. Shows ID-8."""
        room = RoomID.parse("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM")
        self.assertIsNone(room.legacy_domain)
        for attribute in ("domain", "localpart", "server_name"):
            self.assertFalse(hasattr(room, attribute), attribute)

    def test_with_domain(self) -> None:
        """Only the rule on create events asks for the domain of older room IDs. Shows ID-8."""
        self.assertEqual(RoomID.parse("!abc:example.org:80").legacy_domain, "example.org:80")
        for text in ("!", "abc:example.org", "!a:", "!a:b c", "#a:example.org", "!a\x00:b"):
            with self.assertRaises(InvalidIdentifier, msg=repr(text)):
                RoomID.parse(text)


class RoomAliasTest(TestCase):
    def test_unicode(self) -> None:
        """Any Unicode but colon and NUL, taken byte by byte. Shows ID-9."""
        alias = RoomAlias.parse("#räume 💥/?%:example.org")
        self.assertEqual((alias.localpart, alias.domain), ("räume 💥/?%", "example.org"))
        composed, decomposed = "#caf\u00e9:x", "#cafe\u0301:x"
        self.assertNotEqual(RoomAlias.parse(composed), RoomAlias.parse(decomposed))
        self.assertNotEqual(RoomAlias.parse("#Room:x"), RoomAlias.parse("#room:x"))

    def test_invalid(self) -> None:
        """Shows ID-9."""
        for text in ("#a\x00:x", "#a:b:c", "#a", "a:x", "#a\udfff:x", "#a:"):
            with self.assertRaises(InvalidIdentifier, msg=repr(text)):
                RoomAlias.parse(text)

    @QUICK
    @given(
        st.text(st.characters(exclude_characters=":\x00", exclude_categories=["Cs"]), max_size=50)
    )
    def test_any_localpart(self, localpart: str) -> None:
        """Shows ID-9."""
        self.assertEqual(RoomAlias.parse(f"#{localpart}:example.org").localpart, localpart)


class EventIDTest(TestCase):
    def test_forms(self) -> None:
        """All three forms are event IDs; none is taken apart."""
        for text in (
            "$opaque:example.org",
            "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk",
            "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg",
        ):
            self.assertEqual(EventID.parse(text), text)
        for text in ("$", "", "abc", "$a\x00"):
            with self.assertRaises(InvalidIdentifier, msg=repr(text)):
                EventID.parse(text)
