"""A push gateway, which keeps what it is told (push gateway API)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
from twisted.trial.unittest import TestCase

from tests.support.network import eventually
from tests.support.server import User
from tests.support.web import WebServer

_DEVICE = {
    "type": "object",
    "required": ["app_id", "pushkey"],
    "properties": {
        "app_id": {"type": "string", "maxLength": 64},
        "pushkey": {"type": "string"},
        "pushkey_ts": {"type": "integer"},
        "data": {"type": "object", "not": {"required": ["url"]}},
        "tweaks": {"type": "object"},
    },
    "additionalProperties": False,
}
_COUNT = {"type": "integer", "minimum": 0}
SCHEMA = {
    "type": "object",
    "required": ["notification"],
    "properties": {
        "notification": {
            "type": "object",
            "required": ["devices"],
            "properties": {
                "event_id": {"type": "string"},
                "room_id": {"type": "string"},
                "type": {"type": "string"},
                "sender": {"type": "string"},
                "sender_display_name": {"type": "string"},
                "room_name": {"type": "string"},
                "room_alias": {"type": "string"},
                "user_is_target": {"type": "boolean"},
                "prio": {"enum": ["high", "low"]},
                "content": {"type": "object"},
                "counts": {
                    "type": "object",
                    "properties": {"unread": _COUNT, "missed_calls": _COUNT},
                    "additionalProperties": False,
                },
                "devices": {"type": "array", "minItems": 1, "items": _DEVICE},
            },
            "additionalProperties": False,
            "dependentRequired": {"event_id": ["room_id"], "room_id": ["event_id"]},
        }
    },
    "additionalProperties": False,
}
"""The body of a request, as strict as the specification allows."""


class PushGateway:
    """Listens on localhost until the test ends; checks that every request is as specified.

    `rejects`: pushkeys that it does not know (any more). `next_answers`: what it answers to the
    next requests instead: a status, a status and a body, or None for nothing at all.
    """

    def __init__(self, test: TestCase) -> None:
        self._web = WebServer(test, self._answer)
        self.rejects: set[str] = set()
        self.next_answers: list[int | tuple[int, Any] | tuple[int, Any, dict[str, str]] | None] = []
        self.told: list[dict[str, Any]] = []
        """Notifications that were taken."""
        self.faults: list[str] = []
        self.asked = 0
        test.addCleanup(lambda: test.assertEqual(self.faults, []))

    @property
    def url(self) -> str:
        return f"{self._web.url}/_matrix/push/v1/notify"

    @staticmethod
    def trust() -> dict[str, Any]:
        """The section `outgoing_http` of a homeserver that may push to this."""
        return WebServer.trust()

    def _answer(self, asked: Any) -> Any:
        self.asked += 1
        if (asked.method, asked.path) != ("POST", "/_matrix/push/v1/notify"):
            self.faults.append(f"{asked.method} {asked.path}")
        try:
            jsonschema.validate(asked.json, SCHEMA)
        except (ValueError, jsonschema.ValidationError) as error:
            self.faults.append(str(error)[:500])
        if self.next_answers:
            answer = self.next_answers.pop(0)
            if answer is None or isinstance(answer, tuple):
                return answer
            return answer, {}
        notification = asked.json["notification"]
        keys = [device["pushkey"] for device in notification["devices"]]
        rejected = [key for key in keys if key in self.rejects]
        if len(rejected) < len(keys):
            self.told.append(notification)
        return 200, {"rejected": rejected}

    def of(self, pushkey: str = "key") -> list[dict[str, Any]]:
        """What one device was told."""
        return [
            each
            for each in self.told
            if any(device["pushkey"] == pushkey for device in each["devices"])
        ]

    def events(self, pushkey: str = "key") -> list[str]:
        """IDs of the events that one device was told of, in order."""
        return [each["event_id"] for each in self.of(pushkey) if "event_id" in each]

    async def heard(
        self, count: int, pushkey: str = "key", what: Callable[[Any], bool] | None = None
    ) -> list[dict[str, Any]]:
        """What one device was told, once it was told so many events."""
        wanted = what or (lambda each: "event_id" in each)

        def enough() -> bool:
            return len([each for each in self.of(pushkey) if wanted(each)]) >= count

        await eventually(enough, f"{count} pushes to {pushkey}: {self.told}")
        found = [each for each in self.of(pushkey) if wanted(each)]
        assert len(found) == count, found
        return found

    def pusher(self, **changes: Any) -> dict[str, Any]:
        """The body of a request that sets a pusher to this."""
        body: dict[str, Any] = {
            "kind": "http",
            "app_id": "org.example.app",
            "pushkey": "key",
            "app_display_name": "App",
            "device_display_name": "Phone",
            "lang": "en",
            "data": {"url": self.url},
        }
        return {**body, **changes}

    async def add(self, user: User, **changes: Any) -> None:
        """Have a user told here."""
        await user.ok("POST", "/pushers/set", self.pusher(**changes))
