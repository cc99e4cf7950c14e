"""A rule that an endpoint did not keep: its answers are validated here, and asked for once more where they fail.

Servers differ in what they enforce, and some ignore what they do not know. So nothing is taken on trust, and the
completion's notes say what happened. A chat is told what was wrong; a base model's document is drawn again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from jupyter_gpt.data.render import Prompt
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.inference.constraint_validation import settle
from jupyter_gpt.inference.rules import Rule

REPAIR = "That answer is not valid: {problem}. Answer again, with nothing but {wanted}."
AGAIN = 1_000_003  # what the seed of a second try is away from the first one's


def repaired(
    endpoint,
    prompts: Sequence[Prompt],
    found: Sequence[Completion],
    sampling: Sampling,
    rule: Rule,
    ask: Callable[[list, Sampling], list[Completion]],
) -> None:
    """Settle the answers `found` to `prompts`, those that broke the rule after a second try.

    ask(what, sampling) sends again; it gives fewer answers when it was broken off. Answers that were cut off are not
    asked for again.
    """
    broken = [
        (prompt, answer, sample, problem)
        for prompt, answer in zip(prompts, found, strict=True)
        for sample in answer.samples
        if (problem := rule.problem(sample.text)) and sample.finish_reason == "stop" and not sample.interrupted
    ]
    again = [second(endpoint, prompt, sample.text, problem, rule) for prompt, _, sample, problem in broken]
    new = ask(again, replace(sampling, samples=1, seed=sampling.seed + AGAIN)) if again else []
    for (_, answer, sample, problem), sent, made in zip(broken, again, new, strict=False):
        kept = rule.problem(made.text) is None
        sample.notes += (
            f"the endpoint did not keep to it ({problem}) and was asked once more" + ("" if kept else ", in vain"),
        )
        both = Usage(
            answer.usage.prompt_tokens + made.usage.prompt_tokens,
            answer.usage.completion_tokens + made.usage.completion_tokens,
            answer.usage.seconds + made.usage.seconds,
            None if None in (answer.usage.cost, made.usage.cost) else answer.usage.cost + made.usage.cost,
        )
        for one in answer.samples:
            one.usage = both
        for name in ("text", "tokens", "logprobs", "top", "finish_reason"):
            setattr(sample, name, getattr(made, name))
        if isinstance(sent, list):
            sample.messages, sample.prompt = sent, json.dumps(sent, ensure_ascii=False, indent=1)
    for answer in found:
        settle(answer.samples, rule, [True] * len(answer.samples))


def second(endpoint, prompt: Prompt, text: str, problem: str, rule: Rule) -> list[dict] | str:
    """What is sent the second time."""
    if not endpoint.has_chat:
        return prompt.text
    wanted = rule.words
    if rule.kind == "json":
        wanted = f"JSON of this schema: {json.dumps(rule.what, ensure_ascii=False)}" if rule.what else "JSON"
    return [
        *prompt.messages,
        {"role": "assistant", "content": text},
        {"role": "user", "content": REPAIR.format(problem=problem, wanted=wanted)},
    ]
