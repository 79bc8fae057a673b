from __future__ import annotations

from twisted.trial.unittest import TestCase

from homeserver.core.threepids import (
    InvalidAddress,
    canonical,
    canonical_email,
    canonical_msisdn,
    is_client_secret,
)


class EmailTests(TestCase):
    def test_case_is_folded(self) -> None:
        """Shows ACC-5."""
        for text, expected in (
            ("bob@Example.com", "bob@example.com"),
            ("BOB+Tag@example.com", "bob+tag@example.com"),
            ("Strauß@Example.com", "strauss@example.com"),
            ("bob@bücher.example", "bob@xn--bcher-kva.example"),
            ("bob@localhost", "bob@localhost"),
        ):
            self.assertEqual(canonical_email(text), expected)

    def test_what_cannot_stand_in_a_header(self) -> None:
        """Shows ACC-4."""
        for text in (
            "",
            "bob",
            "@example.com",
            "bob@",
            "bob@example.com\r\nBcc: eve@example.com",
            "bob\r\n@example.com",
            "bob@example.com\n",
            "bob@exam ple.com",
            "bob@example.com,eve@example.com",
            "Bob <bob@example.com>",
            "<bob@example.com>",
            '"bob eve"@example.com',
            "bob(eve)@example.com",
            "bob@[127.0.0.1]",
            "bob\0@example.com",
            "bob..eve@example.com",
            ".bob@example.com",
            "bób@example.com",
            "bob@-example.com",
            "bob@example.com.",
            "b" * 65 + "@example.com",
            "bob@" + "a." * 130 + "com",
            "\u202ebob@example.com",
            "bob@exa\u0000mple.com",
            "bob@\ud800.example",
        ):
            with self.assertRaises(InvalidAddress, msg=repr(text)):
                canonical_email(text)


class PhoneTests(TestCase):
    def test_international_form(self) -> None:
        """Shows ACC-5."""
        for text in ("+44 7700 900000", "0044-7700-900000", "(44) 7700/900000", "447700900000"):
            self.assertEqual(canonical_msisdn(text), "447700900000")
        for text in ("", "+", "07700 900000x", "0" * 20, "12", "١٢٣٤٥٦٧"):
            with self.assertRaises(InvalidAddress, msg=text):
                canonical_msisdn(text)
        with self.assertRaises(InvalidAddress):
            canonical("pigeon", "12345678")


class SecretTests(TestCase):
    def test_client_secrets(self) -> None:
        for text in ("a", "0=._-Z", "x" * 255):
            self.assertTrue(is_client_secret(text))
        for text in ("", "x" * 256, "a b", "a\n", "é", "<b>", "a&b"):
            self.assertFalse(is_client_secret(text), text)
