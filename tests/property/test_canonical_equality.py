"""The canonical JSON of this server, its hashes and signatures, against canonicaljson.

orjson writes canonical JSON only inside bounds, so that what it writes is compared here with what
the reference implementation writes: on values made at random, for every room version. Each run has
its own values; `HEARTH_TEST_SEED` makes one again (a failure names its seed), and
`HEARTH_TEST_VALUES` sets how many there are.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from typing import Any

import canonicaljson
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core import canonical, signing
from homeserver.core.canonical import MAX_INT, CanonicalJSONError
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from tests.support.events import test_key

VALUES = int(os.environ.get("HEARTH_TEST_VALUES", "4000"))
SERVER = "a.example"

_RANGES = (
    (0x20, 0x7E),
    (0x20, 0x7E),
    (0x00, 0x1F),
    (0x7F, 0xA0),
    (0xA1, 0x7FF),
    (0x2000, 0x2070),
    (0xD7F0, 0xD7FF),
    (0xE000, 0xE010),
    (0xFEF0, 0xFFFF),
    (0x10000, 0x10010),
    (0x1F300, 0x1F600),
    (0x10FFF0, 0x10FFFF),
)
_TEXTS = (
    "",
    "1.5",
    ",1e9,",
    ":null:",
    "[NaN]",
    '"',
    "\\",
    "/",
    "\\u0000",
    "a:-0.0]",
    "é",
    "e\u0301",
)
_INTEGERS = (0, -1, 1, MAX_INT, -MAX_INT, 2**31, 2**32 - 1, 10**15)
_BEYOND = (MAX_INT + 1, -MAX_INT - 1, 2**63, -(2**63), 2**64 - 1, 2**64, 10**30, -(10**30))
_FLOATS = (0.0, -0.0, 1.0, 0.1, 1e-7, 1e16, 1e22, 1e300, 5e-324, 123456789.125, 1e15, -2.5e-5)


class Values:
    """Makes values. `lenient` ones have floats and large integers, too."""

    def __init__(self, chosen: random.Random, lenient: bool) -> None:
        self._random = chosen
        self._lenient = lenient

    def text(self) -> str:
        chosen = self._random
        if chosen.random() < 0.2:
            return chosen.choice(_TEXTS)
        low, high = chosen.choice(_RANGES)
        length = chosen.choice((0, 1, 2, 5, 17, 64))
        characters = [chr(chosen.randint(low, high)) for _ in range(length)]
        if chosen.random() < 0.3:
            characters.append(chosen.choice(_TEXTS))
        return "".join(characters)

    def number(self) -> int | float:
        chosen = self._random
        if self._lenient and chosen.random() < 0.4:
            if chosen.random() < 0.5:
                return chosen.choice(_BEYOND)
            number = chosen.choice((chosen.choice(_FLOATS), chosen.uniform(-1e6, 1e6)))
            scaled = number * 10.0 ** chosen.randint(-20, 20)
            return scaled if math.isfinite(scaled) and chosen.random() < 0.5 else number
        if chosen.random() < 0.4:
            return chosen.choice(_INTEGERS)
        return chosen.randint(-MAX_INT, MAX_INT) >> chosen.randint(0, 52)

    def value(self, depth: int = 0) -> Any:
        chosen = self._random
        kind = chosen.random()
        if depth > 5 or kind < 0.55:
            scalars = (
                self.text,
                self.text,
                self.number,
                lambda: None,
                lambda: chosen.random() < 0.5,
            )
            return chosen.choice(scalars)()
        if kind < 0.75:
            return [self.value(depth + 1) for _ in range(chosen.randint(0, 4))]
        return self.object(depth + 1)

    def object(self, depth: int = 0) -> dict[str, Any]:
        size = self._random.choice((0, 1, 2, 3, 8))
        return {self.text(): self.value(depth + 1) for _ in range(size)}

    def nested(self) -> Any:
        """Something around the depth that orjson gives up at."""
        value = self.value(4)
        for _ in range(self._random.randint(245, 262)):
            value = [value] if self._random.random() < 0.5 else {self.text(): value}
        return value

    def pdu(self, version: RoomVersion) -> dict[str, Any]:
        """An event of a type that is redacted in its own way, and what else may be in it."""
        kinds = ("m.room.message", "m.room.member", "m.room.create", "m.room.power_levels", "x.y")
        kind = self._random.choice(kinds)
        content = self.object()
        for key in ("membership", "users", "join_rule", "ban", "creator", "third_party_invite"):
            if self._random.random() < 0.3:
                content[key] = self.value(2)
        pdu = {
            "type": kind,
            "room_id": "!room:a.example",
            "sender": "@alice:a.example",
            "content": content,
            "depth": self._random.randint(0, MAX_INT),
            "origin_server_ts": self._random.randint(0, MAX_INT),
            "prev_events": [],
            "auth_events": [],
            "unsigned": self.object(),
            self.text() or "x": self.value(),
        }
        if kind != "m.room.message":
            pdu["state_key"] = self.text()
        if version.event_format == 1:
            pdu["event_id"] = "$event:a.example"
        return pdu


class EqualityTest(SynchronousTestCase):
    """Shows ID-1."""

    def setUp(self) -> None:
        seed = os.environ.get("HEARTH_TEST_SEED") or str(random.SystemRandom().getrandbits(48))
        self.told = f"HEARTH_TEST_SEED={seed}"
        self.random = random.Random(seed)

    def test_strict(self) -> None:
        values = Values(self.random, lenient=False)
        for number in range(VALUES):
            value = values.nested() if number % 50 == 0 else values.value()
            expected = canonicaljson.encode_canonical_json(value)
            self.assertEqual(canonical.encode(value), expected, self.told)
            self.assertEqual(canonical.encode_each([value, value]), [expected] * 2, self.told)
            self.assertEqual(canonical.encode_lenient(value), expected, self.told)
            self.assertEqual(canonical.parse(expected), value, self.told)

    def test_what_is_beyond(self) -> None:
        """Versions 1 to 5 have floats and large integers as canonicaljson writes them; later ones
        refuse them, wherever they are."""
        values = Values(self.random, lenient=True)
        refused = 0
        for number in range(VALUES // 2):
            value = values.nested() if number % 50 == 0 else values.value()
            expected = canonicaljson.encode_canonical_json(value)
            self.assertEqual(canonical.encode_lenient(value), expected, self.told)
            if beyond(value):
                refused += 1
                with self.assertRaises(CanonicalJSONError, msg=self.told):
                    canonical.encode(value)
            else:
                self.assertEqual(canonical.encode(value), expected, self.told)
        self.assertGreater(refused, VALUES // 20)

    def test_events(self) -> None:
        """Hashes, IDs and signatures of events of all versions."""
        key = test_key(SERVER)
        verify_key = decode_verify_key_bytes(key.key_id, bytes(key.verify_key))
        for version in ROOM_VERSIONS.values():
            values = Values(self.random, lenient=not version.strict_canonical_json)
            for _ in range(VALUES // 40):
                pdu = values.pdu(version)
                signing.hash_and_sign_event(pdu, version, SERVER, key)
                hashed = without(pdu, "unsigned", "signatures", "hashes")
                digest = hashlib.sha256(canonicaljson.encode_canonical_json(hashed)).digest()
                self.assertEqual(signing.content_hash(pdu, version), digest, self.told)
                self.assertTrue(signing.content_hash_matches(pdu, version), self.told)
                redacted = redact(pdu, version)
                message = canonicaljson.encode_canonical_json(
                    without(redacted, "signatures", "unsigned")
                )
                self.assertEqual(signing.redacted_message(pdu, version), message, self.told)
                digest = hashlib.sha256(message).digest()
                self.assertEqual(signing.reference_hash(pdu, version), digest, self.told)
                verify_signed_json(
                    {**redacted, "signatures": pdu["signatures"]}, SERVER, verify_key
                )

    def test_events_that_later_versions_refuse(self) -> None:
        values = Values(self.random, lenient=True)
        for version in ROOM_VERSIONS.values():
            for _ in range(VALUES // 100):
                pdu = without(values.pdu(version), "unsigned")
                if not version.strict_canonical_json or not beyond(pdu):
                    signing.content_hash(pdu, version)
                    continue
                with self.assertRaises(CanonicalJSONError, msg=self.told):
                    signing.content_hash(pdu, version)


def without(pdu: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in pdu.items() if key not in keys}


def beyond(value: Any) -> bool:
    """Whether something in it has no place in the versions from 6 on."""
    if isinstance(value, dict):
        return any(map(beyond, value.values()))
    if isinstance(value, list):
        return any(map(beyond, value))
    if isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INT
