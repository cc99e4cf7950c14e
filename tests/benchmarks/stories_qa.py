"""From completing to answering: held-out questions about stories, right or wrong, as a small base is finetuned.

    python tests/benchmarks/stories_qa.py [--pretrain 600] [--steps 500] [--every 125] [--questions 300]
        [--lora RANK] [--no-rows] [--lr X]

Pretrains a base (`stories: 3, python: 1`, depth 4), then finetunes it on `stories-qa`, and asks at fixed
steps: each held-out question is prompted as at inference, the likeliest tokens are taken, and the answer has to be
exact. With --lora an adapter is trained, and the rows of the chat tokens with it, unless --no-rows leaves them as the
base has them. Also prints how many are right by kind of question and by length of the story. Expected: the base under
5%, over 90% after two minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from jupyter_gpt.data.split import place
from jupyter_gpt.data.stories_qa import Question, questions_of

HELD_OUT = 0.05  # of all stories: the share that `split` holds out of many documents


def is_correct(question: Question, answer: str) -> bool:
    """Whether `answer` is the fact asked for, as a sentence or its value alone; case, article and full stop aside."""
    return normalized(answer) in (normalized(question.fact.answer), normalized(question.fact.value))


def normalized(text: str) -> str:
    return re.sub(r"^(a|an|the) ", "", " ".join(text.lower().split()).rstrip(" ."))


def held_out(seed: int | str = 0) -> Iterator[Question]:
    """Single questions about held-out stories, as they begin a conversation, without end."""
    for index in count():
        question = questions_of(f"held-out {seed}", index, 1)[0]
        if place(question.story, "stories-qa") < HELD_OUT:
            yield question


def answers(model, tokenizer, ends: frozenset[int], questions: list[Question]) -> list[str]:
    """The likeliest answer to each question."""
    from jupyter_gpt.data import render
    from jupyter_gpt.inference.engine import generate
    from jupyter_gpt.inference.sampling import Request

    asked = [render.render("model", tokenizer, render.Question(question.messages)).ids for question in questions]
    requests = [Request(tuple(ids), max_tokens=32, temperature=0.0, stop_ids=ends) for ids in asked]
    said: list[list[int]] = [[] for _ in requests]
    for token in generate(model, requests):
        if token is not None and token.id not in ends:
            said[token.request].append(token.id)
    return [tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) for ids in said]


def report(questions: list[Question], said: list[str]) -> None:
    """Right answers by the fact that was asked for, the commonest first."""
    asked, good = Counter(q.fact.relation for q in questions), Counter()
    for question, answer in zip(questions, said, strict=True):
        good[question.fact.relation] += is_correct(question, answer)
    print(", ".join(f"{relation} {good[relation]}/{count}" for relation, count in asked.most_common(12)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pretrain", type=int, default=600)
    options.add_argument("--steps", type=int, default=500)
    options.add_argument("--every", type=int, default=125)
    options.add_argument("--questions", type=int, default=300)
    options.add_argument("--lora", type=int)
    options.add_argument("--no-rows", action="store_true")
    options.add_argument("--lr", type=float)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JUPYTER_GPT_HOME"] = folder
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from helpers.recipes import finetuning_recipe
        from jupyter_gpt import gpt
        from jupyter_gpt.models.scoring import result_of
        from jupyter_gpt.nn.chat_tokens import untrained
        from jupyter_gpt.nn.lora import copied, lora, with_shared_weights
        from jupyter_gpt.runs.events import Step
        from jupyter_gpt.stages.sft_training import fitted, prepare

        gpt.pretrain("storyteller", {"stories": 3, "python": 1}, depth=4, steps=given.pretrain)
        base = gpt.models["storyteller"]
        seconds = gpt.runs["storyteller"].history["seconds"].iloc[-1]
        print(f"base: {base.parameters:,} parameters, {given.pretrain} steps in {seconds:.0f} s")
        tokens = [] if given.no_rows else untrained(base.module, base.tokenizer)
        model = lora(with_shared_weights(base.module), given.lora, tokens=tokens) if given.lora else copied(base.module)
        recipe = finetuning_recipe(
            {"stories-qa": 1.0},
            "storyteller",
            steps=given.steps,
            lora=given.lora,
            lr=given.lr,
            eval_every=10**9,
            sample_every=10**9,
        )
        recipe = result_of(fitted(recipe, model))
        training = result_of(prepare(recipe, Path(folder), model, base.tokenizer))
        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(f"{training.recipe.optimizer}, lr {training.recipe.lr:g}, {learned:,} parameters trained")
        training.held_out, training.questions = {}, []
        questions = list(islice(held_out(0), given.questions))

        def ask(step: int) -> list[str]:
            said = answers(model, training.tokenizer, training.ends, questions)
            share = sum(map(is_correct, questions, said)) / len(questions)
            print(
                f"step {step:4d}  {training.tokens:9,} tokens  {training.seconds:4.0f} s  {share:6.1%} right",
                flush=True,
            )
            return said

        ask(0)
        for event in training.loop():
            if isinstance(event, Step) and (event.step % given.every == 0 or event.step == given.steps):
                said = ask(event.step)
        report(questions, said)


if __name__ == "__main__":
    main()
