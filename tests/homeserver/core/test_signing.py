from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import replace
from typing import Any

import canonicaljson
import nacl.signing
import signedjson.key
import signedjson.sign
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import signing
from homeserver.core.canonical import CanonicalJSONError
from homeserver.core.event import Event
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, V1, V2, V3, V4, V5, V6, V7, V8, V11, V12
from homeserver.core.signing import KnownKey, SignatureError, SigningKey
from homeserver.core.types import JsonObject

QUICK = settings(max_examples=60, deadline=None)

# Appendices, "Cryptographic Test Vectors"
KEY = signing.generate_signing_key(
    "1", signing.decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
)
OTHER_KEY = signing.generate_signing_key("2", b"2" * 32)
NOW = 1_700_000_000_000
DAY = 24 * 3600 * 1000

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=10),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=10,
)
JSON_OBJECTS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key not in ("signatures", "unsigned")),
    JSON_VALUES,
    max_size=5,
)


def known(key: SigningKey, valid_until_ts: int = NOW + DAY) -> KnownKey:
    return KnownKey(key.verify_key, valid_until_ts)


def message(**changes: Any) -> JsonObject:
    """An unsigned message event."""
    return {
        "type": "m.room.message",
        "room_id": "!r:domain",
        "sender": "@u:domain",
        "origin_server_ts": NOW,
        "depth": 3,
        "prev_events": ["$a"],
        "auth_events": ["$b"],
        "content": {"body": "hello"},
        **changes,
    }


class Base64Test(TestCase):
    def test_published_examples(self) -> None:
        """Encoders emit no padding. Shows ID-3."""
        for text, encoded in (
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ):
            self.assertEqual(signing.encode_base64(text.encode()), encoded)
            self.assertEqual(signing.decode_base64(encoded), text.encode())

    @QUICK
    @given(st.binary(max_size=70))
    def test_padding_is_optional(self, data: bytes) -> None:
        """Padded and unpadded, standard and URL-safe texts are decoded. Shows ID-3."""
        for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
            text = encoded.decode()
            self.assertEqual(signing.decode_base64(text), data)
            self.assertEqual(signing.decode_base64(text.rstrip("=")), data)
        self.assertEqual(
            signing.encode_base64_urlsafe(data),
            base64.urlsafe_b64encode(data).decode().rstrip("="),
        )

    def test_malformed(self) -> None:
        for text in ("Z", "Zg=g", "Zm 9v", "Zm\n9v", "Zé", "Zm9v!"):
            with self.assertRaises(ValueError, msg=text):
                signing.decode_base64(text)


class KeyFileTest(TestCase):
    def test_round_trip(self) -> None:
        """The file format of signedjson, which reads what we write and the reverse."""
        text = signing.format_signing_keys([KEY, OTHER_KEY])
        theirs = signedjson.key.read_signing_keys(text.splitlines())
        self.assertEqual([(k.alg, k.version) for k in theirs], [("ed25519", "1"), ("ed25519", "2")])
        self.assertEqual(bytes(theirs[0]), bytes(KEY.key))
        ours = signing.parse_signing_keys("\n" + text)
        self.assertEqual([bytes(k.key) for k in ours], [bytes(KEY.key), bytes(OTHER_KEY.key)])
        self.assertEqual([k.key_id for k in ours], ["ed25519:1", "ed25519:2"])

    def test_retired_keys(self) -> None:
        """Shows KEY-15."""
        text = signing.format_signing_keys([KEY, replace(OTHER_KEY, expired_ts=1532645052628)])
        self.assertTrue(text.endswith(" expired_ts=1532645052628\n"))
        ours = signing.parse_signing_keys(text)
        self.assertEqual([k.expired_ts for k in ours], [None, 1532645052628])
        self.assertEqual(signing.format_signing_keys(ours), text)
        line = text.splitlines()[0]
        for bad in (f"{line} 5", f"{line} expired_ts=", f"{line} expired_ts=-1", f"{line}\n{line}"):
            with self.assertRaises(signing.SigningKeyFileError, msg=bad):
                signing.parse_signing_keys(bad)

    def test_malformed(self) -> None:
        for text in ("ed25519 1", "rsa 1 AAAA", "ed25519 1 AAAA", "ed25519 1 é", "x"):
            with self.assertRaises(signing.SigningKeyFileError, msg=text):
                signing.parse_signing_keys(text)
        with self.assertRaises(ValueError):
            signing.generate_signing_key("1", b"short")

    def test_public_keys(self) -> None:
        public = signing.parse_verify_key(KEY.public_base64)
        self.assertEqual(bytes(public), bytes(KEY.verify_key))
        for text in ("", "AAAA", "!"):
            with self.assertRaises(ValueError):
                signing.parse_verify_key(text)


