"""Notifications, while processes are killed."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.measure.push import Drain, Drained
from tests.support.databases import chosen_kinds, migrated_database, redis_url


class PushCrashTest(TestCase):
    timeout = 200

    async def test_none_is_lost(self) -> None:
        """Three processes tell a gateway what waits; one is killed, and comes again. What each has
        on its way is one push: at most that comes twice. Shows PSH-11."""
        if "postgres" not in chosen_kinds():
            raise SkipTest("Several processes share PostgreSQL.")
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        database_url = migrated_database(self, "postgres")
        drain = Drain(directory, database_url, redis_url(), people=5, messages=12, at_once=1)
        self.addCleanup(drain.close)
        found: Drained = await deferToThread(drain.run, 1)
        self.assertEqual((found.lost, found.in_order), (0, True))
        self.assertLessEqual(found.twice, 1)
