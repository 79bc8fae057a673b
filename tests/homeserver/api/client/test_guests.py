"""What guests reach, over all endpoints of the server."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.web.endpoint import Auth
from tests.support.server import TestServer, make_server

V3 = "/_matrix/client/v3"
_PARAMETER = re.compile(r"\{([a-z_]+)\*?\}")

# Client-server API, "Guest Access", "Client behaviour"; media come later.
OPEN = {
    ("GET", f"{V3}/rooms/{{room_id}}/state"),
    ("GET", f"{V3}/rooms/{{room_id}}/context/{{event_id}}"),
    ("GET", f"{V3}/rooms/{{room_id}}/event/{{event_id}}"),
    ("GET", f"{V3}/rooms/{{room_id}}/state/{{event_type}}/{{state_key}}"),
    ("GET", f"{V3}/rooms/{{room_id}}/messages"),
    ("GET", f"{V3}/rooms/{{room_id}}/members"),
    ("GET", f"{V3}/rooms/{{room_id}}/initialSync"),
    ("GET", f"{V3}/sync"),
    ("GET", f"{V3}/events"),
    ("POST", f"{V3}/rooms/{{room_id}}/join"),
    ("POST", f"{V3}/rooms/{{room_id}}/leave"),
    ("PUT", f"{V3}/rooms/{{room_id}}/send/{{event_type}}/{{txn_id}}"),
    ("PUT", f"{V3}/rooms/{{room_id}}/state/{{event_type}}/{{state_key}}"),
    ("PUT", f"{V3}/sendToDevice/{{event_type}}/{{txn_id}}"),
    ("PUT", f"{V3}/profile/{{user_id}}/{{field}}"),
    ("DELETE", f"{V3}/profile/{{user_id}}/{{field}}"),
    ("GET", f"{V3}/devices"),
    ("GET", f"{V3}/devices/{{device_id}}"),
    ("PUT", f"{V3}/devices/{{device_id}}"),
    ("GET", f"{V3}/account/whoami"),
    ("POST", f"{V3}/keys/upload"),
    ("POST", f"{V3}/keys/query"),
    ("POST", f"{V3}/keys/claim"),
}
VALUES = {
    "room_id": "!room:hearth.test",
    "room_id_or_alias": "!room:hearth.test",
    "event_id": "$event",
    "user_id": "@alice:hearth.test",
    "room_alias": "%23alias:hearth.test",
    "field": "displayname",
}


class GuestsTest(TestCase):
    timeout = 60
    server: TestServer

    async def prepare(self) -> str:
        self.server = await make_server(self)
        status, guest = await self.server.client.post(f"{V3}/register", {}, query={"kind": "guest"})
        self.assertEqual(status, 200)
        token: str = guest["access_token"]
        return token

    async def errcode(self, method: str, template: str, token: str) -> Any:
        path = _PARAMETER.sub(lambda found: VALUES.get(found[1], "x"), template)
        _, answer = await self.server.client.request(method, path, {}, token=token)
        return answer.get("errcode") if isinstance(answer, dict) else None

    async def test_all_else_is_closed(self) -> None:
        """Shows LOG-11."""
        token = await self.prepare()
        declarations = self.server.homeserver.router.declarations
        closed = [each for each in declarations if each.auth is Auth.ACCESS_TOKEN]
        self.assertGreater(len(closed), 50)
        for each in closed:
            if each.stream_body:
                continue
            self.assertNotIn((each.method, each.path), OPEN)
            found = await self.errcode(each.method, each.path, token)
            self.assertEqual(found, "M_GUEST_ACCESS_FORBIDDEN", each.path)
        for each in declarations:
            if each.auth is Auth.ADMIN:
                self.assertEqual(
                    await self.errcode(each.method, each.path, token), "M_FORBIDDEN", each.path
                )

    async def test_what_is_open(self) -> None:
        """Shows LOG-11."""
        token = await self.prepare()
        known = {(each.method, each.path) for each in self.server.homeserver.router.declarations}
        self.assertEqual(OPEN - known, set())
        # Rooms that guests may join have tests of their own.
        judged_by_the_room = {("POST", f"{V3}/rooms/{{room_id}}/join")}
        for method, template in sorted(OPEN - judged_by_the_room):
            found = await self.errcode(method, template, token)
            self.assertNotEqual(found, "M_GUEST_ACCESS_FORBIDDEN", template)
