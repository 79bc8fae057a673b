"""The `hearth` command, also `python -m homeserver`."""

from __future__ import annotations

from homeserver.cli import main

if __name__ == "__main__":
    main()
