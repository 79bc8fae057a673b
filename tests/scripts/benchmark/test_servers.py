"""How the servers are set up: alike, and with nothing beyond loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import TestCase

import config
from scripts.benchmark import servers


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
