"""Device lists of another server's users: asked for, kept, changed by what that server tells."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.core.ids import UserID
from homeserver.encryption.remote_devices import RemoteDevices
from storage import jobs, remote_devices
from storage.remote_devices import RemoteList
from tests.federation.server.scene import Scene
from tests.support.federation import eventually
from tests.support.keys import ALGORITHM, Device, query
from tests.support.peer import Received, make_peer
from tests.support.remote_devices import RemoteUser, refused


def answering(answer: Any) -> Any:
    """A handler that always answers the same."""
    return lambda request: answer


class RemoteDevicesTestCase(Scene):
    timeout = 60

    async def begin(self) -> None:
        await super().begin()
        self.remote = RemoteUser(self.peer)
        self.remote.add("PHONE", "Phone")

    async def share(self) -> str:
        """A room with the peer's user."""
        room_id = await self.room()
        await self.peer.join(self.hearth.name, room_id)
        return room_id

    async def devices(self, *wanted: str) -> dict[str, Any]:
        """The names of the peer's user's devices as Alice finds them, by ID."""
        body = {"device_keys": {self.remote.user_id: list(wanted)}}
        answer = await self.alice.ok("POST", "/keys/query", body)
        self.assertEqual(answer["failures"], {})
        return {
            device_id: keys["unsigned"].get("device_display_name")
            for device_id, keys in answer["device_keys"][self.remote.user_id].items()
        }

    def asked(self) -> tuple[int, int]:
        """How often the peer was asked for keys, and for its user's list."""
        return len(self.peer.received("keys_query")), len(self.peer.received("devices"))

    async def known(self) -> RemoteList | None:
        found = await self.hearth.homeserver.db.read(
            remote_devices.get_lists, [self.remote.user_id]
        )
        return found.get(self.remote.user_id)

    async def is_fresh(self) -> bool:
        known = await self.known()
        return known is not None and not known.stale

    async def token(self) -> str:
        token: str = (await self.alice.sync())["next_batch"]
        return token

    async def changed(self, since: str) -> list[str]:
        found: list[str] = (await self.alice.sync(since)).get("device_lists", {}).get("changed", [])
        return found

    async def followed(self) -> None:
        """The list is known with its place in the stream."""
        await self.share()
        await self.devices()
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))

        async def fetched() -> bool:
            known = await self.known()
            return known is not None and known.stream_id == self.remote.stream_id

        await eventually(fetched)


