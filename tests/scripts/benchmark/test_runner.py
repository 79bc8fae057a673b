"""Rounds of the benchmark, with a server that answers next to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from scripts.benchmark import readings, runner, servers
from scripts.benchmark.context import Context
from scripts.benchmark.options import parse
from scripts.benchmark.phases import closed_loop
from scripts.benchmark.runner import Runner
from scripts.benchmark.workloads import Workload
from tests.support.process import ROOT

_STUB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Stub(servers.Server):
    """Answers `{}` to everything."""

    kind = "hearth"
    title = "A stub"

    def command(self) -> list[str]:
        return [sys.executable, "-c", _STUB, str(self.client_port)]

    def settings(self) -> dict[str, Any]:
        return {}


class Broken(Stub):
    """Ends at once."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such thing')"]


class RunnerTests(TestCase):
    def setUp(self) -> None:
        self.written: list[int] = []
        self.used: list[servers.Server] = []
        self.patch(runner, "log", lambda message: None)
        self.patch(servers.Server, "_certificate", lambda _: ("", ""))
        self._kinds({"hearth": Stub})

    def _kinds(self, kinds: dict[str, type[servers.Server]]) -> None:
        for kind, server in kinds.items():
            self.patch_item(servers.KINDS, kind, server)

    def patch_item(self, mapping: dict[str, Any], key: str, value: Any) -> None:
        before = mapping[key]
        mapping[key] = value
        self.addCleanup(mapping.__setitem__, key, before)

    def _measure(self, workloads: dict[str, Workload], *arguments: str) -> dict[str, Any]:
        self.patch(runner, "WORKLOADS", workloads)
        options = replace(parse(["--database", "sqlite", *arguments]), workloads=tuple(workloads))
        made = Runner(
            options,
            Path(self.mktemp()),
            None,
            lambda document: self.written.append(len(document["runs"])),
        )
        asyncio.run(made.run())
        return made.document

    async def _good(self, ctx: Context) -> None:
        self.used.append(await ctx.server())
        async with ctx.phase("good", "good", "request") as phase:
            await closed_loop(2, 10, lambda *_: self.used[0].client.call("GET", "/"), phase=phase)
        ctx.note("done")

    async def _bad(self, ctx: Context) -> None:
        self.used.append(await ctx.new_server())
        raise ValueError("it went wrong\nthoroughly")

    def test_a_failed_workload_does_not_stop_the_others(self) -> None:
        workloads = {"bad": Workload("Bad", self._bad), "good": Workload("Good", self._good)}
        document = self._measure(workloads)
        bad, good = document["runs"]
        self.assertEqual(bad["status"], "failed: ValueError: it went wrong")
        self.assertEqual((good["status"], good["notes"]), ("ok", ["done"]))
        self.assertEqual(good["phases"][0]["operations"], 10)
        self.assertEqual(len(good["phases"][0]["latency_ms"]), 16)
        self.assertEqual(self.written, [1, 2])
        self.assertEqual(len(self.used), 2)
        self.assertFalse(any(server.alive for server in self.used))

    def test_rounds_take_turns(self) -> None:
        self._kinds({"synapse": type("Other", (Stub,), {"kind": "synapse"})})
        self.patch(servers, "versions", lambda python: {"hearth": "1", "synapse": "2"})
        workloads = {
            "a": Workload("A", self._nothing),
            "b": Workload("Once", self._nothing, once=True),
            "c": Workload("Of one", self._nothing, once=True, kinds=("hearth",)),
        }
        self.patch(runner, "WORKLOADS", workloads)
        options = parse(["--database", "sqlite", "--rounds", "2"])
        options = replace(options, workloads=tuple(workloads))
        made = Runner(options, Path(self.mktemp()), sys.executable, lambda document: None)
        asyncio.run(made.run())
        self.assertEqual(
            [(run["workload"], run["round"], run["server"]) for run in made.document["runs"]],
            [
                *(("a", number, kind) for number in (1, 2) for kind in ("hearth", "synapse")),
                *(("b", 1, kind) for kind in ("hearth", "synapse")),
                ("c", 1, "hearth"),
            ],
        )

    def test_what_was_measured_before_an_interruption_is_kept(self) -> None:
        async def until_interrupted(ctx: Context) -> None:
            await self._good(ctx)
            raise asyncio.CancelledError

        self.patch(runner, "WORKLOADS", {"long": Workload("Long", until_interrupted)})
        options = replace(parse(["--database", "sqlite"]), workloads=("long",))
        made = Runner(options, Path(self.mktemp()), None, lambda document: None)
        self.assertRaises(asyncio.CancelledError, asyncio.run, made.run())
        (run,) = made.document["runs"]
        self.assertEqual(run["status"], "failed: interrupted")
        self.assertEqual(run["phases"][0]["operations"], 10)
        self.assertFalse(any(server.alive for server in self.used))

    async def _nothing(self, ctx: Context) -> None:
        pass

    def test_a_server_that_ends_is_told_with_its_log(self) -> None:
        self._kinds({"hearth": Broken})
        (run,) = self._measure({"good": Workload("Good", self._good)})["runs"]
        self.assertIn("StartFailed: A stub ended: no such thing", run["status"])

    def test_what_takes_too_long_is_ended(self) -> None:
        async def forever(ctx: Context) -> None:
            self.used.append(await ctx.server())
            await asyncio.sleep(1000)

        workloads = {"forever": Workload("Forever", forever)}
        (run,) = self._measure(workloads, "--set", "workload_timeout_s=2")["runs"]
        self.assertEqual(run["status"], "failed: TimeoutError")
        self.assertFalse(any(server.alive for server in self.used))


class ClosedLoopTests(TestCase):
    def test_each_number_once(self) -> None:
        seen: list[int] = []

        async def operation(number: int, worker: int) -> None:
            self.assertLess(worker, 3)
            seen.append(number)
            await asyncio.sleep(0)

        self.assertEqual(asyncio.run(closed_loop(3, 10, operation)), 10)
        self.assertEqual(seen, list(range(10)))

    def test_it_goes_on_for_a_while_but_not_for_ever(self) -> None:
        async def operation(number: int, worker: int) -> None:
            await asyncio.sleep(0)

        self.assertEqual(asyncio.run(closed_loop(2, 3, operation, least_s=1000)), 150)


def _is_server(pid: int) -> bool:
    try:
        return b"homeserver" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


class CommandTests(TestCase):
    """The real thing, as small as it gets."""

    def _start(self, out: Path, *arguments: str) -> subprocess.Popen[str]:
        sizes = ("senders=2", "send_one=2", "send_many=4", "least_s=0")
        command = [sys.executable, "-m", "scripts.benchmark", "--no-synapse", "--only", "send"]
        command += ["--database", "sqlite", "--out", str(out), *arguments]
        for size in sizes:
            command += ["--set", size]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_hearth_alone(self) -> None:
        out = Path(self.mktemp()).absolute()
        process = self._start(out)
        _, said = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 0, said)
        text = (out / "sqlite.md").read_text("utf-8")
        self.assertIn("| 2 senders in one room | CPU, ms/message |", text)
        self.assertTrue((out / "sqlite-send-latency.svg").exists())
        self.assertNotIn("Not everything could be measured", text)

    def test_interrupted(self) -> None:
        process = self._start(Path(self.mktemp()).absolute(), "--set", "send_one=1000000")
        deadline = time.monotonic() + 60
        while not any(map(_is_server, found := readings.tree(process.pid))):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 130, said)
        for pid in found:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
