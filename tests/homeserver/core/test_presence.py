"""A user's presence and how it changes."""

from __future__ import annotations

import json

from twisted.trial.unittest import TestCase

from homeserver.core.presence import (
    ACTIVE_FOR,
    IDLE_AFTER,
    OFFLINE,
    OFFLINE_AFTER,
    Presence,
    acted,
    passed,
    set_by_user,
    syncing,
    worth_telling,
)

NOW = 1_700_000_000_000


def online(at: int = NOW) -> Presence:
    return syncing(OFFLINE, "online", at, is_elsewhere_online=False)


class PresenceTest(TestCase):
    def test_syncing_brings_online(self) -> None:
        """Shows RCP-8, SYN-25."""
        presence = online()
        self.assertEqual(
            presence.content(NOW + 5),
            {"presence": "online", "last_active_ago": 5, "currently_active": True},
        )
        self.assertTrue(worth_telling(OFFLINE, presence))

    def test_syncing_with_another_state(self) -> None:
        """Shows SYN-25."""
        self.assertIs(syncing(OFFLINE, "offline", NOW, is_elsewhere_online=False), OFFLINE)
        idle = syncing(online(), "unavailable", NOW + 1, is_elsewhere_online=False)
        self.assertEqual(idle.state, "unavailable")
        still = syncing(online(), "unavailable", NOW + 1, is_elsewhere_online=True)
        self.assertEqual(still.state, "online")

    def test_syncing_is_no_activity(self) -> None:
        """Shows RCP-8."""
        presence = online()
        for seconds in range(0, 330, 30):
            now = NOW + seconds * 1000
            presence = syncing(presence, "online", now, is_elsewhere_online=False)
            presence = passed(presence, now)
        self.assertEqual(presence.state, "unavailable")
        self.assertEqual(presence.content(NOW + 400_000)["last_active_ago"], 400_000)
        back = acted(presence, NOW + 500_000)
        self.assertEqual(
            back.content(NOW + 500_000),
            {"presence": "online", "last_active_ago": 0, "currently_active": True},
        )

    def test_time_passes(self) -> None:
        """Shows RCP-8."""
        here = set_by_user(OFFLINE, "online", "hi", NOW)
        touched = Presence(**{**here.dump(), "contact": NOW + IDLE_AFTER})
        self.assertIs(passed(touched, NOW + ACTIVE_FOR - 1), touched)
        quiet = passed(touched, NOW + ACTIVE_FOR)
        self.assertEqual((quiet.state, quiet.currently_active), ("online", False))
        self.assertTrue(worth_telling(touched, quiet))
        self.assertEqual(passed(touched, NOW + IDLE_AFTER).state, "unavailable")
        gone = passed(here, NOW + OFFLINE_AFTER)
        self.assertEqual((gone.state, gone.status_msg), ("offline", "hi"))
        self.assertIs(passed(gone, NOW + 10 * IDLE_AFTER), gone)

    def test_newer_activity_is_no_news(self) -> None:
        """Shows RCP-8."""
        presence = online()
        later = acted(presence, NOW + 30_000)
        self.assertFalse(worth_telling(presence, later))
        self.assertEqual(later.content(NOW + 30_001)["last_active_ago"], 1)
        quiet = passed(later, NOW + 30_000 + ACTIVE_FOR)
        self.assertEqual(quiet.state, "offline")

    def test_activity_does_not_show_whoever_hides(self) -> None:
        presence = set_by_user(OFFLINE, "offline", None, NOW)
        self.assertEqual(acted(presence, NOW + 1).state, "offline")

    def test_stored_and_read(self) -> None:
        presence = set_by_user(OFFLINE, "unavailable", "away", NOW)
        self.assertEqual(Presence.load(json.loads(json.dumps(presence.dump()))), presence)
        nonsense: tuple[object, ...] = ([], {"colour": "red"}, None)
        for value in nonsense:
            self.assertEqual(Presence.load(value), OFFLINE)

    def test_what_is_shown_of_somebody_never_seen(self) -> None:
        self.assertEqual(OFFLINE.content(NOW), {"presence": "offline"})
