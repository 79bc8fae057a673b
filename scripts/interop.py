"""The tests with real Synapse servers: `scripts/test --interop [tests to run]`.

Installs Synapse into a virtual environment of its own (`.venv/synapse`; or the one whose Python
HEARTH_TEST_SYNAPSE names), and runs `tests.interop`. The last line of the output is
`N passed, N failed[, N skipped]`. Where Synapse cannot be installed the tests are skipped,
unless `--required` is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from scripts.run_tests import ROOT, Count, report, run_trial

SYNAPSE = "HEARTH_TEST_SYNAPSE"
INTEROP = "HEARTH_TEST_INTEROP"
TEMPLATES = "HEARTH_TEST_INTEROP_TEMPLATES"
INDEX_TIMEOUT_S = 60
DOWNLOAD_TIMEOUT_S = 300
REQUIREMENTS = ROOT / "tests" / "interop" / "requirements.txt"


def install(directory: Path) -> tuple[Path | None, str]:
    """Install Synapse, unless it is there; its Python, and what there is to say."""
    python = directory / "bin" / "python"
    stamp = directory / "installed.txt"
    if stamp.exists() and stamp.read_bytes() == REQUIREMENTS.read_bytes():
        return python, ""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--timeout=10", "--retries=1"]
    needed = ["--quiet", "--only-binary=matrix-synapse", "-r", str(REQUIREMENTS)]
    try:
        venv.create(directory, with_pip=True, clear=True)
        # The index answers quickly or not at all; how long the packages take depends on the line.
        _run([*pip, "install", *needed, "--dry-run", "--no-deps"], INDEX_TIMEOUT_S)
        _run([*pip, "install", *needed], DOWNLOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        return None, f"Synapse cannot be installed: nothing within {error.timeout:g} seconds."
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", None) or error
        return None, f"Synapse cannot be installed:\n{said}"
    stamp.write_bytes(REQUIREMENTS.read_bytes())
    return python, "Installed Synapse."


def _run(command: list[str], timeout_s: float) -> None:
    """Run a command. Raises CalledProcessError, TimeoutExpired."""
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def run(names: list[str], required: bool) -> Count:
    """Run the named tests, or all of `tests.interop`."""
    given = os.environ.get(SYNAPSE)
    if given:
        python: Path | None = Path(given)
    else:
        python, message = install(ROOT / ".venv" / "synapse")
        if message:
            print(message, flush=True)
    if python is None:
        return Count(failed=1) if required else Count(skipped=1)
    templates = tempfile.mkdtemp(prefix="hearth-interop-")
    environment = {INTEROP: str(python), TEMPLATES: templates}
    try:
        return run_trial("sqlite", names or ["tests.interop"], environment, jobs=2)
    finally:
        shutil.rmtree(templates, ignore_errors=True)


def main() -> int:
    names = sys.argv[1:]
    required = "--required" in names
    count = run([name for name in names if name != "--required"], required)
    report(count)
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
