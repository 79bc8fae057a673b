"""Two processes on one database and one directory: any of them answers any request."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_database, redis_url
from tests.support.process import ServerProcess, hearth

MEDIA = "/_matrix/media/v3"
DOWNLOAD = "/_matrix/client/v1/media/download"


class ProcessesTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        shared = {
            "database": {"url": migrated_database(self, "postgres")},
            "redis": {"url": redis_url()},
            "data_directory": str(directory / "data"),
        }
        self.store = directory / "data" / "media"
        self.one, self.two = (ServerProcess(directory / name, shared) for name in ("one", "two"))
        for process in (self.one, self.two):
            self.addCleanup(process.kill)
            process.start()
        body = {"username": "alice", "password": "wonderland", "auth": {"type": "m.login.dummy"}}
        status, text = self.one.request("POST", "/_matrix/client/v3/register", body)
        self.assertEqual(status, 200, text)
        self.token = json.loads(text)["access_token"]

    def call(
        self, process: ServerProcess, method: str, path: str, data: bytes | None = None
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(process.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def upload(self, process: ServerProcess, data: bytes) -> str:
        status, body = self.call(process, "POST", f"{MEDIA}/upload", data)
        self.assertEqual(status, 200, body)
        name: str = json.loads(body)["content_uri"].removeprefix("mxc://")
        return name

    def begin(self, process: ServerProcess) -> None:
        """An upload of which a process has a part."""
        known = len(self.files())
        connection = socket.create_connection(("127.0.0.1", process.port))
        self.addCleanup(connection.close)
        head = (
            f"POST {MEDIA}/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"x" * 800_000)
        while len(self.files()) == known:
            time.sleep(0.01)

    def files(self) -> list[Path]:
        return [path for path in self.store.rglob("*") if path.is_file()]

    def test_shared(self) -> None:
        """What one takes the other gives, also to those who wait; of a killed one only its own is
        removed. Shows MED-9."""
        name = self.upload(self.one, b"one")
        self.assertEqual(self.call(self.two, "GET", f"{DOWNLOAD}/{name}"), (200, b"one"))
        status, body = self.call(self.one, "POST", "/_matrix/media/v1/create", b"")
        self.assertEqual(status, 200, body)
        late = json.loads(body)["content_uri"].removeprefix("mxc://")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.call, self.two, "GET", f"{DOWNLOAD}/{late}?timeout_ms=50000")
            filled = self.call(self.one, "PUT", f"{MEDIA}/upload/{late}", b"late")
            self.assertEqual(filled, (200, b"{}"))
            self.assertEqual(waiting.result(), (200, b"late"))
        for process in (self.one, self.two):
            self.begin(process)
        self.one.kill()
        done = hearth("media", "check", "-c", str(self.two.config_file))
        self.assertIn("1 unfinished files removed.", done.stdout)
        self.assertEqual(len(self.files()), 3)
        self.assertEqual(self.call(self.two, "GET", f"{DOWNLOAD}/{late}"), (200, b"late"))
