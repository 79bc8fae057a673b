"""`scripts/bench`, in its virtual environment."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import interop, run_tests
from scripts.benchmark import figures, report
from scripts.benchmark.options import Options, parse
from scripts.benchmark.runner import Document, Runner, log

INTERRUPTED = 130


def synapse_python(options: Options) -> tuple[str | None, str]:
    """The Python that has Synapse, installed if need be; what there is to say."""
    python, said = options.synapse_python, ""
    if python is None:
        installed, said = interop.install(run_tests.ROOT / ".venv" / "synapse")
        python = None if installed is None else str(installed)
    if python is None or options.database != "postgres":
        return python, said
    if subprocess.run([python, "-c", "import psycopg2"], capture_output=True).returncode:
        command = [python, "-m", "pip", "install", "--quiet", "psycopg2-binary"]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            return None, "psycopg2-binary cannot be installed for Synapse."
    return python, said


def write(options: Options, document: Document) -> None:
    """Write the result file, and the report of it."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{document['database']}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    report.write(document, options.out)


async def measure(runner: Runner) -> bool:
    """Run; whether it came to its end. A signal ends it, with all servers."""
    task = asyncio.ensure_future(runner.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def _ready(options: Options) -> str:
    """What is missing and cannot be installed."""
    if options.database == "postgres" and "postgresql" in run_tests.missing_packages():
        return run_tests.install_packages(["postgresql"]) or ""
    return ""


def main() -> int:
    """Status 0 if every workload was measured."""
    options = parse(sys.argv[1:])
    if options.report:
        documents = [json.loads(path.read_text("utf-8")) for path in options.report]
        write(options, figures.merge(documents))
        return 0
    python = None
    if problem := _ready(options):
        log(problem)
        return 1
    if options.synapse:
        python, said = synapse_python(options)
        if said:
            log(said)
        if python is None:
            log("With --no-synapse Hearth is measured alone.")
            return 1
    # Thousands of clients, each with a connection; the servers inherit it.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    directory = Path(tempfile.mkdtemp(prefix="hearth-bench-"))
    directory.chmod(0o755)  # PostgreSQL may have to run as another user.
    try:
        runner = Runner(options, directory, python, lambda document: write(options, document))
        complete = asyncio.run(measure(runner))
    finally:
        if options.keep:
            log(f"The servers' files are in {directory}.")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if runner.document["runs"]:
        write(options, runner.document)
        log(f"The report is {options.out / report.file_name(runner.document)}.")
    if not complete:
        log("interrupted")
        return INTERRUPTED
    return 1 if figures.failures(runner.document) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # Before anything was started.
        sys.exit(INTERRUPTED)
