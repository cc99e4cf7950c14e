"""Preferences after several turns or a system prompt: from a file to the tokens that DPO and reward models read."""

import json

import pandas
import pytest

from helpers.errors import fail
from helpers.rl_runs import bytes_of, figures, short
from helpers.stopping import stopped_at
from helpers.tiny import CHAT as WORDS
from jupyter_gpt.data import hub
from jupyter_gpt.data.prompt_completion import prompt_ids
from jupyter_gpt.notebook.views.inspect import view_of_rankings
from jupyter_gpt.stages import judges, preferences, rl_preparation, rollout
from jupyter_gpt.stages import reward as reward_stage
from jupyter_gpt.stages.rank import reopened
from jupyter_gpt.stages.rankings import Ranking, from_line, to_line
from jupyter_gpt.stages.rl_rows import rows_of, spelled


def turn(role, content):
    return {"role": role, "content": content}


SYSTEM, ASKED, REPLY, NEXT = (
    turn("system", "Be brief."),
    turn("user", "Who saw the fox?"),
    turn("assistant", "A hen."),
    turn("user", "When?"),
)
GOOD, BAD = turn("assistant", "At dawn."), turn("assistant", "glad glad")
CHAT = [ASKED, REPLY, NEXT]
TEXT = "user: Who saw the fox?\nassistant: A hen.\nuser: When?"
BRIEF = f"system: Be brief.\n{TEXT}"
HH = "\n\nHuman: Who saw the fox?\n\nAssistant: A hen.\n\nHuman: When?\n\nAssistant: "
SMALL = {"max_tokens": 4, "prompts_per_step": 2, "samples": 2, "lora": 4, "steps": 2, "eval_every": 2}
ROWS = {  # the row, its prompt as text, its messages
    "messages": ({"prompt": CHAT, "chosen": [GOOD], "rejected": [BAD]}, TEXT, CHAT),
    "a text after messages": ({"prompt": CHAT, "chosen": "At dawn.", "rejected": "glad glad"}, TEXT, CHAT),
    "conversations": ({"chosen": [*CHAT, GOOD], "rejected": [*CHAT, BAD]}, TEXT, CHAT),
    "system turn": ({"chosen": [SYSTEM, *CHAT, GOOD], "rejected": [SYSTEM, *CHAT, BAD]}, BRIEF, [SYSTEM, *CHAT]),
    "system column": (
        {"prompt": CHAT, "system": "Be brief.", "chosen": [GOOD], "rejected": [BAD]},
        BRIEF,
        [SYSTEM, *CHAT],
    ),
    "system and one turn": (
        {"prompt": "When?", "system": "Be brief.", "chosen": "At dawn.", "rejected": "glad glad"},
        "system: Be brief.\nuser: When?",
        [SYSTEM, NEXT],
    ),
    "HH-RLHF": ({"chosen": f"{HH}At dawn.", "rejected": f"{HH}glad glad"}, TEXT, CHAT),
}


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((kind, "rows") for kind in ROWS),
        *((next(iter(ROWS)), form) for form in ("table", ".jsonl", ".json", ".parquet")),
    ],
)
def test_a_preference_after_a_conversation_has_its_messages(tmp_path, kind, form):
    row, text, messages = ROWS[kind]
    table, file = pandas.DataFrame([row]), tmp_path / f"pairs{form}"
    if form == ".parquet":
        table.to_parquet(file)
    elif form.startswith("."):
        file.write_text(json.dumps(row) + "\n" if form == ".jsonl" else json.dumps([row]))
    [found] = preferences.read({"rows": [row], "table": table}.get(form, file)).rankings
    assert found.prompt == text and list(found.messages) == messages == found.asked
    assert [each["text"] for each in found.completions] == ["At dawn.", "glad glad"] and found.order == ((0,), (1,))
    if kind != "system and one turn" and SYSTEM not in messages:
        assert rows_of([{"prompt": messages}], {}).texts == [text], "a prompt of %%rlhf has another key"


