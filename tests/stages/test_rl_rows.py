"""Prompts of reinforcement learning as rows: turns, system prompts, GSM8K as the hub has it."""

import pandas
import pytest

from helpers.errors import fail
from jupyter_gpt.data import hub
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rl_rows import Rows, rows_of

USER, REPLY = {"role": "user", "content": "Who saw the fox?"}, {"role": "assistant", "content": "A hen."}
NEXT = {"role": "user", "content": "When?"}
TURNS = "user: Who saw the fox?\nassistant: A hen.\nuser: When?"
SMALL = {"policy": "chat", "algo": "grpo", "max_tokens": 4, "prompts_per_step": 2, "samples": 2, "lora": 4, "steps": 1}


def test_messages_are_turns_and_a_system_prompt_a_column():
    system = {"role": "system", "content": "Be brief."}
    rows = [
        {"prompt": [USER], "answer": 1},
        {"prompt": [system, NEXT], "answer": 2},
        {"prompt": [system, USER, REPLY, NEXT], "answer": 3},
    ]
    found = rows_of(rows, {})
    assert found.texts == [USER["content"], NEXT["content"], TURNS]
    assert found.columns == {
        USER["content"]: {"answer": 1},
        NEXT["content"]: {"answer": 2, "system": "Be brief."},
        TURNS: {"answer": 3, "system": "Be brief."},
    }
    assert found.chats == {TURNS: [USER, REPLY, NEXT]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [{"role": "system", "content": "a"}]}, "row 0 of the prompts has no turn to answer"),
        ({"prompt": [{"role": "system", "content": "a"}, USER], "system": "b"}, "has two system prompts"),
        ({"prompt": [{"role": "judge", "content": "a"}]}, "row 0 of the prompts"),
        ({"prompt": 3}, "has no text named prompt or question"),
    ],
)
def test_turns_that_cannot_be_asked_are_refused(row, message):
    with pytest.raises(GPTError, match=message):
        rows_of([row], {})


@pytest.mark.parametrize("voted", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_a_prompt_has_one_system_prompt_or_none(voted, first):
    rows = [
        {"prompt": "a", "completion": "b", "label": n == 0, **({"system": "Rhyme."} if n else {})} for n in range(2)
    ]
    for columns in ("completion", "label") if not voted else ():
        rows = [{key: value for key, value in row.items() if key != columns} for row in rows]
    with pytest.raises(
        GPTError, match=r"the prompt 'a' stands in two rows whose (system prompts|other columns) differ"
    ):
        rows_of([rows[first], rows[1 - first]], {}, voted=voted)
    assert rows_of([rows[1], rows[1]], {}, voted=voted).columns["a"]["system"] == "Rhyme."
    table = pandas.DataFrame([rows[0] | {"system": None}, rows[0] | {"system": None}])
    assert "Rhyme." not in str(rows_of(["$t"], {"t": table}, voted=voted))


def test_turns_of_a_parquet_file_are_an_array_in_a_table(tmp_path):
    file = tmp_path / "a.parquet"
    pandas.DataFrame([{"prompt": [USER, REPLY, NEXT], "answer": 1}]).to_parquet(file)
    wanted = rows_of([str(file)], {})
    assert wanted.chats == {TURNS: [USER, REPLY, NEXT]}
    assert rows_of(["$t"], {"t": pandas.read_parquet(file)}) == wanted


def test_gsm8k_is_read_as_the_hub_has_it_and_no_further_than_needed(monkeypatch):
    rows, read = [{"question": f"What is {n % 4} + 1?", "answer": f"so #### {n}"} for n in range(9)], []

    def streamed(source):
        assert source == "hf:openai/gsm8k/main"
        for number, row in enumerate(rows):
            read.append(number)
            yield f"row {number} of {source}", row

    monkeypatch.setattr(hub, "rows", streamed)
    found = rows_of(["hf:openai/gsm8k/main"], {}, most=6)
    texts = [f"What is {n} + 1?" for n in range(4)]  # one that comes again is left out
    assert found == Rows(texts, {text: {"answer": f"so #### {n}"} for n, text in enumerate(texts)})
    assert len(read) == 6


def test_a_file_is_a_source_of_rows_and_a_question_about_one_is_a_prompt(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "Why?", "answer": "so"}\n')
    assert rows_of([str(path)], {}) == Rows(["Why?"], {"Why?": {"answer": "so"}})
    assert rows_of(["What is in rows.jsonl"], {}) == Rows(["What is in rows.jsonl"])
    with pytest.raises(GPTError, match="no-such"):
        rows_of(["./no-such.jsonl"], {})


@pytest.mark.parametrize("how", ["option", "column"])
def test_the_policy_is_asked_turns_and_system_prompt_through_its_template(gpt, tiny_model, monkeypatch, how):
    from jupyter_gpt.stages import rl

    tokenizer = tiny_model(gpt, "chat", chat=True).tokenizer
    asked, rollout_of = {}, rl.rollout_of

    def watched(training, prompts, *rest):
        asked.update((prompt.text, prompt.ids) for prompt in prompts)
        return (yield from rollout_of(training, prompts, *rest))

    monkeypatch.setattr(rl, "rollout_of", watched)
    seen = []

    def reward(prompts, completions):
        seen.extend(prompts)
        return [float(len(text)) for text in completions]

    chat = {"prompt": [USER, REPLY, NEXT]}
    rows, given = [{"prompt": "Why?", "system": "Be kind."}, chat], {"system": "Be brief."}
    if how == "column":
        rows, given = [{"prompt": "Why?", "system": "Be kind."}, {**chat, "system": "Be brief."}], {}
    run = gpt.rlhf("a", rows, reward=reward, **given, **SMALL)

    def ids(system, *turns):
        messages = [{"role": "system", "content": system}, *turns]
        return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    why = {"role": "user", "content": "Why?"}
    assert run.status == "finished" and asked == {
        "Why?": ids("Be kind.", why),
        TURNS: ids("Be brief.", USER, REPLY, NEXT),
    }
    assert set(seen) == {"Why?", TURNS}


def test_a_base_model_has_no_turns_and_is_left_out_of_the_comparison(gpt, tiny_model):
    tiny_model(gpt, "chat")
    given = {"reward": lambda prompt, completion: 0.0, **SMALL}
    assert "chat is a base model and has no system prompt" in fail(gpt.rlhf, "a", ["Why?"], system="Hi.", **given)
    assert "chat is a base model and has no turns" in fail(gpt.rlhf, "a", [{"prompt": [USER, REPLY, NEXT]}], **given)
    rows = [{"prompt": f"Tale {n}.", "completion": "saw birds."} for n in range(8)]
    gpt.sft("reply", rows, "chat", lora=4, batch_tokens=128, context=64, steps=1, answer_tokens=4)

    def compared(name, **more):
        run = gpt.rlhf(name, ["Why?"], **{**given, "policy": "reply"}, **more)
        return [row[0] for e in run.events if e["event"] == "table" for row in e["rows"]]

    assert compared("b") == ["chat (base)", "reply (start)", "b (aligned)"]
    assert compared("c", system="Hi.") == ["reply (start)", "c (aligned)"]
