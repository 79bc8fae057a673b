"""Words that users are found by, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

from storage import user_words
from storage.database import Database
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database


@on_each_database
class UserWordsTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db: Database = await self.open()

    async def words_of(self, *user_ids: str) -> dict[str, set[str]]:
        return await self.db.read(user_words.words_of, user_ids)

    async def test_words_of_many_are_set_anew(self) -> None:
        many = {f"@user{n}:far": {f"word{n}", "user\t\\n", "Ä爱"} for n in range(50)}
        await self.db.write(user_words.put, many)
        self.assertEqual(await self.words_of(*many), many)
        changed: dict[str, set[str]] = {**many, "@user3:far": {"other"}, "@user4:far": set()}
        await self.db.write(user_words.put, changed)
        self.assertEqual(await self.words_of(*many), changed)

    async def test_what_another_has_written_meanwhile_is_no_failure(self) -> None:
        """It was not there yet when the words from before were taken away."""
        words = {"@alice:here": {"alice", "liddell"}, "@bob:far": {"bob"}}

        def put(txn: Transaction) -> None:
            execute = txn.execute

            def late(sql: str, args: Sequence[Any] = ()) -> int:
                gone = execute(sql, args)
                execute("INSERT INTO user_words (word, user_id) VALUES ('alice', '@alice:here')")
                return gone

            with mock.patch.object(type(txn), "execute", lambda _, *args: late(*args)):
                user_words.put(txn, words, shared=["@alice:here"])

        await self.db.write(put)
        self.assertEqual(await self.words_of(*words), words)
