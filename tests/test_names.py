"""User-defined names in text with markup."""

import csv

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_perceiver._names import in_csv, in_markdown, in_protobuf, one_line
from keras_perceiver.models.reports import ClassificationReport
from keras_perceiver.serving.config import models_config
from keras_perceiver.training.evaluate import table, write_report

pytestmark = pytest.mark.one_backend

NAMES = ("$a_b$", "a|b", "a\nb\r\x1b[2J", "<b>", "=1+1", '"quoted\\', "café", "-5")


@pytest.fixture
def report():
    labels = np.arange(len(NAMES))
    return ClassificationReport.of(labels, np.eye(len(NAMES)), NAMES)


def test_control_characters_are_spelled_out():
    assert [one_line(name) for name in NAMES] == [
        *(
            "$a_b$",
            "a|b",
            r"a\nb\r\x1b[2J",
            "<b>",
            "=1+1",
            '"quoted\\',
            "café",
            "-5",
        ),
    ]


def test_markdown_shows_names(report):
    assert in_markdown("a|<b>$`*[") == r"a\|\<b>\$\`\*\["
    assert in_markdown("night_stand") == "night_stand"
    lines = table(report).splitlines()
    assert len(lines) == 2 + len(NAMES)
    separators = {line.replace(r"\|", "").count("|") for line in lines}
    assert len(separators) == 1


def test_spreadsheets_see_no_formula(report, tmp_path):
    write_report(report, tmp_path)  # without parsing formulas in figures either
    with (tmp_path / "classes.csv").open(newline="", encoding="utf-8") as file:
        found = [row["class"] for row in csv.DictReader(file)]
    expected = [f"'{name}" if name in ("=1+1", "-5") else name for name in NAMES]
    assert found == expected == [in_csv(name) for name in NAMES]


def test_figures_show_dollars_as_they_are(tmp_path):
    """A lone `$`, or one of a formula that Matplotlib cannot parse."""
    names = ("$", "$\\frac{$", "US$ and A$")
    report = ClassificationReport.of(np.arange(3), np.eye(3), names)
    write_report(report, tmp_path)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_protobuf_reads_names(name):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(models_config(name), config)
    (found,) = config.model_config_list.config
    assert found.name == one_line(name)
    assert found.base_path == f"/models/{one_line(name)}"
    assert in_protobuf("a") == '"a"'
