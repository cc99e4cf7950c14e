"""`%gpt evaluate`: its line becomes a call of the session."""

from types import SimpleNamespace

from jupyter_gpt.report.report import Report


def test_the_line(fake_gpt, ip, shown, monkeypatch):
    seen = {}

    def evaluate(task, **options):
        seen.update(options, task=task)
        return found

    found = SimpleNamespace(report=Report("found"))
    monkeypatch.setattr(fake_gpt, "evaluate", evaluate, raising=False)
    ip.user_ns["table"] = [("1?", "1")]
    ip.run_cell(
        '%gpt evaluate $table --models a b --techniques direct "--cot --samples 3 --vote" --questions 5 '
        "--temperature 0.5 --out e"
    ).raise_error()
    assert seen.pop("progress") is None
    assert seen == {
        "task": [("1?", "1")],
        "models": ["a", "b"],
        "questions": 5,
        "temperature": 0.5,
        "techniques": {"direct": {}, "--cot --samples 3 --vote": {"cot": True, "samples": 3, "vote": True}},
    }
    assert shown == ["found"] and ip.user_ns["e"] is found


def test_flags_that_are_no_technique(fails, fake_gpt, ip):
    ip.user_ns["table"] = [("1?", "1")]
    assert "--seed belongs to no technique" in fails('%gpt evaluate $table --models a --techniques "--cot --seed 3"')
    assert "did you mean --cot" in fails('%gpt evaluate $table --models a --techniques "--cott"')
    assert "requires --models" in fails("%gpt evaluate $table")