class SignJSONTest(TestCase):
    def test_published_vectors(self) -> None:
        """Shows ID-2."""
        signature = (
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
        )
        self.assertEqual(
            signing.sign_json({}, "domain", KEY),
            {"signatures": {"domain": {"ed25519:1": signature}}},
        )
        signature = (
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"
        )
        self.assertEqual(
            signing.sign_json({"one": 1, "two": "Two"}, "domain", KEY),
            {"one": 1, "signatures": {"domain": {"ed25519:1": signature}}, "two": "Two"},
        )

    def test_what_is_not_signed(self) -> None:
        """`unsigned` stays in place unsigned, earlier signatures are kept. Shows ID-2."""
        obj = signing.sign_json({"a": 1, "unsigned": {"age": 1}}, "domain", KEY)
        signing.sign_json(obj, "domain", OTHER_KEY)
        signing.sign_json(obj, "other", OTHER_KEY)
        self.assertEqual(obj["unsigned"], {"age": 1})
        self.assertEqual(set(obj["signatures"]["domain"]), {"ed25519:1", "ed25519:2"})
        obj["unsigned"] = {"age": 2}
        signing.verify_json(obj, "domain", "ed25519:1", KEY.verify_key)
        signing.verify_json(obj, "domain", "ed25519:2", OTHER_KEY.verify_key)
        signing.verify_json(obj, "other", "ed25519:2", OTHER_KEY.verify_key)

    @QUICK
    @given(JSON_OBJECTS)
    def test_like_signedjson(self, obj: JsonObject) -> None:
        """The same signature as by an independent implementation. Shows ID-2."""
        theirs = signedjson.sign.sign_json(
            copy.deepcopy(obj),
            "domain",
            signedjson.key.decode_signing_key_base64(
                "ed25519", "1", signing.encode_base64(bytes(KEY.key))
            ),
        )
        self.assertEqual(signing.sign_json(copy.deepcopy(obj), "domain", KEY), theirs)

    @QUICK
    @given(JSON_OBJECTS, st.data())
    def test_any_change_breaks_it(self, obj: JsonObject, data: st.DataObject) -> None:
        """Shows ID-2."""
        signed = signing.sign_json(copy.deepcopy(obj), "domain", KEY)
        signing.verify_json(signed, "domain", "ed25519:1", KEY.verify_key)
        key = data.draw(st.sampled_from([*sorted(obj), "new"]))
        value = data.draw(JSON_VALUES)
        # compared as texts: for Python True is 1
        assume(key not in obj or json.dumps(obj[key]) != json.dumps(value))
        with self.assertRaises(SignatureError):
            changed = {**signed, key: value}
            signing.verify_json(changed, "domain", "ed25519:1", KEY.verify_key)
        if obj:
            with self.assertRaises(SignatureError):
                removed = {k: v for k, v in signed.items() if k != next(iter(obj))}
                signing.verify_json(removed, "domain", "ed25519:1", KEY.verify_key)

    def test_failures(self) -> None:
        """Missing and malformed signatures, the wrong key, the wrong server. Shows ID-2, ID-3."""
        signed = signing.sign_json({"a": 1}, "domain", KEY)
        signature = signed["signatures"]["domain"]["ed25519:1"]

        def with_signatures(value: Any) -> JsonObject:
            return {"a": 1, "signatures": value}

        padded = with_signatures({"domain": {"ed25519:1": signature + "=="}})
        signing.verify_json(padded, "domain", "ed25519:1", KEY.verify_key)
        for broken in (
            {"a": 1},
            with_signatures(None),
            with_signatures([]),
            with_signatures({"domain": 1}),
            with_signatures({"domain": {"ed25519:1": 1}}),
            with_signatures({"domain": {"ed25519:1": "AAAA"}}),
            with_signatures({"domain": {"ed25519:1": "not base64!"}}),
            with_signatures({"domain": {"ed25519:2": signature}}),
            with_signatures({"other": {"ed25519:1": signature}}),
            {**signed, "a": 1.5},
        ):
            with self.assertRaises(SignatureError, msg=repr(broken)):
                signing.verify_json(broken, "domain", "ed25519:1", KEY.verify_key)
        with self.assertRaises(SignatureError):
            signing.verify_json(signed, "domain", "ed25519:1", OTHER_KEY.verify_key)
        with self.assertRaises(CanonicalJSONError):
            signing.sign_json({"a": 1.5}, "domain", KEY)


