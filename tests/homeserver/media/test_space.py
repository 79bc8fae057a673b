"""Files that go: by limits, by age, by redaction; and files and rows in step."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from homeserver.media.janitor import Janitor
from homeserver.media.references import SentMedia
from homeserver.media.removal import MediaRemoval
from homeserver.media.store import new_name
from homeserver.media.sweeping import Findings, Sweeping
from storage import leases, media, media_contents
from tests.homeserver.media.pictures import picture
from tests.support.media import (
    download,
    stored_files,
    try_upload,
    upload,
)
from tests.support.network import eventually, reactor
from tests.support.server import TestServer, User, make_server

THUMBNAIL = "/_matrix/client/v1/media/thumbnail"
DAY_MS = 86_400_000


class SpaceCase(TestCase):
    server: TestServer
    alice: User

    async def start(self, **media: Any) -> None:
        self.server = await make_server(self, media=media)
        self.alice = await self.server.register()
        self.services = self.server.homeserver.services
        self.db = self.server.homeserver.db

    async def run_sql(self, sql: str, *args: Any) -> None:
        await self.db.write(lambda txn: txn.execute(sql, args))

    async def round(self) -> None:
        self.assertTrue(await self.services[Janitor].round())

    async def is_there(self, name: str) -> bool:
        return (await download(self.alice, name)).status == 200

    async def add_remote(self, name: str, data: bytes, age_ms: int) -> str:
        """A copy of another server's file."""
        uploaded = await upload(self.alice, data)
        then = int(reactor.seconds() * 1000) - age_ms
        await self.run_sql(
            "UPDATE media SET server_name = 'other.test', media_id = ?, kind = 'remote',"
            " uploader = NULL, last_access_ts = ?, created_ts = ? WHERE media_id = ?",
            name,
            then,
            then,
            uploaded.partition("/")[2],
        )
        return f"other.test/{name}"

    async def names(self, sql: str = "SELECT media_id FROM media") -> set[str]:
        return {row[0] for row in await self.db.read(lambda txn: txn.all(sql))}


