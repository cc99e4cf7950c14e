"""Condition on good performance: a model imitates all the answers it has read, good and bad, so ask for a good one.

The persona of an expert, and the instruction found to work best by automatic search (Zhou et al. 2022, "Large language
models are human-level prompt engineers"; MultiArith 78.7 -> 82.0 for text-davinci-002). It may help a large model; on a
small one expect nothing.
"""

from __future__ import annotations

from jupyter_gpt.prompting.ask import Ask, Asked, format_template, text_of, with_text
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "persona": "You are a leading expert {field}. Answer as such an expert would, correctly and "
    "completely.\n\n{question}",
    "persona_document": "This question was answered by a leading expert {field}: {question}",
    "trigger": "Let's work this out in a step by step way to be sure we have the right answer.",
}


def expert(solve):
    """The solver, prompted as an expert."""

    def solve_as_expert(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
        texts = ask.templates("expert", TEMPLATES)
        field = f"in {options.expert}" if isinstance(options.expert, str) else "on this topic"
        persona = texts["persona" if ask.chat else "persona_document"]
        text = format_template(persona, field=field, question=text_of(question))
        return solve(ask, with_text(question, text), options.replace(trigger=texts["trigger"]), samples)

    return solve_as_expert
