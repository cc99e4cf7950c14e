"""Conversations in rows: every trained token a target once an epoch, none across a border, the same at any step."""

import json
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from helpers.errors import fail
from jupyter_gpt.data import conversations as chats
from jupyter_gpt.data.chat import render_conversation, with_template
from jupyter_gpt.data.conversation_dataset import HELD_OUT, Conversations, prepare
from jupyter_gpt.data.conversation_rows import IGNORE, PADDING, ConversationRows, held_out_rows, laid_out
from jupyter_gpt.data.tokenizer import train_bpe
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.sft import SFT

T = 48


@pytest.fixture(scope="module")
def tokenizer():
    return with_template(
        train_bpe(["the quick brown fox asks why and what it was, said user and assistant. "] * 30, 320)
    )


def pairs(count, size=3, tag=""):
    return [(f"why {tag}{i}?", " ".join(["it was"] * (1 + i % size)) + f" {i}") for i in range(count)]


def ran(generator):
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as stop:
            return events, stop.value


def made(tokenizer, folder, variables, weights=None, **options):
    weights = weights or {f"${name}": 1.0 for name in variables}
    return ran(prepare(weights, tokenizer, folder, variables=variables, **{"context": T} | options))[1]


def refusal(*args, **more):
    return fail(made, *args, **more)


def inside(batch, row):
    """(ids, targets, positions) of each conversation in a row."""
    numbers = batch.document[row]
    return [
        tuple(a[row][numbers == n] for a in (batch.ids, batch.targets, batch.positions))
        for n in range(numbers.max() + 1)
    ]