class QueryTest(RemoteDevicesTestCase):
    async def test_strangers_are_asked_for_each_time(self) -> None:
        """Shows E2E-4, E2E-5."""
        await self.begin()
        self.remote.add("LAPTOP")
        self.assertEqual(await self.devices(), {"PHONE": "Phone", "LAPTOP": None})
        self.assertEqual(await self.devices("LAPTOP"), {"LAPTOP": None})
        self.assertEqual(self.asked(), (2, 0))
        self.assertIsNone(await self.known())

    async def test_people_in_a_room_are_kept(self) -> None:
        """Shows E2E-5."""
        await self.begin()
        self.remote.add("LAPTOP")
        self.remote.has_signing_keys = True
        room_id = await self.share()
        self.assertEqual(await self.devices("LAPTOP"), {"LAPTOP": None})
        self.assertEqual(await self.devices(), {"PHONE": "Phone", "LAPTOP": None})
        first = await query(self.alice, self.remote.user_id)
        self.assertEqual(self.asked(), (1, 0))
        master = self.remote.signer.public(self.remote.signer.master)
        shown = first["master_keys"][self.remote.user_id]["keys"]
        self.assertEqual(shown, {f"ed25519:{master}": master})
        self.assertEqual(set(first["self_signing_keys"]), {self.remote.user_id})
        keys = first["device_keys"][self.remote.user_id]["PHONE"]
        self.assertEqual(keys["signatures"], self.remote.devices["PHONE"].keys()["signatures"])
        # Nobody tells of changes any more.
        await self.alice.leave(room_id)
        await self.devices()
        self.assertEqual(self.asked(), (2, 0))

    async def test_back_after_an_absence(self) -> None:
        """What changed meanwhile was not told: the list is not used. Shows E2E-9, E2E-5."""
        await self.begin()
        room_id = await self.share()
        await self.devices()
        await self.alice.leave(room_id)
        self.remote.add("LAPTOP")
        await self.alice.join(room_id)
        self.assertEqual(set(await self.devices()), {"PHONE", "LAPTOP"})

    async def test_failures(self) -> None:
        """Shows E2E-4."""
        await self.begin()
        await Device(self.alice).upload()
        self.peer.on["keys_query"] = self.peer.on["keys_claim"] = refused
        answer = await query(self.alice, self.alice, self.remote.user_id)
        self.assertEqual(list(answer["failures"]), [self.peer.name])
        self.assertEqual(list(answer["device_keys"]), [self.alice.user_id])
        body = {"one_time_keys": {self.remote.user_id: {"PHONE": ALGORITHM}}}
        answer = await self.alice.ok("POST", "/keys/claim", body)
        self.assertEqual(list(answer["failures"]), [self.peer.name])
        await self.peer.close()
        gone = await make_peer(self, self.federation, listen=False)
        answer = await query(self.alice, self.remote.user_id, gone.user(), timeout=5000)
        self.assertEqual(set(answer["failures"]), {self.peer.name, gone.name})

    async def test_who_asked_in_vain_is_told_later(self) -> None:
        """The list is fetched when its server answers again. Shows E2E-4, E2E-9."""
        await self.begin()
        await self.share()
        good = dict(self.peer.on)
        self.peer.on["keys_query"] = refused
        for _ in range(2):
            answer = await query(self.alice, self.remote.user_id)
            self.assertEqual(list(answer["failures"]), [self.peer.name])
        token = await self.token()
        self.peer.on |= good
        db = self.hearth.homeserver.db
        await db.write(lambda txn: txn.execute("UPDATE jobs SET run_at = 0"))
        await eventually(lambda: self.changed(token))
        self.assertEqual(await self.devices(), {"PHONE": "Phone"})

    async def test_a_change_while_somebody_asks(self) -> None:
        """Who may have got an old answer is told. Shows E2E-9."""
        await self.begin()
        await self.share()
        slow: Deferred[Any] = Deferred()

        async def slowly(request: Received) -> Any:
            old = self.remote.answer_query(request)
            await slow
            return old

        self.peer.on["keys_query"] = slowly
        asking = Deferred.fromCoroutine(query(self.alice, self.remote.user_id))
        await eventually(lambda: self.asked()[0] == 1)
        self.remote.add("LAPTOP")
        await self.remote.tell(self.hearth.name, self.remote.update("LAPTOP"))
        await eventually(self.is_fresh)
        token = await self.token()
        slow.callback(None)
        answer = await asking
        self.assertEqual(list(answer["device_keys"][self.remote.user_id]), ["PHONE"])
        self.assertEqual(await self.changed(token), [self.remote.user_id])
        self.assertEqual(set(await self.devices()), {"PHONE", "LAPTOP"})

    async def test_rubbish(self) -> None:
        """What is not right is left out, and nobody else's keys are believed."""
        await self.begin()
        await self.share()
        good = self.remote.answer_query
        device = Device(self.alice).keys()
        answers: list[Any] = [
            {},
            {"device_keys": []},
            {"device_keys": {self.remote.user_id: []}},
            {"device_keys": {self.remote.user_id: {"PHONE": 1, "X": device, "": {}}}},
            {"device_keys": {self.alice.user_id: {self.alice.device_id: device}}},
            {"master_keys": {self.remote.user_id: {"keys": 1}}, "device_keys": None},
            {"self_signing_keys": {self.alice.user_id: {}}, "failures": 7},
        ]
        for rubbish in answers:
            self.peer.on["keys_query"] = answering(rubbish)
            answer = await query(self.alice, self.remote.user_id)
            self.assertEqual(answer["failures"], {})
            self.assertEqual(answer["device_keys"].get(self.remote.user_id, {}), {})
            self.assertEqual(answer["master_keys"], {})
            self.assertNotIn(self.alice.user_id, answer["device_keys"])
            await self.hearth.homeserver.db.write(remote_devices.delete_list, self.remote.user_id)
        self.peer.on["keys_query"] = good
        self.assertEqual(set(await self.devices()), {"PHONE"})

    async def test_claims(self) -> None:
        """Shows E2E-3."""
        await self.begin()
        body = {"one_time_keys": {self.remote.user_id: {"PHONE": ALGORITHM, "OTHER": "x"}}}
        answer = await self.alice.ok("POST", "/keys/claim", body)
        self.assertEqual(answer["failures"], {})
        keys = answer["one_time_keys"][self.remote.user_id]
        self.assertEqual(
            {name: set(each) for name, each in keys.items()}, {"PHONE": {f"{ALGORITHM}:K1"}}
        )
        self.peer.on["keys_claim"] = lambda request: {"one_time_keys": {self.remote.user_id: 7}}
        answer = await self.alice.ok("POST", "/keys/claim", body)
        self.assertEqual(answer["one_time_keys"], {})


