"""`%%sft`, `%gpt merge` and `%%classify` on the real session, end to end, and every option of theirs handed over."""

import re

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics import completion

TALES = [f"Tale {n}. The hen sat on {n} eggs and the fox sat by. " * 4 for n in range(1, 40)]
BODY = "user: Who sat?\nassistant: The hen.\n---\nuser: Where?\nassistant: On eggs.\n"
SHORT = "--steps 3 --context 64 --batch-tokens 64 --answer-tokens 4"


@pytest.fixture
def run(ip, succeed, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    ip.user_ns["tales"] = TALES
    shape = "--tokenizer char --depth 1 --width 32 --context 64 --rows 2 --batch-tokens 128"
    succeed(f"%%pretrain hen {shape} --steps 2\n$tales: 1\n")
    return succeed


def test_from_a_base_to_an_assistant_and_a_merged_one(run, shown, fails, capsys):
    names = run(
        f"%%sft reply --base hen --lora 2 {SHORT} --questions 'Who sat?' --out m\n{BODY}",
        f"%%sft more --base reply {SHORT} --out n\n{BODY}",
        "%gpt merge more whole --out w",
        "%gpt models",
        "%gpt show reply",
    )
    assert (names["m"].name, names["m"].base, names["w"].base) == ("reply", "hen", None)
    assert names["w"].lineage == ["hen (pretrain)", "reply (sft)", "more (sft)", "whole (merge)"]
    picture, report, _, _, models, again = shown
    assert "⟦The hen.<|end|>⟧" in picture and picture.startswith("reply: 1 source of conversations")
    made = r"an adapter of rank 2 on hen, with rows for .*<\|assistant\|>, <\|end\|>.*, loss on the assistant's tokens"
    assert re.match(f"reply: sft, finished, all 3 steps\n{made}", report)
    assert "«Who sat?»\n  before training  «" in report and "\n  after step 3     «" in report
    assert "parameters trained" in report and again == report
    assert re.search(r"reply +[\d.]+K \([\d.]+K? in the adapter\)", models)
    assert "more merged into its base" in capsys.readouterr().out
    assert fails(f"%%sft reply --base nobody {SHORT}\n{BODY}").startswith("there is no model nobody")
    assert "roles out of order" in fails(f"%%sft x --base hen {SHORT}\nassistant: The hen.\n")
    before = len(shown)
    assert "matches no layer: there are q_proj" in fails(
        f"%%sft reply --base hen --lora 2 --lora-targets q_prj --overwrite {SHORT}\n{BODY}"
    )
    assert len(shown) == before, "nothing of the run that was there before is shown under the error"
    assert fails("%%sft x\n" + BODY).startswith("%%sft requires --base")
    assert "say what to train on" in fails("%%sft x --base hen")
    assert "is not an adapter" in fails("%gpt merge hen")


def test_in_the_background_the_run_is_bound(run, shown, capsys):
    names = run(f"%%sft reply --base hen {SHORT} --background --out r\n{BODY}")
    assert names["r"].wait().status == "finished"
    assert "reply trains in the background" in capsys.readouterr().out


def test_bad_rows_end_the_run_or_are_counted_in_the_report(run, shown, fails, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Who sat?", "completion": "The hen."}\n' * 3 + '{"prompt": "Who sat?"}\nno JSON\n')
    said = f"{path}, line 4 is not a conversation: it has the fields prompt"
    assert fails(f"%%sft reply --base hen {SHORT}\n{path}: 1\n").startswith(said)
    run(f"%%sft reply --base hen {SHORT} --bad-rows skip\n{path}: 1\n")
    picture = shown[-2]
    assert re.search(rf"{re.escape(str(path))} +prompt-completion +3 +0 +2 ", picture), "conversations, cut, refused"
    assert f"{path}: 2 rows are skipped that cannot be trained on: {said}" in picture


def test_a_classifier_from_a_cell(run, shown, fails):
    texts = "\n".join(
        f"{n} {word}\t{'good' if word == 'hens' else 'bad'}" for n in range(9) for word in ("hens", "foxes")
    )
    names = run(f"%%classify mood --base hen --steps 4 --out m\n{texts}\n")
    assert names["m"].labels == ["bad", "good"] and names["m"].predict("9 hens") in ("good", "bad")
    assert shown[-1].startswith("mood: classifier, finished, all 4 steps")
    assert "accuracy" in shown[-1] and "true label (rows)" in shown[-1]
    found = run("%%prompt mood --out found\n9 hens\n9 foxes\n")["found"]
    assert list(found["label"]) == names["m"].predict(["9 hens", "9 foxes"])
    assert re.search(r"text +label +bad +good\n.*\n9 hens ", shown[-1])
    assert "--cot is not for a classifier" in fails("%%prompt mood --cot\n9 hens\n")
    run("%gpt models")
    assert re.search(r"mood +[\d.]+K +classifier ", shown[-1])
    assert "occurs once (odd)" in fails(f"%%classify mood --base hen\n{texts}\n7\todd\n")
    assert "say what to learn from" in fails("%%classify mood --base hen")


def test_sources_of_conversations_are_completed():
    _, found = completion.candidates("%%sft a --base b\nst", 1, "st", {})
    assert "stories-qa: " in [text for text, _ in found]
    _, options = completion.candidates("%%sft a --base b --lo", 0, "%%sft a --base b --lo", {})
    assert {"--lora", "--load-in"} <= {text for text, _ in options}


def test_help_tells_of_all(ip, capsys):
    ip.run_cell("%%sft --help").raise_error()
    text = capsys.readouterr().out
    assert "--lora-targets" in text and "user: Who sang?" in text
    with pytest.raises(GPTError, match="--load-in: expected 4bit or 8bit"):
        ip.run_cell("%%sft x --base y --lora 2 --load-in 3bit\n").raise_error()
