from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS, StateRes

# Property → value by version, as runs: the first version that has each value.
TABLE: dict[str, dict[int, Any]] = {
    "stable": {1: True},
    "event_format": {1: 1, 3: 2, 4: 3},
    "event_id_is_hash": {1: False, 3: True},
    "state_res": {1: StateRes.V1, 2: StateRes.V2, 12: StateRes.V2_1},
    "strict_canonical_json": {1: False, 6: True},
    "max_depth": {1: 2**63 - 1, 6: 2**53 - 1},
    "key_sizes_in_bytes": {1: False, 11: True},
    "redacts_in_content": {1: False, 11: True},
    "room_id_is_create_hash": {1: False, 12: True},
    "key_validity_enforced": {1: False, 5: True},
    "float_power_levels": {1: True, 6: False},
    "string_power_levels": {1: True, 10: False},
    "integer_power_levels": {1: False, 10: True},
    "special_aliases_auth": {1: True, 6: False},
    "redaction_auth_rule": {1: True, 3: False},
    "notifications_guarded": {1: False, 6: True},
    "knocking": {1: False, 7: True},
    "restricted_joins": {1: False, 8: True},
    "knock_restricted": {1: False, 10: True},
    "implicit_room_creator": {1: False, 11: True},
    "creators_privileged": {1: False, 12: True},
    "redaction_keeps_third_party_signed": {1: False, 11: True},
    "strict_stripped_state": {1: False, 12: True},
    "invite_v1_fallback": {1: True, 3: False},
    "predecessor_event_id_expected": {1: True, 12: False},
}


class RoomVersionsTest(TestCase):
    def test_all_versions(self) -> None:
        """Versions 1 to 12, each under its own name. Shows EVT-1."""
        self.assertEqual(list(ROOM_VERSIONS), [str(n) for n in range(1, 13)])
        for identifier, version in ROOM_VERSIONS.items():
            self.assertEqual(version.identifier, identifier)
        self.assertEqual(DEFAULT_ROOM_VERSION, "12")

    def test_properties(self) -> None:
        """Every property of every version against the feature table. Shows EVT-1."""
        for name, runs in TABLE.items():
            expected: Any = None
            for number in range(1, 13):
                expected = runs.get(number, expected)
                actual = getattr(ROOM_VERSIONS[str(number)], name)
                self.assertEqual(actual, expected, f"{name} in version {number}")

    def test_table_is_complete(self) -> None:
        """No property escapes the table (redaction's lists have their own tests)."""
        version = ROOM_VERSIONS["1"]
        names = {
            name
            for name in dir(version)
            if not name.startswith("_")
            and name not in ("identifier", "redaction_keys", "redaction_content")
        }
        self.assertEqual(names, set(TABLE))

    def test_frozen(self) -> None:
        with self.assertRaises(AttributeError):
            ROOM_VERSIONS["1"].knocking = True  # type: ignore[misc]
