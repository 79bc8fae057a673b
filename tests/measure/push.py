"""What notifications cost, and whether any is lost: `python -m tests.measure.push [rules|drain]`.

rules: one process, a room of 1,000 people of this server with the default push rules. Prints
microseconds of each message for judging it when it is sent, and for finding whom to tell behind
it, while nobody and while everybody has a pusher.

drain: 10,000 pushes wait on PostgreSQL. Three processes deliver them to a gateway; two of them are
killed on the way (SIGKILL) and started again. Prints the time, what was lost, and what came twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog
from twisted.internet import reactor as installed_reactor
from twisted.internet import task

import homeserver.push.reader as push_reader
from homeserver.app import build
from homeserver.rooms import plain, unread
from storage import clock, log_readers, pushers
from storage.transaction import Transaction
from tests.support.client import Client
from tests.support.network import OfflineReactor
from tests.support.process import ServerProcess
from tests.support.server import TestServer, User, test_config
from tests.support.services import PostgresCluster, RedisServer, free_port

PEOPLE = 1_000
MESSAGES = 200


class Stopwatch:
    """Adds up the time of a function. `wrap` replaces it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - began

        return timed

    def take(self) -> float:
        taken, self.seconds = self.seconds, 0.0
        return taken


async def rules(directory: Path) -> None:
    """See the module."""
    config = test_config(directory, f"sqlite:///{directory / 'hearth.db'}", push={"enabled": False})
    server = await build(config, OfflineReactor(), structlog.get_logger())
    test = TestServer(server, Client(server.router))
    users: list[User] = [await test.register(f"u{number}") for number in range(PEOPLE)]
    room_id = await users[0].create_room(preset="public_chat")
    for user in users[1:]:
        await user.join(room_id)
    judging = Stopwatch()
    # By name where it is called, for messages that are built in memory and for all others.
    wrapped = judging.wrap(unread.judge)
    for module in (plain, unread):
        vars(module)["judge"] = wrapped
    reader = server.services[push_reader.PushReader]

    async def send() -> None:
        for number in range(MESSAGES):
            await users[0].send(room_id, f"message {number}")

    await send()
    judging.take()
    await send()
    print(f"judging a message: {judging.take() / MESSAGES * 1e6:.0f} µs", flush=True)
    for share in (0, 0.01, 1):
        await server.db.write(_set_pushers, [user.user_id for user in users], share)
        await send()
        before = await server.db.read(clock.position) - MESSAGES
        await server.db.write(_move, before)
        began = time.process_time()
        await reader.catch_up()
        took = (time.process_time() - began) / MESSAGES
        rows = await server.db.read(lambda txn: txn.value("SELECT COUNT(*) FROM push_queue"))
        print(
            f"finding whom to tell, {share:.0%} with a pusher: {took * 1e6:.0f} µs of CPU a message"
            f" ({rows / MESSAGES:.0f} pushes of each)",
            flush=True,
        )
        await server.db.write(lambda txn: txn.execute("DELETE FROM push_queue"))
    await server.stop()


def _move(txn: Transaction, pos: int) -> None:
    txn.execute("UPDATE log_readers SET pos = ? WHERE name = ?", (pos, push_reader.NAME))
    assert log_readers.position(txn, push_reader.NAME) == pos


def _set_pushers(txn: Transaction, user_ids: list[str], share: float) -> None:
    txn.execute("DELETE FROM pushers")
    for number, user_id in enumerate(user_ids[: int(len(user_ids) * share)]):
        row = pushers.PusherRow(
            *(number, user_id, "app", "key", "http", "", "", None, "en", "{}", "d", True, True),
            *(None, None, "s", "g", 1, 0, None, None, None),
        )
        pushers.put(txn, row)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections of killed processes end as they do."""


class Gateway:
    """A push gateway that counts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.told: Counter[tuple[str, str]] = Counter()
        self.order: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                gateway.hear(body["notification"])
                self.send_response(200)
                self.send_header("Content-Length", "15")
                self.end_headers()
                self.wfile.write(b'{"rejected":[]}')

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._handler = Handler
        self._server: ThreadingHTTPServer | None = None

    def hear(self, notification: dict[str, Any]) -> None:
        [device] = notification["devices"]
        event_id = notification.get("event_id")
        if event_id is not None:
            with self._lock:
                self.told[device["pushkey"], event_id] += 1
                self.order.setdefault(device["pushkey"], []).append(event_id)

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self._handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    @property
    def heard(self) -> int:
        with self._lock:
            return len(self.told)


class Drained(NamedTuple):
    """How a drain went. `twice`: pushes that came again."""

    seconds: float
    lost: int
    twice: int
    in_order: bool


