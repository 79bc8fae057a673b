"""Finding keys: memory, table, the server itself, notaries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import Clock

from federation.client.keyring import (
    Keyring,
    Pauses,
    ServerKey,
    signatures_by_signer,
    want_keys,
)
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import (
    MAX_KEY_VALIDITY_MS,
    KnownKey,
    SignatureError,
    SigningKey,
    hash_and_sign_event,
    sign_json,
    verify_event,
)
from homeserver.core.types import JsonObject
from storage.database import Database
from tests.federation.key_servers import DAY, HOUR, FakeKeyClient, KeyServer, make_key
from tests.support.databases import DatabaseTestCase, on_each_database

OWN = make_key("own", 9)
KEY = make_key("1")
NEXT = make_key("2", 2)
NOTARY_KEY = make_key("n", 3)
NOW = 100 * DAY
PATH = "/_matrix/key/v2/server"


@on_each_database
class KeyringTest(DatabaseTestCase):
    db: Database

    async def prepare(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW / 1000)
        self.client = FakeKeyClient(self.clock)
        self.a = self.client.add("a.example", KEY)
        self.db = await self.open()
        self.keyring = self.make()

    def make(self, *notaries: str, own: tuple[SigningKey, ...] = (OWN,)) -> Keyring:
        return Keyring(self.db, self.client, self.clock, "hearth.test", own, notaries)

    def now(self) -> int:
        return int(self.clock.seconds() * 1000)

    async def key(
        self, key_id: str = "ed25519:1", minimum: int | None = None, server: str = "a.example"
    ) -> KnownKey | None:
        minimum = self.now() if minimum is None else minimum
        return (await self.keyring.lookup({(server, key_id): minimum})).get((server, key_id))

    async def test_asked_of_the_server_once(self) -> None:
        """Shows KEY-13."""
        known = await self.key()
        assert known is not None
        self.assertEqual(known, KnownKey(KEY.verify_key, NOW + DAY))
        self.assertEqual(await self.key(), known)
        # Another process, or this one after a restart, finds it in the table.
        self.keyring = self.make()
        self.assertEqual(await self.key(), known)
        self.assertEqual(self.client.asked, [("a.example", PATH)])

    async def test_asked_again_when_it_runs_out(self) -> None:
        """Shows KEY-13."""
        await self.key()
        self.clock.advance(DAY / 1000 + 1)
        known = await self.key()
        assert known is not None
        self.assertEqual(known.valid_until_ts, self.now() + DAY)
        self.assertEqual(len(self.client.asked), 2)

    async def test_simultaneous_questions_are_one(self) -> None:
        """Shows KEY-13."""
        self.client.hold = Deferred()
        asking = [Deferred.fromCoroutine(self.key()) for _ in range(5)]
        asking += [Deferred.fromCoroutine(self.key("ed25519:none"))]
        while not self.client.asked:
            await self.settled(self.db)
        await self.settled(self.db)
        self.client.hold.callback(None)
        found = [await each for each in asking]
        self.assertTrue(all(found[:5]))
        self.assertIsNone(found[5])
        self.assertEqual(len(self.client.asked), 1)

    async def test_one_who_no_longer_waits_disturbs_nobody(self) -> None:
        self.client.hold = Deferred()
        impatient, patient = (Deferred.fromCoroutine(self.key()) for _ in range(2))
        while not self.client.asked:
            await self.settled(self.db)
        impatient.addErrback(lambda failure: None)
        impatient.cancel()
        self.client.hold.callback(None)
        self.assertIsNotNone(await patient)

    async def test_failures_are_remembered_ever_longer(self) -> None:
        """Shows KEY-13."""
        self.a.is_up = False
        pauses = []
        for _ in range(9):
            self.assertIsNone(await self.key())
            asked, start = len(self.client.asked), self.now()
            self.assertIsNone(await self.key())
            self.assertEqual(len(self.client.asked), asked, "asked again at once")
            while len(self.client.asked) == asked:
                self.clock.advance(5)
                await self.key()
            pauses.append(self.now() - start)
            self.clock.advance(Pauses.LONGEST / 1000)
        self.assertEqual(pauses[0], Pauses.AFTER_FAILURE)
        self.assertEqual(pauses, sorted(pauses))
        self.assertEqual(pauses[-1], Pauses.LONGEST)
        self.a.is_up = True
        self.assertIsNotNone(await self.key())

    async def test_unknown_key_ids_do_not_make_many_questions(self) -> None:
        """Shows KEY-13."""
        for number in range(20):
            self.assertIsNone(await self.key(f"ed25519:x{number}"))
        self.assertEqual(len(self.client.asked), 1)

    async def test_a_new_key_is_found(self) -> None:
        """Shows KEY-13."""
        await self.key()
        self.a.keys, self.a.old = [NEXT], {KEY: self.now()}
        self.clock.advance(Pauses.AFTER_SUCCESS / 1000)
        known = await self.key("ed25519:2")
        assert known is not None
        self.assertEqual(known.verify_key, NEXT.verify_key)
        retired = await self.key("ed25519:1", 0)
        assert retired is not None
        self.assertEqual(retired.valid_until_ts, NOW)
        self.assertIsNone(await self.keyring.key_for_request("a.example", "ed25519:1"))

    async def test_answers_that_are_wrong_count_as_none(self) -> None:
        """Shows KEY-13."""
        self.a.tamper = lambda answer: answer.update(valid_until_ts=NOW + 2 * DAY)
        self.assertIsNone(await self.key())
        self.clock.advance(60)
        self.a.tamper = lambda answer: None
        self.a.name = "evil.example"
        self.assertIsNone(await self.key())
        self.clock.advance(60)
        self.a.name = "a.example"
        self.assertIsNotNone(await self.key())

    async def test_requests_need_a_key_that_is_valid_now(self) -> None:
        """Shows KEY-14."""
        self.assertIsNotNone(await self.keyring.key_for_request("a.example", "ed25519:1"))
        self.a.is_up = False
        self.clock.advance(DAY / 1000)
        self.assertIsNotNone(await self.keyring.key_for_request("a.example", "ed25519:1"))
        self.clock.advance(0.001)
        self.assertIsNone(await self.keyring.key_for_request("a.example", "ed25519:1"))
        # It still stands for what was signed before.
        self.assertIsNotNone(await self.key(minimum=NOW))

    async def test_no_key_is_valid_for_more_than_a_week(self) -> None:
        """Shows KEY-14."""
        self.a.valid_for = 365 * DAY
        self.assertIsNotNone(await self.keyring.key_for_request("a.example", "ed25519:1"))
        self.a.is_up = False
        self.clock.advance(MAX_KEY_VALIDITY_MS / 1000 + 1)
        self.assertIsNone(await self.keyring.key_for_request("a.example", "ed25519:1"))

    def event(self, sent: int, key: SigningKey, version: str) -> JsonObject:
        pdu: JsonObject = {
            "type": "m.room.message",
            "room_id": "!r:a.example",
            "sender": "@u:a.example",
            "event_id": "$e:a.example",
            "origin_server_ts": sent,
            "content": {},
            "depth": 1,
            "prev_events": [],
            "auth_events": [],
        }
        if ROOM_VERSIONS[version].event_id_is_hash:
            del pdu["event_id"]
        hash_and_sign_event(pdu, ROOM_VERSIONS[version], "a.example", key)
        return pdu

    async def is_good(self, sent: int, key: SigningKey, version: str) -> bool:
        pdu = self.event(sent, key, version)
        wanted: dict[ServerKey, int] = {}
        signatures = signatures_by_signer(pdu, ROOM_VERSIONS[version])
        want_keys(wanted, signatures, sent, ROOM_VERSIONS[version])
        keys = await self.keyring.keys_for(wanted)
        try:
            verify_event(
                pdu, ROOM_VERSIONS[version], "a.example", keys.get("a.example", {}), self.now()
            )
        except SignatureError:
            return False
        return True

    async def test_events_need_a_key_that_was_valid_when_they_were_sent(self) -> None:
        """Shows KEY-14."""
        self.a.keys, self.a.old = [NEXT], {KEY: NOW - DAY}
        self.assertTrue(await self.is_good(NOW - DAY, KEY, "10"))
        self.assertFalse(await self.is_good(NOW - DAY + 1, KEY, "10"))
        self.assertTrue(await self.is_good(NOW - DAY + 1, KEY, "4"))
        self.assertTrue(await self.is_good(NOW, NEXT, "10"))
        self.assertFalse(await self.is_good(NOW, replace(make_key("2", 7)), "10"))
        self.assertFalse(await self.is_good(NOW + 8 * DAY, NEXT, "10"))

    async def test_an_event_of_a_later_time_has_the_key_renewed(self) -> None:
        """Shows KEY-14."""
        await self.key()
        self.clock.advance(DAY / 1000)
        self.assertTrue(await self.is_good(self.now() + HOUR, KEY, "10"))
        self.assertEqual(len(self.client.asked), 2)

    async def test_own_keys_are_known(self) -> None:
        """Shows KEY-15."""
        retired = replace(KEY, expired_ts=NOW - HOUR)
        self.keyring = self.make(own=(OWN, retired))
        known = await self.key(OWN.key_id, NOW, "hearth.test")
        assert known is not None
        self.assertEqual(known.verify_key, OWN.verify_key)
        old = await self.key(KEY.key_id, NOW - DAY, "hearth.test")
        assert old is not None
        self.assertEqual(old, KnownKey(KEY.verify_key, NOW - HOUR))
        self.assertIsNone(await self.keyring.key_for_request("hearth.test", KEY.key_id))
        self.assertIsNone(await self.key("ed25519:none", NOW, "hearth.test"))
        self.assertEqual(self.client.asked, [])

    async def test_a_notary_is_asked_when_the_server_is_down(self) -> None:
        """Shows KEY-13."""
        self.client.add_notary("n.example", NOTARY_KEY, self.a)
        self.keyring = self.make("n.example")
        self.a.is_up = False
        self.assertIsNotNone(await self.key(minimum=NOW + 1))
        query = {"server_keys": {"a.example": {"ed25519:1": {"minimum_valid_until_ts": NOW + 1}}}}
        self.assertEqual(
            self.client.asked, [("a.example", PATH), ("n.example", query), ("n.example", PATH)]
        )

    async def test_a_server_that_answers_is_believed_without_notaries(self) -> None:
        """Shows KEY-13."""
        self.client.add_notary("n.example", NOTARY_KEY)
        self.keyring = self.make("n.example")
        self.assertIsNotNone(await self.key())
        self.assertEqual(self.client.asked, [("a.example", PATH)])

    async def test_a_notary_is_asked_for_many_at_once(self) -> None:
        """Shows KEY-13."""
        servers = [KeyServer(f"s{n}.example", self.clock, KEY) for n in range(120)]
        self.client.add_notary("n.example", NOTARY_KEY, *servers)
        self.keyring = self.make("n.example")
        wanted = {(server.name, "ed25519:1"): NOW for server in servers}
        found = await self.keyring.lookup(wanted)
        self.assertEqual(found.keys(), wanted.keys())
        queries = [body for _, body in self.client.asked if isinstance(body, dict)]
        self.assertEqual([len(body["server_keys"]) for body in queries], [100, 20])

    async def test_the_next_notary_is_asked_when_one_is_down(self) -> None:
        """Shows KEY-13."""
        self.client.add_notary("m.example", NOTARY_KEY, self.a).is_up = False
        self.client.add_notary("n.example", NOTARY_KEY, self.a)
        self.keyring = self.make("hearth.test", "m.example", "n.example")
        self.a.is_up = False
        self.assertIsNotNone(await self.key())
        self.assertNotIn("hearth.test", [name for name, _ in self.client.asked])

    async def test_what_a_notary_did_not_know_is_not_asked_again_at_once(self) -> None:
        """Shows KEY-13."""
        self.client.add_notary("n.example", NOTARY_KEY)
        self.keyring = self.make("n.example")
        self.a.is_up = False
        await self.key()
        asked = len(self.client.asked)
        self.assertIsNone(await self.key())
        self.assertEqual(len(self.client.asked), asked)

    async def test_a_notary_that_lies(self) -> None:
        """Shows KEY-13."""
        false = KeyServer("a.example", self.clock, make_key("1", 8))
        stranger = KeyServer("b.example", self.clock, make_key("1", 8))
        self.client.add_notary("n.example", NOTARY_KEY, self.a)
        honest = self.client.notaries["n.example"]

        def noted(answer: JsonObject) -> JsonObject:
            return sign_json(answer, "n.example", NOTARY_KEY)

        lies: list[Any] = [
            {"server_keys": [self.a.answer()]},  # not signed by the notary
            {"server_keys": [noted({**false.answer(), "valid_until_ts": NOW + 5 * DAY})]},
            {"server_keys": [noted({**self.a.answer(), "verify_keys": {}})]},
            {"server_keys": [noted(stranger.answer()), 5, None, {"server_name": 3}]},
            {"server_keys": "none"},
            {},
        ]
        self.keyring = self.make("n.example")
        self.a.is_up = False
        for lie in lies:
            self.client.notaries["n.example"] = lambda body, lie=lie: lie  # type: ignore[misc]
            self.assertIsNone(await self.key())
            self.clock.advance(2 * Pauses.LONGEST / 1000)
        self.client.notaries["n.example"] = honest
        self.assertIsNotNone(await self.key())
        self.assertIsNone(await self.key(server="b.example"))

    async def test_answers_that_come_together(self) -> None:
        """They are stored in few transactions, and none waits for those that come later."""
        names = [f"s{number}.example" for number in range(40)]
        for name in names:
            self.client.add(name, KEY)
        writes: list[int] = []

        async def counted(fn: Any, answers: Any, *args: Any) -> Any:
            writes.append(len(answers))
            return await write(fn, answers, *args)

        write = self.db.write
        self.patch(self.db, "write", counted)
        first = Deferred.fromCoroutine(self.key())
        while not writes:
            await self.settled(self.db)
        self.client.hold = Deferred()
        wanted = {(name, KEY.key_id): self.now() for name in names}
        others = Deferred.fromCoroutine(self.keyring.lookup(wanted))
        self.assertIsNotNone(await first)
        self.assertEqual(writes, [1])
        self.client.hold.callback(None)
        self.assertEqual((await others).keys(), wanted.keys())
        self.assertEqual(sum(writes), 41)
        # At most 20 are asked at a time.
        self.assertLess(len(writes), 10)

    async def test_what_cannot_be_stored(self) -> None:
        """The answers that came with it are stored all the same."""
        names = [f"s{number}.example" for number in range(5)]
        for name in names:
            self.client.add(name, KEY)

        async def failing(fn: Any, answers: Any, *args: Any) -> Any:
            if any(answer.server_name == names[2] for answer in answers):
                raise ZeroDivisionError
            return await write(fn, answers, *args)

        write = self.db.write
        self.patch(self.db, "write", failing)
        self.client.hold = Deferred()
        asking = [Deferred.fromCoroutine(self.key(server=name)) for name in names]
        while len(self.client.asked) < len(names):
            await self.settled(self.db)
        self.client.hold.callback(None)
        found = await DeferredList(asking, consumeErrors=True)
        self.assertEqual([went_well for went_well, _ in found], [True, True, False, True, True])
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        # It is tried again.
        self.clock.advance(Pauses.AFTER_SUCCESS / 1000 + 1)
        self.patch(self.db, "write", write)
        self.client.hold = None
        self.assertIsNotNone(await self.key(server=names[2]))

    async def test_stopping_ends_requests_under_way(self) -> None:
        self.client.hold = Deferred()
        waiting = [Deferred.fromCoroutine(self.key()) for _ in range(2)]
        while not self.client.asked:
            await self.settled(self.db)
        await self.settled(self.db)
        self.keyring.stop()
        for each in waiting:
            with self.assertRaises(CancelledError):
                await each

    async def test_refresh_waits_only_so_long(self) -> None:
        """Shows KEY-13."""
        self.client.hold = Deferred()
        waiting = Deferred.fromCoroutine(self.keyring.refresh(["a.example"], 5))
        self.assertNoResult(waiting)
        self.clock.advance(5)
        await waiting
        self.client.hold.callback(None)
        while not self.keyring._known:
            await self.settled(self.db)
        self.assertIsNotNone(await self.key())
        self.assertEqual(len(self.client.asked), 1)
