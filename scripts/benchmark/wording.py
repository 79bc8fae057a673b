"""What the report says around its figures."""

from __future__ import annotations

from typing import Any

from scripts.benchmark.figures import HEARTH, SYNAPSE

ABOUT = {
    "send": "Text messages through the client API, each answered before the same sender sends "
    "the next one.",
    "fanout": "A message to a room in which many clients wait in `/sync`, until it has reached all "
    "of them; each waits again at once. CPU time is for one delivery to one client, its next "
    "request and its part of the sending included. In a burst one answer may bring several "
    "messages, each of which counts as a delivery.",
    "initial": "`/sync` without a position by somebody in many rooms, for 10 messages of each. "
    "What the first one has to read, later ones may find in caches.",
    "incremental": "`/sync` with a position and without waiting.",
    "sliding": "Simplified sliding sync (MSC4186): a first window, all rooms, and then changes.",
    "shape": "The shape of a study of homeservers under load (SBRC 2026), which had 200 users, "
    "300 rooms and 300 members to each: all users sync for the first time at the same moment.",
    "messages": "`/messages` backwards through a long room.",
    "joins": "Joins count until the server is quiet again: what it does after the answer is part "
    "of them.",
    "federation": "Between two servers of one kind; and from a server that is played, whose own "
    "CPU time does not count.",
    "resolution": "The resolvers alone, each in a process of its own.",
    "processes": "Hearth alone, on new databases: messages to one process, and to two that serve "
    "the same port and share database and Redis.",
    "memory": "Proportional set size of a server just started, then with clients that wait in "
    "`/sync` for nothing.",
    "soak": "A steady stream of messages to clients that all wait. A server that cannot keep up "
    "gets fewer: it is sent a new message only when it has answered one.",
}
"""What each workload does."""

_ALIKE = (
    "Both run as one process on the same machine, with their own defaults for caches and "
    "threads, started with a bare environment (no preloaded allocator).",
    "Rate limits are lifted, registration is open, logs are written from warnings on. Presence is "
    "on, but the clients here do not tell theirs (`set_presence=offline`). Passwords are hashed "
    "with the least effort that each accepts, as users are scenery here.",
    "Clients talk plain HTTP on kept-alive connections and ask for no compression; servers talk "
    "TLS with certificates of a throw-away authority.",
    "Nothing leaves loopback: no key server is trusted, Synapse's statistics are off, Hearth has "
    "none.",
)
_DATABASE = {
    "postgres": "Each server has a cluster of PostgreSQL of its own with the settings that it is "
    "installed with, durability included. Before each measured stretch it is vacuumed and "
    "analysed: else it does that, for what was prepared, at some moment of a measurement.",
    "sqlite": "Each server has an SQLite file of its own, in write-ahead mode, and waits "
    "for the disk on every commit: Hearth asks for that, with Synapse it is SQLite's default.",
}
_DIFFERENT = (
    "Synapse makes its background updates of a new database without pauses, so that they are over "
    "before anything is measured (`background_updates`).",
    "Synapse's pool has 5 to 10 connections (`cp_min`, `cp_max`), as its documentation proposes; "
    "Hearth has its default.",
    "Since loops last for some seconds, the faster server does more in them, and has the larger "
    "database from then on.",
    "Synapse's container image preloads jemalloc, with which it uses less memory; a server that "
    "is installed from PyPI does not have it, nor has Hearth.",
    "Synapse runs without workers. With workers it uses more cores for the same work, not fewer; "
    "what is compared is what the work costs.",
)
_HOW = (
    "**Turns.** Each workload is done by one server, then by the other, and again in every round; "
    "both run all the time. Rooms and users are made once and serve in all rounds.",
    "**CPU time** is user and system time of the server and of its database, their children "
    "included, from the kernel. It counts from the first request until both are quiet again (under "
    "a tenth of a core), so what is put off until after the answer is paid for.",
    "**Ratios** are of the two turns of one round; the median of them is given and the range in "
    "parentheses. CPU time is the figure to trust on a shared machine: what others do stretches "
    "wall time, and CPU time far less.",
    "**Latencies** are those of closed loops: a client sends its next request when the last is "
    "answered, so they do not show queues longer than there are clients.",
    "**Small loops last**: a loop that does its count at once goes on for some seconds, so that a "
    "fast server is not judged by a blink.",
)
_LIMITS = (
    "The load generator runs on the same machine. It costs some 45 µs for a message and a "
    "little more for a delivery; where it used 0.9 of a core or more it is said, and the rate may "
    "be its own.",
    "Databases are small and warm: nothing is read from a disk that is not in memory.",
    "One machine, no network between clients and servers, no TLS for clients, no reverse proxy.",
    "The servers do the same work as far as clients can see. They do not check the same things at "
    "the same time, and nothing here tells what each does that the other does not.",
)


def head(document: dict[str, Any]) -> str:
    """Title, date, what was run."""
    machine, servers = document["machine"], document["servers"]
    names = [f"Hearth {servers['hearth']}"]
    if SYNAPSE in servers:
        names.append(f"Synapse {servers[SYNAPSE]}")
    libraries = ", ".join(f"{name} {version}" for name, version in document["libraries"].items())
    database = {"postgres": "PostgreSQL", "sqlite": "SQLite"}[document["database"]]
    return "\n\n".join(
        (
            f"# {' and '.join(name.split()[0] for name in names)} on {database}",
            f"Measured by `scripts/bench` ({document['preset']} sizes), begun "
            f"{document['started']}; how, and with what settings, is told at the end.",
            "\n".join(
                (
                    f"- Servers: {', '.join(names)}",
                    f"- Machine: {machine['cpu']}, {machine['cores']} cores, "
                    f"{machine['memory_gib']} GiB, Linux {machine['kernel']}; load average at the "
                    f"start {', '.join(map(str, machine['load_average']))}",
                    f"- Python {machine['python']}, {libraries}",
                    *_interpreters(document.get("loop_ms", {})),
                )
            ),
        )
    )


def _interpreters(loop_ms: dict[str, float]) -> list[str]:
    """How fast they are: it depends on how they were built."""
    if not loop_ms:
        return []
    names = {HEARTH: "Hearth's", SYNAPSE: "Synapse's"}
    each = " and ".join(f"{ms:g} ms with {names[kind]} Python" for kind, ms in loop_ms.items())
    return [f"- A fixed loop takes {each}: builds of Python differ, by half and more"]


def method(document: dict[str, Any]) -> list[str]:
    """How it was measured, and what that leaves open."""
    alike = [*_ALIKE[:1], _DATABASE[document["database"]], *_ALIKE[1:]]
    parts = ["## How it was measured", _list(_HOW)]
    if SYNAPSE in document["servers"]:
        parts += ["### What is equal for both", _list(alike), "### What is not", _list(_DIFFERENT)]
    parts += ["### What the figures do not tell", _list(_LIMITS)]
    parts += ["### Sizes", _sizes(document["sizes"])]
    for workload, sizes in document.get("other_sizes", {}).items():
        parts.append(f"Of {workload}, which was measured apart: {_sizes(sizes)}")
    return parts


def _sizes(sizes: dict[str, Any]) -> str:
    return "`" + ", ".join(f"{name} {value}" for name, value in sizes.items()) + "`"


def _list(texts: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
