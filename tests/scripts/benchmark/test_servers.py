"""How the servers are set up: alike, and with nothing beyond loopback."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import yaml
from twisted.trial.unittest import TestCase

import config
from scripts.benchmark import servers
from scripts.benchmark.context import Context
from scripts.benchmark.residents import Residents
from scripts.benchmark.sizes import QUICK, override
from scripts.benchmark.workloads import processes


class SettingsTests(TestCase):
    def _written(self, kind: type[servers.Server]) -> Any:
        server = kind(Path(self.mktemp()), postgres=False)
        server._prepare()
        return yaml.safe_load(server.settings_file.read_text("utf-8"))

    def test_synapse_listens_on_loopback_and_tells_nobody(self) -> None:
        settings = self._written(servers.Synapse)
        self.assertEqual(
            [listener["bind_addresses"] for listener in settings["listeners"]],
            [["127.0.0.1"], ["127.0.0.1"]],
        )
        self.assertIs(settings["report_stats"], False)
        self.assertEqual(settings["trusted_key_servers"], [])

    def test_hearth_accepts_its_settings_and_listens_on_loopback(self) -> None:
        server = servers.Hearth(Path(self.mktemp()), postgres=False)
        server._prepare()
        loaded = config.load(server.settings_file)
        self.assertEqual({each.address for each in loaded.listeners}, {"127.0.0.1"})
        self.assertEqual(loaded.federation.trusted_key_servers, ())
        self.assertFalse(loaded.rate_limits.enabled)


class ProcessesTests(TestCase):
    timeout = 120

    def _context(self, *, postgres: bool) -> Context:
        directory = Path(tempfile.mkdtemp(prefix="hearth-bench-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # PostgreSQL may have to run as another user.
        few = ["process_senders=6", "send_many=24", "least_s=0.2"]
        context = Context(
            "hearth",
            directory,
            override(QUICK, few),
            postgres=postgres,
            python=sys.executable,
            residents=Residents(directory / "residents", 1),
            log=lambda message: None,
        )
        self.addCleanup(context.close)
        return context

    def test_one_process_and_two_send_what_they_are_sent(self) -> None:
        context = self._context(postgres=True)
        asyncio.run(processes.run(context))
        one, two = context.phases
        for phase in (one, two):
            self.assertGreaterEqual(phase["operations"], 24)
            self.assertGreater(phase["server_cpu_s"], 0)
        names = ["processes.rate", "processes.cpu", "processes.bound"]
        self.assertEqual([value["name"] for value in context.values], names)

    def test_the_database_is_tidy_before_a_measurement(self) -> None:
        """What was prepared is not vacuumed by chance in the midst of one."""
        context = self._context(postgres=True)

        async def measure() -> None:
            server = await context.new_server()
            async with context.phase("nothing", "nothing", "nothing", servers=[server]):
                pass
            assert server._database is not None
            with (
                closing(psycopg2.connect(server._database.url)) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(
                    "SELECT last_vacuum, last_analyze FROM pg_stat_user_tables"
                    " WHERE relname = 'events'"
                )
                self.assertNotIn(None, cursor.fetchone() or (None,))
            context.close()

        asyncio.run(measure())

    def test_a_server_ends_whatever_becomes_of_its_client(self) -> None:
        context = self._context(postgres=False)
        server = asyncio.run(context.new_server())
        # Its connections belong to a loop that is over.
        context.close()
        self.assertFalse(server.alive)

    def test_sqlite_has_one_process_only(self) -> None:
        context = self._context(postgres=False)
        asyncio.run(processes.run(context))
        self.assertEqual((context.phases, context.notes), ([], ["SQLite serves one process only."]))
