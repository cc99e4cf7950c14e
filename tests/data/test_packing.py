"""Rows: each property that the docstring of packing.py claims, on tokens that tell where they stand."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from jupyter_gpt.data.documents import Documents
from jupyter_gpt.data.packing import INSIDE, TAIL, Rows, cut, validation_rows
from jupyter_gpt.errors import GPTError

EOT = 0


def documents(lengths, weights=(1.0,), source=None, held_out=None, cut_off=None) -> Documents:
    """Documents of the given lengths. Token i of all is i+1, so it names its position; each first is EOT."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(1, offsets[-1] + 1, dtype=np.uint32)
    tokens[offsets[:-1]] = EOT
    source = np.zeros(len(lengths), np.uint16) if source is None else np.array(source, np.uint16)
    held_out = np.zeros(len(lengths), bool) if held_out is None else np.array(held_out)
    names = [f"source {i}" for i in range(len(weights))]
    return Documents(tokens, offsets, source, held_out, names, list(weights), EOT, cut_off)


def mixed(seed=0, count=600, weights=(3.0, 1.0)) -> Documents:
    """Half the documents are short, of source 0; half are up to ten rows of 64 long, of source 1."""
    random = np.random.default_rng(seed)
    lengths = np.concatenate([random.integers(5, 60, count), random.integers(5, 640, count)])
    return documents(lengths, weights, source=[0] * count + [1] * count)


def targets(docs, rows, indices) -> np.ndarray:
    """Positions in `docs.tokens` that the rows have as targets, delimiters left out."""
    batch = rows.batch(indices)[:, 1:]
    return batch[batch != EOT] - 1


def test_rows_have_their_shape_and_begin_with_a_document_or_inside_one():
    docs = mixed()
    batch = Rows(docs, 64).batch(range(300))
    assert batch.shape == (300, 65) and batch.dtype == np.int64
    assert (batch[:, 0] == EOT).any() and (batch[:, 0] != EOT).any()


random = np.random.default_rng(3)
T = 32
MIXES = {
    "short": random.integers(2, T, 300),
    "long": random.integers(T + 2, 10 * T, 60),
    "both": np.concatenate([random.integers(2, T, 200), random.integers(T, 5 * T, 60)]),
    "two never fit": random.integers(T // 2 + 2, T, 200),
    "about a row": np.tile([T - 1, T, T + 1, T + 2, 2 * T + 1], 40),
    "a third more than a row": np.full(150, 4 * T // 3),
    "one": np.array([500]),
}


@pytest.mark.parametrize("mix", MIXES)
def test_a_delimiter_is_a_target_where_a_document_ends_and_nowhere_else(mix):
    """The middle of a document is never said to be an end or a beginning."""
    docs = documents(MIXES[mix])
    begins, ends = set(docs.offsets[:-1] + 2), set(docs.offsets[1:])  # the tokens that stand there
    for row in Rows(docs, T).batch(range(2000)).tolist():
        for place, (token, after) in enumerate(pairwise(row)):
            if after == EOT:
                assert token in ends and token != EOT
            elif token == EOT:
                assert after in begins
            else:
                assert after == token + 1 and token not in ends, place


@pytest.mark.parametrize("mix", MIXES)
def test_each_end_and_each_token_is_a_target_once_an_epoch(mix):
    """An end as often as the tokens before it: the model is told neither too often nor too seldom that a text ends."""
    docs, epochs = documents(MIXES[mix]), 40
    rows = Rows(docs, T)
    while rows.offered < epochs * docs.offsets[-1]:
        rows._lay_out(len(rows._first) + 50)
    told, ended = Counter(), Counter()
    for row in rows.batch(range(len(rows._first) - 1)).tolist():
        told.update(row[1:])
        ended.update(token for token, after in pairwise(row) if after == EOT)
    del told[EOT]
    seen = [ended[end] for end in docs.offsets[1:].tolist()]
    late = 1024 // len(docs) + 3  # epochs that may wait in the buffer
    assert epochs - late <= min(seen) and max(seen) <= epochs + late
    assert np.mean(seen) == pytest.approx(epochs, rel=0.1)
    texts = [told[token] for d in range(len(docs)) for token in range(docs.offsets[d] + 2, docs.offsets[d + 1] + 1)]
    assert min(texts) >= epochs - late and len(told) == len(texts)
    assert sum(texts) == pytest.approx(rows.offered + rows.repeated - len(rows._position), rel=0.1)
    assert abs(sum(texts) / len(texts) - np.mean(seen) - rows.repeated / len(texts)) < 0.1 * epochs


def test_nothing_follows_a_document_that_was_cut_off():
    lengths = np.array([100, 20, 30, 333, 25, 31, 32, 33, 34])
    off = np.arange(9) % 2 == 1  # 20, 333, 31 and 33 have no end
    docs = documents(lengths, cut_off=off)
    rows = Rows(docs, T).batch(range(3000)).tolist()
    ends = {row[c - 1] for row in rows for c in range(1, T + 1) if row[c] == EOT}
    assert ends == set(docs.offsets[1:][~off])
    told = {token for row in rows for token in row[1:]} - {EOT}
    left = {1, 5}  # too short for a row of their own, in which nothing could follow them
    assert told == {t for d in range(9) if d not in left for t in range(docs.offsets[d] + 2, docs.offsets[d + 1] + 1)}
    with pytest.raises(GPTError, match="fills a row"):
        Rows(documents([20, 30], cut_off=np.array([True, True])), T).batch([0])


def test_cells_are_what_documents_of_says():
    docs = mixed()
    rows = Rows(docs, 64)
    batch = rows.batch(range(100))
    for i in range(100):
        column = 0
        for part in rows.documents_of(i):
            assert part.column == column
            begin = int(docs.offsets[part.document]) + part.start
            assert begin + part.length <= docs.offsets[part.document + 1]
            assert (batch[i, column : column + part.length] == docs.tokens[begin : begin + part.length]).all()
            column += part.length
        assert column == 65 or (column == 64 and batch[i, -1] == EOT)


def test_a_row_depends_on_nothing_but_its_index():
    docs = mixed()
    whole = Rows(docs, 64).batch(range(500))
    assert (Rows(docs, 64).batch([499, 3, 77]) == whole[[499, 3, 77]]).all()
    again = Rows(docs, 64)
    for start in range(0, 500, 50):
        assert (again.batch(range(start, start + 50)) == whole[start : start + 50]).all()
    assert Rows(docs, 64).batch([]).shape == (0, 65)


def test_seeds_differ():
    docs = mixed()
    assert (Rows(docs, 64, seed=1).batch(range(50)) != Rows(docs, 64, seed=2).batch(range(50))).any()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.02, 0.98)])
