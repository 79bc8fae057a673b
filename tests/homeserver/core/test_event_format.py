from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from homeserver.core import canonical
from homeserver.core.event_format import (
    MAX_AUTH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_PREV_EVENTS,
    EventFormatError,
    EventTooLarge,
    check_pdu,
    check_received_sizes,
    check_sizes,
    choose_prev_events,
    next_depth,
)
from homeserver.core.room_versions import ROOM_VERSIONS, V1, V2, V5, V6, V10, V11, V12, RoomVersion
from homeserver.core.types import JsonObject

QUICK = settings(max_examples=200, deadline=None)
HASH = "Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"
REMOVED: Any = object()
NOT_OBJECTS: tuple[Any, ...] = (None, [], "x", 1)


def pdu(version: RoomVersion, **changes: Any) -> JsonObject:
    """A well-formed message event of this version, with some keys changed or `REMOVED`."""
    reference: Any = "$" + HASH
    if version.event_format == 1:
        reference = ["$p:a.example", {"sha256": "x"}]
    event: JsonObject = {
        "type": "m.room.message",
        "room_id": f"!{HASH}" if version.room_id_is_create_hash else "!r:a.example",
        "sender": "@u:a.example",
        "origin_server_ts": 1_700_000_000_000,
        "depth": 3,
        "prev_events": [reference],
        "auth_events": [reference],
        "content": {"body": "hello"},
        "hashes": {"sha256": "x"},
        "signatures": {"a.example": {"ed25519:1": "x"}},
    }
    if version.event_format == 1:
        event["event_id"] = "$e:a.example"
    event.update(changes)
    return {key: value for key, value in event.items() if value is not REMOVED}


