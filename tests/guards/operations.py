"""What people and servers do all the time, as operations whose cost is bounded."""

from __future__ import annotations

import itertools
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.sync.notifier import Notifier
from homeserver.users.sessions import Sessions
from storage.database import Database, sleep
from tests.guards.counting import Counted, Step, least
from tests.support.databases import reactor
from tests.support.federation import FederatedServer, make_federation
from tests.support.keys import ALGORITHM, Device
from tests.support.peer import Peer, make_peer
from tests.support.server import TestServer, User

SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
RUNS = 6
"""So many times each operation is run; the cheapest counts."""
SETTLING = 100


class Measured:
    """Runs operations on one homeserver."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.costs: dict[str, Counted] = {}

    async def run(self, name: str, operation: Step, before: Step | None = None) -> None:
        """Note the cost of an operation."""
        self.costs[name] = await least(self._db, RUNS, operation, before)

    async def settle(self, operation: Step) -> None:
        """Run it until no thread is needed, or for so long that one always is.

        Connections that the reactor watches open when they are first wanted, in their own time.
        """
        for _ in range(SETTLING):
            if not (await least(self._db, 1, operation)).hops:
                return
            await sleep(reactor, 0.02)


async def of_clients(server: TestServer) -> dict[str, Counted]:
    """What clients do, by the name of the operation."""
    measured = Measured(server.homeserver.db)
    await run_of_clients(server, measured)
    return measured.costs


async def run_of_clients(server: TestServer, measured: Measured) -> None:
    """Have what clients do measured."""
    alice, bob = await server.register("alice"), await server.register("bob")
    room_id = await alice.create_room(preset="public_chat", name="Room")
    await bob.join(room_id)
    await _rooms(measured, alice, room_id)
    await _sync(measured, server, alice, bob, room_id)
    await _small_things(measured, server, alice, bob, room_id)
    await _encryption(measured, alice, bob)


async def _rooms(measured: Measured, alice: User, room_id: str) -> None:
    topics = itertools.count()
    path = f"/rooms/{quote(room_id)}"

    async def send() -> None:
        await alice.send(room_id)

    async def state() -> None:
        await alice.set_state(room_id, "m.room.topic", {"topic": f"{next(topics)}"})

    async def get(path: str, **query: object) -> None:
        await alice.ok("GET", path, query=query)

    await measured.settle(send)
    await measured.run("send", send)
    await measured.run("state", state)
    await measured.run("messages", lambda: get(f"{path}/messages", dir="b", limit=10))
    await measured.run("one state event", lambda: get(f"{path}/state/m.room.topic"))
    await measured.run("members", lambda: get(f"{path}/members"))
    await measured.run("joined rooms", lambda: get("/joined_rooms"))


async def _sync(
    measured: Measured, server: TestServer, alice: User, bob: User, room_id: str
) -> None:
    notifier = server.homeserver.services[Notifier]
    token: str = (await bob.sync())["next_batch"]

    async def sync() -> None:
        nonlocal token
        token = (await bob.sync(token))["next_batch"]

    async def wake() -> None:
        notifier.wake_user(bob.user_id)

    async def send() -> None:
        await alice.send(room_id)

    async def initial() -> None:
        await bob.sync()

    await sync()
    await measured.run("sync, nothing new", sync)
    await measured.run("sync, woken for nothing", sync, wake)
    await measured.run("sync, one message", sync, send)
    position: str | None = None

    async def slide() -> None:
        nonlocal position
        lists = {"all": {"ranges": [[0, 19]], "timeline_limit": 5, "required_state": []}}
        query = {} if position is None else {"pos": position}
        position = (await bob.ok("POST", SLIDING, {"lists": lists}, query=query))["pos"]

    await slide()
    await measured.run("sliding sync, one message", slide, send)
    await measured.run("initial sync", initial)

    async def sync_as_new() -> None:
        """As the first in a process."""
        notifier._drop(await notifier.watch(bob.user_id))

    await sync()
    await measured.run("sync, nothing new, user not known", sync, sync_as_new)


async def _small_things(
    measured: Measured, server: TestServer, alice: User, bob: User, room_id: str
) -> None:
    path = f"/rooms/{quote(room_id)}"
    sessions = server.homeserver.services[Sessions]
    states = itertools.cycle(["online", "unavailable"])
    numbers = itertools.count()
    event_id = ""

    async def send() -> None:
        nonlocal event_id
        event_id = await alice.send(room_id)

    async def forget() -> None:
        sessions._invalidate_all()

    async def receipt() -> None:
        await bob.ok("POST", f"{path}/receipt/m.read/{quote(event_id)}", {})

    async def typing() -> None:
        await bob.ok("PUT", f"{path}/typing/{bob.user_id}", {"typing": True, "timeout": 9000})

    async def presence() -> None:
        await bob.ok("PUT", f"/presence/{bob.user_id}/status", {"presence": next(states)})

    async def presence_of() -> None:
        await bob.ok("GET", f"/presence/{alice.user_id}/status")

    async def put_data() -> None:
        await bob.ok("PUT", f"/user/{bob.user_id}/account_data/org.x", {"n": next(numbers)})

    async def get(path: str) -> None:
        await bob.ok("GET", path)

    await measured.run("first request with a token", lambda: get("/account/whoami"), forget)
    await measured.run("receipt", receipt, send)
    await measured.run("typing", typing)
    await measured.run("presence", presence)
    await measured.run("presence of another", presence_of)
    await measured.run("set account data", put_data)
    await measured.run("get account data", lambda: get(f"/user/{bob.user_id}/account_data/org.x"))
    await measured.run("get profile", lambda: get(f"/profile/{bob.user_id}"))
    await measured.run("get push rules", lambda: get("/pushrules/"))


async def _encryption(measured: Measured, alice: User, bob: User) -> None:
    device = Device(bob)
    await device.upload()
    names = (f"k{number}" for number in itertools.count())
    claim = {"one_time_keys": {bob.user_id: {bob.device_id: ALGORITHM}}}
    told = itertools.count()

    async def upload() -> None:
        await device.upload(one_time_keys=device.one_time_keys(next(names)))

    async def query() -> None:
        await alice.ok("POST", "/keys/query", {"device_keys": {bob.user_id: []}})

    async def take() -> None:
        await alice.ok("POST", "/keys/claim", claim)

    async def count() -> None:
        await bob.ok("POST", "/keys/upload", {})

    async def to_device() -> None:
        messages = {"messages": {bob.user_id: {bob.device_id: {"x": 1}}}}
        await alice.ok("PUT", f"/sendToDevice/org.x/{next(told)}", messages)

    await measured.run("upload keys", upload)
    await measured.run("count keys", count)
    await measured.run("query keys", query)
    await measured.run("claim a key", take)
    await measured.run("to-device message", to_device)


async def of_servers(test: TestCase) -> dict[str, Counted]:
    """What other servers do, by the name of the operation."""
    federation = await make_federation(test, 1)
    (hearth,) = federation
    peer = await make_peer(test, federation)
    measured = Measured(hearth.homeserver.db)
    await _transactions(measured, hearth, peer)
    return measured.costs


async def _transactions(measured: Measured, hearth: FederatedServer, peer: Peer) -> None:
    alice = await hearth.register("alice")
    room_id = await alice.create_room(preset="public_chat", room_version="11")
    room = await peer.join(hearth.name, room_id)
    mallory = peer.user("mallory")
    await peer.sent(hearth.name, room.message(mallory))

    async def event() -> None:
        await peer.sent(hearth.name, room.message(mallory))

    async def edu(kind: str, content: dict[str, object]) -> None:
        edu = {"edu_type": kind, "content": content}
        status, _ = await peer.send(hearth.name, edus=[edu])
        assert status == 200

    async def typing() -> None:
        await edu("m.typing", {"room_id": room_id, "user_id": mallory, "typing": True})

    async def presence() -> None:
        await edu("m.presence", {"push": [{"user_id": mallory, "presence": "online"}]})

    async def keys() -> None:
        body: dict[str, object] = {"device_keys": {alice.user_id: []}}
        status, _ = await peer.request(
            "POST", hearth.name, "/_matrix/federation/v1/user/keys/query", body
        )
        assert status == 200

    async def profile() -> None:
        status, _ = await peer.get(hearth.name, "/v1/query/profile", user_id=alice.user_id)
        assert status == 200

    await measured.run("federation: one event", event)
    await measured.run("federation: typing", typing)
    await measured.run("federation: presence", presence)
    await measured.run("federation: query keys", keys)
    await measured.run("federation: profile", profile)
