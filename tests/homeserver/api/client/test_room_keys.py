"""Backups of message keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, gatherResults

from homeserver.encryption.key_backups import MAX_BACKUPS, MAX_DATA_BYTES
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.server import User, make_server

ROOM = "!room:hearth.test"


def key(index: int = 1, forwarded: int = 0, verified: bool = False, data: Any = None) -> Any:
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": data or {"ciphertext": "abc", "mac": "m", "ephemeral": "e"},
    }


class BackupCase(DatabaseTestCase):
    timeout = 120

    async def prepare(self) -> None:
        self.server = await make_server(
            self, database_url=self.database_url(), presence={"enabled": False}
        )
        self.alice = await self.server.register("alice")

    async def begin(self) -> str:
        body = {"algorithm": "m.megolm_backup.v1", "auth_data": {"public_key": "abc"}}
        version: str = (await self.alice.ok("POST", "/room_keys/version", body))["version"]
        return version

    def path(self, version: str, room: str | None = None, session: str | None = None) -> str:
        parts = "".join(f"/{quote(part, safe='')}" for part in (room, session) if part)
        return f"/room_keys/keys{parts}?version={version}"

    async def put(self, version: str, session: str, content: Any) -> Any:
        return await self.alice.ok("PUT", self.path(version, ROOM, session), content)

    async def get(self, version: str, *place: str) -> Any:
        return await self.alice.ok("GET", self.path(version, *place))


@on_each_database
class VersionTest(BackupCase):
    async def test_versions(self) -> None:
        """Making, reading, changing and deleting backups; numbers are never used again.

        Shows E2E-11, E2E-13.
        """
        alice = self.alice
        self.assertEqual((await alice.call("GET", "/room_keys/version")).status, 404)
        first = await self.begin()
        second = await self.begin()
        self.assertNotEqual(first, second)
        current = await alice.ok("GET", "/room_keys/version")
        expected = {
            "algorithm": "m.megolm_backup.v1",
            "auth_data": {"public_key": "abc"},
            "count": 0,
            "etag": "0",
            "version": second,
        }
        self.assertEqual(current, expected)
        old = await alice.ok("GET", f"/room_keys/version/{first}")
        self.assertEqual(old, {**expected, "version": first})

        changed = {"algorithm": "m.megolm_backup.v1", "auth_data": {"public_key": "new"}}
        await alice.ok("PUT", f"/room_keys/version/{second}", {**changed, "version": second})
        current = await alice.ok("GET", "/room_keys/version")
        self.assertEqual(current["auth_data"], {"public_key": "new"})
        for wrong in ({**changed, "version": first}, {**changed, "algorithm": "other"}):
            answer = await alice.call("PUT", f"/room_keys/version/{second}", wrong)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        for unknown in ("17", "0", "-1", "x", "01", "9" * 40):
            for method, body in (("GET", None), ("PUT", changed)):
                answer = await alice.call(method, f"/room_keys/version/{unknown}", body)
                self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))

        for _ in range(2):
            await alice.ok("DELETE", f"/room_keys/version/{second}")
        self.assertEqual((await alice.call("DELETE", "/room_keys/version/17")).status, 404)
        self.assertEqual((await alice.ok("GET", "/room_keys/version"))["version"], first)
        self.assertNotIn(await self.begin(), (first, second))

    async def test_bounds(self) -> None:
        """The number of backups, and the size of what they are known by."""
        alice = self.alice
        large = {"algorithm": "a", "auth_data": {"x": "y" * MAX_DATA_BYTES}}
        answer = await alice.call("POST", "/room_keys/version", large)
        self.assertEqual((answer.status, answer.body["errcode"]), (413, "M_TOO_LARGE"))
        for _ in range(MAX_BACKUPS):
            await self.begin()
        body = {"algorithm": "a", "auth_data": {}}
        answer = await alice.call("POST", "/room_keys/version", body)
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_closed_account(self) -> None:
        """The backups go with the account; other users never see them."""
        alice = self.alice
        version = await self.begin()
        await self.put(version, "s", key())
        bob = await self.server.register("bob")
        self.assertEqual((await bob.call("GET", self.path(version))).status, 404)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": alice.user_id},
            "password": "wonderland",
        }
        await alice.call("POST", "/account/deactivate", {})
        _, body = await alice.call("POST", "/account/deactivate", {})
        auth["session"] = body["session"]
        await alice.ok("POST", "/account/deactivate", {"auth": auth})
        left = await self.server.homeserver.db.read(
            lambda txn: txn.value("SELECT count(*) FROM backed_up_keys")
        )
        self.assertEqual(left, 0)


@on_each_database
class KeysTest(BackupCase):
    async def test_all_forms(self) -> None:
        """Keys of one session, of a room, of all rooms; `etag` and `count` follow.

        Shows E2E-11, E2E-13.
        """
        alice = self.alice
        version = await self.begin()
        self.assertEqual(await self.get(version), {"rooms": {}})
        self.assertEqual(await self.get(version, ROOM), {"sessions": {}})
        missing = await alice.call("GET", self.path(version, ROOM, "s1"))
        self.assertEqual((missing.status, missing.body["errcode"]), (404, "M_NOT_FOUND"))

        one = await self.put(version, "s1", key(1))
        self.assertEqual(one["count"], 1)
        two = await alice.ok("PUT", self.path(version, ROOM), {"sessions": {"s+/2": key(2)}})
        self.assertEqual(two["count"], 2)
        rooms = {"rooms": {"!other:x": {"sessions": {"s1": key(3)}}, ROOM: {"sessions": {}}}}
        three = await alice.ok("PUT", self.path(version), rooms)
        self.assertEqual(three["count"], 3)
        self.assertEqual(len({answer["etag"] for answer in (one, two, three)}), 3)
        again = await alice.ok("PUT", self.path(version), rooms)
        self.assertEqual(again, three)

        here = {"s1": key(1), "s+/2": key(2)}
        self.assertEqual(
            await self.get(version),
            {"rooms": {ROOM: {"sessions": here}, "!other:x": {"sessions": {"s1": key(3)}}}},
        )
        self.assertEqual(await self.get(version, ROOM), {"sessions": here})
        self.assertEqual(await self.get(version, ROOM, "s+/2"), key(2))
        backup = await alice.ok("GET", "/room_keys/version")
        self.assertEqual((backup["count"], backup["etag"]), (3, three["etag"]))

        for _ in range(2):
            gone = await alice.ok("DELETE", self.path(version, ROOM, "s1"))
            self.assertEqual(gone["count"], 2)
        self.assertNotEqual(gone["etag"], three["etag"])
        gone = await alice.ok("DELETE", self.path(version, ROOM))
        self.assertEqual(gone["count"], 1)
        gone = await alice.ok("DELETE", self.path(version))
        self.assertEqual(gone["count"], 0)
        self.assertEqual(await self.get(version), {"rooms": {}})

    async def test_wrong_version(self) -> None:
        """Only the newest backup takes keys; older ones can be read. Shows E2E-11."""
        alice = self.alice
        nothing = await alice.call("PUT", self.path("1", ROOM, "s"), key())
        self.assertEqual(nothing.status, 404)
        first = await self.begin()
        await self.put(first, "s", key())
        second = await self.begin()
        for version in (first, "77", "x"):
            answer = await alice.call("PUT", self.path(version, ROOM, "t"), key())
            self.assertEqual(
                (answer.status, answer.body["errcode"], answer.body["current_version"]),
                (403, "M_WRONG_ROOM_KEYS_VERSION", second),
            )
        self.assertEqual(await self.get(first), {"rooms": {ROOM: {"sessions": {"s": key()}}}})
        for method in ("GET", "DELETE"):
            answer = await alice.call(method, self.path("77"))
            self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
        missing = await alice.call("PUT", "/room_keys/keys", {"rooms": {}})
        self.assertEqual((missing.status, missing.body["errcode"]), (400, "M_MISSING_PARAM"))

    async def test_the_better_key_stays(self) -> None:
        """Verified, then lower index, then fewer forwards; else the first. Shows E2E-12."""
        version = await self.begin()
        steps = [
            (key(10, 5), True),
            (key(10, 5, data={"other": 1}), False),
            (key(11, 0), False),
            (key(10, 4), True),
            (key(9, 9), True),
            (key(9, 10), False),
            (key(100, 100, verified=True), True),
            (key(0, 0), False),
            (key(100, 100, verified=True, data={"other": 1}), False),
            (key(99, 200, verified=True), True),
        ]
        stored, etag = None, ""
        for number, (sent, kept) in enumerate(steps):
            answer = await self.put(version, "s", sent)
            self.assertEqual(answer["count"], 1)
            self.assertEqual(answer["etag"] != etag, kept, number)
            stored, etag = (sent if kept else stored), answer["etag"]
            self.assertEqual(await self.get(version, ROOM, "s"), stored, number)

    async def test_many_at_once(self) -> None:
        """Ten thousand keys in one request are a few dozen statements, not one for each."""
        alice = self.alice
        version = await self.begin()
        rooms = {
            f"!r{room}:x": {"sessions": {f"s{room}-{n}": key(n) for n in range(100)}}
            for room in range(100)
        }
        statements: list[int] = []
        db = self.server.homeserver.db
        write = db.write

        async def counted(fn: Any, *args: Any, **kw: Any) -> Any:
            def run(txn: Any, *more: Any, **options: Any) -> Any:
                answer = fn(txn, *more, **options)
                statements.append(txn.statements)
                return answer

            return await write(run, *args, **kw)

        self.patch(db, "write", counted)
        answer = await alice.ok("PUT", self.path(version), {"rooms": rooms})
        self.assertEqual(answer["count"], 10_000)
        rooms["!r0:x"]["sessions"]["s0-5"] = key(0)
        rooms["!r1:x"]["sessions"]["new"] = key(0)
        answer = await alice.ok("PUT", self.path(version), {"rooms": rooms})
        self.assertEqual(answer["count"], 10_001)
        self.assertLess(max(statements), 50)
        self.assertEqual(await self.get(version), {"rooms": rooms})

    async def test_two_processes(self) -> None:
        """Keys that come at the same moment are all kept and counted. Shows E2E-11."""
        version = await self.begin()
        there = await make_server(
            self,
            database_url=self.server.homeserver.config.database.url,
            presence={"enabled": False},
        )
        alice = self.alice
        users = [alice, User(there, alice.user_id, alice.token, alice.device_id)]
        puts = [
            Deferred.fromCoroutine(
                users[n % 2].ok("PUT", self.path(version, ROOM, f"s{n % 20}"), key(n))
            )
            for n in range(30)
        ]
        answers = await gatherResults(puts)
        # Each answer that changed something has an etag of its own.
        self.assertLessEqual(max(int(answer["etag"]) for answer in answers), 30)
        found = (await self.get(version, ROOM))["sessions"]
        self.assertEqual(len(found), 20)
        backup = await alice.ok("GET", "/room_keys/version")
        self.assertEqual(backup["count"], 20)
        for n in range(10):
            self.assertEqual(found[f"s{n}"]["first_message_index"], n)

    async def test_bad_keys(self) -> None:
        """What is no key is refused, and nothing of the request is stored."""
        alice = self.alice
        version = await self.begin()
        for bad, status, errcode in (
            ({}, 400, "M_MISSING_PARAM"),
            ({**key(), "first_message_index": -1}, 400, "M_INVALID_PARAM"),
            ({**key(), "forwarded_count": 2**60}, 400, None),
            ({**key(), "is_verified": "yes"}, 400, "M_BAD_JSON"),
            ({**key(), "session_data": "text"}, 400, "M_BAD_JSON"),
            (key(data={"x": "y" * MAX_DATA_BYTES}), 413, "M_TOO_LARGE"),
            (key(data={"x": "a\x00b"}), 400, None),
        ):
            rooms = {"rooms": {ROOM: {"sessions": {"good": key(), "bad": bad}}}}
            answer = await alice.call("PUT", self.path(version), rooms)
            self.assertEqual(answer.status, status, answer.body)
            if errcode:
                self.assertEqual(answer.body["errcode"], errcode)
        for room, session in (("r" * 256, "s"), (ROOM, "s" * 256), ("\x00", "s")):
            rooms = {"rooms": {room: {"sessions": {session: key()}}}}
            answer = await alice.call("PUT", self.path(version), rooms)
            self.assertEqual(answer.status, 400)
        self.assertEqual(await self.get(version), {"rooms": {}})

    async def test_old_path(self) -> None:
        """Older SDKs call everything below `unstable`. Shows XC-3."""
        alice = self.alice
        version = await self.begin()
        path = f"/_matrix/client/unstable{self.path(version, ROOM, 's')}"
        await alice.ok("PUT", path, key())
        self.assertEqual(await alice.ok("GET", path), key())
        current = await alice.ok("GET", "/_matrix/client/unstable/room_keys/version")
        self.assertEqual(current["count"], 1)
