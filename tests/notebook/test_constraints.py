"""`%%prompt` with constraints and templates, in a shell, on a real session with tiny models."""

import json

import pytest


@pytest.fixture
def gpt(gpt, tiny_model):
    tiny_model(gpt, "base", context=512)
    return gpt


@pytest.fixture
def run(ip):
    def run(cell):
        ip.run_cell(cell).raise_error()
        return ip.user_ns

    return run


SCHEMA = '{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false}'


def test_flags(gpt, run, shown, tmp_path, monkeypatch):
    names = run(r'%%prompt base --regex "\d{3}" --temperature 1.5 --out done' "\nThe")
    assert names["done"].valid and names["done"].text.isdigit() and len(names["done"].text) == 3
    assert "The«" in shown[-1] and r"constrained by the regex \d{3}" in shown[-1]
    assert run(f"%%prompt base --json {SCHEMA} --out done\nThe")["done"].value in ({"n": 1}, {"n": 2})
    names["schema"] = json.loads(SCHEMA)
    assert run("%%prompt base --json $schema --out done\nThe")["done"].valid
    (tmp_path / "s.json").write_text(SCHEMA)
    monkeypatch.chdir(tmp_path)
    assert run("%%prompt base --json s.json --out done\nThe")["done"].valid
    assert run('%%prompt base --choice "fox|hen" --out done\nThe')["done"].text in ("fox", "hen")
    names["options"] = ["a b", "c|d"]
    assert run("%%prompt base --choice $options --out done\nThe")["done"].text in ("a b", "c|d")
    names["sums"] = 'start: "1" plus\nplus: ("+1")*'
    assert set(run("%%prompt base --grammar $sums --max-tokens 9 --out done\nThe")["done"].text) <= set("1+")


def test_an_answer_cut_off_says_so(gpt, run, shown):
    run("%%prompt base --regex [a-z]{60} --max-tokens 4\nThe")
    assert "cut off: not valid (not the regex [a-z]{60})" in shown[-1]


def test_refused_in_one_line(gpt, ip):
    result = ip.run_cell('%%prompt base --json {"type": "array", "uniqueItems": true}\nThe')
    assert result.error_in_exec._render_traceback_() == [
        "GPTError: JSON of a schema cannot be enforced: uniqueItems is not supported"
    ]


def test_a_template_fills_variables_of_the_notebook(gpt, run, shown, ip):
    names = run('who = "Ada"')
    run('%%prompt base --temperature 1.5\n{who}: {{gen word max_tokens=3}} is {{select kind from="good|bad"}}.')
    assert names["kind"] in ("good", "bad")
    assert gpt.last.text == f"Ada: {names['word']} is {names['kind']}."
    assert "a template, filled in one pass" in shown[-1]
    run('%%prompt base --samples 3\nA {{select kind from="good|bad"}} one')
    assert len(names["kind"]) == 3 and set(names["kind"]) <= {"good", "bad"}
    result = ip.run_cell("%%prompt base --cot\nA {{gen a}}")
    assert "cannot be combined with a technique" in str(result.error_in_exec)
    result = ip.run_cell("%%prompt base\nA {{gen a}} {{pick b}}")
    assert "there is no pick hole" in str(result.error_in_exec)


def test_holes_stand_out_and_nothing_of_them_is_html():
    from jupyter_gpt.inference.completion import Completion
    from jupyter_gpt.inference.completion_report import answer
    from jupyter_gpt.report.report import Report

    done = Completion("Say <b> & <i>!", finish_reason="stop", holes=[("a", 4, 7), ("b", 10, 13)])
    html = Report("", answer(done)).html
    assert html.count('title="a"') == html.count('title="b"') == 1
    assert "&lt;b&gt;" in html and "<b>" not in html and "<i>" not in html
    assert "Say " in html.split("<!--«-->")[0]  # what is fixed is not marked as sampled
