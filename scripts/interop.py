"""The tests with real Synapse servers: `scripts/test --interop [tests to run]`.

Installs Synapse into a virtual environment of its own (`.venv/synapse`; or the one whose Python
HEARTH_TEST_SYNAPSE names), and runs `tests.interop`. The last line of the output is
`N passed, N failed[, N skipped]`. Where Synapse cannot be installed the tests are skipped,
unless `--required` is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from scripts.run_tests import ROOT, Count, run_trial

SYNAPSE = "HEARTH_TEST_SYNAPSE"
INTEROP = "HEARTH_TEST_INTEROP"
REQUIREMENTS = ROOT / "tests" / "interop" / "requirements.txt"


def install(directory: Path) -> tuple[Path | None, str]:
    """Install Synapse, unless it is there; its Python, and what there is to say."""
    python = directory / "bin" / "python"
    stamp = directory / "installed.txt"
    if stamp.exists() and stamp.read_bytes() == REQUIREMENTS.read_bytes():
        return python, ""
    venv.create(directory, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "-r", str(REQUIREMENTS)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return None, f"Synapse cannot be installed:\n{done.stderr}"
    stamp.write_bytes(REQUIREMENTS.read_bytes())
    return python, "Installed Synapse."


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
    environment = {INTEROP: str(python)}
    return run_trial("sqlite", names or ["tests.interop"], environment, jobs=2)


def main() -> int:
    names = sys.argv[1:]
    required = "--required" in names
    count = run([name for name in names if name != "--required"], required)
    print(f"\n{count}", flush=True)
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
