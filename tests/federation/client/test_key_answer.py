"""What a server may say of its keys."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from federation.client.key_answer import MAX_KEYS, BadKeyAnswer, read_answer
from homeserver.core.signing import MAX_KEY_VALIDITY_MS, sign_json
from homeserver.core.types import JsonObject
from storage.server_keys import Answer, NewKey
from tests.federation.key_servers import DAY, KeyServer, make_key

KEY = make_key("1")
OLD = make_key("0", 2)
NOW = 100 * DAY

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class ReadAnswerTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW / 1000)
        self.server = KeyServer("a.example", self.clock, KEY)

    def read(self, answer: JsonObject | None = None) -> Answer:
        return read_answer(answer or self.server.answer(), "a.example", NOW, is_direct=True)

    def refused(self, answer: JsonObject) -> None:
        self.assertRaises(BadKeyAnswer, self.read, answer)

    def signed(self, **changes: Any) -> JsonObject:
        """An answer with changes, properly signed."""
        answer = {**self.server.answer(), **changes}
        answer = {name: value for name, value in answer.items() if value is not None}
        del answer["signatures"]
        return sign_json(answer, "a.example", KEY)

    def test_keys_and_old_keys(self) -> None:
        """Shows KEY-13."""
        self.server.old[OLD] = 12345
        published = self.server.answer()
        read = self.read(published)
        self.assertEqual(
            read.keys,
            {
                "ed25519:1": NewKey(KEY.public_base64, NOW + DAY, False),
                "ed25519:0": NewKey(OLD.public_base64, 12345, True),
            },
        )
        self.assertEqual((read.valid_until_ts, read.fetched_ts), (NOW + DAY, NOW))
        self.assertEqual(json.loads(read.json), published)

    def test_validity_counts_for_a_week(self) -> None:
        """Shows KEY-14."""
        self.server.valid_for = 1000 * DAY
        read = self.read()
        self.assertEqual(read.valid_until_ts, NOW + MAX_KEY_VALIDITY_MS)
        self.assertEqual(read.keys["ed25519:1"].valid_until_ts, NOW + MAX_KEY_VALIDITY_MS)

    def test_an_old_key_has_expired(self) -> None:
        """Shows KEY-14."""
        self.server.old[OLD] = NOW + DAY
        self.assertEqual(self.read().keys["ed25519:0"].valid_until_ts, NOW)

    def test_another_servers_answer(self) -> None:
        self.refused(self.signed(server_name="b.example"))

    def test_signatures_that_are_missing_or_wrong(self) -> None:
        unsigned = self.server.answer()
        unsigned["signatures"] = {}
        self.refused(unsigned)
        changed = self.server.answer()
        changed["valid_until_ts"] += 1
        self.refused(changed)
        # By a key that the answer lists as old only, or not at all.
        by_old = {**self.server.answer(), "signatures": {}}
        by_old["old_verify_keys"] = {OLD.key_id: {"key": OLD.public_base64, "expired_ts": 1}}
        self.refused(sign_json(by_old, "a.example", OLD))
        two = KeyServer("a.example", self.clock, KEY, OLD).answer()
        two["signatures"]["a.example"]["ed25519:0"] = "AAAA"
        self.refused(two)

    def test_malformed_answers(self) -> None:
        malformed: list[JsonObject] = [
            {"valid_until_ts": None},
            {"valid_until_ts": "1"},
            {"valid_until_ts": True},
            {"valid_until_ts": -1},
            {"verify_keys": []},
            {"verify_keys": {"ed25519:1": KEY.public_base64}},
            {"verify_keys": {"ed25519:1": {"key": "short"}}},
            {"verify_keys": {"ed25519:1": {"key": 1}}},
            {"verify_keys": {"ed25519:1\n": {"key": KEY.public_base64}}},
            {"old_verify_keys": {"ed25519:0": {"key": OLD.public_base64}}},
            {"old_verify_keys": 3},
        ]
        for changes in malformed:
            self.refused(self.signed(**changes))

    def test_keys_of_other_algorithms_are_passed_over(self) -> None:
        keys = {"ed25519:1": {"key": KEY.public_base64}, "rsa:1": 5}
        self.assertEqual(set(self.read(self.signed(verify_keys=keys)).keys), {"ed25519:1"})

    def test_too_many_keys(self) -> None:
        entry = {"key": OLD.public_base64, "expired_ts": 1}
        many = {f"ed25519:x{number}": entry for number in range(MAX_KEYS)}
        self.refused(self.signed(old_verify_keys=many))

    def test_floats_outside_the_signed_part(self) -> None:
        answer = self.server.answer()
        answer["unsigned"] = {"x": 1.5}
        self.refused(answer)

    @given(
        st.dictionaries(st.sampled_from(["verify_keys", "old_verify_keys", "signatures"]), _json)
    )
    def test_any_json_is_read_or_refused(self, parts: JsonObject) -> None:
        answer = {"server_name": "a.example", "valid_until_ts": NOW, **parts}
        self.refused(answer)
