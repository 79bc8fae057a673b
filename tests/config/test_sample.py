"""The sample and the schema agree with the model."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import yaml
from twisted.trial.unittest import TestCase

import config
from config.describe import all_options
from config.model import Config
from config.sample import sample
from config.schema import schema
from tests.config.test_load import PROMISED

SAMPLE = Path(__file__).parents[2] / "sample_config.yaml"


def uncommented(text: str) -> str:
    """The sample with every option in force."""
    return re.sub(r"^#(?! ?\S* ?[A-Z`])(?=[a-z]|  )", "", text, flags=re.MULTILINE)


class SampleTests(TestCase):
    def test_the_file_is_current(self) -> None:
        self.assertEqual(
            SAMPLE.read_text(encoding="utf-8"),
            sample(),
            "run: python -m config.sample > sample_config.yaml",
        )

    def test_it_loads(self) -> None:
        data = yaml.safe_load(sample("chat.example.org"))
        self.assertEqual(data, {"server_name": "chat.example.org"})
        self.assertEqual(config.from_dict(data).server_name, "chat.example.org")

    def test_it_names_every_option_and_each_is_right(self) -> None:
        data = yaml.safe_load(uncommented(sample()))
        loaded = config.from_dict(data)
        jsonschema.validate(data, schema())
        for name, _ in all_options(Config):
            if name.count(".") < 2 and not name.startswith(("listeners.", "redis.")):
                section, _, key = name.partition(".")
                self.assertIn(section, data)
                if key:
                    self.assertIn(key, data[section])
        default = config.from_dict({"server_name": "example.org"})
        for section in (
            "log",
            "rate_limits",
            "federation",
            "listeners",
            "stop_timeout",
            "presence",
        ):
            self.assertEqual(getattr(loaded, section), getattr(default, section))


class SchemaTests(TestCase):
    def accepted_by_schema(self, data: object) -> bool:
        validator = jsonschema.Draft202012Validator(schema())
        return bool(validator.is_valid(data))

    def accepted_by_loader(self, data: dict[str, object]) -> bool:
        try:
            config.from_dict(data)
        except config.ConfigError:
            return False
        return True

    def test_it_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(schema())

    def test_it_accepts_what_the_loader_accepts(self) -> None:
        good: list[dict[str, object]] = [
            {},
            yaml.safe_load(PROMISED),
            {"registration": None},
            {"registration": {"shared_secret": None}},
            {"media": {"max_upload_size": 5}},
            {"media": {"max_upload_size": "5K"}},
            {"sessions": {"refresh_token_lifetime": "1d"}},
            {"rate_limits": {"read": {"per_second": 0.5, "burst": 3}}},
        ]
        for data in good:
            data = {"server_name": "a", **data}
            self.assertTrue(self.accepted_by_loader(data), data)
            self.assertTrue(self.accepted_by_schema(data), data)

    def test_it_refuses_what_the_loader_refuses(self) -> None:
        bad: list[dict[str, object]] = [
            {"unknown": 1},
            {"server_name": 1},
            {"registration": {"enabled": 1}},
            {"registration": []},
            {"listeners": [{}]},
            {"listeners": [{"port": -1}]},
            {"listeners": [{"port": 80, "serves": ["x"]}]},
            {"media": {"max_upload_size": "5X"}},
            {"stop_timeout": 5},
            {"default_room_version": "99"},
            {"redis": {}},
        ]
        for data in bad:
            data = {"server_name": "a", **data}
            self.assertFalse(self.accepted_by_loader(data), data)
            self.assertFalse(self.accepted_by_schema(data), data)
        self.assertFalse(self.accepted_by_schema({}))