class EventVectorsTest(TestCase):
    def test_minimal_event(self) -> None:
        """The published vector of a minimal event. Shows EVT-2, EVT-4."""
        pdu: JsonObject = {
            "room_id": "!x:domain",
            "sender": "@a:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "signatures": {},
            "hashes": {},
            "type": "X",
            "content": {},
            "prev_events": [],
            "auth_events": [],
            "depth": 3,
            "unsigned": {"age_ts": 1000000},
        }
        before = copy.deepcopy(pdu)
        signing.hash_and_sign_event(pdu, V1, "domain", KEY)
        signature = (
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
        )
        self.assertEqual(
            pdu,
            {
                **before,
                "hashes": {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},
                "signatures": {"domain": {"ed25519:1": signature}},
            },
        )

    def test_redactable_event(self) -> None:
        """The published vector with content that redaction takes. Shows EVT-2, EVT-4."""
        pdu: JsonObject = {
            "content": {"body": "Here is the message content"},
            "event_id": "$0:domain",
            "origin": "domain",
            "origin_server_ts": 1000000,
            "type": "m.room.message",
            "room_id": "!r:domain",
            "sender": "@u:domain",
            "signatures": {},
            "unsigned": {"age_ts": 1000000},
        }
        signing.hash_and_sign_event(pdu, V1, "domain", KEY)
        self.assertEqual(pdu["hashes"], {"sha256": "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"})
        signature = (
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"
        )
        self.assertEqual(pdu["signatures"], {"domain": {"ed25519:1": signature}})
        # content survives on the full event; only the signed copy was redacted
        self.assertEqual(pdu["content"], {"body": "Here is the message content"})


class HashTest(TestCase):
    def test_content_hash(self) -> None:
        """Computed anew here: everything but the three keys counts. Shows EVT-2."""
        pdu = message(unsigned={"age": 1}, hashes={"sha256": "x"}, signatures={"a": {}})
        expected = hashlib.sha256(canonicaljson.encode_canonical_json(message())).digest()
        for version in ROOM_VERSIONS.values():
            self.assertEqual(signing.content_hash(pdu, version), expected)
        self.assertEqual(signing.content_hash(pdu), expected)
        self.assertNotEqual(signing.content_hash(message(depth=4)), expected)
        self.assertNotEqual(signing.content_hash(message(content={})), expected)

    def test_reference_hash(self) -> None:
        """Computed anew here from the redacted event. Shows EVT-3."""
        pdu = message(
            unsigned={"age": 1}, hashes={"sha256": "x"}, signatures={"a": {}}, origin="domain"
        )
        left = {k: v for k, v in pdu.items() if k not in ("unsigned", "signatures")}
        left["content"] = {}
        old = hashlib.sha256(canonicaljson.encode_canonical_json(left)).digest()
        del left["origin"]
        new = hashlib.sha256(canonicaljson.encode_canonical_json(left)).digest()
        self.assertEqual(signing.reference_hash(pdu, V6), old)
        self.assertEqual(signing.reference_hash(pdu, V11), new)

    def test_event_ids(self) -> None:
        """Written in the event up to version 2, then the hash in two alphabets. Shows EVT-3."""
        # a depth whose hash has characters in which the alphabets differ
        pdu = next(
            pdu
            for pdu in (message(depth=depth, hashes={}) for depth in range(1, 1000))
            if {"+", "/"} <= set(signing.encode_base64(signing.reference_hash(pdu, V3)))
        )
        digest = signing.reference_hash(pdu, V3)
        standard = base64.b64encode(digest).decode().rstrip("=")
        self.assertEqual(signing.event_id_for(pdu, V3), "$" + standard)
        urlsafe = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        for version in (V4, V5, V6, V7, V8):
            self.assertEqual(signing.event_id_for(pdu, version), "$" + urlsafe)
        for version in (V1, V2):
            self.assertEqual(
                signing.event_id_for({**pdu, "event_id": "$x:domain"}, version), "$x:domain"
            )

    def test_id_covers_what_it_should(self) -> None:
        """Signatures and `unsigned` leave the ID alone, the content hash does not. Shows EVT-3."""
        pdu = message(hashes={"sha256": "x"})
        event_id = signing.event_id_for(pdu, V12)
        same = {**pdu, "signatures": {"a": {"b": "c"}}, "unsigned": {"age": 5}, "content": {}}
        self.assertEqual(signing.event_id_for(same, V12), event_id)
        self.assertEqual(signing.event_id_for(redact(pdu, V12), V12), event_id)
        for change in ({"hashes": {"sha256": "y"}}, {"depth": 4}, {"sender": "@v:domain"}):
            self.assertNotEqual(signing.event_id_for({**pdu, **change}, V12), event_id)

    def test_lenient_versions(self) -> None:
        """Versions 1 to 5 hash floats and large integers, later ones refuse. Shows EVT-1."""
        for version in ROOM_VERSIONS.values():
            for number in (1.5, 2**60):
                pdu = message(content={"n": number}, event_id="$x:domain")
                if version.strict_canonical_json:
                    with self.assertRaises(CanonicalJSONError):
                        signing.content_hash(pdu, version)
                else:
                    encoded = canonicaljson.encode_canonical_json(pdu)
                    self.assertEqual(
                        signing.content_hash(pdu, version), hashlib.sha256(encoded).digest()
                    )

    def test_hash_mismatch(self) -> None:
        """A wrong content hash is told, and the event goes on redacted. Shows EVT-6."""
        for version in ROOM_VERSIONS.values():
            pdu = message(event_id="$x:domain")
            signing.hash_and_sign_event(pdu, version, "domain", KEY)
            self.assertTrue(signing.content_hash_matches(pdu, version))
            forged = {**pdu, "content": {"body": "something else"}}
            self.assertFalse(signing.content_hash_matches(forged, version))
            # signatures stand, the ID is the same, and what was forged is gone
            signing.verify_event(forged, version, "domain", {"ed25519:1": known(KEY)}, NOW)
            event = Event.from_pdu(forged, version).redacted()
            self.assertEqual(event.content, {})
            self.assertEqual(event.event_id, signing.event_id_for(pdu, version))
            self.assertEqual(signing.event_id_for(event.pdu, version), event.event_id)
            signing.verify_event(event.pdu, version, "domain", {"ed25519:1": known(KEY)}, NOW)

    def test_malformed_hashes(self) -> None:
        """Shows EVT-6."""
        malformed: list[Any] = [None, {}, {"sha256": 1}, {"sha256": "!"}, {"sha256": "AAAA"}, []]
        for hashes in malformed:
            self.assertFalse(signing.content_hash_matches(message(hashes=hashes), V12))
        padded = signing.encode_base64(signing.content_hash(message())) + "="
        self.assertTrue(signing.content_hash_matches(message(hashes={"sha256": padded}), V12))


