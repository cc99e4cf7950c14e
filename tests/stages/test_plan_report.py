"""The plan as a table: aligned, escaped, and saying what it assumes."""

import json
from dataclasses import replace

import pytest

from helpers.rendered import visible
from jupyter_gpt.report.report import MIME
from jupyter_gpt.report.text import columns
from jupyter_gpt.stages.plan import exponent, hours, money, percent, plan_report, size, slide_report, span
from jupyter_gpt.stages.planning import optimal, plan


def table_of(text: str) -> list[str]:
    """The lines of the table inside a text report."""
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    end = next(i for i, line in enumerate(lines) if i > rule and line.startswith(("assumed", "computed on")))
    return lines[rule - 1 : end - 1]


@pytest.mark.parametrize(
    "report", [plan_report(plan("llama")), slide_report(), plan_report(plan("124M", device="4090"))]
)
def test_columns_align(report):
    header, rule, *rows = table_of(report.text)
    ends = [len(piece) for piece in rule.split("  ")]
    assert columns(header) == len(rule)
    for row in rows:
        position = 0
        for width in ends[:-1]:
            position += width
            assert row[position : position + 2].strip() == "", (row, position)
            position += 2


def test_the_slide_has_both_models_published_and_computed():
    text = slide_report().text
    for figure in (
        "175B",
        "65.2B",
        "300B",
        "1.4T",
        "50,257",
        "32,000",
        "3.14e23",
        "3.15e23",
        "1,022,362",
        "1,083,571",
        "21.0 days",
        "22.0 days",
        "2,048 A100",
        "1,000-10,000 V100",
    ):
        assert figure in text, figure


def test_the_plan_shows_every_stage_and_its_assumptions():
    report = plan_report(plan("llama", device="H100", dollars_per_hour=2.25))
    for text in (report.text, visible(report.html)):
        for word in (
            "pretraining",
            "finetuning",
            "reward model",
            "RL (PPO)",
            "assumed",
            "$2.25 per hour",
            "KV cache",
        ):
            assert word in text
    assert json.loads(json.dumps(report.mime()[MIME]))["plan"]["name"] == "LLaMA-65B"


def test_too_few_devices_is_said():
    assert "pretraining does not fit on 8 A100: it needs 41" in plan_report(plan("gpt3", count=8)).text


def test_a_budget_names_itself():
    assert plan_report(optimal(flops="1e24")).text.startswith("compute-optimal for 1e+24 FLOPs: 91.3B parameters")


def test_hostile_names_are_escaped():
    html = plan_report(replace(plan("7B"), name="<script>alert(1)</script>")).html
    assert "<script" not in html and "&lt;script&gt;" in html


def test_html_is_what_a_sanitizer_keeps():
    html = slide_report().html + plan_report(plan("7B")).html
    assert not any(word in html for word in ("<style", "<svg", "var(", "class="))


def test_numbers_read_well():
    assert exponent(3.14e23) == "3.14e23"
    assert [hours(x) for x in (1_022_362, 12.3, 0.123)] == ["1,022,362", "12", "0.12"]
    assert [span(x) for x in (21, 0.5, 1 / 144, 730.5)] == [
        "21.0 days",
        "12 hours",
        "10 minutes",
        "2.0 years",
    ]
    assert [money(x) for x in (0.416, 325, 100_000, 5e6, 2e9)] == ["$0.42", "$325", "$100,000", "$5M", "$2B"]
    assert [size(x) for x in (0, 318e6, 45.6e9, 2.882e12)] == ["–", "318 MB", "45.6 GB", "2.88 TB"]
    assert [percent(x) for x in (1, 0.0412, 0.00015)] == ["100%", "4.1%", "0.015%"]
