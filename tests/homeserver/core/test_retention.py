"""For how long messages are kept."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.retention import RetentionPolicy


class RetentionPolicyTest(TestCase):
    def test_what_a_room_wants_within_limits(self) -> None:
        free, bound = RetentionPolicy(), RetentionPolicy(500, None, 100, 1000)
        for policy, content, expected in (
            (free, None, None),
            (free, {}, None),
            (free, {"max_lifetime": 5}, 5),
            (free, {"max_lifetime": 0}, 0),
            (bound, None, 500),
            (bound, {}, 100),
            (bound, {"max_lifetime": None}, 100),
            (bound, {"max_lifetime": 5}, 100),
            (bound, {"max_lifetime": 700, "min_lifetime": 6}, 700),
            (bound, {"max_lifetime": 2**53 - 1}, 1000),
        ):
            self.assertEqual(policy.lifetime(content), expected, content)

    def test_what_is_no_time(self) -> None:
        wrong: tuple[Any, ...] = (-1, 2**53, 1.5, "5", True, [], {})
        for value in wrong:
            self.assertIsNone(RetentionPolicy().lifetime({"max_lifetime": value}), value)

    def test_what_clients_are_told(self) -> None:
        self.assertEqual(RetentionPolicy().to_json(), {"policies": {}, "limits": {}})
        self.assertEqual(
            RetentionPolicy(500, 50, 100, 1000).to_json(),
            {
                "policies": {"*": {"max_lifetime": 500, "min_lifetime": 50}},
                "limits": {"max_lifetime": {"min": 100, "max": 1000}},
            },
        )