class LimitTests(SpaceCase):
    async def test_least_recently_used(self) -> None:
        """What can be had again goes, the longest unused first; what users sent does not."""
        await self.start(space={"remote": 2500})
        own = await upload(self.alice, b"own" * 2000)
        for number in range(5):
            data = str(number).encode() * 1000
            await self.add_remote(f"m{number}", data, age_ms=number * 1000 + 1000)
        await self.run_sql("UPDATE media SET quarantined_by = '@a:b' WHERE media_id = 'm4'")
        await self.round()
        left = await self.names("SELECT media_id FROM media WHERE kind = 'remote'")
        # What is withheld counts, but stays: it would be fetched again without its mark.
        self.assertEqual(left, {"m0", "m4"})
        self.assertTrue(await self.is_there(own))
        self.assertEqual(len(stored_files(self.server)), 3)

    async def test_thumbnails(self) -> None:
        """They go and are made again."""
        await self.start(space={"thumbnails": 0})
        name = await upload(self.alice, picture())
        for _ in range(2):
            answer = await download(self.alice, name, THUMBNAIL, width=96, height=96)
            self.assertEqual(answer.status, 200)
            self.assertEqual(len(stored_files(self.server)), 2)
            await self.round()
            self.assertEqual(len(stored_files(self.server)), 1)

    async def test_previews(self) -> None:
        """With the picture of a page goes what is remembered of the page."""
        await self.start(space={"previews": 5})
        for number in range(2):
            name = await upload(self.alice, bytes([number]) * 4)
            media_id = name.partition("/")[2]
            await self.run_sql(
                "UPDATE media SET kind = 'preview', uploader = NULL, last_access_ts = ?"
                " WHERE media_id = ?",
                number,
                media_id,
            )
            await self.run_sql(
                "INSERT INTO url_previews (url_hash, fetched_ts, expires_ts, url, preview,"
                " media_id) VALUES (?, 1, 2, 'u', '{}', ?)",
                str(number),
                media_id,
            )
        await self.round()
        self.assertEqual(await self.names("SELECT url_hash FROM url_previews"), {"1"})
        self.assertEqual(len(stored_files(self.server)), 1)

    async def test_age(self) -> None:
        """By the last access, and by age; protected ones stay."""
        await self.start(
            retention={"remote_unused": "2d", "local_unused": "10d", "local_age": "30d"}
        )
        await self.add_remote("old", b"1", 3 * DAY_MS)
        await self.add_remote("new", b"2", DAY_MS)
        names = {}
        for label, used, made in (("unused", 11, 11), ("aged", 1, 31), ("kept", 9, 29)):
            names[label] = name = await upload(self.alice, label.encode())
            now = int(reactor.seconds() * 1000)
            await self.run_sql(
                "UPDATE media SET last_access_ts = ?, created_ts = ? WHERE media_id = ?",
                now - used * DAY_MS,
                now - made * DAY_MS,
                name.partition("/")[2],
            )
        safe = await upload(self.alice, b"safe")
        await self.run_sql(
            "UPDATE media SET last_access_ts = 0, protected = ? WHERE media_id = ?",
            True,
            safe.partition("/")[2],
        )
        await self.round()
        left = await self.names()
        kept = {"new", *(name.partition("/")[2] for name in (names["kept"], safe))}
        self.assertEqual(left, kept)
        self.assertEqual(len(stored_files(self.server)), 3)

    async def test_reservations(self) -> None:
        await self.start(upload_within="0ms")
        await self.alice.ok("POST", "/_matrix/media/v1/create")
        await self.round()
        self.assertEqual(await self.names(), set())

    async def test_one_process_at_a_time(self) -> None:
        await self.start()
        now = int(reactor.seconds() * 1000)
        await self.db.write(leases.claim, ["media-janitor"], "other", now, 60_000)
        self.assertFalse(await self.services[Janitor].round())

    async def test_same_content(self) -> None:
        """A content stays as long as one name has it, and its thumbnails as long as it does."""
        await self.start()
        first, second = [await upload(self.alice, picture()) for _ in range(2)]
        await download(self.alice, first, THUMBNAIL, width=96, height=96)
        await eventually(lambda: len(stored_files(self.server)) == 2)
        for name, left in ((first, 2), (second, 0)):
            rows = await self.db.read(
                lambda txn, name=name: [_row(txn, name)]  # type: ignore[misc]
            )
            await self.services[MediaRemoval].delete(rows)
            self.assertEqual(len(stored_files(self.server)), left)
            self.assertFalse(await self.is_there(name))

    async def test_changed_before_it_was_removed(self) -> None:
        """What goes is what the name has then, not what it had when it was chosen."""
        await self.start()
        old = await upload(self.alice, b"one")
        shared = await upload(self.alice, b"one")
        await self.add_remote("m", b"one", DAY_MS)
        rows = [await self.db.read(lambda txn: _row(txn, "other.test/m"))]
        await self.services[MediaRemoval].delete(rows)
        await self.add_remote("m", b"two", DAY_MS)
        await self.services[MediaRemoval].delete(rows)
        self.assertTrue((await self.services[Sweeping].check(repair=False)).is_clean)
        self.assertEqual(len(stored_files(self.server)), 2)
        self.assertTrue(await self.is_there(old) and await self.is_there(shared))


def _row(txn: Any, name: str) -> Any:

    return media.get(txn, *name.split("/"))


