"""A calculator inside the text: where a model writes `<<37*412=`, the result is put there, and it writes on.

The calls of GSM8K's solutions (Cobbe et al. 2021, "Training verifiers to solve math word problems") and of Toolformer
(Schick et al. 2023), and nanochat's idea of how to serve them: the result is not sampled but forced, token by token,
and the model reads it as if it had written it. No turn is taken, no prompt is sent anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from jupyter_gpt.prompting.tools.calculator import calculate

OPEN, EQUALS, CLOSE = "<<", "=", ">>"
CALL = re.compile(rf"{OPEN}(?P<expression>[^<>=\n]{{1,100}}){EQUALS}\Z")
REACH = 120  # tokens in which a call has to stand: its characters, each a token at worst


class Inline:
    """The engine's Constraint of one sample: nothing is masked, results are forced. `results` counts them."""

    def __init__(self, decode: Callable[[list[int]], str], encode: Callable[[str], list[int]]):
        self.decode, self.encode = decode, encode
        self.said: list[int] = []
        self.due: list[int] = []
        self.results = 0

    def mask(self) -> None:
        """Every token is allowed."""

    def forced(self) -> list[int]:
        """The tokens of a result, when the text has just asked for one."""
        return self.due

    def accept(self, id: int) -> None:
        """Told of each token that the sample gained."""
        self.said.append(id)
        if self.due:
            self.due = self.due[1:]
            return
        asked = CALL.search(self.decode(self.said[-REACH:]))
        if asked is None:
            return
        try:
            result = calculate(asked["expression"])
        except Exception as error:  # whatever is wrong with an expression that a model wrote: it may read that
            result = f"? {type(error).__name__}"
        self.results += 1
        self.due = self.encode(f"{result}{CLOSE}")


def inline_calculator(tokenizer) -> Callable[[], Inline]:
    """What a `Request` takes as its constraint, for a model that was trained to write such calls."""
    from jupyter_gpt.data.render import encode
    from jupyter_gpt.inference.detokenize import decoder

    decode = decoder(tokenizer)
    return lambda: Inline(decode, lambda text: encode(tokenizer, text))
