"""Citations: sentences are told apart, and held against their sources."""

import json
from pathlib import Path

import pytest

from jupyter_gpt.retrieval import cite

SOURCES = [
    "Every employee has 27 days of paid leave a year. It is asked for by mail.",
    "The printer is called Gutenberg.",
]


def verdicts(answer, question="", sources=SOURCES):
    return [check.verdict for check in cite.check(answer, sources, question)]


def test_sentences():
    text = 'Dr. Fox has 3.5 days. [1] He sang! Did he? "Yes." he said [1, 2].\nNext line\n- a list'
    assert cite.sentences(text) == [
        "Dr. Fox has 3.5 days. [1]",
        "He sang!",
        "Did he?",
        '"Yes." he said [1, 2].',
        "Next line",
        "- a list",
    ]
    assert cite.sentences("一句话。另一句。") == ["一句话。", "另一句。"]
    assert cite.sentences("No. 5 is red. No. It is not.") == ["No. 5 is red.", "No.", "It is not."]
    assert cite.sentences("") == []
    assert cite.cited_in("So it is [2], [1; 3].") == (2, 1, 3)


@pytest.mark.parametrize(
    "answer, verdict, by",
    [
        ("Every employee has 27 days of paid leave a year [1].", cite.SUPPORTED, (1,)),
        ("Every employee has 27 days of paid leave a year.", cite.SUPPORTED, (1,)),
        ("Every employee has 27 days of paid leave a year [2].", cite.ELSEWHERE, (1,)),
        ("Every employee has 28 days of paid leave a year [1].", cite.UNSUPPORTED, ()),
        ("The moon is made of green cheese [1].", cite.UNSUPPORTED, ()),
        ("The printer is called Gutenberg [7].", cite.ELSEWHERE, (2,)),
        ("[1]", cite.NOTHING, ()),
    ],
)
def test_each_sentence_against_each_source(answer, verdict, by):
    [check] = cite.check(answer, SOURCES)
    assert (check.verdict, check.by) == (verdict, by)
    assert (check.support == 1.0 and not check.reason) if by else verdict == cite.NOTHING or check.reason


def test_words_of_the_question_are_no_support():
    assert verdicts("The name of the printer is Caxton.", "What is the name of the printer?") == [cite.UNSUPPORTED]
    assert verdicts("The printer is called Gutenberg.", "What is the printer called?") == [cite.SUPPORTED]


def test_what_a_sentence_is_about_may_stand_in_the_heading():
    source = "The library > Building\nIt has two floors. The front door is painted crimson."
    question = "What colour is the door of the library?"
    assert verdicts("The door of the library is painted crimson.", question, [source]) == [cite.SUPPORTED]
    assert verdicts("The door of the brewery is painted crimson.", question, [source]) == [cite.UNSUPPORTED]


def test_several_sentences_and_no_sources():
    assert verdicts("The printer is called Gutenberg. It was bought in Mainz.") == [cite.SUPPORTED, cite.UNSUPPORTED]
    assert verdicts("The printer is called Gutenberg.", sources=[]) == [cite.UNSUPPORTED]
    assert verdicts("So it is.", sources=[]) == verdicts("…") == [cite.NOTHING]


BRIDGE = [
    "The bridge was opened on 12 June 1907. It was designed by Maria Lindqvist and built by Jan Hartmann. It is "
    "longer than the tunnel.",
    "The tunnel was closed in 1951. Cars must not use the bridge, opened 1907 and closed for years until 1951. "
    "Breakfast is included, dinner is not. It takes ten minutes.",
]


@pytest.mark.parametrize(
    "sentence, question, reason",
    [
        ("The bridge was opened in 1907.", "When was the bridge opened?", ""),
        ("The answer is: 12 June 1907.", "When was the bridge opened?", ""),
        ("The bridge was opened.", "When was the bridge opened?", None),
        ("The bridge was opened.", "Was the bridge opened?", ""),
        ("The bridge was opened in 1951.", "When was the bridge opened?", "of something else"),
        ("Cars must not use the bridge, which opened in 1951.", "", "this number of something else"),
        ("The bridge was opened in 1908.", "When was the bridge opened?", "not in the source: 1908"),
        ("It was designed by Maria Lindqvist.", "", ""),
        ("It was designed by Jan Hartmann.", "", "names another than Jan"),
        ("The tunnel is longer than the bridge.", "", "compares the other way round"),
        ("The bridge is longer than the tunnel.", "", ""),
        ("Cars can use the bridge.", "", "denies"),
        ("Cars can't use the bridge.", "", ""),
        ("The tunnel was not closed in 1951.", "", "does not deny"),
        ("Dinner is included.", "", "denies"),
        ("It takes a minute.", "", "another number of minute"),
        ("It takes 10 minutes.", "", ""),
        ("It takes 10 minutes by train.", "", "not in the source: train"),
        ("The answer is 10.", "How long does it take?", "a number alone"),
    ],
)
def test_what_a_source_does_and_does_not_say(sentence, question, reason):
    [check] = cite.check(sentence, BRIDGE, question)
    if reason is None:
        assert check.verdict == cite.NOTHING
    else:
        assert reason in check.reason and bool(reason) == bool(check.reason) == (check.verdict == cite.UNSUPPORTED)


def test_clauses_may_be_said_by_several_sources_about_the_same_thing():
    [check] = cite.check("The bridge was opened in 1907, and cars must not use the bridge [2].", BRIDGE)
    assert (check.verdict, check.by) == (cite.SUPPORTED, (1, 2))
    [check] = cite.check("The printer was opened in 1907, and cars must not use the bridge.", BRIDGE)
    assert check.verdict == cite.UNSUPPORTED
    [check] = cite.check("The bridge was opened in 1907 and is visited by many tourists.", BRIDGE)
    assert check.verdict == cite.UNSUPPORTED


def test_supported_can_be_relied_on():
    """288 sentences, each with the sources that say it by a person's reading: 60 written for this (echoes, wrong
    numbers, swapped names, negations, paraphrases, halves, several sources) and 30 more to make the rules on; and 198
    that SmolLM2-135M-Instruct really answered from two documents, in three parts, each first seen by rules made before
    it.
    """
    data = json.loads((Path(__file__).parent / "sentences.json").read_text(encoding="utf-8"))
    parts: dict[str, list[tuple[bool, bool]]] = {}
    for row in data["rows"]:
        [check] = cite.check(row["sentence"], [data["texts"][name] for name in row["sources"]], row["question"])
        parts.setdefault(row["part"], []).append((check.verdict == cite.SUPPORTED, bool(row["by"])))
        if check.verdict == cite.SUPPORTED and row["by"]:
            assert set(check.by) & set(row["by"]), row
    assert {part: len(rows) for part, rows in parts.items()} == {
        "written, made on": 30,
        "written": 60,
        "answered 1": 54,
        "answered 2": 70,
        "answered 3": 74,
    }
    everything = [row for rows in parts.values() for row in rows]
    for rows in (parts["written"], everything):
        supported, right = [true for said, true in rows if said], [said for said, true in rows if true]
        assert sum(supported) / len(supported) >= 0.9, "precision"
        assert sum(right) / len(right) >= 0.8, "recall"


def test_quoted_words_are_found_in_their_source():
    [run] = cite.quoted_runs("It says that employees have 27 Days of paid leave [1], always.", SOURCES[0])
    assert SOURCES[0][slice(*run)] == "27 days of paid leave"
    assert cite.quoted_runs("27 days", SOURCES[0]) == []
