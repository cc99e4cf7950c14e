"""Conversations about stories: the user quotes the beginning of one and asks about it, the assistant answers from it.

Every answer is right by construction: `stories.py` knows which words of a story state which fact. Only one to five
sentences are quoted, since a small model learns to look an answer up in a short text long before it can in a long one.
Each fact is a turn, asked in one of several wordings. A conversation is held out by the whole text of its story, so a
model pretrained on `stories` has not seen the held-out ones either.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from jupyter_gpt.data.stories import Fact, beats

LENGTHS = (1, 1, 2, 2, 3)  # beats quoted, drawn evenly; a beat is a sentence or two
TURNS = 6  # questions of a conversation, at most
SETTINGS = (
    "{story}\n\n{question}",
    "{story}\n\n{question}",
    "{story} {question}",
    "Here is a story. {story}\n\n{question}",
    "Story: {story}\n\nQuestion: {question}",
)
# Other wordings of the commonest questions; \1 is what the brackets found.
WORDINGS = (
    (r"Where did (.+) live\?", r"Where was \1's home?", r"Where was the home of \1?"),
    (r"What was (.+) like\?", r"How would you describe \1?", r"What can you say about \1?"),
    (r"How old was (.+)\?", r"What was the age of \1?", r"How many years old was \1?"),
    (r"What kind of animal was (.+)\?", r"Which animal was \1?", r"What animal is \1?"),
    (r"Who helped (.+)\?", r"Who was it that helped \1?", r"Who gave \1 help?"),
    (
        r"What did (\w+) (want|find|lose|get|have|bring|build|bake|carry|see|take|buy|trade)\?",
        r"In the story, what did \1 \2?",
        r"Which thing did \1 \2?",
    ),
    (r"Who (.+)\?", r"Who was it that \1?", r"Tell me who \1."),
    (r"What was (.+)\?", r"Tell me what was \1.", r"What, in the story, was \1?"),
    (r"(What|Where|Why|How|Whom) (.+)\?", r"In the story, \1~ \2?", r"\1 \2, in the story?"),
)


@dataclass(frozen=True)
class Question:
    """A question about a story: messages that end with it, the fact that answers it, and the whole story's text."""

    messages: list[dict]
    fact: Fact
    story: str


def conversations(seed: int | str = 0) -> Iterator[tuple[list[dict], str]]:
    """Conversations 0, 1, 2, ... of `seed`, without end, each with its key: the whole story."""
    for index in count():
        last = questions_of(seed, index, TURNS)[-1]
        yield [*last.messages, {"role": "assistant", "content": last.fact.answer}], last.story


def questions_of(seed: int | str, index: int, turns: int) -> list[Question]:
    """The questions of conversation `index`, at most `turns`, in the order they are asked."""
    random = Random(f"stories-qa {seed}/{index}").random

    def draw(choices):
        return choices[int(random() * len(choices))]

    story = beats(f"qa {seed}", index)
    full_text = " ".join(text for text, _ in story)
    first = next(i for i, (_, facts) in enumerate(story) if facts)
    quoted = story[: max(draw(LENGTHS), first + 1)]
    excerpt = " ".join(text for text, _ in quoted)
    facts = sorted((fact for _, facts in quoted for fact in facts), key=lambda fact: random())[:turns]
    questions, messages = [], []
    for number, fact in enumerate(facts):
        words = reworded(fact.question, draw)
        content = words if number else draw(SETTINGS).format(story=excerpt, question=words)
        messages = [*messages, {"role": "user", "content": content}]
        questions.append(Question(messages, fact, full_text))
        messages = [*messages, {"role": "assistant", "content": fact.answer}]
    return questions


def reworded(question: str, draw) -> str:
    """The question as the script has it, or in one of two other wordings."""
    for pattern, *others in WORDINGS:
        match = re.fullmatch(pattern, question)
        if match:
            wording = draw((question, question, *others))
            expanded = match.expand(wording) if wording is not question else question
            return re.sub(r"(\w+)~", lambda word: word[1].lower(), expanded)
    return question
