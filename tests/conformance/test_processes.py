"""Two processes on one PostgreSQL and one Redis: one of them dies, nobody loses anything."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.conformance.load import (
    Acknowledged,
    LoadedServer,
    Senders,
    check,
    history,
    room_of,
)
from tests.support.databases import migrated_database, redis_url

SENDERS = 10
ENOUGH = 200
"""Messages before the kill, and again after it."""


class Receiver:
    """A client that long-polls; when its server is gone it goes on with the other."""

    def __init__(self, servers: list[LoadedServer], token: str, room_id: str) -> None:
        self._servers = servers
        self._token = token
        self._room_id = room_id
        self._stop = threading.Event()
        self.seen: list[tuple[str, str]] = []
        self.gaps = 0
        self.switched = 0
        self.failure: Any = None
        self._since = self._sync(servers[0], None)["next_batch"]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _sync(self, server: LoadedServer, since: str | None) -> Any:
        path = '/_matrix/client/v3/sync?filter={"room":{"timeline":{"limit":1000}}}'
        path = path.replace('"', "%22").replace("{", "%7B").replace("}", "%7D")
        if since is not None:
            path += f"&timeout=2000&since={quote(since)}"
        status, answer = server.call("GET", path, token=self._token)
        if status != 200:
            raise AssertionError(f"/sync answered {status}: {answer}")
        return answer

    def _run(self) -> None:
        server = self._servers[0]
        while True:
            stopping = self._stop.is_set()
            try:
                answer = self._sync(server, self._since)
            except AssertionError as failure:
                self.failure = failure
                return
            except OSError:
                server = self._servers[1]
                self.switched += 1
                if self.switched > 50:
                    return
                continue
            self._since = answer["next_batch"]
            room = answer.get("rooms", {}).get("join", {}).get(self._room_id, {})
            timeline = room.get("timeline", {})
            self.gaps += bool(timeline.get("limited"))
            new = [
                (event["event_id"], event["content"]["body"])
                for event in timeline.get("events", [])
                if event["type"] == "m.room.message"
            ]
            self.seen += new
            if stopping and not new:
                return


class ProcessesTest(TestCase):
    timeout = 180

    async def test_a_process_dies_under_load(self) -> None:
        """Shows SYN-3, SYN-9: no acknowledged event is lost or doubled, both processes give the
        same order, and a receiver of the dead process misses nothing at the other."""
        await deferToThread(self._scenario)

    def _scenario(self) -> None:
        options: dict[str, Any] = {
            "database": {"url": migrated_database(self, "postgres")},
            "redis": {"url": redis_url()},
        }
        directory = Path(self.mktemp()).resolve()
        options["data_directory"] = str(directory / "data")
        doomed = LoadedServer(directory / "one", options)
        other = LoadedServer(directory / "two", options)
        doomed.start()
        try:
            other.start()
            self._load(doomed, other)
        finally:
            doomed.kill()
            self.assertEqual(other.stop(), 0, other.log())

    def _load(self, doomed: LoadedServer, other: LoadedServer) -> None:
        room_id, tokens = room_of(other, SENDERS)
        # One receiver waits on the process that will die, one on the other; senders are on both.
        receivers = [
            Receiver([doomed, other], tokens[0], room_id),
            Receiver([other, doomed], tokens[1], room_id),
        ]
        acknowledged = Acknowledged()
        senders = Senders([doomed.port, other.port], room_id, tokens, acknowledged)
        self._until(acknowledged, ENOUGH)
        doomed.kill()
        self._until(acknowledged, len(acknowledged) + ENOUGH)
        senders.stop()
        for receiver in receivers:
            receiver.stop()
            self.assertIsNone(receiver.failure)
            self.assertEqual(receiver.gaps, 0)
        self.assertEqual(senders.errors, [])
        self.assertGreater(receivers[0].switched, 0)
        found = history(other, room_id, tokens[0])
        check(self.fail, found, acknowledged)
        for receiver in receivers:
            self.assertEqual(receiver.seen, found)

    def _until(self, acknowledged: Acknowledged, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(acknowledged) < count:
            if time.monotonic() > deadline:
                self.fail(f"only {len(acknowledged)} messages were acknowledged")
            time.sleep(0.01)