def test_a_row_holds_whole_conversations_and_their_targets(tokenizer, tmp_path):
    said = pairs(12)
    data = made(tokenizer, tmp_path, {"a": said}, held_out=0.0)
    wanted = {}
    for asked, answered in said:
        ids, trained = render_conversation(
            tokenizer, [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        )
        wanted[tuple(ids[:-1])] = [i if t else IGNORE for i, t in zip(ids[1:], trained[1:], strict=True)]
    rows = ConversationRows(data, T)
    batch = rows.batch(range(40))
    assert batch.ids.shape == (40, T) and batch.ids.dtype == batch.targets.dtype == np.int64
    seen = Counter()
    for row in range(40):
        found = inside(batch, row)
        assert found
        for ids, targets, positions in found:
            assert targets.tolist() == wanted[tuple(ids.tolist())]
            assert positions.tolist() == list(range(len(ids)))
            seen[tuple(ids.tolist())] += 1
        empty = batch.document[row] == PADDING
        assert (batch.targets[row][empty] == IGNORE).all() and (batch.ids[row][empty] == data.pad).all()
        assert batch.positions[row][empty].tolist() == list(range(empty.sum()))
        assert np.all(np.diff(np.where(empty, 99, batch.document[row])) >= 0)  # left to right, padding last
    assert set(seen) == set(wanted) and max(seen.values()) - min(seen.values()) <= 2  # epochs are even
    assert batch.trained == (batch.targets != IGNORE).sum() and batch.tokens == (batch.document != PADDING).sum()


def test_rows_are_well_filled_and_each_learns_something(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": pairs(300, 7)}, held_out=0.0)
    batch = ConversationRows(data, T).batch(range(60))
    assert ((batch.targets != IGNORE).sum(1) > 0).all()
    assert batch.tokens / batch.ids.size > 0.9


def test_a_row_is_the_same_whenever_it_is_asked_for(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": pairs(50)})
    first, again = ConversationRows(data, T, seed=3), ConversationRows(Conversations.open(tmp_path), T, seed=3)
    late = again.batch([31, 7])
    for name in ("ids", "targets", "positions", "document"):
        assert (getattr(late, name) == getattr(first.batch([31, 7]), name)).all()
    other = ConversationRows(data, T, seed=4).batch(range(5))
    assert (other.ids != first.batch(range(5)).ids).any()


def test_unpacked_rows_hold_one_conversation_each(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": pairs(10)}, held_out=0.0)
    batch = ConversationRows(data, T, packed=False).batch(range(10))
    assert (batch.document.max(1) == 0).all()
    assert len({tuple(row) for row in batch.ids.tolist()}) == 10  # an epoch


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("size", [3, 12])  # short ones, of which a row holds several, and some of more than half a row
@pytest.mark.parametrize("epochs", [1, 3, 2.5])
def test_epochs_are_so_many_rows(tokenizer, tmp_path, size, epochs, packed):
    data = made(tokenizer, tmp_path, {"a": pairs(40, size)}, held_out=0.0)
    rows = ConversationRows(data, T, packed=packed)
    _, count = ran(rows.rows_of(epochs * int((data.lengths() - 1).sum())))
    batch = rows.batch(range(count))
    seen = Counter(tuple(ids.tolist()) for row in range(count) for ids, _, _ in inside(batch, row))
    assert len(seen) == 40 and {int(epochs), -int(-epochs // 1)} == set(seen.values())
    full = rows.batch(range(count - 1))
    assert full.tokens < epochs * (data.lengths() - 1).sum() <= batch.tokens


def test_sources_keep_their_shares(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": pairs(40, tag="a"), "b": pairs(40, tag="b")}, {"$a": 3.0, "$b": 1.0})
    rows = ConversationRows(data, T)
    rows.batch(range(200))
    taken = np.zeros(2)
    for position, length in zip(rows._position, rows._length, strict=True):
        taken[data.source[np.searchsorted(data.offsets, position, side="right") - 1]] += length
    assert taken[0] / taken.sum() == pytest.approx(0.75, abs=0.02)


def test_one_in_twenty_is_held_out_and_never_trained_on(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": pairs(400)})
    assert 0.3 * HELD_OUT < data.held_out.mean() < 2 * HELD_OUT
    share, rows = held_out_rows(data, T)["$a"]
    batch = laid_out(data, rows, T)
    held = {tuple(ids.tolist()) for row in range(len(rows)) for ids, _, _ in inside(batch, row)}
    assert share == 1.0 and len(held) == data.held_out.sum() == data.counts[0].held_out
    trained = ConversationRows(data, T).batch(range(300))
    assert not held & {tuple(ids.tolist()) for row in range(300) for ids, _, _ in inside(trained, row)}
    few = made(tokenizer, tmp_path, {"a": pairs(19)})
    assert not few.held_out.any() and held_out_rows(few, T) == {}


def test_over_long_conversations_are_cut_or_refused_and_counted(tokenizer, tmp_path):
    long_answer = ("why?", "it was " * 60)
    long_question = ("why? " * 60, "it was")
    chats = [*pairs(5), long_answer, long_question]
    data = made(tokenizer, tmp_path, {"a": chats})
    count = data.counts[0]
    assert (count.conversations, count.cut, count.refused) == (6, 1, 1)  # of the long question no answer is left
    assert data.lengths().max() == T + 1
    ids, trained = data[5]
    assert trained[-1] and ids[-1] != tokenizer.convert_tokens_to_ids("<|end|>")
    assert data.first[0]["where"] == "item 0 of $a" and len(data.first) == 3
    refused = made(tokenizer, tmp_path, {"a": chats}, over_long="refuse").counts[0]
    assert (refused.conversations, refused.cut, refused.refused) == (5, 0, 2)
    both = made(tokenizer, tmp_path, {"a": chats}, train_on="all").counts[0]
    assert (both.conversations, both.cut, both.refused) == (7, 2, 0)
    assert both.trained == both.tokens - both.conversations  # all but the first of each


def test_counts(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": pairs(4)})
    count = data.counts[0]
    assert (count.source, count.form, count.conversations, count.held_out, count.share) == ("$a", "pairs", 4, 0, 1.0)
    assert count.tokens == len(data.tokens) and count.trained == data.trained.sum()
    assert not count.endless and not count.notes
    assert Conversations.open(tmp_path).counts == data.counts


def test_nothing_fits_nothing_to_learn(tokenizer, tmp_path):
    long_question = [("why? " * 60, "it was")]
    assert refusal(tokenizer, tmp_path, {"a": long_question}).startswith("no conversation of $a fits: longest is ")
    assert "--over-long refuse leaves out" in refusal(
        tokenizer, tmp_path, {"a": [("why?", "it was " * 60)]}, over_long="refuse"
    )
    for rule in ("refuse", "cut"):  # an endless source ends here too
        assert refusal(tokenizer, tmp_path, {}, {"stories-qa": 1}, context=16, over_long=rule).startswith(
            "no conversation of stories-qa fits: longest is "
        )
    for wrong, said in (({"over_long": "crop"}, "cut or refuse, not 'crop'"), ({"train_on": "user"}, "not 'user'")):
        assert said in fail(lambda wrong=wrong: SFT.of(name="a", base="b", **wrong))
    with pytest.raises(GPTError, match="preparing them did not finish"):
        Conversations.open(tmp_path / "nowhere")


def test_an_endless_source_is_read_as_far_as_needed(tokenizer, tmp_path):
    events, data = ran(prepare({"sums-cot": 1}, tokenizer, tmp_path, context=256, tokens_wanted=20_000))
    count = data.counts[0]
    assert count.endless and count.form == "generated" and 20_000 <= count.tokens < 23_000 and count.held_out
    done = [event.done for event in events if event.stage == "reading sums-cot"]
    assert done and all(a <= b for a, b in pairwise(done)) and all(event.event == "progress" for event in events)


def test_stories_qa_trains_on_no_held_out_story(tokenizer, tmp_path):
    from benchmarks.stories_qa import held_out

    kept = next(held_out(0)).story
    data = ran(prepare({"stories-qa": 1}, tokenizer, tmp_path, context=512, tokens_wanted=30_000))[1]
    assert data.held_out.any() and kept
    names = [c for c in range(len(data)) if not data.held_out[c]]
    assert 0.85 < len(names) / len(data) < 1.0


def test_the_cell(tokenizer, tmp_path):
    data = made(
        tokenizer,
        tmp_path,
        {},
        {chats.CELL: 1.0},
        cell="user: why?\nassistant: it was\n---\nuser: what?\nassistant: fox",
    )
    assert data.counts[0].source == "the cell" and data.counts[0].conversations == 2


def test_a_conversation_that_its_template_refuses_is_named(tokenizer, tmp_path):
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0].content == 'bad' %}{{ raise_exception('not this') }}{% endif %}" + strict.chat_template
    )
    said = refusal(strict, tmp_path, {"a": [*pairs(3), ("bad", "it was")]})
    assert said == "item 3 of $a: the chat template refuses this conversation: not this"


def test_bad_rows_are_skipped_counted_and_told(tokenizer, tmp_path):
    """Those that cannot be read, and those that the template refuses."""
    call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    calls = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    rows = [
        {"messages": [{"role": r, "content": c} for r, c in zip(("user", "assistant"), pair, strict=True)]}
        for pair in pairs(5)
    ]
    rows[1:1] = [{"messages": calls}]
    rows += [{"messages": rows[0]["messages"][:1]}]
    said = refusal(tokenizer, tmp_path, {"a": rows[:-1]})
    assert said.startswith("item 1 of $a: this chat template does not write tools")
    data = made(tokenizer, tmp_path, {"a": rows}, bad_rows="skip")
    count = data.counts[0]
    assert (count.conversations, count.refused) == (5, 2)
    (note,) = Conversations.open(tmp_path).counts[0].notes
    assert note.startswith("2 rows are skipped that cannot be trained on: ")
    assert "item 1 of $a: this chat template does not write tools" in note, "the reason of each kind of rows"
    assert "item 6 of $a has no turn of the assistant, so nothing to train on" in note


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_that_the_template_does_not_write_is_told_of(tokenizer, tmp_path, key):
    turns = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so", key: "Hm."}]
    plain = [turns[0], {"role": "assistant", "content": "so", key: None}]
    data = made(tokenizer, tmp_path, {"a": [{"messages": turns}, {"messages": plain}, {"messages": turns}]})
    assert data.counts[0].notes == ("2 have reasoning that this chat template does not write: it is left out",)


def test_turns_of_weight_0_are_not_trained_on(tokenizer, tmp_path):
    turns = [{"role": role, "content": f"why {n}?"} for n, role in enumerate(("user", "assistant") * 2)]
    data = made(tokenizer, tmp_path, {"a": [{"messages": [turns[0], turns[1] | {"weight": 0}, *turns[2:]]}] * 3})
    ids, trained = data[0]
    assert tokenizer.decode(ids[trained]) == "why 3?<|end|>"
    assert data.counts[0].trained == 3 * trained.sum()


def test_memory_does_not_grow_with_the_number_of_conversations(tokenizer, tmp_path):
    peaks = []
    for count in (400, 1600):
        path = tmp_path / f"{count}.jsonl"
        path.write_text(
            "".join(json.dumps({"question": f"why {n}?", "answer": "it was " * 15}) + "\n" for n in range(count))
        )
        work = prepare({str(path): 1.0}, tokenizer, tmp_path / str(count), context=T)
        tracemalloc.start()
        data = ran(work)[1]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(data) == count and len(data.tokens) > 30 * count
    assert peaks[1] - peaks[0] < 1_000 * 1200, "conversations are not kept in memory"
