"""A calculator for arithmetic expressions, by simpleeval, which parses Python's syntax and executes none of it.

Numbers, + - * / // % **, brackets, and the functions below. No names but pi, e and tau, no attributes, no strings, no
comprehensions; powers and results are limited, so that `9**9**9` is refused and not computed.
"""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache

from jupyter_gpt.prompting.tools.tool import Tool, tool

LONGEST = 300  # characters of an expression
DIGITS = 400  # of a result
NUMBERS = {"pi": math.pi, "e": math.e, "tau": math.tau}
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


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
    """A simpleeval evaluator that knows numbers alone."""
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
            raise ValueError(f"a calculator knows numbers alone, not {node.value!r:.40}")
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
