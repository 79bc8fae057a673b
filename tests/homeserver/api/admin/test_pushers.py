"""What administrators are told of where a user is notified."""

from __future__ import annotations

from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.homeserver.core.test_pushers import pusher
from tests.support.room_case import q


class AdminPushersTest(AdminTestCase):
    async def test_pushers(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/users/{q(self.bob.user_id)}/pushers"
        self.assertEqual(await self.alice.ok("GET", path), {"pushers": [], "total": 0})
        await self.bob.ok("POST", "/pushers/set", pusher())
        answer = await self.alice.ok("GET", path)
        self.assertEqual((answer["total"], len(answer["pushers"])), (1, 1))
        self.assertLessEqual(pusher().items(), answer["pushers"][0].items())
        await self.unknown("GET", f"{V1}/users/@nobody:hearth.test/pushers")
        self.assertEqual((await self.bob.call("GET", path))[0], 403)