class VerifyEventTest(TestCase):
    def signed(self, version: Any = V12, *keys: SigningKey, **changes: Any) -> JsonObject:
        pdu = message(**changes)
        for key in keys or (KEY,):
            signing.hash_and_sign_event(pdu, version, "domain", key)
        return pdu

    def test_full_and_redacted(self) -> None:
        """Both copies pass; a change of what redaction keeps does not. Shows EVT-4, EVT-5."""
        keys = {"ed25519:1": known(KEY)}
        for version in ROOM_VERSIONS.values():
            for event_type, content in (
                ("m.room.message", {"body": "x"}),
                ("m.room.member", {"membership": "join", "displayname": "U"}),
                ("m.room.create", {"creator": "@u:domain", "x": 1}),
                ("m.room.power_levels", {"users": {"@u:domain": 100}, "invite": 1}),
            ):
                pdu = self.signed(version, type=event_type, content=content, event_id="$x:domain")
                signing.verify_event(pdu, version, "domain", keys, NOW)
                signing.verify_event(redact(pdu, version), version, "domain", keys, NOW)
                for change in ({"depth": 9}, {"sender": "@v:domain"}, {"hashes": {"sha256": ""}}):
                    with self.assertRaises(SignatureError):
                        changed = {**pdu, **change}
                        signing.verify_event(changed, version, "domain", keys, NOW)

    @QUICK
    @given(JSON_OBJECTS, st.sampled_from(sorted(ROOM_VERSIONS)))
    def test_random_content(self, content: JsonObject, identifier: str) -> None:
        """Shows EVT-5."""
        version = ROOM_VERSIONS[identifier]
        pdu = self.signed(version, content=content, event_id="$x:domain")
        keys = {"ed25519:1": known(KEY)}
        signing.verify_event(pdu, version, "domain", keys, NOW)
        signing.verify_event(redact(pdu, version), version, "domain", keys, NOW)
        self.assertTrue(signing.content_hash_matches(pdu, version))
        self.assertFalse(
            signing.content_hash_matches({**pdu, "content": {**content, "new key": 1}}, version)
        )

    def test_unknown_keys_are_skipped(self) -> None:
        """One right signature by a known key is enough beside unknown ones. Shows EVT-7."""
        pdu = self.signed(V12, KEY, OTHER_KEY)
        pdu["signatures"]["domain"]["ed25519:unknown"] = "AAAA"
        pdu["signatures"]["domain"]["rsa:1"] = "whatever"
        signing.verify_event(pdu, V12, "domain", {"ed25519:1": known(KEY)}, NOW)
        signing.verify_event(
            pdu, V12, "domain", {"ed25519:1": known(KEY), "ed25519:2": known(OTHER_KEY)}, NOW
        )

    def test_all_known_keys_must_be_right(self) -> None:
        """A wrong signature by a known key spoils a right one. Shows EVT-7."""
        pdu = self.signed(V12, KEY, OTHER_KEY)
        wrong = nacl.signing.SigningKey(b"3" * 32).sign(b"else").signature
        pdu["signatures"]["domain"]["ed25519:2"] = signing.encode_base64(wrong)
        keys = {"ed25519:1": known(KEY), "ed25519:2": known(OTHER_KEY)}
        with self.assertRaises(SignatureError):
            signing.verify_event(pdu, V12, "domain", keys, NOW)

    def test_no_usable_signature(self) -> None:
        """Shows EVT-7."""
        pdu = self.signed()
        for server, keys in (
            ("domain", {}),
            ("domain", {"ed25519:2": known(OTHER_KEY)}),
            ("elsewhere", {"ed25519:1": known(KEY)}),
        ):
            with self.assertRaises(SignatureError):
                signing.verify_event(pdu, V12, server, keys, NOW)
        with self.assertRaises(SignatureError):
            signing.verify_event(message(), V12, "domain", {"ed25519:1": known(KEY)}, NOW)

    def test_key_validity(self) -> None:
        """From version 5 the key must be valid at `origin_server_ts`. Shows EVT-8."""
        for version in ROOM_VERSIONS.values():
            pdu = self.signed(version, event_id="$x:domain")
            signing.verify_event(pdu, version, "domain", {"ed25519:1": known(KEY, NOW)}, NOW)
            expired = {"ed25519:1": known(KEY, NOW - 1)}
            if version in (V1, V2, V3, V4):
                signing.verify_event(pdu, version, "domain", expired, NOW)
            else:
                with self.assertRaises(SignatureError):
                    signing.verify_event(pdu, version, "domain", expired, NOW)

    def test_expired_key_beside_a_valid_one(self) -> None:
        """Signatures by expired keys are skipped like unknown ones. Shows EVT-7, EVT-8."""
        pdu = self.signed(V12, KEY, OTHER_KEY)
        pdu["signatures"]["domain"]["ed25519:2"] = "AAAA"
        keys = {"ed25519:1": known(KEY), "ed25519:2": known(OTHER_KEY, NOW - 1)}
        signing.verify_event(pdu, V12, "domain", keys, NOW)

    def test_validity_is_capped(self) -> None:
        """A key does not speak for events more than seven days ahead. Shows EVT-8."""
        forever = {"ed25519:1": known(KEY, 2**53 - 1)}
        pdu = self.signed(V5, origin_server_ts=NOW + 7 * DAY)
        signing.verify_event(pdu, V5, "domain", forever, NOW)
        with self.assertRaises(SignatureError):
            signing.verify_event(pdu, V5, "domain", forever, NOW - 1)
        signing.verify_event(
            self.signed(V4, origin_server_ts=NOW + 8 * DAY), V4, "domain", forever, NOW
        )


