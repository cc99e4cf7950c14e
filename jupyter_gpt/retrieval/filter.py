"""`--filter "page > 3 and 'leave' in heading"`: a small language of comparisons, turned into SQL with bound values.

Parsed by Python's own `ast`, never evaluated: only comparisons of the columns below with numbers and texts, joined by
`and`, `or`, `not`. A chunk without a page is on none: no comparison with its page holds.
"""

from __future__ import annotations

import ast

from jupyter_gpt.errors import GPTError, nearest

COLUMNS = {"source": "d.source", "page": "c.page", "heading": "c.heading", "text": "c.text", "chunk": "c.n"}
SIGNS = {ast.Eq: "=", ast.NotEq: "<>", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
WANTED = "comparisons of source, page, heading, text or chunk, such as \"page > 3 and source == 'a.pdf'\""


def condition(text: str) -> tuple[str, list]:
    """The filter as a condition in SQL and the values of its `?`. Raises GPTError for anything that is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        values: list = []
        return clause(tree, values), values
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GPTError(f"--filter {text[:60]!r} cannot be read: it wants {WANTED}") from error


def clause(node: ast.AST, values: list) -> str:
    """One node as SQL; its constants are added to `values`."""
    if isinstance(node, ast.BoolOp):
        word = " AND " if isinstance(node.op, ast.And) else " OR "
        return "(" + word.join(clause(part, values) for part in node.values) + ")"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"(NOT {clause(node.operand, values)})"
    if not isinstance(node, ast.Compare):
        raise GPTError(f"--filter has {ast.unparse(node)[:40]!r}, which is no comparison: it wants {WANTED}")
    parts, left = [], node.left
    for sign, right in zip(node.ops, node.comparators, strict=True):
        parts.append(comparison(left, sign, right, values))
        left = right
    return "(" + " AND ".join(parts) + ")"


def comparison(left: ast.AST, sign: ast.AST, right: ast.AST, values: list) -> str:
    """`left sign right` as SQL; `in` looks for a text within a column, or for a column's value in a list."""
    if isinstance(sign, ast.In | ast.NotIn):
        no = "NOT " if isinstance(sign, ast.NotIn) else ""
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            column = operand(left, values)
            return f"({column} {no}IN ({', '.join(operand(item, values) for item in right.elts)}))"
        if not isinstance(right, ast.Name):
            raise GPTError(f"--filter looks for a text in a column: it wants {WANTED}")
        return f"({no}instr(lower({operand(right, values)}), lower({operand(left, values)})))"
    if type(sign) not in SIGNS:
        raise GPTError(f"--filter knows no {type(sign).__name__}: it wants {WANTED}")
    return f"{operand(left, values)} {SIGNS[type(sign)]} {operand(right, values)}"


def operand(node: ast.AST, values: list) -> str:
    """A column, or a constant as a bound value."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = getattr(node.operand, "value", None)
        node = ast.Constant(-number) if isinstance(number, int | float) else node
    if isinstance(node, ast.Name):
        if node.id not in COLUMNS:
            raise GPTError(f"--filter knows no {node.id}{nearest(node.id, COLUMNS)}: texts go in quotes")
        return COLUMNS[node.id]
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str | int | float)
        and not isinstance(node.value, bool)
    ):
        if isinstance(node.value, int) and abs(node.value) >= 1 << 63:
            raise ValueError("more than 64 bits")
        str(node.value).encode()  # half a character is no text: a ValueError
        values.append(node.value)
        return "?"
    raise GPTError(f"--filter has {ast.unparse(node)[:40]!r}: it wants {WANTED}")