class RedactionTests(SpaceCase):
    """A file goes when all that it was sent in is redacted, after a while."""

    async def settle(self) -> None:
        """The log is read, and redactions are a while ago."""
        await self.services[SentMedia].catch_up()
        await self.round()
        await self.run_sql(
            "UPDATE media_references SET redacted_ts = 1 WHERE redacted_ts IS NOT NULL"
        )
        await self.round()

    async def redact(self, room_id: str, event_id: str, user: User | None = None) -> None:
        path = f"/rooms/{room_id}/redact/{event_id}/{os.urandom(4).hex()}"
        await (user or self.alice).ok("PUT", path, {})

    def image(self, name: str) -> dict[str, Any]:
        return {
            "msgtype": "m.image",
            "body": "x",
            "url": f"mxc://{name}",
            "info": {"thumbnail_url": f"mxc://{name}"},
        }

    async def test_redacted(self) -> None:
        await self.start()
        room_id = await self.alice.create_room()
        name, other = await upload(self.alice, b"one"), await upload(self.alice, b"two")
        first = await self.alice.send(room_id, self.image(name))
        second = await self.alice.send(room_id, self.image(name))
        await self.alice.send(room_id, self.image(other))
        await self.settle()
        await self.redact(room_id, first)
        await self.settle()
        self.assertTrue(await self.is_there(name))
        await self.redact(room_id, second)
        await self.services[SentMedia].catch_up()
        await self.round()  # not at once
        self.assertTrue(await self.is_there(name))
        await self.settle()
        self.assertFalse(await self.is_there(name))
        self.assertTrue(await self.is_there(other))
        self.assertEqual(len(stored_files(self.server)), 1)

    async def test_redacted_before_it_was_noted(self) -> None:
        """Also if that was within a moment."""
        await self.start()
        room_id = await self.alice.create_room()
        name = await upload(self.alice, b"one")
        await self.redact(room_id, await self.alice.send(room_id, self.image(name)))
        await self.settle()
        self.assertFalse(await self.is_there(name))

    async def test_needed_elsewhere(self) -> None:
        """Not what others sent of it, nor what is somebody's picture, nor what is kept on
        purpose; and nobody has another's file removed."""
        await self.start()
        bob = await self.server.register()
        room_id = await self.alice.create_room(preset="public_chat")
        await bob.join(room_id)
        names = [await upload(self.alice, bytes([number])) for number in range(5)]
        quoted, avatar, pack, protected, foreign = names
        sent = [
            await self.alice.send(room_id, self.image(name))
            for name in (quoted, avatar, pack, protected)
        ]
        await self.settle()
        for event in sent:
            await self.redact(room_id, event)
        await bob.send(room_id, self.image(quoted))
        event = await bob.send(room_id, self.image(foreign))
        await self.redact(room_id, event, bob)
        user = self.alice.user_id
        await self.alice.ok("PUT", f"/profile/{user}/avatar_url", {"avatar_url": f"mxc://{avatar}"})
        await self.alice.ok(
            "PUT", f"/user/{user}/account_data/im.pack", {"images": [f"mxc://{pack}"]}
        )
        await self.run_sql(
            "UPDATE media SET protected = ? WHERE media_id = ?", True, protected.split("/")[1]
        )
        await self.settle()
        for name in names:
            self.assertTrue(await self.is_there(name), name)

    async def test_purged(self) -> None:
        """Events that are not kept any more name nothing."""
        await self.start()
        room_id = await self.alice.create_room()
        name = await upload(self.alice, b"one")
        event_id = await self.alice.send(room_id, self.image(name))
        await self.services[SentMedia].catch_up()
        await self.run_sql("DELETE FROM events WHERE event_id = ?", event_id)
        await self.settle()
        self.assertFalse(await self.is_there(name))

    async def test_not_wanted(self) -> None:
        await self.start(retention={"redacted": None})
        room_id = await self.alice.create_room()
        name = await upload(self.alice, b"one")
        await self.redact(room_id, await self.alice.send(room_id, self.image(name)))
        await self.settle()
        self.assertTrue(await self.is_there(name))