def test_an_hh_text_of_one_turn_is_a_text():
    row = {key: f"\n\nHuman: When?\n\nAssistant: {text}" for key, text in (("chosen", "Now."), ("rejected", ""))}
    [found] = preferences.read([row]).rankings
    assert (found.prompt, found.messages) == ("When?", ())
    assert [each["text"] for each in found.completions] == ["Now.", ""]


def test_rows_of_the_hub_that_are_no_preferences_are_left_out_and_counted(monkeypatch):
    good, early = (
        ROWS["HH-RLHF"][0],
        {"chosen": f"{HH}At dawn.", "rejected": "\n\nHuman: Who saw the fox?\n\nAssistant: I."},
    )
    rows = [early, good, early]
    monkeypatch.setattr(hub, "rows", lambda source: ((f"row {n} of {source}", row) for n, row in enumerate(rows)))
    found = preferences.read("hf:a/b")
    assert len(found.rankings) == 1
    assert (
        found.note == "2 rows were left out: row 0 of hf:a/b: chosen and rejected differ in more than their last answer"
    )
    rows[1] = early
    assert fail(preferences.read, "hf:a/b").startswith("row 0 of hf:a/b: chosen and rejected differ")
    rows[:] = [{"question": "q"}]
    assert "row 0 of hf:a/b has no chosen and rejected" in fail(preferences.read, "hf:a/b")


