"""Logs: form, levels, request IDs and what Twisted logs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from twisted.logger import Logger as TwistedLogger
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from config.model import Log
from homeserver.telemetry.logs import (
    REQUEST_ID,
    LogOutput,
    StdlibHandler,
    TwistedObserver,
    make_logger,
)


class LogTests(TestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.output = LogOutput(self.file)
        self.addCleanup(self.output.close)

    def lines(self) -> list[str]:
        self.output.flush()
        return self.file.read_text(encoding="utf-8").splitlines()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def test_human_lines(self) -> None:
        make_logger(self.output, Log()).info("hello", user="@a:b", text="two words", empty="")
        (line,) = self.lines()
        self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    hello ")
        self.assertTrue(line.endswith("user=@a:b text='two words' empty=''"), line)

    def test_values_cannot_forge_lines(self) -> None:
        make_logger(self.output, Log()).info("a\nb", value="c\nd\x1b[0m")
        (line,) = self.lines()
        self.assertNotIn("\x1b", line)

    def test_json_lines(self) -> None:
        make_logger(self.output, Log(format="json")).warning("hello", count=3, odd="\ud800")
        (line,) = self.objects()
        self.assertEqual((line["event"], line["level"]), ("hello", "warning"))
        self.assertEqual(str(line["count"]), "3")

    def test_levels(self) -> None:
        log = make_logger(self.output, Log(level="warning", format="json"))
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")
        self.assertEqual([line["event"] for line in self.objects()], ["c", "d"])

    def test_request_id(self) -> None:
        token = REQUEST_ID.set("abc-1")
        try:
            make_logger(self.output, Log(format="json")).info("a")
            make_logger(self.output, Log(format="human")).info("b")
        finally:
            REQUEST_ID.reset(token)
        first, second = self.lines()
        self.assertEqual(json.loads(first)["request_id"], "abc-1")
        self.assertTrue(second.endswith("[abc-1]"))

    def test_tracebacks(self) -> None:
        log = make_logger(self.output, Log(format="json"))
        try:
            raise ValueError("boom")
        except ValueError as error:
            log.exception("one")
            log.error("two", exc_info=error)
            log.error("three", exc_info=Failure())
        for line in self.objects():
            self.assertIn("ValueError: boom", line["traceback"])
            self.assertEqual(line["level"], "error")

    def test_errors_are_written_at_once(self) -> None:
        log = make_logger(self.output, Log())
        log.info("waits")
        self.assertEqual(self.file.read_text(), "")
        log.error("does not")
        self.assertEqual(len(self.file.read_text().splitlines()), 2)

    def test_reopening(self) -> None:
        log = make_logger(self.output, Log())
        log.info("old")
        self.file.rename(self.file.with_suffix(".1"))
        self.output.reopen()
        log.info("new")
        self.output.flush()
        self.assertIn("old", self.file.with_suffix(".1").read_text())
        self.assertIn("new", self.file.read_text())

    def test_twisted_troubles_are_not_lost(self) -> None:
        observer = TwistedObserver(make_logger(self.output, Log(format="json")))
        twisted = TwistedLogger(observer=observer, namespace="here")
        twisted.info("chatter")
        twisted.warn("trouble with {what}", what="things")
        try:
            raise ValueError("boom")
        except ValueError:
            twisted.failure("Unhandled error in Deferred")
        first, second = self.objects()
        self.assertEqual((first["event"], first["level"]), ("trouble with things", "warning"))
        self.assertIn("ValueError: boom", second["traceback"])

    def test_libraries_troubles_are_not_lost(self) -> None:
        handler = StdlibHandler(make_logger(self.output, Log(format="json")))
        library = logging.Logger("library")
        library.addHandler(handler)
        library.info("chatter")
        library.error("trouble %d", 3)
        (line,) = self.objects()
        self.assertEqual((line["event"], line["source"]), ("trouble 3", "library"))