def test_every_stretch_holds_the_proportions(weights):
    docs = mixed(weights=weights)
    rows = Rows(docs, 64)
    rows.batch([3000])
    source_of = docs.source
    supplied = np.zeros(2)
    share = np.array(weights) / sum(weights)
    worst = 0.0
    for i in range(3000):
        for part in rows.documents_of(i):
            supplied[source_of[part.document]] += part.length
        if i > 1000:
            worst = max(worst, float(np.abs(supplied / supplied.sum() - share).max()))
    assert worst < 0.02


def test_the_order_of_pieces_is_exact_to_one_piece():
    docs = mixed(weights=(3.0, 1.0))
    pieces = Rows(docs, 64)._pieces()
    supplied = np.zeros(2)
    for _ in range(5000):
        position, length, _ = next(pieces)
        d = int(np.searchsorted(docs.offsets, position, side="right")) - 1
        supplied[docs.source[d]] += length
        ahead = supplied[0] / 0.75 - supplied[1] / 0.25
        assert abs(ahead) <= 65 / 0.25


def test_an_epoch_uses_every_token_once():
    docs = mixed(weights=(1.0, 1.0))
    rows = Rows(docs, 64)
    for source in (0, 1):
        position, length, kind = next(rows._epochs(source))
        mine = docs.training(source)
        tokens = np.concatenate([np.arange(docs.offsets[d] + 1, docs.offsets[d + 1]) for d in mine])
        repeats = round(sum(length - 1) / len(tokens))
        seen = np.concatenate([np.arange(p + 1, p + n) for p, n in zip(position, length, strict=True)])
        assert (np.sort(seen) == np.sort(np.tile(tokens, repeats))).all()
        ends = (position + length)[kind >= TAIL]
        assert (np.sort(ends) == np.sort(np.tile(docs.offsets[mine + 1], repeats))).all()


