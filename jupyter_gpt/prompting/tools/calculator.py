"""A calculator for arithmetic expressions, by simpleeval, which parses Python's syntax and executes none of it.

Numbers, + - * / // % **, brackets, and the functions below. No names but pi, e and tau, no attributes, no strings, no
comprehensions; powers and results are limited, so that `9**9**9` is refused and not computed.

It is a tool, and a calculator inside the text (`--calculator`): after a model writes `<<37*412=`, the result is
inserted and generation goes on. These are the calls of GSM8K's solutions (Cobbe et al. 2021, "Training verifiers to
solve math word problems") and of Toolformer (Schick et al. 2023), served as nanochat does: the result is forced, token
by token, and not sampled. It takes no further turn and no new prompt.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from functools import lru_cache

from jupyter_gpt.prompting.tools.tool import Tool, tool

LONGEST = 300  # characters of an expression
DIGITS = 400  # of a result
NUMBERS = {"pi": math.pi, "e": math.e, "tau": math.tau}
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
OPEN, EQUALS, CLOSE = "<<", "=", ">>"
CALL = re.compile(rf"{OPEN}(?P<expression>[^<>=\n]{{1,100}}){EQUALS}\Z")
REACH = 120  # tokens that are searched for a call: its characters, each a token at worst


def calculate(expression: str) -> str:
    """Works out an arithmetic expression exactly, such as 37 * (412 - 5) / 3.

    It knows + - * / // % ** and brackets, sqrt, abs, round, min, max, sum, floor, ceil, exp, log, log10, log2, sin,
    cos, tan, factorial, gcd, lcm, comb, and pi, e, tau.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters, not {len(expression):,}")
    text = expression.translate(SIGNS).strip().rstrip("=? ")
    if not re.search(r"[a-z]\w*\s*\(", text):  # in max(1,234) the comma parts two numbers
        text = THOUSANDS.sub("", text)
    return written(evaluator().eval(text, ast.parse(text, mode="eval").body))


def calculator() -> Tool:
    """The tool."""
    return tool(calculate, name="calculator")


@lru_cache(1)
def evaluator():
    """A simpleeval evaluator for numbers only."""
    import operator

    from simpleeval import SimpleEval

    same = "sqrt floor ceil exp log log10 log2 sin cos tan gcd"
    functions = {name: getattr(math, name) for name in same.split(" ")} | {"ln": math.log, "lcm": limited(math.lcm)}
    functions |= {"abs": abs, "round": rounded, "min": min, "max": max, "sum": lambda *n: sum(n)}
    functions |= {"factorial": factorial, "comb": comb}
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: limited(operator.mul), ast.Pow: power}
    operators |= {ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
    operators |= {ast.UAdd: operator.pos, ast.USub: operator.neg}
    evaluator = SimpleEval(operators=operators, functions=functions, names=dict(NUMBERS))
    allowed = (ast.Expr, ast.Expression, ast.Constant, ast.UnaryOp, ast.BinOp, ast.Name, ast.Call)
    number = evaluator.nodes[ast.Constant]

    def constant(node: ast.Constant):
        if type(node.value) not in (int, float):
            raise ValueError(f"expected numbers only, got {node.value!r:.40}")
        return number(node)

    evaluator.nodes = {kind: how for kind, how in evaluator.nodes.items() if kind in allowed} | {ast.Constant: constant}
    return evaluator


def limited(function):
    """The function, refusing results of more than `DIGITS` digits."""

    def checked(*numbers):
        result = function(*numbers)
        if isinstance(result, int) and result.bit_length() > DIGITS * 3.33:
            raise ValueError(f"the result has more than {DIGITS} digits")
        return result

    return checked


def power(base, exponent):
    """base ** exponent, refused before it is computed if it would be huge."""
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(base) > 1 and exponent * math.log10(abs(base)) > DIGITS:
        raise ValueError(f"the result has more than {DIGITS} digits")
    return base**exponent


def rounded(number, digits=0):
    """As `round`, also for round(x, 2.0), which models write. For an integer `round` computes 10**-digits: limited."""
    if abs(digits) > DIGITS:
        raise ValueError(f"round to at most {DIGITS} digits")
    return round(number, int(digits)) if digits else round(number)


def factorial(n):
    if n > 200:
        raise ValueError("factorial of at most 200")
    return math.factorial(n)


def comb(n, k):
    if n > 1000:
        raise ValueError("comb of at most 1000")
    return math.comb(n, k)


def written(number) -> str:
    """Whole numbers in full, others to 12 significant digits."""
    if isinstance(number, int):
        return str(number)
    if not isinstance(number, float):
        raise ValueError(f"the result is no real number: {number!r:.60}")
    if not math.isfinite(number):
        raise ValueError(f"the result is {number}, which is no number")
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.12g}"


# inside the text


class Inline:
    """The engine's `Constraint` for one sample: masks nothing, forces results. `results` counts them."""

    def __init__(self, decode: Callable[[list[int]], str], encode: Callable[[str], list[int]]):
        self.decode, self.encode = decode, encode
        self.ids: list[int] = []
        self.pending: list[int] = []
        self.results = 0

    def mask(self) -> None:
        """Every token is allowed."""

    def forced(self) -> list[int]:
        """The tokens of a result, right after a call."""
        return self.pending

    def accept(self, id: int) -> None:
        """Look for a call at the end of the text."""
        self.ids.append(id)
        if self.pending:
            self.pending = self.pending[1:]
            return
        found = CALL.search(self.decode(self.ids[-REACH:]))
        if found is None:
            return
        try:
            result = calculate(found["expression"])
        except Exception as error:  # the model may read what is wrong with its expression
            result = f"? {type(error).__name__}"
        self.results += 1
        self.pending = self.encode(f"{result}{CLOSE}")


def inline_calculator(tokenizer) -> Callable[[], Inline]:
    """The constraint of a `Request` for a model that was trained to write such calls."""
    from jupyter_gpt.data.render import encode
    from jupyter_gpt.inference.answer import decoder

    decode = decoder(tokenizer)
    return lambda: Inline(decode, lambda text: encode(tokenizer, text))
