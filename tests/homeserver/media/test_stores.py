"""Stores of files: a directory, and a bucket of a real server that speaks S3."""

from __future__ import annotations

import atexit
import hashlib
import logging
import secrets
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import boto3
from moto.server import ThreadedMotoServer
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from config.model import S3
from homeserver.media.local_store import LocalStore
from homeserver.media.s3_store import S3Store
from homeserver.media.spool import Spool
from homeserver.media.store import FileMissing, Store, StoreError, new_name
from homeserver.media.sweeping import Sweeping
from homeserver.media.threads import FileThreads
from tests.homeserver.media.pictures import opened, picture
from tests.support.databases import reactor
from tests.support.federation import make_federation
from tests.support.media import DOWNLOAD, download, stored_files, try_upload, upload
from tests.support.network import eventually
from tests.support.peer import make_peer
from tests.support.server import make_server

PROCESS = "0123456789ab"


def name_of(data: bytes) -> str:
    return new_name(hashlib.sha256(data).hexdigest(), PROCESS)


class Bucket:
    """A bucket of a server in this process, for one test."""

    _server: ClassVar[ThreadedMotoServer | None] = None
    _url: ClassVar[str] = ""

    def __init__(self) -> None:
        if Bucket._server is None:
            for name in ("werkzeug", "boto3", "botocore"):
                logging.getLogger(name).setLevel(logging.ERROR)
            Bucket._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            Bucket._server.start()
            Bucket._url = "http://{}:{}".format(*Bucket._server.get_host_and_port())
            # Not when the reactor shuts down: trial's workers say so after each test.
            atexit.register(Bucket._server.stop)
        self.name = f"bucket-{secrets.token_hex(4)}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=Bucket._url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self.client.create_bucket(Bucket=self.name)

    def options(self, **more: Any) -> dict[str, Any]:
        """The section `s3` of a configuration."""
        return {
            "bucket": self.name,
            "endpoint_url": Bucket._url,
            "region": "us-east-1",
            "access_key_id": "key",
            "secret_access_key": "secret",
            "prefix": "hearth/",
            **more,
        }

    def listed(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name)
        return [entry["Key"] for entry in found.get("Contents", ())]


class StoreContract:
    """What every store does."""

    store: Store
    directory: Path

    def prepare(self) -> None:
        test: Any = self
        self.directory = Path(test.mktemp()).resolve()
        threads = FileThreads(reactor)
        test.addCleanup(threads.stop)
        self.spool = Spool(self.directory / "incoming", PROCESS, threads)
        self.spool.prepare()
        self.store = self.make(threads)

    def make(self, threads: FileThreads) -> Store:
        raise AssertionError

    async def put(self, data: bytes) -> str:
        path, name = self.spool.new_path(), name_of(data)
        path.write_bytes(data)
        await self.store.put(path, name, len(data))
        assert not path.exists()
        return name

    async def read(self, name: str, start: int, end: int) -> bytes:
        return b"".join([chunk async for chunk in self.store.read(name, start, end)])

    async def test_files(self) -> None:
        test: Any = self
        data = secrets.token_bytes(700_000)
        name, empty = await self.put(data), await self.put(b"")
        for start, end in ((0, 700_000), (0, 1), (699_999, 700_000), (131_071, 400_000)):
            test.assertEqual(await self.read(name, start, end), data[start:end])
        test.assertEqual(await self.read(empty, 0, 0), b"")
        test.assertTrue(await self.store.exists(name, 700_000))
        test.assertFalse(await self.store.exists(name, 5))
        async with self.store.local(name) as path:
            test.assertEqual(path.read_bytes(), data)
        listed = [file async for part in self.store.files() for file in part]
        test.assertEqual({file.name: file.size for file in listed}, {name: 700_000, empty: 0})
        now = reactor.seconds() * 1000
        test.assertTrue(all(abs(file.written_ts - now) < 60_000 for file in listed))
        for _ in range(2):
            await self.store.delete(name)
        test.assertFalse(await self.store.exists(name, 700_000))

    async def test_missing(self) -> None:
        test: Any = self
        for name in (name_of(b"x"), "../../etc/passwd", ""):
            with test.assertRaises(FileMissing):
                await self.read(name, 0, 1)
            with test.assertRaises(FileMissing):
                async with self.store.local(name):
                    pass

    async def test_shorter_than_it_was(self) -> None:
        test: Any = self
        name = await self.put(b"x" * 10)
        with test.assertRaises(StoreError):
            await self.read(name, 0, 20)

    async def test_reader_leaves(self) -> None:
        test: Any = self
        name = await self.put(b"x" * 900_000)
        chunks: Any = self.store.read(name, 0, 900_000)
        await anext(chunks)
        await chunks.aclose()
        test.assertEqual(await self.read(name, 0, 5), b"xxxxx")


class LocalStoreTests(StoreContract, TestCase):
    def setUp(self) -> None:
        self.prepare()

    def make(self, threads: FileThreads) -> Store:
        return LocalStore(self.directory, threads)


