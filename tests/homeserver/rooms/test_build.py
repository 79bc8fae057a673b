"""Events as they are built here, beside what independent libraries make of them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from canonicaljson import encode_canonical_json
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey
from twisted.trial.unittest import TestCase

from homeserver.core import canonical
from homeserver.core.canonical import CanonicalJSONError
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.build import EventTemplate, LocalSigner, Place, build_event
from tests.support.rooms import KEY, SERVER_NAME

SIGNER = LocalSigner(SERVER_NAME, KEY)
HASHES = {"$a": "hash of a", "$b": "hash of b"}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=12,
)
KEPT = ("membership", "users", "join_rule", "history_visibility", "creator", "alias", "body", "url")
CONTENTS = st.dictionaries(st.sampled_from(KEPT) | st.text(), VALUES, max_size=6)
TYPES = st.sampled_from(
    ("m.room.message", "m.room.member", "m.room.power_levels", "m.room.create", "é", 'a"\\\n')
)


def unpadded(data: bytes, *, url_safe: bool = False) -> str:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    return encode(data).decode().rstrip("=")


class BuildTest(TestCase):
    @settings(max_examples=150, deadline=None)
    @given(CONTENTS, TYPES, st.sampled_from(sorted(ROOM_VERSIONS)))
    @example({"body": 1.5}, "m.room.message", "5")
    @example({"body": 1e-7, "n": 2**63, "m": 2**64, "z": -0.0}, "m.room.message", "5")
    @example({"body": 2**53}, "m.room.message", "11")
    @example({"body": "\x00\x1f\x7f\u2028 see:1.5,null,"}, "m.room.message", "11")
    @example({"body": "\ud800"}, "m.room.message", "11")
    def test_bytes_hashes_and_signatures(
        self, content: dict[str, Any], event_type: str, version_name: str
    ) -> None:
        """For all room versions. Shows ID-1, ID-2."""
        version = ROOM_VERSIONS[version_name]
        try:
            canonical.check(content, strict=version.strict_canonical_json)
        except CanonicalJSONError:
            with self.assertRaises(MatrixError) as caught:
                self.built(content, event_type, version)
            self.assertEqual(caught.exception.errcode, "M_BAD_JSON")
            return
        event = self.built(content, event_type, version)
        pdu = dict(event.pdu)
        text = event.to_json()
        self.assertEqual(text, encode_canonical_json(pdu))
        self.assertEqual(canonical.parse(text), pdu)
        again = Event.from_json(text, version, event.event_id)
        self.assertEqual(again.to_json(), text)
        self.assertEqual(Event.from_pdu(again.pdu, version).event_id, event.event_id)
        signatures, hashes = pdu.pop("signatures"), pdu.pop("hashes")
        self.assertEqual(json.loads(json.dumps(pdu["content"])), json.loads(json.dumps(content)))
        digest = hashlib.sha256(encode_canonical_json(pdu)).digest()
        self.assertEqual(hashes, {"sha256": unpadded(digest)})
        message = encode_canonical_json(redact({**pdu, "hashes": hashes}, version))
        self.assertEqual(list(signatures), [SERVER_NAME])
        self.assertEqual(list(signatures[SERVER_NAME]), [KEY.key_id])
        signature = signatures[SERVER_NAME][KEY.key_id]
        VerifyKey(bytes(KEY.verify_key)).verify(message, base64.b64decode(signature + "=="))
        reference = hashlib.sha256(message).digest()
        expected = {
            1: "$chosen",
            2: "$" + unpadded(reference),
            3: "$" + unpadded(reference, url_safe=True),
        }
        self.assertEqual(event.event_id, expected[min(version.event_format, 3)])

    def built(self, content: dict[str, Any], event_type: str, version: RoomVersion) -> Event:
        template = EventTemplate(event_type, "@a:" + SERVER_NAME, content, state_key="")
        chosen = "$chosen" if version.event_format == 1 else None
        place = Place("!r:x", version, ["$a"], 7, ["$a", "$b"], HASHES, chosen)
        return build_event(template, place, SIGNER, 1_700_000_000_000)

    def test_deep_contents(self) -> None:
        value: Any = {}
        for _ in range(300):
            value = [value]
        for version in ROOM_VERSIONS.values():
            event = self.built({"deep": value}, "m.room.message", version)
            self.assertEqual(event.to_json(), encode_canonical_json(event.pdu))

    def test_sizes(self) -> None:
        version = ROOM_VERSIONS["11"]
        empty = len(self.built({"body": ""}, "x", version).to_json())
        self.built({"body": "y" * (65536 - empty)}, "x", version)
        with self.assertRaises(MatrixError) as caught:
            self.built({"body": "y" * (65537 - empty)}, "x", version)
        self.assertEqual(caught.exception.errcode, "M_TOO_LARGE")
