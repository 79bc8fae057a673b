"""Commands: the operator's side of the server. `homeserver.cli.main` runs one.

Exit statuses: 0 done; 1 could not be done, the reason is on standard error; 2 the command line
or the configuration is wrong.
"""

from __future__ import annotations

from homeserver.cli.main import main

__all__ = ["main"]
