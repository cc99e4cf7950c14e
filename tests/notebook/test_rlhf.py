"""`%%rlhf` and `%gpt reward` as a notebook without a person runs them."""

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.options import parse
from jupyter_gpt.stages.rlhf_options import RLHF


def polite(prompt, completion):
    return 1.0


def test_a_line_becomes_what_the_session_takes():
    line = (
        "aligned --policy assistant --algo grpo --reward $polite judge --reward-weights 1 0.5 --steps 40 --kl 0.1 "
        "--samples 8"
    )
    given = parse(CELLS["rlhf"].COMMAND, line, {"polite": polite})
    assert given["reward"] == [polite, "judge"] and given["reward_weights"] == [1.0, 0.5] and given["steps"] == 40


def test_an_unknown_algorithm_is_one_line():
    with pytest.raises(GPTError, match=r"^--algo is ppo, grpo, dpo or a \$variable, not 'pop' \(did you mean ppo\?\)$"):
        RLHF.of(name="a", policy="m", algo="pop")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a", "requires --policy"),
        ("a --policy m --reward $nobody", "no variable nobody"),
        ("a --policy m --steps x", "whole number"),
        ("a --policy m --missing-eos-penalty much", "a number"),
    ],
)
def test_bad_lines_are_one_line(line, message):
    with pytest.raises(GPTError, match=message) as error:
        parse(CELLS["rlhf"].COMMAND, line, {"polite": polite})
    assert "\n" not in str(error.value)
