"""Installs matrix-js-sdk for the tests of real clients, where node and npm are there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

SOURCES = ("package.json", "js_client.mjs", "js_crypto.mjs", "js_media.mjs")
NODE = 20
"""The oldest version of node that the client runs on."""


def install(sources: Path, directory: Path) -> tuple[Path | None, str]:
    """Install the client in a directory, unless it is there; where, and what there is to say.

    Without node the tests that need it are skipped: the server itself needs Python alone.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None, f"No node and npm: tests with matrix-js-sdk are skipped (node {NODE}+)."
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    match = re.match(r"v(\d+)", version)
    if match is None or int(match[1]) < NODE:
        return None, f"node is {version.strip()}: tests with matrix-js-sdk need {NODE} or newer."
    directory.mkdir(parents=True, exist_ok=True)
    package = directory / "package.json"
    current = package.exists() and package.read_bytes() == (sources / "package.json").read_bytes()
    for name in SOURCES:
        shutil.copyfile(sources / name, directory / name)
    if current and (directory / "node_modules" / "matrix-js-sdk").is_dir():
        return directory, ""
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        package.unlink()
        return None, f"`npm install` failed, tests with matrix-js-sdk are skipped: {done.stderr}"
    return directory, "Installed matrix-js-sdk for the tests of real clients."