class CheckTests(SpaceCase):
    """Files without rows, and rows without files."""

    async def check(self, **options: Any) -> Findings:
        options.setdefault("repair", True)
        return await self.services[Sweeping].check(**options)

    def store_path(self, process: str) -> Path:
        name = new_name("ab" * 32, process)
        directory = self.server.homeserver.config.data_directory / "media" / "ab" / "ab"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name

    def spool_path(self, process: str) -> Path:
        directory = self.server.homeserver.config.data_directory / "media" / "incoming"
        return directory / f"{process}-0123456789abcdef"

    async def test_rubbish_of_the_dead(self) -> None:
        """What a killed process left goes; what a running one is about to name stays."""
        await self.start()
        name = await upload(self.alice, b"kept")
        dead, living = "0" * 12, self.db.process_token
        for process in (dead, living):
            self.store_path(process).write_bytes(b"x")
            self.spool_path(process).write_bytes(b"x")
        looked = await self.check(repair=False)
        self.assertEqual((len(looked.orphans), len(looked.unfinished)), (1, 1))
        self.assertEqual(len(stored_files(self.server)), 5)
        found = await self.check()
        self.assertEqual((found.orphans, found.unfinished), (looked.orphans, looked.unfinished))
        await eventually(lambda: len(stored_files(self.server)) == 3)
        self.assertTrue((await self.check()).is_clean)
        self.assertTrue(await self.is_there(name))

    async def test_sweep(self) -> None:
        """In passing only what is old goes, since processes of other machines may seem dead."""
        await self.start()
        paths = [self.store_path("0" * 12), self.spool_path("0" * 12)]
        for path in paths:
            path.write_bytes(b"x")
        await self.services[Sweeping].sweep()
        self.assertEqual(len(stored_files(self.server)), 2)
        for path in paths:
            os.utime(path, (1, 1))
        await self.round()
        await eventually(lambda: not stored_files(self.server))

    async def test_lost_files(self) -> None:
        """Rows whose files are gone, cut off or changed are told and forgotten."""
        await self.start()
        names = [await upload(self.alice, bytes([number]) * 100) for number in range(4)]
        paths = {path.read_bytes()[0]: path for path in stored_files(self.server)}
        paths[0].unlink()
        paths[1].write_bytes(b"short")
        paths[2].write_bytes(b"y" * 100)
        self.assertEqual(len((await self.check(repair=False)).lost), 2)
        found = await self.check(contents=True)
        self.assertEqual({row.uri[6:] for row in found.lost}, set(names[:3]))
        self.assertEqual([await self.is_there(name) for name in names], [False] * 3 + [True])
        self.assertTrue((await self.check(contents=True)).is_clean)
        self.assertEqual(len(stored_files(self.server)), 1)

    async def test_miscounted(self) -> None:
        await self.start()
        await upload(self.alice, b"one")
        await self.run_sql("UPDATE media_contents SET refs = 5")
        self.assertEqual((await self.check()).miscounted, 1)
        self.assertTrue((await self.check()).is_clean)
        await self.run_sql("DELETE FROM media")
        self.assertEqual((await self.check()).miscounted, 1)
        self.assertEqual(stored_files(self.server), [])

    async def test_kept_out(self) -> None:
        """A file that cannot be recorded is not kept."""
        await self.start()
        for _ in range(2):
            await upload(self.alice, b"bad")
        sha256 = (await self.db.read(media_contents.after, "", 1))[0].sha256
        changed = await self.services[MediaRemoval].block(sha256, "@admin:hearth.test")
        self.assertEqual(changed, 2)
        answer = await try_upload(self.alice, b"bad")
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await eventually(lambda: len(stored_files(self.server)) == 1)
        self.assertTrue((await self.check()).is_clean)
        await self.services[MediaRemoval].unblock(sha256)
        await upload(self.alice, b"bad")

    async def test_disk_that_fails(self) -> None:
        """An upload that cannot be written is refused, and taken when the disk is well again."""
        await self.start()
        directory = self.server.homeserver.config.data_directory / "media" / "incoming"
        directory.rmdir()
        answer = await try_upload(self.alice, b"x")
        self.assertEqual((answer.status, answer.body["errcode"]), (503, "M_UNKNOWN"))
        directory.mkdir()
        await upload(self.alice, b"x")


class ScanTests(SpaceCase):
    """A look at each file before anybody gets it."""

    def scanner(self, script: str) -> list[str]:
        path = Path(self.mktemp()).resolve()
        path.write_text(f"#!/bin/sh\necho x >> {path}.log\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.log = Path(f"{path}.log")
        return [str(path)]

    async def test_program(self) -> None:
        """Each content once; what is harmful is given to nobody, nor taken again."""
        await self.start(scan={"command": self.scanner('! grep -q EVIL "$1"')})
        good, bad = await upload(self.alice, b"good"), await upload(self.alice, b"EVIL")
        for _ in range(2):
            self.assertTrue(await self.is_there(good))
            answer = await download(self.alice, bad)
            self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
        self.assertEqual(self.log.read_text().count("x"), 2)
        self.assertEqual((await try_upload(self.alice, b"EVIL")).status, 403)
        answer = await download(self.alice, bad, THUMBNAIL, width=1, height=1)
        self.assertEqual(answer.status, 404)

    async def test_program_that_fails(self) -> None:
        for choice, status in (("refuse", 503), ("deliver", 200)):
            await self.start(scan={"command": self.scanner("exit 2"), "if_failed": choice})
            name = await upload(self.alice, b"x")
            for _ in range(2):
                self.assertEqual((await download(self.alice, name)).status, status)
            self.assertEqual(self.log.read_text().count("x"), 2)

    async def test_service(self) -> None:
        """The same, asked by HTTP."""
        seen: list[bytes] = []
        answers = [200, 406, 500]

        class Scan(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> bytes:
                seen.append(request.content.read())
                request.setResponseCode(answers.pop(0))
                return b"verdict"

        site: Any = Site(Scan())
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/scan"
        await self.start(scan={"url": url})
        for data, status in ((b"a" * 100_000, 200), (b"b", 404), (b"c", 503)):
            name = await upload(self.alice, data)
            self.assertEqual((await download(self.alice, name)).status, status)
            self.assertEqual(seen[-1], data)