class Drain:
    """See the module."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        redis_url: str,
        *,
        people: int,
        messages: int,
        at_once: int,
    ) -> None:
        self.people, self.messages = people, messages
        self.gateway = Gateway()
        self._database_url = database_url
        options = {
            "database": {"url": database_url},
            "redis": {"url": redis_url},
            "log": {"level": "warning"},
            "outgoing_http": {"allowed_ip_ranges": ["127.0.0.0/8"]},
            "push": {"allow_http": True, "at_once_per_gateway": at_once},
            "data_directory": str(directory / "data"),
        }
        self.processes = [
            ServerProcess(directory / f"process{number}", options) for number in range(3)
        ]

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        status, text = self.processes[0].request(method, f"/_matrix/client/v3{path}", body, token)
        assert status == 200, (path, status, text)
        return json.loads(text)

    def fill(self) -> list[str]:
        """Have so many pushes wait; the IDs of the events."""
        self.processes[0].start()
        tokens = []
        for number in range(self.people + 1):
            body = {"username": f"u{number}", "password": "wonderland"}
            body |= {"auth": {"type": "m.login.dummy"}}  # type: ignore[dict-item]
            tokens.append(self.call("POST", "/register", body)["access_token"])
        sender, *readers = tokens
        room_id = self.call("POST", "/createRoom", {"preset": "public_chat"}, sender)["room_id"]
        url = f"http://127.0.0.1:{self.gateway.port}/_matrix/push/v1/notify"
        for number, token in enumerate(readers):
            self.call("POST", f"/join/{quote(room_id)}", {}, token)
            pusher = {"kind": "http", "app_id": "app", "pushkey": f"k{number}", "lang": "en"}
            names = {"app_display_name": "a", "device_display_name": "d", "data": {"url": url}}
            self.call("POST", "/pushers/set", {**pusher, **names}, token)
        sent = []
        for number in range(self.messages):
            path = f"/rooms/{quote(room_id)}/send/m.room.message/t{number}"
            text = {"msgtype": "m.text", "body": f"message {number}"}
            sent.append(self.call("PUT", path, text, sender)["event_id"])
        wanted = self.people * self.messages
        while self.value("SELECT COUNT(*) FROM push_queue") != str(wanted):
            time.sleep(0.2)
        self.processes[0].stop()
        self.value("UPDATE push_work SET due_ts = 0, attempts = 0; DELETE FROM push_gateways")
        return sent

    def value(self, sql: str) -> str:
        import psycopg2

        connection = psycopg2.connect(self._database_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                row = cursor.fetchone() if cursor.description else None
                return "" if row is None else str(row[0])
        finally:
            connection.close()

    def run(self, kills: int, say: Callable[[str], object] = lambda text: None) -> Drained:
        """Fill, drain, kill."""
        sent = self.fill()
        wanted = self.people * self.messages
        say(f"{wanted} pushes wait")
        self.gateway.start()
        for process in self.processes:
            process.spawn()
        while self.gateway.heard == 0:
            time.sleep(0.005)
        began = time.monotonic()
        for number in range(kills):
            while self.gateway.heard < wanted * (number + 1) / (kills + 1):
                time.sleep(0.002)
            victim = self.processes[number % 3]
            victim.kill()
            say(f"killed one at {self.gateway.heard}")
            victim.spawn()
        while self.gateway.heard < wanted or self.value("SELECT COUNT(*) FROM push_queue") != "0":
            if time.monotonic() - began > 300:
                break
            time.sleep(0.05)
        took = time.monotonic() - began
        lost = wanted - self.gateway.heard
        doubles = sum(count - 1 for count in self.gateway.told.values())
        told = self.gateway.order.values()
        in_order = all(list(dict.fromkeys(names)) == sent for names in told)
        return Drained(took, lost, doubles, in_order)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.gateway.stop()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rules", "drain"))
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=8, help="for each gateway and process")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        if arguments.what == "rules":
            structlog.configure(
                wrapper_class=structlog.make_filtering_bound_logger(40),
                logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            )
            reactor: Any = installed_reactor
            task.react(lambda _: task.deferLater(reactor, 0, lambda: _later(rules(directory))))
            return
        cluster, redis = PostgresCluster(directory / "cluster"), RedisServer(directory / "redis")
        cluster.create()
        redis.create()
        drain = Drain(
            directory,
            cluster.url,
            redis.url,
            people=arguments.people,
            messages=arguments.messages,
            at_once=arguments.at_once,
        )
        try:
            found = drain.run(arguments.kills, lambda text: print(text, flush=True))
            print(
                f"{found.seconds:.1f} s, lost: {found.lost}, twice: {found.twice} after"
                f" {arguments.kills} kills, in order: {found.in_order}"
            )
        finally:
            drain.close()
            redis.stop()
            cluster.stop("immediate")


def _later(coroutine: Any) -> Any:
    from twisted.internet.defer import ensureDeferred

    return ensureDeferred(coroutine)


if __name__ == "__main__":
    main()
