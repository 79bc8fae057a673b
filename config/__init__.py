"""The configuration: a tree of frozen dataclasses read from a YAML file."""

from __future__ import annotations

from config.load import ConfigError, doubts, from_dict, load, not_yet_used
from config.model import Config

__all__ = ["Config", "ConfigError", "doubts", "from_dict", "load", "not_yet_used"]
