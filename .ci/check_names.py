"""No installed package may ship a top-level name that this project uses."""

from __future__ import annotations

import sys
from importlib.metadata import distributions

OURS = {"homeserver", "federation", "storage", "config"}


def main() -> int:
    clashes = []
    for distribution in distributions():
        name = distribution.metadata["Name"]
        tops = {file.parts[0].removesuffix(".py") for file in distribution.files or ()}
        if name != "hearth" and (both := OURS & tops):
            clashes.append(f"{name} ships {', '.join(sorted(both))}")
    print("\n".join(clashes) or "no clash")
    return 1 if clashes else 0


if __name__ == "__main__":
    sys.exit(main())
