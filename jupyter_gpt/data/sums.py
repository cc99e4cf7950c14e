"""Small computations with right answers, endless and seeded, answered at once or with the steps written out.

The same problem can be written both ways, so that a notebook can show what a chain of thought is worth to a small
model, and gives reinforcement learning a reward that can be checked. Each kind of problem is one function that draws
its numbers and returns question, steps and answer.

A sum depends on (seed, index) alone: only `Random(str)` and `.random()` are used, whose results Python promises to keep
the same in every version.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from random import Random

Draw = Callable[[int, int], int]  # draw(low, high): a whole number, both ends included


@dataclass(frozen=True)
class Sum:
    """A problem: its question, the steps that lead to the answer, one line each, the answer, and its kind."""

    question: str
    steps: tuple[str, ...]
    answer: str
    kind: str = ""

    def text(self, steps: bool) -> str:
        """The problem as a document; with `steps` they are between the question and the answer."""
        lines = (self.question, *(self.steps if steps else ()), f"Answer: {self.answer}")
        return "\n".join(lines)


def pick(draw: Draw, choices: str) -> str:
    words = choices.split()
    return words[draw(0, len(words) - 1)]


def ask(draw: Draw, expression: str) -> str:
    return (f"What is {expression}?", f"{expression} = ?", f"Compute {expression}.")[draw(0, 2)]


PLACES = ("ones", "tens", "hundreds", "thousands")


def addition(draw: Draw) -> Sum:
    """Column by column from the right, as on paper, with the carry."""
    size = draw(1, 3)
    a, b = draw(1, 10**size - 1), draw(1, 10**size - 1)
    steps, carry = [], 0
    for place in range(len(str(max(a, b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        line = f"{PLACES[place]}: {x} + {y}" + (f" + {carry}" if carry else "") + f" = {total}"
        carry = total // 10
        steps.append(line + (f", write {total % 10}, carry 1" if carry else ""))
    if carry:
        steps.append(f"{PLACES[place + 1]}: 1")
    return Sum(ask(draw, f"{a} + {b}"), tuple(steps), str(a + b))


def subtraction(draw: Draw) -> Sum:
    """Take away the hundreds, then the tens, then the ones; the result may be negative for small numbers."""
    size = draw(1, 3)
    a, b = draw(1, 10**size - 1), draw(1, 10**size - 1)
    if size > 1:
        a, b = max(a, b), min(a, b)
    steps, left = [], a
    for place in reversed(range(len(str(b)))):
        if part := b // 10**place % 10 * 10**place:
            steps.append(f"{left} - {part} = {left - part}")
            left -= part
    return Sum(ask(draw, f"{a} - {b}"), tuple(steps), str(left))


def multiplication(draw: Draw) -> Sum:
    """The second factor split into tens and ones."""
    a, b = draw(2, 12), draw(2, 29)
    tens, ones = b // 10 * 10, b % 10
    if not tens or not ones:
        steps = (f"{a} * {b} = {a * b}",)
    else:
        steps = (f"{a} * {tens} = {a * tens}", f"{a} * {ones} = {a * ones}", f"{a * tens} + {a * ones} = {a * b}")
    return Sum(ask(draw, f"{a} * {b}"), steps, str(a * b))


def division(draw: Draw) -> Sum:
    """Whole-number division with its remainder, checked by multiplying back."""
    divisor, quotient = draw(2, 12), draw(1, 12)
    rest = draw(0, divisor - 1)
    number = divisor * quotient + rest
    steps = (f"{divisor} * {quotient} = {divisor * quotient}", f"{number} - {divisor * quotient} = {rest}")
    question = f"Divide {number} by {divisor}. What is the quotient and what is the remainder?"
    return Sum(question, steps, f"{quotient} remainder {rest}")


def chain(draw: Draw) -> Sum:
    """Left to right through additions and subtractions, or brackets first and then one multiplication."""
    value = draw(1, 50)
    expression, steps = str(value), []
    for _ in range(draw(2, 4)):
        operand = draw(1, 40)
        sign = "-" if operand <= value and draw(0, 1) else "+"
        result = value - operand if sign == "-" else value + operand
        steps.append(f"{value} {sign} {operand} = {result}")
        expression, value = f"{expression} {sign} {operand}", result
    if draw(0, 2) == 0:
        factor = draw(2, 5)
        steps.append(f"{value} * {factor} = {value * factor}")
        expression, value = f"({expression}) * {factor}", value * factor
    return Sum(ask(draw, expression), tuple(steps), str(value))


def comparison(draw: Draw) -> Sum:
    """Which of two results is larger; a tie is answered as one."""
    a, b, c, d = (draw(1, 60) for _ in range(4))
    if draw(0, 9) == 0:
        c, d = b, a
    first, second = a + b, c + d
    sign = ">" if first > second else "<" if first < second else "="
    steps = (f"{a} + {b} = {first}", f"{c} + {d} = {second}", f"{first} {sign} {second}")
    answer = {">": f"{a} + {b}", "<": f"{c} + {d}", "=": "they are equal"}[sign]
    return Sum(f"Which is larger, {a} + {b} or {c} + {d}?", steps, answer)


WORDS = """apple banana pepper letter kitten rabbit summer winter garden window yellow button candle dinner
forest bottle castle cherry silver pocket ladder basket bridge turtle monkey pencil carrot planet rocket
dragon island ocean river stone cloud bread horse tiger paper music night
light house mouse chair table lemon grape onion"""


def counting(draw: Draw) -> Sum:
    """How often a letter appears in a word: the word spelled, with a running count."""
    word = pick(draw, WORDS)
    letter = word[draw(0, len(word) - 1)] if draw(0, 5) else pick(draw, "a e i o u t")
    steps, seen = [], 0
    for character in word:
        seen += character == letter
        steps.append(f"{character}: {seen}")
    return Sum(f'How many times does "{letter}" appear in "{word}"?', tuple(steps), str(seen))


def reversal(draw: Draw) -> Sum:
    """A word backwards: its letters taken from the end, one by one."""
    word = pick(draw, WORDS)
    backwards = word[::-1]
    steps = (f"spelled: {' '.join(word)}", f"from the end: {' '.join(backwards)}")
    return Sum(f'Write "{word}" backwards.', steps, backwards)


def sorting(draw: Draw) -> Sum:
    """Digits in order by taking the smallest (or the largest) that is left, again and again."""
    digits = [draw(0, 9) for _ in range(draw(4, 7))]
    up = bool(draw(0, 1))
    order, left, steps = [], list(digits), []
    while left:
        order.append(min(left) if up else max(left))
        left.remove(order[-1])
        steps.append(f"take {order[-1]}" + (f", left: {' '.join(map(str, left))}" if left else ""))
    question = f"Sort from {'small to large' if up else 'large to small'}: {' '.join(map(str, digits))}"
    return Sum(question, tuple(steps), " ".join(map(str, order)))


def sequence(draw: Draw) -> Sum:
    """The next number where each is the one before plus, minus or times the same number."""
    start, step, way = draw(1, 20), draw(2, 9), draw(0, 2)
    if way == 2:
        step = draw(2, 3)
    if way == 1:
        start += 4 * step
    terms = [start]
    for _ in range(4):
        terms.append((terms[-1] + step, terms[-1] - step, terms[-1] * step)[way])
    sign = "+-*"[way]
    steps = [f"{a} {sign} {step} = {b}" for a, b in pairwise(terms)]
    return Sum(f"What comes next: {', '.join(map(str, terms[:4]))}?", tuple(steps), str(terms[4]))


PEOPLE = "Tom Lily Ben Mia Sam Anna Leo Ella Max Nora"
GOODS = "apples marbles stickers nuts shells coins cards buttons pencils stamps"


def plural(number: int, things: str) -> str:
    return f"{number} {things if number != 1 else things.removesuffix('s')}"


def word_problem(draw: Draw) -> Sum:
    """Someone has things, gets, gives away, shares or buys some."""
    name, things, shape = pick(draw, PEOPLE), pick(draw, GOODS), draw(0, 3)
    if shape == 0:
        have, more = draw(2, 40), draw(2, 30)
        away = draw(1, have + more - 1)
        question = (
            f"{name} has {have} {things}. {name} finds {more} more and gives away {away}. "
            f"How many {things} does {name} have now?"
        )
        steps = (f"{have} + {more} = {have + more}", f"{have + more} - {away} = {have + more - away}")
        return Sum(question, steps, str(have + more - away))
    if shape == 1:
        boxes, each, extra = draw(2, 9), draw(2, 12), draw(1, 9)
        question = (
            f"{name} has {boxes} boxes with {each} {things} in each, "
            f"and {plural(extra, things)} more. How many {things} is that?"
        )
        steps = (f"{boxes} * {each} = {boxes * each}", f"{boxes * each} + {extra} = {boxes * each + extra}")
        return Sum(question, steps, str(boxes * each + extra))
    if shape == 2:
        friends, each, kept = draw(2, 9), draw(2, 9), draw(1, 9)
        have = friends * each + kept
        question = (
            f"{name} has {have} {things}, keeps {kept} and shares the rest equally "
            f"among {friends} friends. How many does each friend get?"
        )
        steps = (f"{have} - {kept} = {have - kept}", f"{have - kept} / {friends} = {each}")
        return Sum(question, steps, str(each))
    number, price = draw(2, 9), draw(2, 9)
    paid = number * price + draw(1, 20)
    question = (
        f"{name} buys {number} {things} for {price} coins each and pays with {paid} coins. "
        f"How many coins does {name} get back?"
    )
    steps = (f"{number} * {price} = {number * price}", f"{paid} - {number * price} = {paid - number * price}")
    return Sum(question, steps, str(paid - number * price))


KINDS = (
    addition,
    subtraction,
    multiplication,
    division,
    chain,
    comparison,
    counting,
    reversal,
    sorting,
    sequence,
    word_problem,
)


def problem(seed: int | str, index: int) -> Sum:
    """Problem `index` of `seed`: a pure function, the same on every machine and in every Python version."""
    random = Random(f"sum {seed}/{index}").random

    def draw(low: int, high: int) -> int:
        return low + int(random() * (high - low + 1))

    kind = KINDS[draw(0, len(KINDS) - 1)]
    sum_ = kind(draw)
    return Sum(sum_.question, sum_.steps, sum_.answer, kind.__name__)


def documents(seed: int = 0, steps: bool | None = None) -> Iterator[str]:
    """Problems 0, 1, 2, ... of `seed` as text, without end; `steps` None shows steps in every other one."""
    for index in count():
        shown = index % 2 == 1 if steps is None else steps
        yield problem(seed, index).text(shown)


def conversations(seed: int | str = 0) -> Iterator[tuple[list[dict], str]]:
    """The problems of `seed` as conversations with their keys: the steps, then the answer (Wei et al. 2022)."""
    for index in count():
        sum_ = problem(seed, index)
        answer = "\n".join([*sum_.steps, f"Answer: {sum_.answer}"])
        yield [{"role": "user", "content": sum_.question}, {"role": "assistant", "content": answer}], sum_.question
