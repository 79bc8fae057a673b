"""The part of `scripts/test` that runs in its virtual environment.

Starts PostgreSQL and Redis of its own, runs all tests with trial on SQLite, and those that open a
database again on PostgreSQL. The last line of the output is `N passed, N failed[, N skipped]`.

A few tests that fail are run once more, one after the other: on a busy machine a process may
start too slowly or a port may be taken. Those that pass then count as passed, and are told as
"Unsteady" at the end with what they failed of above: each is a defect, of the test or of what it
tests, for which there is to be an issue.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from scripts import js_client
from tests.support import services

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
ON_A_DATABASE = {"tests.support.databases", "tests.support.server"}
"""Test modules that import these, directly or not, run on each kind of database."""
DATABASE = "HEARTH_TEST_DATABASE"
JS_CLIENT = "HEARTH_TEST_JS_CLIENT"
INTEROP = "tests.interop."
"""Tests of server processes, which `scripts/test --interop` runs."""

MEMORY = Path("/dev/shm")
ENOUGH = 4 << 30
"""Bytes that are to be free in memory for what tests write; they take less than half of it."""

_NO_AUTHORITIES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
"""Nobody in these tests has a certificate of the system's authorities, and each server of a test
would read them all. Tests of real clients need them: some do not start without."""
MOST_AGAIN = 3
"""Failed tests of one run that are run again; more have a cause in common."""

_PROBLEM = re.compile(r"^\[(?:FAIL|ERROR)\]$")
_TEST_NAME = re.compile(r"^tests(?:\.\w+){3,}$")
_SUMMARY = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?$")
_JOBS = min(4, (os.cpu_count() or 1) + 1)
"""One more than processors, since some tests wait for time to pass."""


@dataclass(slots=True)
class Count:
    """How many tests did what."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    unsteady: list[str] = field(default_factory=list)
    """Tests that failed at first."""

    def add(self, other: Count) -> None:
        self.unsteady += other.unsteady
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def count_of(summary: str) -> Count | None:
    """The numbers in trial's last line, such as `FAILED (failures=1, successes=3)`."""
    match = _SUMMARY.match(summary.strip())
    if match is None:
        return None
    numbers = {
        name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", match.group(1) or "")
    }
    return Count(
        passed=numbers.get("successes", 0) + numbers.get("expectedFailures", 0),
        failed=sum(numbers.get(key, 0) for key in ("failures", "errors", "unexpectedSuccesses")),
        skipped=numbers.get("skips", 0),
    )


def missing_packages() -> list[str]:
    """The system packages (by their names in Debian) without which the services cannot start."""
    missing = []
    try:
        services.postgres_program("initdb")
    except services.ServiceError:
        missing.append("postgresql")
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        missing.append("redis-server")
    return missing


def install_packages(packages: list[str]) -> str | None:
    """Install system packages; returns what to tell the user if that is not possible."""
    names = " and ".join(packages)
    advice = (
        f"The tests need {names}. Install them: apt-get install {' '.join(packages)} "
        "(or what your system calls PostgreSQL 13+ and Redis), then run this again."
    )
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return advice
    print(f"Installing system packages: {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-q", "update"],
        ["apt-get", "-q", "-y", "--no-install-recommends", "install", *packages],
    ):
        if subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode:
            return f"`{' '.join(command)}` failed. {advice}"
    return None


def files_directory() -> Path:
    """A new directory for what tests write: in memory where there is much, else on disk.

    On a disk each of a hundred thousand commits would wait for it.
    """
    place = None
    try:
        known = Path("/proc/meminfo").read_text("ascii")
        available = re.search(r"^MemAvailable: +(\d+) kB$", known, re.MULTILINE)
        memory = 0 if available is None else int(available[1]) << 10
        may_execute = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        if may_execute and min(memory, shutil.disk_usage(MEMORY).free) >= ENOUGH:
            place = MEMORY
        return Path(tempfile.mkdtemp(prefix="hearth-tests-", dir=place))
    except OSError:  # another system
        return Path(tempfile.mkdtemp(prefix="hearth-tests-"))


