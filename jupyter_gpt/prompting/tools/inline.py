"""A calculator inside the text: after a model writes `<<37*412=`, the result is inserted and it writes on.

The calls of GSM8K's solutions (Cobbe et al. 2021, "Training verifiers to solve math word problems") and of Toolformer
(Schick et al. 2023), served as nanochat does: the result is forced, token by token, and not sampled. It takes no
further turn and no new prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from jupyter_gpt.prompting.tools.calculator import calculate

OPEN, EQUALS, CLOSE = "<<", "=", ">>"
CALL = re.compile(rf"{OPEN}(?P<expression>[^<>=\n]{{1,100}}){EQUALS}\Z")
REACH = 120  # tokens in which a call has to stand: its characters, each a token at worst


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
