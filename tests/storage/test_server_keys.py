"""Keys of other servers in the database."""

from __future__ import annotations

from hashlib import sha256

from storage import server_keys
from storage.database import Database
from storage.server_keys import Answer, NewKey
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

NOW = 1_000_000
DAY = 86_400_000


def answer(
    keys: dict[str, NewKey],
    *,
    name: str = "a.example",
    fetched: int = NOW,
    valid_for: int = DAY,
    is_direct: bool = True,
    text: str | None = None,
) -> Answer:
    """An answer whose JSON differs for each time and content unless it is given."""
    text = text or f"{name} {sorted(keys.items())} {fetched} {valid_for}"
    return Answer(name, keys, fetched + valid_for, fetched, is_direct, text)


def key(material: str = "K1", *, fetched: int = NOW, valid_for: int = DAY) -> NewKey:
    return NewKey(material, fetched + valid_for, False)


@on_each_database
class ServerKeysTest(DatabaseTestCase):
    db: Database

    async def prepare(self) -> None:
        self.db = await self.open()

    async def store(self, *answers: Answer, now: int = NOW) -> dict[str, tuple[str, int, bool]]:
        rows = await self.db.write(server_keys.store, answers, now)
        return {row.key_id: (row.verify_key, row.valid_until_ts, row.is_old) for row in rows}

    async def texts(self, name: str = "a.example") -> dict[str, str]:
        """The stored answer of each key."""
        rows = await self.db.read(server_keys.of_servers, [name])
        return {
            row.key_id: (await self.db.read(server_keys.answers, [(name, row.answer_hash)]))[0]
            for row in rows
        }

    async def test_many_together(self) -> None:
        """They cost no more statements than one, and the result is as if they came in turn."""
        names = [f"s{number}.example" for number in range(60)]
        before = await self.db.read(server_keys.of_servers, names)
        self.assertEqual(before, [])
        first = [answer({"ed25519:1": key()}, name=name) for name in names]
        later = [
            answer(
                {"ed25519:1": key(fetched=NOW + 5), f"ed25519:{number}": key("K2")},
                name=name,
                fetched=NOW + 5,
            )
            for number, name in enumerate(names, 2)
        ]

        def counted(txn: Transaction, new: list[Answer]) -> int:
            begin = txn.statements
            server_keys.store(txn, new, NOW)
            return txn.statements - begin

        one = await self.db.write(counted, [answer({"ed25519:1": key()}, name="one.example")])
        # The later answer of a server is compared with its first.
        self.assertEqual(await self.db.write(counted, [*first, *later]), 2 * one - 1)
        rows = await self.db.read(server_keys.of_servers, names)
        self.assertEqual(len(rows), 2 * len(names))
        self.assertEqual({row.answer_fetched_ts for row in rows}, {NOW + 5})
        # The answers that no key is of any more are gone.
        hashes = [(each.server_name, sha256(each.json.encode()).digest()) for each in first]
        self.assertEqual(await self.db.read(server_keys.answers, hashes), [])

    async def test_what_was_stored_is_found(self) -> None:
        await self.store(
            answer({"ed25519:1": key(), "ed25519:0": NewKey("K0", 500, True)}, text="{1}"),
            answer({"ed25519:1": key("K9")}, name="b.example", text="{2}"),
        )
        rows = await self.db.read(server_keys.of_servers, ["a.example", "c.example"])
        found = {row.key_id: row for row in rows}
        self.assertEqual(set(found), {"ed25519:0", "ed25519:1"})
        first = found["ed25519:1"]
        self.assertEqual(first[:5], ("a.example", "ed25519:1", "K1", NOW + DAY, False))
        self.assertEqual(first[6:], (NOW + DAY, NOW))
        self.assertEqual(found["ed25519:0"][2:5], ("K0", 500, True))
        self.assertEqual(await self.texts(), {"ed25519:0": "{1}", "ed25519:1": "{1}"})
        self.assertEqual(await self.texts("b.example"), {"ed25519:1": "{2}"})

    async def test_a_newer_answer_takes_over_and_the_old_one_goes(self) -> None:
        await self.store(answer({"ed25519:1": key()}, text="{1}"))
        later = NOW + 1000
        found = await self.store(
            answer({"ed25519:1": key(fetched=later)}, fetched=later, text="{2}"), now=later
        )
        self.assertEqual(found, {"ed25519:1": ("K1", later + DAY, False)})
        self.assertEqual(await self.texts(), {"ed25519:1": "{2}"})
        count = await self.db.read(lambda txn: txn.value("SELECT COUNT(*) FROM server_key_answers"))
        self.assertEqual(count, 1)

    async def test_a_key_that_a_newer_answer_lacks_stays(self) -> None:
        """Shows KEY-12."""
        await self.store(answer({"ed25519:1": key()}, text="{1}"))
        later = NOW + 1000
        found = await self.store(
            answer({"ed25519:2": key("K2", fetched=later)}, fetched=later, text="{2}"), now=later
        )
        self.assertEqual(found["ed25519:1"], ("K1", NOW + DAY, False))
        self.assertEqual(await self.texts(), {"ed25519:1": "{1}", "ed25519:2": "{2}"})

    async def test_an_answer_that_ends_sooner_changes_nothing(self) -> None:
        """Shows KEY-12."""
        await self.store(answer({"ed25519:1": key()}, text="{1}"))
        stale = answer({"ed25519:1": key(valid_for=5)}, valid_for=5, text="{2}")
        found = await self.store(stale, now=NOW + 1000)
        self.assertEqual(found, {"ed25519:1": ("K1", NOW + DAY, False)})
        self.assertEqual(await self.texts(), {"ed25519:1": "{1}"})

    async def test_a_valid_key_is_not_exchanged_for_another(self) -> None:
        """Shows KEY-12."""
        await self.store(answer({"ed25519:1": key()}))
        later = NOW + DAY
        other = answer({"ed25519:1": key("FALSE", fetched=later)}, fetched=later)
        found = await self.store(other, now=later)
        self.assertEqual(found["ed25519:1"][0], "K1")
        found = await self.store(other, now=later + 1)
        self.assertEqual(found["ed25519:1"][0], "FALSE")

    async def test_a_retired_key_comes_back_only_by_its_server(self) -> None:
        retired = {"ed25519:1": NewKey("K1", NOW - 5, True)}
        await self.store(answer({"ed25519:1": key()}, valid_for=2 * DAY))
        found = await self.store(answer(retired, valid_for=DAY, is_direct=False))
        self.assertFalse(found["ed25519:1"][2], "an outdated copy of a notary retires nothing")
        found = await self.store(answer(retired, valid_for=DAY))
        self.assertEqual(found, {"ed25519:1": ("K1", NOW - 5, True)})
        again = answer({"ed25519:1": key(valid_for=3 * DAY)}, valid_for=3 * DAY, is_direct=False)
        found = await self.store(again)
        self.assertTrue(found["ed25519:1"][2])
        found = await self.store(again._replace(is_direct=True))
        self.assertEqual(found, {"ed25519:1": ("K1", NOW + 3 * DAY, False)})

    async def test_caches_hear_of_keys_that_are_worth_less(self) -> None:
        heard: list[str] = []
        self.db.on_invalidate(server_keys.CHANGED, heard.append, None)
        await self.store(answer({"ed25519:1": key()}))
        await self.store(answer({"ed25519:1": key(valid_for=2 * DAY)}, valid_for=2 * DAY))
        self.assertEqual(heard, [])
        await self.store(answer({"ed25519:1": NewKey("K1", NOW, True)}, valid_for=2 * DAY))
        self.assertEqual(heard, ["a.example"])

    async def test_many_servers_at_once(self) -> None:
        names = [f"s{number}.example" for number in range(150)]
        await self.db.write(
            server_keys.store, [answer({"ed25519:1": key()}, name=name) for name in names], NOW
        )
        rows = await self.db.read(server_keys.of_servers, names[10:])
        self.assertEqual({row.server_name for row in rows}, set(names[10:]))
