"""How much of a room a user is told."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.push_conditions import PushEvent
from homeserver.core.push_rule_changes import put_rule, set_actions, set_enabled
from homeserver.core.push_rules import Ruleset, class_of, event_class
from homeserver.core.push_volume import Volume, heard, is_exceptional, must_judge, volume

ME = "@me:hearth.test"
ROOM, OTHER = "!Room:hearth.test", "!other:hearth.test"
MESSAGE = "m.room.message"
UNDERRIDES = ("message", "encrypted", "room_one_to_one", "encrypted_room_one_to_one")


def in_room(room_id: str) -> dict[str, str]:
    return {"kind": "event_match", "key": "room_id", "pattern": room_id}


def rules(*changes: Any) -> Ruleset:
    """A ruleset made by changes: (kind, rule ID, body)."""
    ruleset = Ruleset(ME)
    for kind, rule_id, body in changes:
        ruleset = put_rule(ruleset, kind, rule_id, body)
    return ruleset


MUTED = rules(("override", ROOM, {"actions": [], "conditions": [in_room(ROOM)]}))
QUIET = rules(("room", ROOM, {"actions": []}))
LOUD = rules(("room", ROOM, {"actions": ["notify"]}))
KEYWORD = rules(("content", "tea", {"actions": ["notify"], "pattern": "tea"}))


def quiet_everywhere(*names: str) -> Ruleset:
    ruleset = Ruleset(ME)
    for name in names:
        ruleset = set_actions(ruleset, "underride", f".m.rule.{name}", {"actions": []})
    return ruleset


class VolumeTest(TestCase):
    def test_by_default_everything(self) -> None:
        ruleset = Ruleset(ME)
        self.assertIs(volume(ruleset, ROOM), Volume.EVERYTHING)
        self.assertFalse(must_judge(ruleset, ROOM, MESSAGE))
        self.assertFalse(is_exceptional(ruleset))

    def test_a_muted_room(self) -> None:
        self.assertIs(volume(MUTED, ROOM), Volume.NOTHING)
        self.assertIs(volume(MUTED, OTHER), Volume.EVERYTHING)
        self.assertFalse(must_judge(MUTED, ROOM, MESSAGE))
        self.assertFalse(must_judge(MUTED, OTHER, MESSAGE))
        self.assertFalse(is_exceptional(MUTED))
        unmuted = set_enabled(MUTED, "override", ROOM, {"enabled": False})
        self.assertIs(volume(unmuted, ROOM), Volume.EVERYTHING)

    def test_a_rule_above_the_mute_may_speak(self) -> None:
        body = {"actions": ["notify"], "conditions": [{**in_room("x"), "key": "content.alarm"}]}
        ruleset = put_rule(MUTED, "override", "alarm", body)
        self.assertIs(volume(ruleset, ROOM), Volume.EVERYTHING)
        self.assertTrue(must_judge(ruleset, ROOM, MESSAGE))
        below = put_rule(MUTED, "override", "alarm", body, after=ROOM)
        self.assertIs(volume(below, ROOM), Volume.NOTHING)
        self.assertFalse(must_judge(below, ROOM, MESSAGE))
        self.assertTrue(must_judge(below, OTHER, MESSAGE))
        self.assertTrue(is_exceptional(below))

    def test_room_rules(self) -> None:
        self.assertIs(volume(QUIET, ROOM), Volume.HIGHLIGHTS)
        self.assertFalse(must_judge(QUIET, ROOM, MESSAGE))
        self.assertFalse(is_exceptional(QUIET))
        self.assertIs(volume(LOUD, ROOM), Volume.EVERYTHING)
        self.assertTrue(must_judge(LOUD, ROOM, MESSAGE))
        self.assertFalse(must_judge(LOUD, OTHER, MESSAGE))
        self.assertTrue(is_exceptional(LOUD))

    def test_master(self) -> None:
        ruleset = set_enabled(KEYWORD, "override", ".m.rule.master", {"enabled": True})
        self.assertIs(volume(ruleset, ROOM), Volume.NOTHING)
        self.assertFalse(must_judge(ruleset, ROOM, MESSAGE))
        self.assertFalse(is_exceptional(ruleset))

    def test_mentions_only_everywhere(self) -> None:
        ruleset = quiet_everywhere(*UNDERRIDES)
        self.assertIs(volume(ruleset, ROOM), Volume.HIGHLIGHTS)
        self.assertFalse(must_judge(ruleset, ROOM, MESSAGE))
        self.assertTrue(must_judge(ruleset, ROOM, "m.call.invite"))
        loud = put_rule(ruleset, "room", ROOM, {"actions": ["notify"]})
        self.assertIs(volume(loud, ROOM), Volume.EVERYTHING)
        self.assertIs(volume(loud, OTHER), Volume.HIGHLIGHTS)

    def test_messages_of_small_rooms_only(self) -> None:
        ruleset = quiet_everywhere("message", "encrypted")
        self.assertIs(volume(ruleset, ROOM), Volume.HIGHLIGHTS)
        self.assertTrue(must_judge(ruleset, ROOM, MESSAGE))

    def test_what_only_looks_different(self) -> None:
        sound = ["notify", {"set_tweak": "sound", "value": "other"}]
        ruleset = set_actions(Ruleset(ME), "underride", ".m.rule.message", {"actions": sound})
        self.assertFalse(is_exceptional(ruleset))
        unknown = {"actions": ["notify"], "conditions": [{"kind": "org.example.unknown"}]}
        self.assertFalse(is_exceptional(rules(("override", "x", unknown))))

    def test_judged_or_not_the_outcome_is_the_same(self) -> None:
        """Where `must_judge` says no, evaluating the rules gives what `heard` says."""
        contents: list[tuple[str, dict[str, Any]]] = [
            (MESSAGE, {"msgtype": "m.text", "body": "tea"}),
            (MESSAGE, {"msgtype": "m.notice", "body": "tea"}),
            (MESSAGE, {"body": "x", "m.mentions": {"room": True}}),
            ("m.room.encrypted", {}),
            ("m.call.invite", {}),
            ("m.reaction", {}),
            ("org.example.other", {}),
        ]
        rulesets = [
            Ruleset(ME),
            MUTED,
            QUIET,
            LOUD,
            KEYWORD,
            quiet_everywhere(*UNDERRIDES),
            quiet_everywhere("message", "encrypted"),
            quiet_everywhere("message"),
            put_rule(quiet_everywhere(*UNDERRIDES), "room", ROOM, {"actions": []}),
            put_rule(MUTED, "room", OTHER, {"actions": []}),
            set_enabled(Ruleset(ME), "override", ".m.rule.master", {"enabled": True}),
        ]
        not_judged = 0
        for ruleset in rulesets:
            for room_id in (ROOM, OTHER):
                for members in (2, 3):
                    for event_type, content in contents:
                        event = PushEvent(
                            {
                                "type": event_type,
                                "content": content,
                                "room_id": room_id,
                                "sender": "@you:hearth.test",
                            },
                            member_count=members,
                            sender_power_level=100,
                        )
                        if must_judge(ruleset, room_id, event_type):
                            self.assertTrue(is_exceptional(ruleset))
                            continue
                        not_judged += 1
                        self.assertEqual(
                            heard(volume(ruleset, room_id), event_class(event)),
                            class_of(ruleset.evaluate(event)),
                            (ruleset.dump(), room_id, event_type, content),
                        )
        self.assertGreater(not_judged, 100)