class S3StoreTests(StoreContract, TestCase):
    def setUp(self) -> None:
        self.bucket = Bucket()
        self.prepare()

    def make(self, threads: FileThreads) -> Store:
        return S3Store(S3(**self.bucket.options()), threads, self.spool)

    async def test_no_bucket(self) -> None:
        """A bucket that is not there is a fault, and no missing file."""
        name = await self.put(b"x")
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=self.bucket.listed()[0])
        self.bucket.client.delete_bucket(Bucket=self.bucket.name)
        with self.assertRaises(StoreError) as raised:
            await self.read(name, 0, 1)
        self.assertNotIsInstance(raised.exception, FileMissing)


class BucketServerTests(TestCase):
    """A homeserver with a bucket."""

    timeout = 60

    async def start(self, **options: Any) -> None:
        self.bucket = Bucket()
        store = {"s3": self.bucket.options(**options)}
        self.server = await make_server(self, media={"store": store})
        self.alice = await self.server.register()

    async def test_all(self) -> None:
        """Uploads, the same twice, parts, thumbnails; nothing stays on the machine. Shows MED-1,
        MED-7, MED-8."""
        await self.start()
        data = picture(1000, 700) + bytes(400_000)
        first, second = [await upload(self.alice, data) for _ in range(2)]
        self.assertEqual(len(self.bucket.listed()), 1)
        self.assertTrue(self.bucket.listed()[0].startswith("hearth/"))
        for name in (first, second):
            self.assertEqual((await download(self.alice, name)).body, data)
        part = await download(self.alice, first, headers={"Range": "bytes=5-300004"})
        self.assertEqual((part.status, part.body), (206, data[5:300_005]))
        path = "/_matrix/client/v1/media/thumbnail"
        small = await download(self.alice, first, path, width=96, height=96)
        self.assertEqual(opened(small.body).size, (96, 67))
        self.assertEqual(len(self.bucket.listed()), 2)
        await eventually(lambda: not stored_files(self.server))

    async def test_check(self) -> None:
        """Files and rows in step."""
        await self.start()
        for number in range(3):
            await upload(self.alice, bytes([number]))
        sweeping = self.server.homeserver.services[Sweeping]
        self.assertTrue((await sweeping.check(repair=True, contents=True)).is_clean)
        orphan = new_name("a" * 64, PROCESS)
        put = self.bucket.client.put_object
        put(Bucket=self.bucket.name, Key=f"hearth/aa/{orphan}", Body=b"x")
        put(Bucket=self.bucket.name, Key="hearth/somebody-elses", Body=b"x")
        lost = next(key for key in self.bucket.listed() if "aa/" not in key)
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=lost)
        found = await sweeping.check(repair=True)
        self.assertEqual((found.orphans, len(found.lost)), ([orphan], 1))
        self.assertTrue((await sweeping.check(repair=True)).is_clean)
        self.assertEqual(len(self.bucket.listed()), 3)

    async def test_redirect(self) -> None:
        """Clients are sent to the bucket, where type and name are as here."""
        await self.start(redirect=True)
        name = await upload(self.alice, b"<p>", "text/html", "ü.html")
        answer = await download(self.alice, name)
        self.assertEqual((answer.status, answer.body), (307, b""))
        got: Any = await deferToThread(urllib.request.urlopen, answer.headers["location"])
        with got:
            self.assertEqual(got.read(), b"<p>")
            self.assertEqual(got.headers["content-type"], "text/html")
            self.assertIn("attachment", got.headers["content-disposition"])
        small = await upload(self.alice, picture(20, 20))
        path = "/_matrix/client/v1/media/thumbnail"
        answer = await download(self.alice, small, path, width=32, height=32)
        self.assertEqual(answer.status, 307)
        # An address is signed for one method.
        answer = await self.alice.client.full("HEAD", f"{DOWNLOAD}/{name}")
        self.assertEqual((answer.status, answer.headers.get("content-length")), (200, "3"))

        def fails(*args: Any) -> None:
            raise StoreError("no credentials")

        self.patch(S3Store, "_sign", fails)
        answer = await download(self.alice, name)
        self.assertEqual((answer.status, answer.body["errcode"]), (503, "M_UNKNOWN"))

    async def test_redirect_of_servers(self) -> None:
        """Other servers are told where the file is. Shows MED-4."""
        bucket = Bucket()
        store = {"s3": bucket.options(redirect=True)}
        federation = await make_federation(self, 1, media={"store": store})
        (a,) = federation
        peer = await make_peer(self, federation)
        name = await upload(await a.register("alice"), b"x")
        status, body = await peer.get(a.name, "/v1/media/download/{}", name.partition("/")[2])
        self.assertEqual(status, 200)
        self.assertIn(f"Location: {bucket.options()['endpoint_url']}/".encode(), body)

    async def test_bucket_that_fails(self) -> None:
        """What cannot be kept is refused, and nothing of it stays."""
        await self.start()
        self.bucket.client.delete_bucket(Bucket=self.bucket.name)
        answer = await try_upload(self.alice, b"x")
        self.assertEqual((answer.status, answer.body["errcode"]), (503, "M_UNKNOWN"))
        await eventually(lambda: not stored_files(self.server))
