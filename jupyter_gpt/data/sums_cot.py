"""Conversations of sums with worked steps: the answer is reasoned out before it is given (Wei et al. 2022).

The problems are those of `sums.py`; asked for a bare number a small model guesses, with the steps it can follow.
"""

from collections.abc import Iterator
from itertools import count

from jupyter_gpt.data.conversations import Conversation
from jupyter_gpt.data.sums import Sum, problem


def conversations(seed: int | str = 0) -> Iterator[Conversation]:
    """Problems 0, 1, 2, ... of `seed` asked and answered, without end."""
    for index in count():
        found = problem(seed, index)
        messages = [
            {"role": "user", "content": found.question},
            {"role": "assistant", "content": "\n".join([*found.steps, f"Answer: {found.answer}"])},
        ]
        yield Conversation(messages, f"sums-cot {index}", found.question)


def right(asked: Sum, answer: str) -> bool:
    """Whether `answer` ends in the right result, after `Answer:`; what the steps say is not judged."""
    _, mark, result = answer.rpartition("Answer:")
    return bool(mark) and " ".join(result.split()).rstrip(".") == asked.answer