class CheckPDUTest(TestCase):
    def assert_refused(self, version: RoomVersion, **changes: Any) -> None:
        with self.assertRaises(EventFormatError, msg=f"{changes} in {version.identifier}"):
            check_pdu(pdu(version, **changes), version)

    def test_good(self) -> None:
        """Each version takes its own format. Shows EVT-1."""
        for version in ROOM_VERSIONS.values():
            check_pdu(pdu(version), version)
            check_pdu(pdu(version, state_key="", type="m.room.topic"), version)
            check_pdu(pdu(version, prev_events=[], auth_events=[], depth=0), version)
            check_pdu(pdu(version, unsigned={"age": 1}, origin="a.example", extra=[1]), version)
            check_pdu(pdu(version, sender="@:a.example"), version)

    def test_bad_in_every_version(self) -> None:
        """Missing keys and wrong types. Shows EVT-1."""
        bad: dict[str, list[Any]] = {
            "type": [REMOVED, None, 1, "a\x00"],
            "state_key": [None, 1, {}, "a\x00"],
            "sender": [REMOVED, None, 1, "u:a.example", "@u", "@u:", "@u\x00:a.example", "@u:a b"],
            "room_id": [REMOVED, None, 1, "", "r:a.example", "#r:a.example", "!r:", "!r\x00:a"],
            "origin_server_ts": [REMOVED, None, "1", True, 1.0, 2**63],
            "depth": [REMOVED, None, "1", False, 1.0, -1, 2**63],
            "content": [REMOVED, None, [], "x"],
            "hashes": [REMOVED, None, [], {}, {"sha256": 1}, {"md5": "x"}],
            "signatures": [REMOVED, None, [], {"a": 1}, {"a": {"b": 1}}],
            "unsigned": [None, [], 1],
            "prev_events": [REMOVED, None, {}, [None], [1], ["x"], [["$a:b"]], [["$a:b", "x"]]],
            "auth_events": [REMOVED, None, {}, [None], [1], ["x"], [[1, {}]], [["x", {}]]],
        }
        for version in ROOM_VERSIONS.values():
            for key, values in bad.items():
                for value in values:
                    self.assert_refused(version, **{key: value})
            for not_an_object in NOT_OBJECTS:
                with self.assertRaises(EventFormatError):
                    check_pdu(not_an_object, version)

    def test_formats_do_not_mix(self) -> None:
        """References and IDs of one format are refused in the other. Shows EVT-1."""
        for version in (V1, V2):
            self.assert_refused(version, prev_events=["$" + HASH])
            self.assert_refused(version, event_id=REMOVED)
            self.assert_refused(version, event_id="$nodomain")
            self.assert_refused(version, event_id=1)
        self.assert_refused(V12, prev_events=[["$p:a.example", {"sha256": "x"}]])
        self.assert_refused(V12, room_id="!r:a.example")
        self.assert_refused(V11, room_id="!" + HASH)

    def test_create_event(self) -> None:
        """Only the create event of version 12 goes without a room ID. Shows EVT-1, ID-8."""
        create = {"type": "m.room.create", "state_key": "", "room_id": REMOVED}
        check_pdu(pdu(V12, **create), V12)
        self.assert_refused(V11, **create)
        self.assert_refused(V12, type="m.room.create", state_key="x", room_id=REMOVED)

    def test_numbers_of_references(self) -> None:
        """At most 20 `prev_events` and 10 `auth_events`. Shows EVT-10."""
        for version in ROOM_VERSIONS.values():
            for key, limit in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
                (reference,) = pdu(version)[key]
                check_pdu(pdu(version, **{key: [reference] * limit}), version)
                self.assert_refused(version, **{key: [reference] * (limit + 1)})
        self.assertEqual((MAX_PREV_EVENTS, MAX_AUTH_EVENTS), (20, 10))

    def test_canonical_json_by_version(self) -> None:
        """Versions 1 to 5 tolerate floats and large integers. Shows EVT-1, ID-1."""
        for version in ROOM_VERSIONS.values():
            for number in (1.5, 2**53, 2**70):
                changes = {"content": {"n": [number]}}
                if version.strict_canonical_json:
                    self.assert_refused(version, **changes)
                else:
                    check_pdu(pdu(version, **changes), version)
            for value in (float("nan"), "\ud800"):
                self.assert_refused(version, content={"n": value})

    def test_deep_nesting(self) -> None:
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        for version in (V1, V12):
            with self.assertRaises(EventFormatError):
                check_pdu(pdu(version, content={"a": deep}), version)

    def test_depth_by_version(self) -> None:
        """Shows EVT-1."""
        for version in ROOM_VERSIONS.values():
            check_pdu(pdu(version, depth=version.max_depth), version)
            self.assert_refused(version, depth=version.max_depth + 1)

    def test_redacts_of_old_versions(self) -> None:
        self.assert_refused(V10, type="m.room.redaction", redacts=1)
        check_pdu(pdu(V11, type="m.room.redaction", redacts=1), V11)

    @QUICK
    @given(
        st.sampled_from(sorted(ROOM_VERSIONS)),
        st.sampled_from(sorted(pdu(V1)) + ["state_key", "unsigned", "redacts"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda children: (
                st.lists(children, max_size=3)
                | st.dictionaries(st.text(max_size=3), children, max_size=3)
            ),
            max_leaves=6,
        ),
    )
    def test_never_breaks(self, identifier: str, key: str, value: Any) -> None:
        """Whatever a key holds, the answer is yes or an error of ours."""
        version = ROOM_VERSIONS[identifier]
        event = pdu(version, **{key: value})
        before = copy.deepcopy(event) if value == value else None
        try:
            check_pdu(event, version)
        except EventFormatError:
            return
        check_sizes(event)
        if before is not None:
            self.assertEqual(event, before)


class CheckSizesTest(TestCase):
    def test_whole_event(self) -> None:
        """65,536 bytes fit, one more does not; signatures count. Shows EVT-9."""
        for version in (V1, V6, V12):
            empty = len(canonical.encode(pdu(version, content={"body": ""})))
            for filler in ("a", "é"):
                room = MAX_EVENT_BYTES - empty
                size = len(filler.encode())
                body = filler * (room // size) + "a" * (room % size)
                fits = pdu(version, content={"body": body})
                self.assertEqual(len(canonical.encode(fits)), 65536)
                check_sizes(fits)
                check_received_sizes(fits, version)
                for larger in (
                    pdu(version, content={"body": body + "a"}),
                    {**fits, "signatures": {"a.example": {"ed25519:1": "xy"}}},
                ):
                    with self.assertRaises(EventTooLarge):
                        check_sizes(larger)
                    with self.assertRaises(EventTooLarge):
                        check_received_sizes(larger, version)

    def test_large_lenient_event(self) -> None:
        """Events that only versions 1 to 5 permit are measured too. Shows EVT-9."""
        check_sizes(pdu(V5, content={"n": 1.5}))
        with self.assertRaises(EventTooLarge):
            check_sizes(pdu(V5, content={"n": [1.5] * 20_000}))

    def test_keys(self) -> None:
        """255 bytes for each of the five keys. Shows EVT-9, ID-6."""
        for key, prefix in (
            ("type", ""),
            ("state_key", ""),
            ("sender", "@u:"),
            ("room_id", "!r:"),
            ("event_id", "$e:"),
        ):
            fits = prefix + "a" * (255 - len(prefix))
            check_sizes(pdu(V12, **{key: fits}))
            with self.assertRaises(EventTooLarge, msg=key):
                check_sizes(pdu(V12, **{key: fits + "a"}))
            with self.assertRaises(EventTooLarge, msg=key):
                check_received_sizes(pdu(V10, **{key: fits + "a"}), V10)

    def test_bytes_are_counted(self) -> None:
        """Bytes, not characters. Shows EVT-9."""
        check_sizes(pdu(V12, state_key="é" * 127))
        with self.assertRaises(EventTooLarge):
            check_sizes(pdu(V12, state_key="é" * 128))

    def test_received_events_of_old_versions(self) -> None:
        """Rooms up to version 10 hold keys of 255 characters: such are let in. Shows EVT-9."""
        for version in ROOM_VERSIONS.values():
            event = pdu(version, state_key="💥" * 255)
            with self.assertRaises(EventTooLarge):
                check_sizes(event)
            if version.key_sizes_in_bytes:
                with self.assertRaises(EventTooLarge):
                    check_received_sizes(event, version)
            else:
                check_received_sizes(event, version)
                with self.assertRaises(EventTooLarge):
                    check_received_sizes(pdu(version, state_key="💥" * 256), version)


class PredecessorsTest(TestCase):
    def test_depth(self) -> None:
        """One more than the deepest predecessor, held at the limit. Shows EVT-10."""
        for version in ROOM_VERSIONS.values():
            self.assertEqual(next_depth([], version), 1)
            self.assertEqual(next_depth([3, 7, 5], version), 8)
            limit = version.max_depth
            self.assertEqual(next_depth([limit - 1], version), limit)
            self.assertEqual(next_depth([limit, 1], version), limit)
        self.assertEqual(V12.max_depth, 2**53 - 1)

    def test_all_extremities(self) -> None:
        """Up to 20 all are named. Shows EVT-10."""
        heads = {f"${n}": n for n in range(20)}
        self.assertEqual(set(choose_prev_events(heads)), set(heads))
        self.assertEqual(choose_prev_events({}), [])

    def test_too_many_extremities(self) -> None:
        """Of more than 20 the deepest, and following events take up the rest. Shows EVT-10."""
        heads = {f"${n}": n for n in range(50)}
        chosen = choose_prev_events(heads)
        self.assertEqual(set(chosen), {f"${n}" for n in range(30, 50)})
        for number in range(50, 53):
            chosen = choose_prev_events(heads)
            self.assertLessEqual(len(chosen), MAX_PREV_EVENTS)
            depth = next_depth([heads[event_id] for event_id in chosen], V12)
            heads = {e: d for e, d in heads.items() if e not in chosen} | {f"${number}": depth}
        self.assertEqual(len(heads), 1)
