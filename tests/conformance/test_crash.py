"""What was acknowledged survives SIGKILL."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.conformance.load import (
    Acknowledged,
    LoadedServer,
    Senders,
    check,
    history,
    room_of,
)
from tests.support.databases import DatabaseTestCase, on_each_database

SENDERS = 50
ENOUGH = 500
"""Messages to wait for before the kill."""


@on_each_database
class CrashTest(DatabaseTestCase):
    timeout = 120

    async def test_nothing_acknowledged_is_lost(self) -> None:
        """Shows SYN-3, SND-1: 50 senders, SIGKILL in their midst, start again."""
        await deferToThread(self._scenario)

    def _scenario(self) -> None:
        server = LoadedServer(
            Path(self.mktemp()).resolve(), {"database": {"url": self.database_url()}}
        )
        server.start()
        try:
            room_id, tokens = room_of(server, SENDERS)
            acknowledged = Acknowledged()
            senders = Senders([server.port], room_id, tokens, acknowledged)
            deadline = time.monotonic() + 60
            while len(acknowledged) < ENOUGH and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill()
            senders.stop()
            self.assertEqual(senders.errors, [])
            self.assertGreaterEqual(len(acknowledged), ENOUGH)
            server.start()
            check(self.fail, history(server, room_id, tokens[0]), acknowledged)
            status, _ = server.call(
                "PUT",
                f"/_matrix/client/v3/rooms/{room_id}/send/m.room.message/after",
                {"msgtype": "m.text", "body": "0:999999"},
                tokens[0],
            )
            self.assertEqual(status, 200)
        finally:
            self.assertEqual(server.stop(), 0, server.log())
