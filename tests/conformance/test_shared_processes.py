"""A server of two processes (PostgreSQL, Redis) shares rooms with another server; one of the
processes is killed, and started again. In the end everybody agrees."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_database, redis_url
from tests.support.federated_process import Client, FederatedProcess, Front
from tests.support.network import reactor

MESSAGES = 1000
SENDERS = 10


class SharedProcessesTest(TestCase):
    timeout = 280

    def setUp(self) -> None:
        directory = Path(self.mktemp()).resolve()
        self.front, self.other_front = Front(), Front()
        shared: dict[str, Any] = {
            "database": {"url": migrated_database(self, "postgres")},
            "redis": {"url": redis_url()},
            "data_directory": str(directory / "data"),
        }
        self.pair = [
            FederatedProcess(directory / name, self.front.name, shared) for name in ("one", "two")
        ]
        alone = {"database": {"url": migrated_database(self, "sqlite")}}
        self.other = FederatedProcess(directory / "other", self.other_front.name, alone)
        self.front.serve(*self.pair)
        self.other_front.serve(self.other)
        for process in (*self.pair, self.other):
            self.addCleanup(process.kill)
        for front in (self.front, self.other_front):
            self.addCleanup(front.close)

    def begin(self) -> None:
        """Start all three; alice and the room are on the pair, bob is on the other."""
        for process in (*self.pair, self.other):
            process.start()
        self.alice = Client.registered(self.pair, "alice")
        self.bob = Client.registered([self.other], "bob")
        self.watchers = [
            Client([process], self.alice._token, self.alice.user_id) for process in self.pair
        ]
        self.room_id = self.alice.ok("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
        self.enter(self.bob, self.room_id)

    def enter(self, client: Client, room_id: str) -> None:
        """Have somebody of the other server join by way of the pair, who tries again if need be."""
        path = f"/join/{quote(room_id)}?server_name={quote(self.front.name)}"
        self.until(lambda: client.call("POST", path, {})[0] == 200, "the room is not entered")

    def until(self, condition: Callable[[], bool], what: str, within: float = 60.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                self.fail(what)
            time.sleep(0.05)

    def agree(self, room_id: str, said: set[str]) -> None:
        """All three have the same state, and all that was said, once."""
        clients = [*self.watchers, self.bob]
        for client in (self.alice, self.bob):
            text = f"last of {client.user_id}"
            client.send(room_id, text)
            said.add(text)
        for number, client in enumerate(clients):
            lacking = said

            def has_all(client: Client = client) -> bool:
                nonlocal lacking
                lacking = said - set(client.messages(room_id))
                return not lacking

            try:
                self.until(has_all, "something is missing")
            except self.failureException:
                some = sorted(lacking)[:5]
                self.fail(f"client {number} lacks {len(lacking)} messages: {some}")
        for client in clients:
            self.assertEqual(len(client.messages(room_id)), len(said))
        states = [client.state(room_id) for client in clients]
        self.assertEqual(states[0], states[1])
        self.assertEqual(states[0], states[2])

    async def test_a_catch_up_of_a_thousand_events(self) -> None:
        """Shows TXN-2, TXN-9: one process is killed while both are sent what they missed."""
        await deferToThread(self._catch_up)

    def _catch_up(self) -> None:
        self.begin()
        blockingCallFromThread(reactor, self._shut)
        said = {f"message {number}" for number in range(MESSAGES)}
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(lambda text: self.bob.send(self.room_id, text), sorted(said)))
        self.assertEqual(self.watchers[1].messages(self.room_id), [])
        reactor.callFromThread(self.front.listen)
        # A request of the pair's tells the other server that it is back.
        self.alice.send(self.room_id, "are you there?")
        said.add("are you there?")
        watcher = self.watchers[1]
        seen: list[int] = []

        def arriving() -> bool:
            seen.append(len(_from_bob(watcher, self.room_id)))
            return seen[-1] > 0

        self.until(arriving, "nothing arrives")
        self.pair[0].kill()
        self.assertLess(seen[-1], MESSAGES)
        self.pair[0].start()
        # Now the side that sends.
        self.other.kill()
        self.other.start()
        self.agree(self.room_id, said)

    def _shut(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.front.close())

    async def test_invites_and_joins(self) -> None:
        """One process is killed in the middle of them, at several moments; clients try again."""
        await deferToThread(self._memberships)

    def _memberships(self) -> None:
        self.begin()
        said: set[str] = set()
        for number, pause in enumerate((0.005, 0.02, 0.05, 0.1)):
            guest = Client.registered([self.other], f"guest{number}")
            doomed = self.pair[number % 2]
            asking = Client(
                [doomed, self.pair[1 - number % 2]], self.alice._token, self.alice.user_id
            )
            path = f"/rooms/{quote(self.room_id)}/invite"
            body = {"user_id": guest.user_id}
            with ThreadPoolExecutor(1) as pool:
                inviting = pool.submit(asking.call, "POST", path, body)
                time.sleep(pause)
                doomed.kill()
                status, answer = inviting.result()
            if status != 200:
                # The first try was carried out, and its answer lost.
                self.assertEqual(status, 403, answer)
            self.until(
                lambda: self.room_id in _invites(guest),  # noqa: B023
                "the invite does not arrive",
            )
            doomed.start()
            with ThreadPoolExecutor(1) as pool:
                joining = pool.submit(self.enter, guest, self.room_id)
                time.sleep(pause)
                doomed.kill()
                joining.result()
            doomed.start()
            for client in (*self.watchers, self.bob, guest):
                self.until(
                    lambda: client.members(self.room_id).get(guest.user_id) == "join",  # noqa: B023
                    "not everybody knows the new member",
                )
        self.agree(self.room_id, said)


def _invites(client: Client) -> Any:
    return client.ok("GET", "/sync?timeout=0")["rooms"].get("invite", {})


def _from_bob(client: Client, room_id: str) -> list[str]:
    return [text for text in client.messages(room_id) if text.startswith("message")]