def test_epochs_of_a_small_source_are_each_whole_and_each_shuffled_anew():
    docs = documents([10] * 30)
    position, _, _ = next(Rows(docs, 64)._epochs(0))
    epochs = position[: len(position) // 30 * 30].reshape(-1, 30)
    assert len(epochs) > 100
    assert (np.sort(epochs, axis=1) == docs.offsets[:-1]).all()
    assert len({tuple(epoch) for epoch in epochs[:100]}) == 100


def test_windows_of_a_long_document_cover_it_at_a_new_phase_each_epoch():
    docs = documents([10_000])
    rows = Rows(docs, 64)
    seen = targets(docs, rows, range(10_000 // 64 * 3))
    assert len(np.unique(seen)) > 9_900
    first = {int(row[0]) % 64 for row in rows.batch(range(450)) if row[0] != EOT}
    assert len(first) > 1


def test_cut_leaves_no_target_out_and_none_twice():
    size = np.array([1, 2, 16, 17, 18, 33, 34, 100])
    document, start, length, kind = cut(size, np.ones(8, bool), 16, np.random.default_rng(0))
    assert length.max() == 17 and (length > 1)[kind != TAIL].all()
    for d, n in enumerate(size):
        mine = document == d
        pieces = zip(start[mine], length[mine], strict=True)
        assert sorted(t for s, k in pieces for t in range(s + 1, s + k)) == list(range(1, n))
        assert (kind[mine] >= TAIL).sum() == (n > 1)
    document, start, length, kind = cut(size, np.zeros(8, bool), 16, np.random.default_rng(0))
    assert set(document) == {3, 4, 5, 6, 7} and (kind < TAIL).all() and (kind[length == 17] == INSIDE).all()


def test_held_out_documents_are_never_trained_on():
    held = np.arange(600) % 7 == 0
    docs = documents([30] * 600, held_out=held)
    seen = targets(docs, Rows(docs, 64), range(1000))
    owner = np.searchsorted(docs.offsets, seen, side="right") - 1
    assert not held[owner].any()
    assert len(np.unique(owner)) == (~held).sum()


def wasted(lengths, context, count):
    rows = Rows(documents(lengths), context)
    rows.batch([count])
    pieces = len(rows._position)
    return rows.repeated / rows.offered, rows.split / (pieces - rows.split)


def test_little_is_repeated_and_little_split():
    random = np.random.default_rng(0)
    repeated, split = wasted(random.normal(125, 20, 20_000).astype(int), 256, 5000)
    assert repeated < 0.04 and split < 0.01
    repeated, split = wasted(np.full(1000, 1500), 128, 5000)
    assert repeated < 0.01 and split == 0
    repeated, split = wasted(random.integers(50, 250, 20_000), 256, 5000)  # two seldom fit
    assert 0 < repeated < 0.03 and split < 0.2
    repeated, split = wasted(random.integers(135, 146, 20_000), 256, 5000)  # the unkind case: two never fit
    assert repeated < 0.03 and 0 < split < 0.5


def test_a_document_that_a_row_only_begins_goes_on_in_a_later_one():
    """Whole, or from its last token there on."""
    rows = Rows(documents(np.random.default_rng(0).normal(135, 20, 2000).astype(int)), 256)
    size, ways = rows.documents.lengths(), Counter()
    parts = [rows.documents_of(i) for i in range(1500)]
    for i in range(500):
        last = parts[i][-1]
        if last.length < size[last.document] and last.start == 0:
            later = [p for row in parts[i + 1 :] for p in row if p.document == last.document]
            whole = any(p.start == 0 and p.length == size[p.document] for p in later[:1])
            tail = any(p.start == last.length - 1 and p.column == 0 for p in later)
            assert whole or tail
            ways["whole" if whole else "tail"] += 1
    assert ways["whole"] > 10 and ways["tail"] > 2


@pytest.mark.parametrize("context", [1, 2, 3, 8])
def test_tiny_contexts_work(context):
    batch = Rows(mixed(), context).batch(range(200))
    assert batch.shape == (200, context + 1)


def test_a_source_of_weight_zero_never_appears():
    docs = mixed(weights=(1.0, 0.0))
    rows = Rows(docs, 64)
    assert {docs.source[part.document] for i in range(200) for part in rows.documents_of(i)} == {0}


def test_validation_covers_every_held_out_token_and_every_end_once():
    held = np.arange(50) % 5 == 0
    off = np.arange(50) % 15 == 0
    docs = documents(np.arange(50) + 3, held_out=held, cut_off=off)
    rows, mask = validation_rows(docs, 16)
    assert rows.shape == (len(rows), 17) and mask.shape == (len(rows), 16)
    told = rows[:, 1:][mask]
    expected = np.concatenate([docs[d][1:] for d in np.flatnonzero(held)])
    assert (told[told != EOT] == expected).all()
    ends = [row[c] for row, counts in zip(rows, mask, strict=True) for c in np.flatnonzero(counts) if row[c + 1] == EOT]
    assert ends == docs.offsets[1:][held & ~off].tolist()
    inside = rows[:, 0] != EOT
    assert (rows[inside, 0] == rows[np.flatnonzero(inside) - 1, -1]).all() and mask[np.flatnonzero(inside) - 1].all()


def test_a_held_out_part_without_its_beginning_stands_in_rows_of_its_own():
    docs = documents([20, 12, 9], held_out=[True, True, True], cut_off=np.array([True, False, False]))
    docs.tokens[docs.offsets[1]] = 99  # the second goes on with the first: no delimiter stands between
    rows, mask = validation_rows(docs, 31)
    assert rows.shape == (2, 32) and mask.sum(1).tolist() == [19, 12 + 9]
    assert rows[1, 0] == 99 and rows[1, 12] == EOT and rows[1, 21] == EOT


def test_validation_rows_begin_with_a_document_as_training_rows_do():
    """A text that fits in a row is read from its beginning: its middle without it would be another task."""
    docs = documents([12] * 20, held_out=[True] * 20)
    rows, mask = validation_rows(docs, 31)
    assert (rows[:, [0, 12]] == EOT).all() and rows.shape == (10, 32)
    assert mask[:, :24].all() and not mask[:, 24:].any()


def test_validation_without_held_out_documents_is_empty():
    rows, mask = validation_rows(documents([10, 20]), 16)
    assert rows.shape == (0, 17) and mask.shape == (0, 16)