def start_services(directory: Path) -> dict[str, str]:
    """Start PostgreSQL and Redis; returns what tests find them by. Raises CalledProcessError."""
    output = subprocess.run(
        [sys.executable, "-m", "tests.support.services", "start", "--directory", str(directory)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def stop_services(directory: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.support.services", "stop", "--directory", str(directory)],
        cwd=ROOT,
    )


def imports_of(path: Path) -> set[str]:
    """The modules, and names in modules, that a file imports from `tests`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.startswith("tests.")}


def modules_on_a_database() -> list[str]:
    """The test modules whose tests open the database that is chosen."""
    imports = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): imports_of(path)
        for path in sorted(TESTS.rglob("*.py"))
    }
    reach = set(ON_A_DATABASE)
    while more := {name for name, used in imports.items() if used & reach} - reach:
        reach |= more
    return sorted(
        name
        for name in reach
        if name.rpartition(".")[2].startswith("test_") and not name.startswith(INTEROP)
    )


class FailedTests:
    """Which tests failed, from the lines of trial's output in turn."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.unnamed = 0
        """Problems of no test, such as of a process that ended."""
        self._in_problem = self._nameless = False

    def add(self, line: str) -> None:
        """One line. A problem is a heading, a text, and the names of the tests that have it."""
        line = line.rstrip("\n")
        if _PROBLEM.match(line):
            self.end()
            self._in_problem = self._nameless = True
        elif line.startswith("====="):
            self.end()
        elif self._in_problem and _TEST_NAME.match(line):
            self._nameless = False
            if line not in self.names:
                self.names.append(line)

    def end(self) -> None:
        """The part about a problem is over."""
        self.unnamed += self._in_problem and self._nameless
        self._in_problem = False

    @property
    def may_run_again(self) -> bool:
        return 0 < len(self.names) <= MOST_AGAIN and not self.unnamed


def run_trial(
    database: str,
    names: list[str],
    environment: dict[str, str],
    jobs: int = _JOBS,
    files: Path = ROOT,
) -> Count:
    """Run tests with `database` (sqlite or postgres) as the server's; print trial's output.

    A few that fail are run again. What they write is below `files`; their log is kept.
    """
    count, failed = _run_trial_once(database, names, environment, jobs, files)
    if count.failed and failed.may_run_again and failed.names != names:
        print(f"\nRun again: {' '.join(failed.names)}", flush=True)
        again, _ = _run_trial_once(database, failed.names, environment, 1, files)
        if not again.failed and again.passed == len(failed.names):
            count.failed = 0
            count.passed += again.passed
            count.unsteady = [f"{name} ({database})" for name in failed.names]
    return count


def _run_trial_once(
    database: str, names: list[str], environment: dict[str, str], jobs: int, files: Path
) -> tuple[Count, FailedTests]:
    print(f"\n--- Tests with {database} ---", flush=True)
    directory = files / f"_trial_temp-{database}"
    command = [
        sys.executable,
        "-m",
        "twisted.trial",
        *([f"--jobs={jobs}"] if jobs > 1 else []),
        "--reporter=text",
        f"--temp-directory={directory}",
        *names,
    ]
    trial = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, DATABASE: database},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert trial.stdout is not None
    count: Count | None = None
    failed = FailedTests()
    for line in trial.stdout:
        sys.stdout.write(line)
        failed.add(line)
        count = count_of(line) or count
    failed.end()
    sys.stdout.flush()
    status = trial.wait()
    _keep_log(directory)
    if count is None:
        print(f"trial gave no summary (status {status}).")
        return Count(failed=1), FailedTests()
    if status and not count.failed:
        count.failed = 1
    return count, failed


def _keep_log(directory: Path) -> None:
    """Copy the log of a run to where it does not go with the files of the tests."""
    kept = ROOT / directory.name
    log = directory / "test.log"
    if kept != directory and log.exists():
        kept.mkdir(exist_ok=True)
        (kept / "_trial_marker").touch()  # trial may replace it
        shutil.copyfile(log, kept / log.name)


def js_client_environment() -> dict[str, str]:
    """What the tests of real clients find matrix-js-sdk by; nothing where it cannot be had."""
    directory, message = js_client.install(TESTS / "clients", ROOT / ".venv" / "js-client")
    if message:
        print(message, flush=True)
    return {} if directory is None else {JS_CLIENT: str(directory)}


def run_all(names: list[str]) -> Count:
    """Run the named tests, or all."""
    problem = None
    if missing := missing_packages():
        problem = install_packages(missing)
    if problem is not None:
        print(problem)
        return Count(failed=1)
    count = Count()
    directory = files_directory()
    try:
        environment = start_services(directory) | js_client_environment() | _NO_AUTHORITIES
        count.add(run_trial("sqlite", names or ["tests"], environment, files=directory))
        again = [] if names else modules_on_a_database()
        if names or again:
            count.add(run_trial("postgres", names or again, environment, files=directory))
    except subprocess.CalledProcessError:
        print("PostgreSQL and Redis for the tests did not start.")
        count.failed += 1
    finally:
        stop_services(directory)
        shutil.rmtree(directory, ignore_errors=True)
    return count


def report(count: Count) -> None:
    """Print what a run came to."""
    if count.unsteady:
        print("\nUnsteady, passed when run again:", *count.unsteady, sep="\n    ")
    print(f"\n{count}", flush=True)


def main() -> int:
    count = run_all(sys.argv[1:])
    report(count)
    return 1 if count.failed or not count.passed else 0


if __name__ == "__main__":
    sys.exit(main())
