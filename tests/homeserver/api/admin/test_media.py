"""Media for administrators."""

from __future__ import annotations

from typing import Any

from homeserver.media.references import SentMedia
from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.media import DOWNLOAD, download, stored_files, upload
from tests.support.network import eventually
from tests.support.room_case import q
from tests.support.server import User

NOW = 4_000_000_000_000


class MediaTests(AdminTestCase):
    async def send(self, user: User, room_id: str, name: str) -> None:
        content = {"msgtype": "m.image", "body": "x", "url": f"mxc://{name}"}
        await user.send(room_id, content)
        await self.server.homeserver.services[SentMedia].catch_up()

    async def status(self, name: str) -> int:
        return (await download(self.bob, name)).status

    async def test_quarantine_one(self) -> None:
        """Withheld at once in every cache, and given again. Shows XC-4."""
        await self.prepare()
        name = await upload(self.bob, b"x")
        self.assertEqual(await self.status(name), 200)
        self.assertEqual(await self.alice.ok("POST", f"{V1}/media/quarantine/{name}"), {})
        self.assertEqual(await self.status(name), 404)
        info = (await self.alice.ok("GET", f"{V1}/media/{name}"))["media_info"]
        self.assertEqual(info["quarantined_by"], self.alice.user_id)
        await self.alice.ok("POST", f"{V1}/media/unquarantine/{name}")
        self.assertEqual(await self.status(name), 200)
        await self.alice.ok("POST", f"{V1}/media/protect/{name.split('/')[1]}")
        await self.alice.ok("POST", f"{V1}/media/quarantine/{name}")
        self.assertEqual(await self.status(name), 200)
        await self.alice.ok("POST", f"{V1}/media/unprotect/{name.split('/')[1]}")
        await self.alice.ok("POST", f"{V1}/media/quarantine/{name}")
        self.assertEqual(await self.status(name), 404)
        for path in ("media/quarantine/hearth.test/no", "media/protect/no"):
            await self.unknown("POST", f"{V1}/{path}")
        self.assertEqual(len(self.audit), 6)
        self.assertEqual((await self.bob.call("POST", f"{V1}/media/quarantine/{name}"))[0], 403)

    async def test_quarantine_many(self) -> None:
        """By room and by user; protected ones are spared. Shows XC-4."""
        await self.prepare()
        room_id = await self.bob.create_room()
        names = [await upload(self.bob, bytes([number])) for number in range(4)]
        for name in (*names[:2], "other.test/abc"):
            await self.send(self.bob, room_id, name)
        found = await self.alice.ok("GET", f"{V1}/room/{q(room_id)}/media")
        local = {f"mxc://{name}" for name in names[:2]}
        self.assertEqual(set(found["local"]), local)
        self.assertEqual(found["remote"], ["mxc://other.test/abc"])
        await self.alice.ok("POST", f"{V1}/media/protect/{names[1].split('/')[1]}")
        answer = await self.alice.ok("POST", f"{V1}/room/{q(room_id)}/media/quarantine")
        self.assertEqual(answer, {"num_quarantined": 1})
        self.assertEqual([await self.status(name) for name in names], [404, 200, 200, 200])
        answer = await self.alice.ok("POST", f"{V1}/user/{q(self.bob.user_id)}/media/quarantine")
        self.assertEqual(answer, {"num_quarantined": 2})
        self.assertEqual([await self.status(name) for name in names], [404, 200, 404, 404])
        answer = await self.alice.ok("POST", f"{V1}/quarantine_media/{q(room_id)}")
        self.assertEqual(answer, {"num_quarantined": 0})
        await self.unknown("GET", f"{V1}/room/{q('!no:hearth.test')}/media")

    async def test_of_user(self) -> None:
        """Pages, orders, removal. Shows XC-4."""
        await self.prepare()
        names = [
            await upload(self.bob, b"x" * number, "image/png", f"{number}.png")
            for number in (3, 1, 2)
        ]
        path = f"{V1}/users/{q(self.bob.user_id)}/media"

        async def lengths(**query: Any) -> list[int]:
            answer = await self.alice.ok("GET", path, query=query)
            self.assertEqual(answer["total"], 3)
            return [each["media_length"] for each in answer["media"]]

        self.assertEqual(sorted(await lengths()), [1, 2, 3])
        self.assertEqual(await lengths(order_by="media_length"), [1, 2, 3])
        self.assertEqual(await lengths(order_by="upload_name", dir="b"), [3, 2, 1])
        answer = await self.alice.ok("GET", path, query={"limit": 2, "order_by": "media_length"})
        self.assertEqual(answer["next_token"], 2)
        self.assertEqual(await lengths(**{"from": 2, "order_by": "media_length"}), [3])
        first = answer["media"][0]
        self.assertEqual(first["upload_name"], "1.png")
        self.assertEqual(first["media_type"], "image/png")
        for query in ("limit=-1", "from=-1", "order_by=x", "dir=x"):
            await self.refused("M_INVALID_PARAM", "GET", f"{path}?{query}")
        gone = await self.alice.ok("DELETE", f"{path}?limit=2&order_by=media_length")
        expected = [names[1].split("/")[1], names[2].split("/")[1]]
        self.assertEqual(gone, {"deleted_media": expected, "total": 2})
        self.assertEqual([await self.status(name) for name in names], [200, 404, 404])
        self.assertEqual(len(stored_files(self.server)), 1)

    async def test_statistics(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        for data in (b"x" * 10, b"y" * 20):
            await upload(self.bob, data)
        await upload(self.alice, b"z")
        path = f"{V1}/statistics/users/media"
        found = await self.alice.ok("GET", path, query={"order_by": "media_length", "dir": "b"})
        self.assertEqual(
            found["users"],
            [
                {
                    "user_id": user.user_id,
                    "displayname": name,
                    "media_count": count,
                    "media_length": size,
                }
                for user, name, count, size in (
                    (self.bob, None, 2, 30),
                    (self.alice, None, 1, 1),
                )
            ],
        )
        self.assertEqual(found["total"], 2)
        queries: list[tuple[dict[str, Any], int]] = [
            ({"search_term": "BO"}, 1),
            ({"search_term": "%"}, 0),
            ({"from_ts": NOW}, 0),
            ({"until_ts": 1}, 0),
            ({"limit": 1}, 2),
        ]
        for query, total in queries:
            self.assertEqual((await self.alice.ok("GET", path, query=query))["total"], total)
        for wrong in ("from_ts=-1", "from_ts=5&until_ts=4", "search_term=", "order_by=x"):
            await self.refused("M_INVALID_PARAM", "GET", f"{path}?{wrong}")

    async def test_deletion(self) -> None:
        """One by one, by age and size; pictures of users stay if wanted. Shows XC-4."""
        await self.prepare()
        small, large, avatar, other = [
            await upload(self.bob, str(number).encode() * size)
            for number, size in enumerate((10, 100, 200, 300))
        ]
        await self.bob.ok(
            "PUT",
            f"/profile/{q(self.bob.user_id)}/avatar_url",
            {"avatar_url": f"mxc://{avatar}"},
        )
        deleted = await self.alice.ok("DELETE", f"{V1}/media/{other}")
        self.assertEqual(deleted, {"deleted_media": [other.split("/")[1]], "total": 1})
        await self.unknown("DELETE", f"{V1}/media/{other}")
        await self.refused("M_INVALID_PARAM", "DELETE", f"{V1}/media/other.test/x")
        path = f"{V1}/media/delete?before_ts={NOW}"
        deleted = await self.alice.ok("POST", f"{path}&size_gt=50")
        self.assertEqual(deleted["deleted_media"], [large.split("/")[1]])
        old = f"{V1}/media/hearth.test/delete?before_ts={NOW}&size_gt=50&keep_profiles=false"
        deleted = await self.alice.ok("POST", old)
        self.assertEqual(deleted["deleted_media"], [avatar.split("/")[1]])
        self.assertEqual(await self.status(small), 200)
        for wrong in ("before_ts=-1", "before_ts=1700000000", f"before_ts={NOW}&size_gt=-1"):
            await self.refused("M_INVALID_PARAM", "POST", f"{V1}/media/delete?{wrong}")
        await self.refused("M_MISSING_PARAM", "POST", f"{V1}/media/delete")
        self.assertEqual(len(stored_files(self.server)), 1)

    async def test_purge(self) -> None:
        """Copies of others' files only. Shows XC-4."""
        await self.prepare()
        own, other = await upload(self.bob, b"own"), await upload(self.bob, b"other")
        media_id = other.split("/")[1]
        await self.server.homeserver.db.write(
            lambda txn: txn.execute(
                "UPDATE media SET kind = 'remote', server_name = 'other.test', uploader = NULL"
                " WHERE media_id = ?",
                (media_id,),
            )
        )
        info = (await self.alice.ok("GET", f"{V1}/media/other.test/{media_id}"))["media_info"]
        self.assertEqual((info["media_origin"], info["user_id"]), ("other.test", None))
        path = f"{V1}/purge_media_cache?before_ts={NOW}"
        self.assertEqual(await self.alice.ok("POST", path), {"deleted": 1})
        self.assertEqual(await self.alice.ok("POST", path), {"deleted": 0})
        self.assertEqual((await self.bob.call("GET", f"{DOWNLOAD}/{own}"))[0], 200)
        await eventually(lambda: len(stored_files(self.server)) == 1)