def test_a_line_that_cannot_be_ranked_is_named(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [ROWS["messages"][0], {**ROWS["messages"][0], "prompt": [ASKED, REPLY]}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert "line 2 of pairs.jsonl has a prompt that ends with a turn of the assistant" in fail(preferences.read, file)
    tools = {"tools": [{"type": "function", "function": {"name": "clock"}}]}
    assert "row 1 of the rankings has tools, which are not read" in fail(
        preferences.read, [{**ROWS["messages"][0], "tools": []}, ROWS["messages"][0] | tools]
    )


def test_messages_in_the_cells_of_a_table_are_json(tmp_path):
    rows = {"prompt": [SYSTEM, *CHAT], "chosen": [turn("assistant", "Yes.")], "rejected": [BAD]}
    wanted = preferences.read([rows]).rankings
    file = tmp_path / "a.csv"
    pandas.DataFrame([{key: json.dumps(value) for key, value in rows.items()}]).to_csv(file, index=False)
    found = preferences.read(file).rankings
    assert [(each.messages, each.completions) for each in found] == [(e.messages, e.completions) for e in wanted]
    pandas.DataFrame([rows]).to_csv(file, index=False)  # as Python spells them
    assert "its turns are not JSON" in fail(preferences.read, file)
    vote = {"prompt": json.dumps(CHAT), "completion": json.dumps(rows["chosen"]), "label": True}
    assert rows_of([vote], {}, voted=True).votes == [{"prompt": spelled(CHAT), "completion": "Yes.", "label": True}]


def test_messages_are_kept_on_disk_where_there_are_some():
    pair = ({"model": "m", "text": "a", "seed": 0}, {"model": "m", "text": "b", "seed": 1})
    plain = Ranking("p", pair, ((1,), (0,)), (0, 1), "ann", 5.0, "short")
    assert to_line(plain) == (
        '{"prompt": "p", "completions": [{"model": "m", "text": "a", "seed": 0}, {"model": "m", "text": "b", "seed": '
        '1}], "order": [[1], [0]], "shown": [0, 1], "by": "ann", "time": 5.0, "reason": "short"}\n'
    )
    chat = Ranking(TEXT, pair, ((1,), (0,)), messages=(SYSTEM, *CHAT))
    assert from_line(to_line(chat)) == chat and from_line(to_line(plain)) == plain
    broken = to_line(chat).replace('"role": "system"', '"role": 3')
    with pytest.raises(ValueError, match="role is 3"):
        from_line(broken)


def test_a_person_ranks_again_what_was_imported_and_reads_its_turns(gpt):
    gpt.rank("taste", rankings_file=[ROWS["system turn"][0]])
    questions = gpt.rankings["taste"].questions_path.read_text()
    assert json.loads(questions)["questions"][0]["messages"] == [SYSTEM, *CHAT]
    shown = view_of_rankings(gpt, "taste").text
    for text in BRIEF.splitlines():
        assert text in shown
    reopened(gpt, "taste").rank(0, [[1], [0]], by="ann")
    gpt.rankings["taste"].questions_path.unlink()  # those of the rankings are left
    reopened(gpt, "taste").rank(0, [[0, 1]], by="bob")
    assert {each.by: each.messages for each in gpt.rankings["taste"].read()} == dict.fromkeys(
        ["rows", "ann", "bob"], (SYSTEM, *CHAT)
    )
    gpt.rank("plain", rankings_file=[{"prompt": "q", "chosen": "a", "rejected": "b"}])
    assert "messages" not in gpt.rankings["plain"].questions_path.read_text()


def taste(gpt, count=9):
    """Rankings after one turn, after several, and after several with a system prompt, imported from rows."""
    rows = []
    for n in range(count):
        tale = turn("user", f"Tale {n}.")
        asked = ([tale], [tale, REPLY, NEXT], [SYSTEM, tale, REPLY, NEXT])[n % 3]
        rows.append({"prompt": asked, "chosen": [turn("assistant", f"At {n}.")], "rejected": [BAD]})
    gpt.rank("taste", rankings_file=rows)
    return rows


def encoded(tokenizer, row, key):
    """The conversation with its answer, and how many of its tokens are the prompt: what TRL computes."""
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(row["prompt"] + row[key], return_dict=False)
    assert whole[: len(prompt)] == prompt
    return tuple(prompt), tuple(whole[len(prompt) :])


@pytest.fixture
def prepared(monkeypatch):
    """The trainings that runs make."""
    made = []
    for stage in (rl_preparation, reward_stage):

        def watched(*given, prepare=stage.prepare, **more):
            made.append((yield from prepare(*given, **more)))
            return made[-1]

        monkeypatch.setattr(stage, "prepare", watched)
    return made


THOUGHT = "{{ '(no thought) ' if m.role == 'assistant' else '' }}{{ m.content }}"  # as Qwen 3 has one
TEMPLATES = {"words": WORDS, "a thought": WORDS.replace("{{ m.content }}", THOUGHT)}


@pytest.mark.parametrize("template", TEMPLATES)
def test_dpo_and_reward_models_read_the_tokens_of_the_chat_template(gpt, tiny_model, prepared, template):
    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    tokenizer.chat_template = TEMPLATES[template]
    rows = taste(gpt)
    wanted = {tuple(encoded(tokenizer, row, key) for key in ("chosen", "rejected")) for row in rows}
    run = gpt.rlhf("aligned", policy="chat", algo="dpo", rankings="taste", **SMALL)
    [training] = prepared
    found = {tuple((row.prompt, row.completion) for row in one.rows) for one in training.rankings + training.held_out}
    assert run.status == "finished" and found == wanted
    assert {prompt.ids for prompt in training.prompts} == {prompt for ((prompt, _), _) in wanted}
    gpt.reward("judge", rankings="taste", base="chat", lora=4, steps=2)
    ranked = prepared[1].rankings + prepared[1].held_out
    assert {each.rows for each in ranked} == {tuple(p + c for p, c in pair) for pair in wanted}
    score, asked = gpt.models["judge"].score, rows[2]["prompt"]
    assert score(asked, "At 1.") != score(asked[1:], "At 1."), "the system prompt is not read"


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
@pytest.mark.parametrize("sampled", [True, False])
def test_what_a_model_has_sampled_comes_right_after_the_prompt(gpt, tiny_model, prepared, loss, sampled):
    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    tokenizer.chat_template = TEMPLATES["a thought"]
    for n in range(6):
        pair = tuple({"model": "chat" * sampled, "text": f"{text} {n}.", "seed": 0} for text in ("At", "No"))
        gpt.rankings.named("taste").add(Ranking(f"Tale {n}.", pair, ((0,), (1,)), time=float(n)))
    gpt.rlhf("aligned", policy="chat", algo="dpo", loss=loss, rankings="taste", **SMALL)
    gpt.reward("judge", rankings="taste", base="chat", lora=4, steps=1)
    found, judged = ([*each.rankings, *each.held_out] for each in prepared)
    rows = [row.row.ids for row in found] if loss == "kto" else [row.ids for one in found for row in one.rows]
    for ids in [*rows, *(ids for one in judged for ids in one.rows)]:
        assert ("(no thought)" in tokenizer.decode(ids)) != sampled


@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_are_trls(gpt, tiny_model, prepared, tmp_path, template):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    from helpers.trl_batches import model, settings
    from jupyter_gpt.stages.policy import scorer_of

    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    tokenizer.chat_template = TEMPLATES[template]
    rows = taste(gpt)
    data = Dataset.from_list(rows)
    theirs = trl.DPOTrainer(
        model(tokenizer),
        model(tokenizer),
        args=settings(trl.DPOConfig, tmp_path),
        processing_class=tokenizer,
        train_dataset=data,
    ).train_dataset
    gpt.rlhf("aligned", policy="chat", algo="dpo", rankings="taste", **SMALL)
    found = {
        tuple((row.prompt, row.completion) for row in one.rows) for one in prepared[0].rankings + prepared[0].held_out
    }
    assert found == {
        tuple((tuple(each["prompt_ids"]), tuple(each[key])) for key in ("chosen_ids", "rejected_ids"))
        for each in theirs
    }
    scorer = scorer_of(model(tokenizer).eval(), 0, tokenizer.pad_token_id, seed=3)
    theirs = trl.RewardTrainer(
        scorer, args=settings(trl.RewardConfig, tmp_path), processing_class=tokenizer, train_dataset=data
    ).train_dataset
    gpt.reward("judge", rankings="taste", base="chat", lora=4, steps=2)
    assert {each.rows for each in prepared[1].rankings + prepared[1].held_out} == {
        (tuple(each["chosen_ids"]), tuple(each["rejected_ids"])) for each in theirs
    }


def asked_of(training):
    return {prompt.text: prompt.ids for prompt in training.prompts + training.watched}


def ids_of(tokenizer, *messages):
    return tuple(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False))


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
def test_a_ranking_has_its_own_system_prompt_or_that_of_all(gpt, tiny_model, prepared, loss):
    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    kind, wanted = turn("system", "Be kind."), set()
    for row in taste(gpt):
        own = row["prompt"] if row["prompt"][0] == SYSTEM else [kind, *row["prompt"]]
        wanted.add(ids_of(tokenizer, *own))
    given = {"policy": "chat", "algo": "dpo", "loss": loss, "rankings": "taste", "system": "Be kind.", **SMALL}
    gpt.rlhf("aligned", **given)
    [training] = prepared
    ranked = training.rankings + training.held_out
    assert {row.prompt for each in ranked for row in each.rows} == wanted == set(asked_of(training).values())


@pytest.fixture
def scored(monkeypatch):
    """The ids of the prompts that reward models read."""
    found = set()

    def row_of(name, tokenizer, asked, *rest, row_of=rollout.row_of):
        found.add(prompt_ids(name, tokenizer, asked))
        return row_of(name, tokenizer, asked, *rest)

    monkeypatch.setattr(rollout, "row_of", row_of)
    return found


def test_ppo_makes_its_reward_model_and_takes_its_prompts_from_them(gpt, tiny_model, prepared, scored):
    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    rows = taste(gpt)
    run = gpt.rlhf("aligned", policy="chat", algo="ppo", rankings="taste", **{**SMALL, "prompts_per_step": 9})
    reward, training = prepared
    assert run.status == "finished"
    wanted = {ids_of(tokenizer, *row["prompt"]) for row in rows}
    assert wanted == set(asked_of(training).values()) == scored, "the reward model reads what it was trained on"
    assert {each.prompt for each in reward.rankings + reward.held_out} == set(asked_of(training))


@pytest.mark.parametrize("algo", ["ppo", "grpo"])
def test_a_reward_model_reads_the_system_prompt_of_a_row_but_not_that_of_all(gpt, tiny_model, prepared, scored, algo):
    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    taste(gpt)
    gpt.reward("judge", rankings="taste", base="chat", lora=4, steps=2)
    rows = [{"prompt": CHAT, "system": "Be brief."}, {"prompt": "Why?", "system": "Be kind."}, {"prompt": "Who?"}]
    gpt.rlhf("aligned", rows, policy="chat", algo=algo, reward="judge", system="Be good.", **{**SMALL, "samples": 4})
    kind, why, who = turn("system", "Be kind."), turn("user", "Why?"), turn("user", "Who?")
    own = [ids_of(tokenizer, SYSTEM, *CHAT), ids_of(tokenizer, kind, why)]
    assert scored == {*own, ids_of(tokenizer, who)}
    assert set(asked_of(prepared[1]).values()) == {*own, ids_of(tokenizer, turn("system", "Be good."), who)}


def test_a_reward_model_without_a_chat_template_cannot_read_a_system_prompt(gpt, tiny_model):
    tiny_model(gpt, "chat", chat=True, context=128)
    tiny_model(gpt, "plain", context=128)
    gpt.rank("notes", rankings_file=[{"prompt": f"Who {n}?", "chosen": "A hen.", "rejected": "glad"} for n in range(9)])
    gpt.reward("judge", rankings="notes", base="plain", lora=4, steps=2)
    given = {"policy": "chat", "algo": "grpo", "reward": "judge", **SMALL}
    rows = [{"prompt": "Why?", "system": "Be kind."}]
    assert "judge is a base model and has no system prompt" in fail(gpt.rlhf, "aligned", rows, **given)
    assert gpt.rlhf("aligned", ["Why?"], system="Be kind.", **given).status == "finished"


@pytest.mark.parametrize("algo", ["dpo", "grpo"])
def test_a_stopped_run_goes_on_to_the_same_weights(gpt, tiny_model, algo):
    tiny_model(gpt, "chat", chat=True, context=128)
    taste(gpt)
    more = {} if algo == "dpo" else {"reward": "$short", "variables": {"short": short}}
    given = {**SMALL, "steps": 6, "policy": "chat", "algo": algo, "rankings": "taste", **more}
    whole = gpt.rlhf("whole", **given)
    run = stopped_at(3, gpt.rlhf, "part", **given)
    assert run.status == "stopped" and 3 <= run.step < 6
    gpt.runs.known.clear()  # as a new kernel would find it
    assert bool(gpt.runs["part"].recipe["chats"]) == (algo == "grpo"), "DPO reads the rankings again"
    again = gpt.resume("part", variables={"short": short})
    assert again.status == "finished" and figures(again) == figures(whole)
    assert bytes_of(gpt, "whole") == bytes_of(gpt, "part")


def test_dpo_learns_from_prompts_that_are_too_long_to_be_sampled(gpt, tiny_model, prepared):
    tokenizer = tiny_model(gpt, "chat", chat=True, context=64).tokenizer
    rows = [{"prompt": [turn("user", f"Tale {n}.")], "chosen": [GOOD], "rejected": [BAD]} for n in range(6)]
    rows.append({**rows[0], "prompt": [turn("user", "The old fox saw 3 small birds. " * 12), REPLY, NEXT]})
    gpt.rank("taste", rankings_file=rows)
    given = {"policy": "chat", "algo": "dpo", "rankings": "taste", **SMALL}
    run = gpt.rlhf("aligned", **given, held_out=0.2)
    [training] = prepared
    long, _ = encoded(tokenizer, rows[-1], "chosen")
    ranked = {row.prompt for each in training.rankings + training.held_out for row in each.rows}
    assert len(long) > 64 and any(len(ids) < 64 and long[-len(ids) :] == ids for ids in ranked)
    assert len(asked_of(training)) == 6 and run.status == "finished"
    [note] = [each["text"] for each in run.events if each["event"] == "note"]
    assert note.startswith("1 of 7 prompts leave no room for --max-tokens 4 in the context of chat (64): none of them")
    more = {**given, "algo": "grpo", "reward": "$short", "variables": {"short": short}}
    assert "more than the context of chat (64)" in fail(gpt.rlhf, "b", **more)


def test_a_base_model_has_no_turns(gpt, tiny_model):
    tiny_model(gpt, "base")
    taste(gpt)
    told = "base is a base model and has no turns"
    assert told in fail(gpt.rlhf, "aligned", policy="base", algo="dpo", rankings="taste", **SMALL)
    assert told in fail(gpt.reward, "judge", rankings="taste", base="base", lora=4, steps=2)


def test_judges_read_the_turns(gpt, tiny_model):
    tiny_model(gpt, "chat", chat=True, context=128)
    rows = taste(gpt)
    gpt.reward("scorer", rankings="taste", base="chat", lora=4, steps=2)
    task, seen = reopened(gpt, "taste"), []
    judges.rank_all(gpt, task, lambda prompt, completion: seen.append(prompt) or len(completion))
    assert seen[4] == "system: Be brief.\nuser: Tale 2.\nassistant: A hen.\nuser: When?"
    judges.rank_all(gpt, task, "scorer")
    for row, question, ranking in zip(rows, task.questions, task.accepted(), strict=True):
        assert ranking.by == "scorer" and ranking.messages == question.messages
        scores = [gpt.models["scorer"].score(row["prompt"], text) for text in question.texts]
        assert ranking.order[0][0] == scores.index(max(scores))


def test_conversations_are_sampled_ranked_and_learned_from(gpt, tiny_model, prepared):
    """And compared: their completions follow the turns."""
    tokenizer = tiny_model(gpt, "chat", chat=True, context=128).tokenizer
    asked = [[SYSTEM, turn("user", f"Tale {n}."), REPLY, NEXT] for n in range(4)]
    given, judged = {"model": "chat", "samples": 2, "max_tokens": 4}, []
    task = gpt.rank("taste", asked, judge=lambda *both: judged.append(both) or len(judged), **given)
    texts = [f"system: Be brief.\nuser: Tale {n}.\nassistant: A hen.\nuser: When?" for n in range(4)]
    assert [each.prompt for each in task.questions] == texts
    assert [list(each.messages) for each in gpt.rankings["taste"].read()] == asked
    wanted = [tokenizer.apply_chat_template(each, add_generation_prompt=True, tokenize=False) for each in asked]
    assert [question.sent for question in task.questions] == [(("chat", text),) for text in wanted]
    again = gpt.rank("taste", asked, **given)
    assert again.questions == task.questions, "sampled again"
    gpt.rlhf("aligned", policy="chat", algo="dpo", rankings="taste", **SMALL)
    assert set(asked_of(prepared[0]).values()) == {ids_of(tokenizer, *each) for each in asked}
    compared = gpt.compare(["chat", "aligned"], [asked[0], "Why?"], max_tokens=4)
    assert [each.messages for each in compared.questions] == [tuple(asked[0]), ()]
    assert compared.questions[0].sent[0] == ("chat", wanted[0])
    compared.vote(0, "aligned", by="ann")
    assert gpt.rankings["chat-vs-aligned"].read()[0].asked == asked[0]
    assert fail(gpt.rank, "x", [CHAT[:2]], **given).startswith("prompt 0 has a prompt that ends with a turn of the ass")