class UpdateTest(RemoteDevicesTestCase):
    async def test_changes_that_follow(self) -> None:
        """Renamed, changed and deleted devices, without another question. Shows TXN-11, E2E-9."""
        await self.begin()
        await self.followed()
        asked, token = self.asked(), await self.token()
        self.remote.names["PHONE"] = "New phone"
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        self.assertEqual(await self.devices(), {"PHONE": "New phone"})
        self.assertEqual(await self.changed(token), [self.remote.user_id])
        token = await self.token()
        device = self.remote.add("PHONE")
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        answer = await query(self.alice, self.remote.user_id)
        shown = answer["device_keys"][self.remote.user_id]["PHONE"]
        self.assertEqual(shown["keys"], device.keys()["keys"])
        del self.remote.devices["PHONE"]
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        self.assertEqual(await self.devices(), {})
        self.assertEqual(await self.changed(token), [self.remote.user_id])
        self.assertEqual(self.asked(), asked)

    async def test_many_in_a_row(self) -> None:
        """Shows TXN-13."""
        await self.begin()
        await self.followed()
        asked = self.asked()
        updates = []
        for n in range(30):
            self.remote.names["PHONE"] = f"Phone {n}"
            updates.append(self.remote.update("PHONE"))
        await self.remote.tell(self.hearth.name, *updates)
        self.assertEqual(await self.devices(), {"PHONE": "Phone 29"})
        self.assertEqual(self.asked(), asked)

    async def test_a_gap(self) -> None:
        """A change was lost: the whole list is fetched. Shows TXN-11."""
        await self.begin()
        await self.followed()
        token, asked = await self.token(), self.asked()[1]
        self.remote.add("LAPTOP")
        self.remote.update("LAPTOP")  # lost
        self.remote.names["PHONE"] = "New phone"
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        await eventually(lambda: self.changed(token))
        self.assertEqual(await self.devices(), {"PHONE": "New phone", "LAPTOP": None})
        self.assertEqual(self.asked()[1], asked + 1)
        # From there on changes follow again.
        self.remote.names["LAPTOP"] = "Laptop"
        await self.remote.tell(self.hearth.name, self.remote.update("LAPTOP"))
        self.assertEqual((await self.devices())["LAPTOP"], "Laptop")
        self.assertEqual(self.asked()[1], asked + 1)

    async def test_unknown_users_and_devices(self) -> None:
        """Shows TXN-12."""
        await self.begin()
        await self.share()
        start = await self.token()
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        await eventually(self.is_fresh)
        self.assertEqual(await self.devices(), {"PHONE": "Phone"})
        self.assertEqual(self.asked(), (0, 1))
        # Nobody had asked for it before, but it has changed.
        self.assertEqual(len(await self.changed(start)), 1)
        token = await self.token()
        self.remote.add("LAPTOP", "Laptop")
        await self.remote.tell(self.hearth.name, self.remote.update("LAPTOP"))
        await eventually(lambda: self.changed(token))
        self.assertEqual(await self.devices(), {"PHONE": "Phone", "LAPTOP": "Laptop"})
        self.assertEqual(self.asked(), (0, 2))

    async def test_who_may_tell(self) -> None:
        """Only the user's own server, and of people in our rooms. Shows TXN-12."""
        await self.begin()
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        self.assertIsNone(await self.known())
        await self.followed()
        known, token = await self.known(), await self.token()
        contents: list[dict[str, Any]] = [
            self.remote.update("PHONE", user_id=self.alice.user_id),
            self.remote.update("PHONE", user_id="@a:elsewhere.test"),
            self.remote.update("PHONE", user_id=7),
            self.remote.update("PHONE", user_id="mallory"),
            {**self.remote.update("PHONE"), "device_id": 7},
            {**self.remote.update("PHONE"), "device_id": "x" * 300},
            {},
        ]
        await self.remote.tell(self.hearth.name, *contents)
        self.assertEqual(await self.known(), known)
        self.assertEqual(await self.changed(token), [])

    async def test_broken_updates_fetch_the_list(self) -> None:
        """Neither the number nor the predecessors need to be any."""
        await self.begin()
        await self.followed()
        changes: list[dict[str, Any]] = [
            {"stream_id": "x"},
            {"stream_id": -1},
            {"prev_id": "x"},
            {"prev_id": [{}]},
            {"prev_id": []},
        ]
        for change in changes:
            asked, token = self.asked()[1], await self.token()
            self.remote.names["PHONE"] = str(change)
            await self.remote.tell(self.hearth.name, self.remote.update("PHONE", **change))
            await eventually(partial(self.changed, token))
            self.assertEqual(self.asked()[1], asked + 1)
            self.assertEqual(await self.devices(), {"PHONE": str(change)})

    async def test_an_outage(self) -> None:
        """A list that cannot be fetched is not served; it is fetched later. Shows TXN-11."""
        await self.begin()
        await self.followed()
        self.remote.add("LAPTOP")
        self.remote.update("LAPTOP")  # lost
        good = dict(self.peer.on)
        self.peer.on["devices"] = self.peer.on["keys_query"] = refused
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        answer = await query(self.alice, self.remote.user_id)
        self.assertEqual(list(answer["failures"]), [self.peer.name])
        self.assertEqual(answer["device_keys"], {})
        token = await self.token()
        self.peer.on |= good
        self.assertEqual(set(await self.devices()), {"PHONE", "LAPTOP"})
        self.assertEqual(await self.changed(token), [self.remote.user_id])

    async def test_the_job_fetches_what_could_not_be_fetched(self) -> None:
        """Also by another process, or after a restart. Shows TXN-11."""
        await self.begin()
        await self.followed()
        self.remote.add("LAPTOP")
        self.remote.update("LAPTOP")  # lost
        good = self.peer.on["devices"]
        self.peer.on["devices"] = refused
        asked = self.asked()
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        await eventually(lambda: self.asked() != asked)
        await self.hearth.restart()
        self.peer.on["devices"] = good
        token = await self.token()
        db = self.hearth.homeserver.db
        await db.write(lambda txn: txn.execute("UPDATE jobs SET run_at = 0"))
        await eventually(lambda: self.changed(token))
        known = await self.known()
        assert known is not None
        self.assertEqual((known.stale, known.stream_id), (False, self.remote.stream_id))
        self.assertEqual(set(await self.devices()), {"PHONE", "LAPTOP"})

    async def test_one_job_for_a_server(self) -> None:
        """However many lists are stale; it ends with the first question that fails."""
        await self.begin()
        room_id = await self.room()
        self.peer.on["devices"] = refused
        people = [RemoteUser(self.peer, f"user{n}") for n in range(3)]
        self.peer.on["devices"] = refused
        for each in people:
            await self.peer.join(self.hearth.name, room_id, UserID(each.user_id).localpart)
            each.add("PHONE")
            await each.tell(self.hearth.name, each.update("PHONE"))
        await eventually(lambda: len(self.peer.received("devices")) == len(people))
        db = self.hearth.homeserver.db
        waiting = await db.read(jobs.waiting, RemoteDevices.KIND)
        self.assertEqual(waiting, 1)
        lists = self.hearth.homeserver.services[RemoteDevices]
        job = jobs.Job("id", RemoteDevices.KIND, {"server": self.peer.name}, 1)
        with self.assertRaises(jobs.NotYet):
            await lists.run(job)
        self.assertEqual(len(self.peer.received("devices")), len(people) + 1)
        found = {each.user_id: each for each in people}

        def answer(request: Received) -> Any:
            return found[request.parts[0]].answer_devices(request)

        self.peer.on["devices"] = answer
        await lists.run(job)
        self.assertEqual(await db.read(remote_devices.stale_lists, self.peer.name), [])

    async def test_told_while_the_list_is_fetched(self) -> None:
        """An answer from before a change does not count as the newest. Shows TXN-11."""
        await self.begin()
        await self.followed()
        answers: list[Deferred[Any]] = []

        async def slowly(request: Received) -> Any:
            old = self.remote.answer_devices(request)
            answers.append(Deferred())
            await answers[-1]
            return old

        self.peer.on["devices"] = slowly
        self.remote.update("PHONE")  # lost
        await self.remote.tell(self.hearth.name, self.remote.update("PHONE"))
        await eventually(lambda: len(answers) == 1)
        self.remote.add("LAPTOP")
        await self.remote.tell(self.hearth.name, self.remote.update("LAPTOP"))
        token = await self.token()
        answers[0].callback(None)
        await eventually(lambda: len(answers) == 2)
        answers[1].callback(None)
        await eventually(lambda: self.changed(token))
        self.assertEqual(set(await self.devices()), {"PHONE", "LAPTOP"})

    async def test_signing_keys(self) -> None:
        """Shows TXN-14."""
        await self.begin()
        await self.followed()
        token, asked = await self.token(), self.asked()
        self.remote.has_signing_keys = True
        content = {"user_id": self.remote.user_id, **self.remote.signing_keys()}
        edu_type = "m.signing_key_update"
        broken: list[dict[str, Any]] = [
            {**content, "user_id": self.alice.user_id},
            {**content, "master_key": 7},
            {**content, "master_key": {**content["master_key"], "usage": ["self_signing"]}},
        ]
        await self.remote.tell(self.hearth.name, *broken, edu_type=edu_type)
        self.assertEqual((await query(self.alice, self.remote.user_id))["master_keys"], {})
        self.assertEqual(await self.changed(token), [])
        await self.remote.tell(self.hearth.name, content, edu_type=edu_type)
        self.assertEqual(await self.changed(token), [self.remote.user_id])
        answer = await query(self.alice, self.remote.user_id)
        for usage in ("master_key", "self_signing_key"):
            shown = answer[f"{usage}s"][self.remote.user_id]
            self.assertEqual(shown["keys"], content[usage]["keys"])
        token = await self.token()
        await self.remote.tell(self.hearth.name, content, edu_type=edu_type)
        self.assertEqual(await self.changed(token), [])
        self.assertEqual(self.asked(), asked)