class RequiredSignersTest(TestCase):
    def test_sender(self) -> None:
        """The server of the sender, and in versions 1 and 2 that of the event ID. Shows EVT-7."""
        pdu = message(event_id="$x:elsewhere")
        for version in ROOM_VERSIONS.values():
            expected = {"domain", "elsewhere"} if version in (V1, V2) else {"domain"}
            self.assertEqual(signing.required_signers(pdu, version), expected)

    def test_third_party_invite(self) -> None:
        """The server of the sender need not have signed such an invite. Shows EVT-7."""
        pdu = message(
            type="m.room.member",
            state_key="@v:x",
            content={"membership": "invite", "third_party_invite": {}},
        )
        self.assertEqual(signing.required_signers(pdu, V12), set())
        pdu["content"]["membership"] = "join"
        self.assertEqual(signing.required_signers(pdu, V12), {"domain"})

    def test_restricted_join(self) -> None:
        """From version 8 the authorising server too. Shows EVT-7."""
        content = {"membership": "join", "join_authorised_via_users_server": "@v:resident"}
        pdu = message(type="m.room.member", state_key="@u:domain", content=content)
        self.assertEqual(signing.required_signers(pdu, V7), {"domain"})
        self.assertEqual(signing.required_signers(pdu, V8), {"domain", "resident"})
        left = {**pdu, "content": {**content, "membership": "leave"}}
        self.assertEqual(signing.required_signers(left, V8), {"domain"})
