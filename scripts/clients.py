"""The tests of real clients with encryption: `scripts/test --clients [tests to run]`.

Installs matrix-nio and the Rust SDK's Python binding into a virtual environment of their own
(`.venv/clients`), and matrix-js-sdk where node is; runs `tests.clients`. Tests of a client that
cannot be installed are skipped. The last line of the output is `N passed, N failed[, N skipped]`.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from scripts.old_libc import name_as_before
from scripts.run_tests import JS_CLIENT, ROOT, TESTS, js_client_environment, report, run_trial

JS = "HEARTH_TEST_JS_SDK"
"""The environment variable that names the directory of matrix-js-sdk."""
NIO = "HEARTH_TEST_NIO"
RUST = "HEARTH_TEST_RUST_SDK"
"""Environment variables that name the Python to run a client with."""
REQUIREMENTS = TESTS / "clients" / "requirements"
_PLATFORM = "manylinux_2_39_x86_64"
"""What the binding is built for; an older C library will do."""


def _pip(python: Path, *arguments: str) -> str | None:
    """Install packages; what went wrong."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stderr if done.returncode else None


def _install_rust(python: Path, requirements: Path) -> str | None:
    """Install the binding of the Rust SDK, for which there are wheels only; what went wrong."""
    place = Path(
        subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    options = ["--target", str(place), "--upgrade", "--no-deps"]
    options += ["--only-binary=:all:", "--platform", _PLATFORM]
    problem = _pip(python, *options, "-r", str(requirements))
    if problem is not None:
        return problem
    for library in place.glob("matrix_sdk_python/_generated/*.so"):
        name_as_before(library)
    done = subprocess.run(
        [str(python), "-c", "import matrix_sdk_python"], capture_output=True, text=True
    )
    return done.stderr if done.returncode else None


def install(directory: Path) -> dict[str, str]:
    """Install the clients written for Python, unless they are there; what tests find them by."""
    python = directory / "bin" / "python"
    found = {}
    for variable, name, how in (
        (NIO, "nio", lambda python, path: _pip(python, "-r", str(path))),
        (RUST, "rust", _install_rust),
    ):
        requirements = REQUIREMENTS / f"{name}.txt"
        stamp = directory / f"{name}-installed.txt"
        if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
            if not python.exists():
                venv.create(directory, with_pip=True, clear=True)
            problem = how(python, requirements)
            if problem is not None:
                print(f"Tests with {name} are skipped, it cannot be installed:\n{problem}")
                continue
            stamp.write_bytes(requirements.read_bytes())
        found[variable] = str(python)
    return found


def main() -> int:
    environment = install(ROOT / ".venv" / "clients") | js_client_environment()
    if JS_CLIENT in environment:
        environment[JS] = environment[JS_CLIENT]
    count = run_trial("sqlite", sys.argv[1:] or ["tests.clients"], environment, jobs=2)
    report(count)
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
