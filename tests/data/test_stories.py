"""Stories: the same for everyone, well-formed, true to their facts, and varied."""

import itertools
import re
import string
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import pytest

from jupyter_gpt.data import stories


class Story(NamedTuple):
    text: str
    facts: tuple[stories.Fact, ...]
    plot: str


def story(seed: int, index: int) -> Story:
    beats = stories.beats(seed, index)
    facts = tuple(fact for _, facts in beats for fact in facts)
    return Story(" ".join(text for text, _ in beats), facts, stories.cast(seed, index)[0])


STORIES = [story(7, index) for index in range(6000)]
VOWEL_SOUND = re.compile(r"hour|[aeiou](?!ne\b|nicorn|niform|seful)", re.I)  # "an hour", "a uniform"
GENDER = {"he": "boy", "she": "girl"}
QUOTED = re.compile(r'"[^"]*"')


def sentences(text: str) -> list[str]:
    return re.findall(r'[^.!?]+[.!?]+"?', text)


def grammar_faults(text: str) -> list[str]:
    """What is wrong with the spelling of a text; empty when nothing is."""
    faults = []
    if not text.isascii() or re.search(r"[^\w .,!?\"':-]", text):
        faults.append("a character that no story should hold")
    if re.search(r"  |\n| [.,!?]|^ | $", text):
        faults.append("a stray space")
    if re.search(r"[{}\[\]|<>_~/]", text):
        faults.append("an unfilled slot")
    for article, word in re.findall(r"\b([Aa]n?) (\w+)", text):
        if (article.lower() == "an") != bool(VOWEL_SOUND.match(word)):
            faults.append(f"{article} {word}")
    if text.count('"') % 2 or '" "' in text:
        faults.append("quotes that do not pair")
    for quote in QUOTED.findall(text):
        if not re.match(r'"[A-Z]', quote) or not re.search(r'[.,!?]"$', quote):
            faults.append(f"a quotation that does not begin or end well: {quote}")
    bare = QUOTED.sub(lambda quote: "Q" + quote[0][-2] + " ", text)
    for start in re.findall(r"(?:^|[.] +)(\w)", bare):
        if not start.isupper():
            faults.append("a sentence without its capital")
    if not re.search(r'[.!?]"?$', text):
        faults.append("no end")
    if re.search(r"\b(\w+) \1\b", text):
        faults.append("a word said twice")
    if re.search(r"[.,]{2}|[!?][.,]|[.,][!?]", text):
        faults.append("doubled punctuation")
    return faults


@pytest.mark.parametrize(
    "text",
    [
        "He had a apple.",
        "He had an ball.",
        "He ran  home.",
        "he ran home. She ran.",
        "Tom {ran} home.",
        "He ran home",
        "He ran home. she slept.",
        "He ran ran home.",
        "He ran home..",
        "He rän.",
        'He said, "go."',
        'He said, "Go.',
        '"Go!" "I will."',
    ],
)
def test_the_grammar_check_sees_faults(text):
    assert grammar_faults(text)


def test_stories_are_well_formed():
    faults = {story.text: found for story in STORIES if (found := grammar_faults(story.text))}
    assert not faults, (len(faults), Counter(fault for found in faults.values() for fault in found), faults)


def test_facts_are_well_formed():
    for story in STORIES[:2000]:
        for fact in story.facts:
            assert not grammar_faults(fact.question) and fact.question.endswith("?"), fact
            assert not grammar_faults(fact.answer) and fact.answer.endswith((".", '."')), fact
            assert fact.question[0].isupper() and fact.subject and fact.relation.isidentifier(), fact


def test_facts_can_be_read_in_the_text():
    for story in STORIES:
        assert len(story.facts) >= 3, story
        for fact in story.facts:
            assert fact.value in story.text, (fact, story.text)
            assert fact.value in fact.answer, fact


def test_relations_of_a_story_are_distinct():
    for story in STORIES:
        asked = [(fact.subject, fact.relation) for fact in story.facts]
        assert len(set(asked)) == len(asked), story


def test_every_branch_binds_every_slot_it_names():
    """Whatever row is drawn: a slot of a plot's text stands in all rows of one of the tables it casts."""
    for plot in stories.plots():
        bound = set().union(*(set.intersection(*(set(row) for row in rows)) for rows in plot.cast))
        for beat in itertools.chain(*plot.branches):
            for template in (*itertools.chain(*beat.wordings), *beat.facts):
                used = {slot for _, slot, _, _ in string.Formatter().parse(template) if slot}
                assert used <= bound, (plot.name, template, used - bound)


def test_pronouns_agree():
    """Where all the people of a story are of one gender, the pronouns of the other do not occur."""
    gender = {name: gender for gender, names in stories.NAMES.items() for name in names.split()}
    checked = 0
    for story in STORIES:
        words = set(re.findall(r"\w+", story.text))
        people = {gender[word] for word in words if word in gender}
        people |= {GENDER[row["khe"]] for row in stories.tables()["kin"] if row["kin"] in words}
        if people == {"boy"}:
            checked += 1
            assert not {word.lower() for word in words} & {"she", "her", "hers", "girl"}, story.text
        if people == {"girl"}:
            checked += 1
            assert not {word.lower() for word in words} & {"he", "him", "his", "boy"}, story.text
    assert checked > 1000


def test_same_index_same_story():
    assert story(7, 5) == STORIES[5]
    assert story(8, 5) != STORIES[5]
    assert list(itertools.islice(stories.documents(7), 20)) == [story.text for story in STORIES[:20]]
    assert story(-7, 5) != STORIES[5]


def test_another_process_tells_the_same():
    """Python's hash seed, which differs between processes, plays no part."""
    code = "from jupyter_gpt.data.stories import documents\nfor _, text in zip(range(30), documents(7)): print(text)"
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in "12"
    ]
    assert told[0] == told[1] == "".join(story.text + "\n" for story in STORIES[:30])


def test_lengths():
    lengths = sorted(len(story.text.split()) for story in STORIES)
    assert lengths[0] >= 35 and lengths[-1] <= 165
    assert 70 <= sum(lengths) / len(lengths) <= 110


def test_first_ten_thousand_differ():
    texts = list(itertools.islice(stories.documents(0), 10_000))
    assert len(set(texts)) == len(texts)


def test_vocabulary_is_a_childs():
    words = Counter(word for story in STORIES for word in re.findall(r"[a-z]+", story.text.lower()))
    assert 1000 <= len(words) <= 3000


def test_variety():
    plots = Counter(story.plot for story in STORIES)
    assert len(plots) >= 20
    assert max(plots.values()) < 0.1 * len(STORIES)
    said = [sentence for story in STORIES[:2000] for sentence in sentences(story.text)]
    assert len(set(said)) / len(said) > 0.4
    assert len({sentences(story.text)[0] for story in STORIES}) > 0.7 * len(STORIES)


def test_a_fact_must_mark_its_value():
    with pytest.raises(ValueError, match="relation"):
        stories.fact_template("? lost: What did {n} lose? {n} lost a ball.")


def test_tables_of_uneven_rows_are_refused():
    with pytest.raises(ValueError):
        stories.table("a | b", "one | two; three")
