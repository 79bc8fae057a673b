"""Waiting for Redis at the start."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

import config
from homeserver.reachable import wait_for_redis
from homeserver.startup import CannotStart
from tests.support.log import CapturedLog
from tests.support.services import free_port


class RedisTests(TestCase):
    def wait(self) -> Deferred[None]:
        self.log = CapturedLog()
        wanted: Any = {
            "server_name": "hearth.test",
            "redis": {"url": f"redis://:hunter2@127.0.0.1:{free_port()}"},
            "database": {"start_timeout": "0s"},
        }
        loaded = config.from_dict(wanted)
        return Deferred.fromCoroutine(wait_for_redis(loaded, reactor, self.log.logger))

    async def test_nobody_answers(self) -> None:
        with self.assertRaises(CannotStart) as caught:
            await self.wait()
        self.assertIn("Cannot reach Redis at 127.0.0.1", str(caught.exception))
        self.assertNotIn("hunter2", str(caught.exception))

    async def test_a_stop_while_connecting(self) -> None:
        """It ends as every cancelled wait does, so that the stop is a clean one."""
        waiting = self.wait()
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting
        self.assertEqual(self.log.lines, [])
