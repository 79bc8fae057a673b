"""`kill -9` during uploads, and `hearth media` as operators run it."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_database
from tests.support.process import ServerProcess, hearth

UPLOAD = "/_matrix/media/v3/upload"
DOWNLOAD = "/_matrix/client/v1/media/download"


class KilledTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.server = ServerProcess(
            Path(self.mktemp()).absolute(), {"database": {"url": migrated_database(self)}}
        )
        self.addCleanup(self.server.kill)
        self.server.start()
        body = {"username": "alice", "password": "wonderland", "auth": {"type": "m.login.dummy"}}
        status, text = self.server.request("POST", "/_matrix/client/v3/register", body)
        self.assertEqual(status, 200, text)
        self.token = json.loads(text)["access_token"]

    def upload(self, data: bytes) -> str:
        request = urllib.request.Request(self.server.url + UPLOAD, data, method="POST")
        request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            uri: str = json.loads(answer.read())["content_uri"]
        return uri

    def begin(self, size: int) -> socket.socket:
        """An upload of which the server has a part."""
        connection = socket.create_connection(("127.0.0.1", self.server.port))
        self.addCleanup(connection.close)
        head = (
            f"POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"x" * (size - 1))
        return connection

    def files(self) -> list[Path]:
        directory = self.server.directory / "data" / "media"
        return [path for path in directory.rglob("*") if path.is_file()]

    def hearth(self, *arguments: str, status: int = 0) -> str:
        done = hearth("media", *arguments, "-c", str(self.server.config_file))
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout

    def test_killed(self) -> None:
        """What was acknowledged survives; of the rest nothing is left after a check."""
        kept = [self.upload(bytes([number]) * 100_000) for number in range(3)]
        for _ in range(3):
            self.begin(2_000_000)
        while len(self.files()) < 6:
            pass
        # While the server runs, what is on the way stays.
        self.assertIn("All is well: 3 files, 300000 bytes.", self.hearth("check"))
        self.assertEqual(len(self.files()), 6)
        self.server.kill()
        said = self.hearth("check", status=1)
        self.assertIn("3 unfinished files removed.", said)
        self.assertIn("The rest is well: 3 files, 300000 bytes.", said)
        self.assertIn("All is well: 3 files", self.hearth("check", "--contents"))
        self.assertEqual(len(self.files()), 3)
        self.server.start()
        for number, uri in enumerate(kept):
            status, text = self.server.request(
                "GET", f"{DOWNLOAD}/{uri.removeprefix('mxc://')}", token=self.token
            )
            self.assertEqual((status, len(text)), (200, 100_000), number)

    def test_commands(self) -> None:
        first, second = self.upload(b"first"), self.upload(b"second")
        self.assertIn("Changed 1", self.hearth("quarantine", first))
        listed = self.hearth("list", "--user", "@alice:localhost")
        self.assertEqual(sorted(re.findall(r"mxc://\S+", listed)), sorted([first, second]))
        self.assertEqual(listed.count("quarantined by"), 1)
        self.assertIn("Removed 1 of 1.", self.hearth("delete", first))
        self.assertEqual(len(self.files()), 1)
        for path in self.files():
            path.unlink()
        said = self.hearth("check", "--dry-run", status=1)
        self.assertIn(second, said)
        self.assertIn("1 rows without their file found.", said)
        self.hearth("check", status=1)
        self.assertIn("Removed 0 of 1.", self.hearth("delete", second))
