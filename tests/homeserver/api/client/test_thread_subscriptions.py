"""Following threads."""

from __future__ import annotations

from typing import Any

from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.room_case import q
from tests.support.server import User, make_server

ALL = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
CONFLICT = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"


@on_each_database
class ThreadSubscriptionsTest(DatabaseTestCase):
    """Shows XC-2."""

    timeout = 60

    async def prepare(self) -> None:
        self.server = await make_server(
            self, database_url=self.database_url(), presence={"enabled": False}
        )
        self.alice = await self.server.register("alice")
        self.room_id = await self.alice.create_room(preset="public_chat")
        self.root = await self.alice.send(self.room_id, "root")

    def path(self, root: str | None = None) -> str:
        return (
            f"/_matrix/client/unstable/io.element.msc4306/rooms/{q(self.room_id)}"
            f"/thread/{q(root or self.root)}/subscription"
        )

    async def answer(self) -> str:
        """An event in the thread."""
        relation = {"rel_type": "m.thread", "event_id": self.root}
        content = {"msgtype": "m.text", "body": "in it", "m.relates_to": relation}
        return await self.alice.send(self.room_id, content)

    async def refused(
        self, status: int, errcode: str, *call: Any, user: User | None = None
    ) -> None:
        answer = await (user or self.alice).call(*call)
        self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), answer.body)

    async def test_by_wish(self) -> None:
        """A user follows a thread and stops."""
        await self.refused(404, "M_NOT_FOUND", "GET", self.path())
        for _ in range(2):
            await self.alice.ok("PUT", self.path(), {})
        self.assertEqual(await self.alice.ok("GET", self.path()), {"automatic": False})
        await self.alice.ok("PUT", self.path(), {"automatic": await self.answer()})
        self.assertEqual(await self.alice.ok("GET", self.path()), {"automatic": False})
        for _ in range(2):
            await self.alice.ok("DELETE", self.path())
        await self.refused(404, "M_NOT_FOUND", "GET", self.path())

    async def test_automatic(self) -> None:
        """Because of an event in the thread, unless the user stopped following after it."""
        first = await self.answer()
        elsewhere = await self.alice.send(self.room_id, "elsewhere")
        await self.refused(
            400,
            "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD",
            "PUT",
            self.path(),
            {"automatic": elsewhere},
        )
        await self.alice.ok("PUT", self.path(), {"automatic": first})
        self.assertEqual(await self.alice.ok("GET", self.path()), {"automatic": True})
        await self.alice.ok("DELETE", self.path())
        await self.refused(409, CONFLICT, "PUT", self.path(), {"automatic": first})
        await self.refused(404, "M_NOT_FOUND", "GET", self.path())
        later = await self.answer()
        await self.alice.ok("PUT", self.path(), {"automatic": later})
        self.assertEqual(await self.alice.ok("GET", self.path()), {"automatic": True})
        await self.alice.ok("PUT", self.path(), {})
        self.assertEqual(await self.alice.ok("GET", self.path()), {"automatic": False})

    async def test_listed(self) -> None:
        """Changes are paged backwards; tokens of `/sync` are understood."""
        roots = [await self.alice.send(self.room_id, f"root {n}") for n in range(5)]
        token = (await self.alice.sync())["next_batch"]
        for root in roots:
            await self.alice.ok("PUT", self.path(root), {})
        await self.alice.ok("DELETE", self.path(roots[1]))
        seen: list[str] = []
        gone: list[str] = []
        query: dict[str, Any] = {"dir": "b", "limit": 2}
        while True:
            answer = await self.alice.ok("GET", ALL, query=query)
            for threads in answer.get("subscribed", {}).values():
                for root, told in threads.items():
                    self.assertFalse(told["automatic"])
                    self.assertGreater(told["bump_stamp"], 0)
                    seen.append(root)
            for threads in answer.get("unsubscribed", {}).values():
                gone += threads
            if "end" not in answer:
                break
            query["from"] = answer["end"]
        self.assertEqual(seen, [roots[4], roots[3], roots[2], roots[0]])
        self.assertEqual(gone, [roots[1]])
        newer = await self.alice.ok("GET", ALL, query={"dir": "b", "to": token})
        self.assertEqual(len(newer["subscribed"][self.room_id]), 4)
        older = await self.alice.ok("GET", ALL, query={"dir": "b", "from": token})
        self.assertEqual(older, {})
        for bad in ({"dir": "f"}, {"from": "x"}, {"to": "tx"}, {"limit": 0}):
            await self.refused(
                400,
                "M_INVALID_PARAM",
                "GET",
                f"{ALL}?" + "&".join(f"{key}={value}" for key, value in bad.items()),
            )

    async def test_strangers(self) -> None:
        """Threads that a user cannot see, and malformed IDs."""
        private = await self.alice.create_room(preset="private_chat")
        root = await self.alice.send(private, "secret")
        bob = await self.server.register("bob")
        path = self.path(root).replace(q(self.room_id), q(private))
        for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
            await self.refused(404, "M_NOT_FOUND", method, path, body, user=bob)
            await self.refused(400, "M_INVALID_PARAM", method, self.path("nothing"), body)
        await self.refused(400, "M_INVALID_PARAM", "PUT", self.path(), {"automatic": "x"})
