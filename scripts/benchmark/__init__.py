"""The public benchmark: Hearth and Synapse side by side, through their public APIs.

`scripts/bench` is the command; `docs/performance.md` tells what is measured, and how. It starts
the servers as processes on loopback, takes turns between them, and writes the figures of every
round as JSON, and a report of them as Markdown with plots as SVG.
"""
