"""`%%compare`: the same prompts with the same seeds to several models, side by side, and blind votes for the best.

Each prompt and seed is a question with one completion per model. Votes are kept as rankings of exactly these texts: the
same comparison finds its votes again, and one with other texts begins anew beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.ask import Asked
from jupyter_gpt.report.differences import differences
from jupyter_gpt.report.parts import Inline, Part, Samples, Span
from jupyter_gpt.stages.rank import (
    Tick,
    check_prompts,
    check_several,
    entry_of,
    prompts_sent,
    sample,
    shuffled,
    texts_of,
)
from jupyter_gpt.stages.ranking_task import GREEN, TIE, RankingTask, folded, written
from jupyter_gpt.stages.rankings import Question, Ranking


class Comparison(RankingTask):
    """Questions whose completions are in the models' order, and the votes for them."""

    kind = "compare"
    best_only = True

    @property
    def outcome(self) -> str:
        """The votes; nothing where nobody was asked for one, or has given one yet."""
        return super().outcome if self.labellers else ""

    @property
    def legend(self) -> str:
        asking = " · --blind asks for votes without naming the models" if self.missing else ""
        return f"tinted: words that no other completion has{asking}"

    @property
    def title(self) -> str:
        return f"compare {', '.join(self.models)}"

    def body(self, blind: bool) -> list[Part]:
        rows = [(prompt, side_by_side(question, answer)) for prompt, question, answer in self.numbered()]
        return folded(rows, lambda some: [Samples(self.models, some)], blind)

    @property
    def votes(self) -> list[str | None]:
        """The vote on each question: the name of the best model, `tie`, or None if there is no vote."""
        return [self.models[choice] if isinstance(choice, int) else choice for choice in self.choices]

    @property
    def tally(self) -> dict[str, int]:
        """How many votes each model and `tie` have."""
        votes = self.votes
        return {name: votes.count(name) for name in (*self.models, TIE)}

    @property
    def table(self):
        """A DataFrame: prompt, seed, a column of texts per model, and the vote (None where there is none)."""
        import pandas

        rows = [
            {"prompt": q.prompt, "seed": q.completions[0]["seed"], **dict(zip(self.models, q.texts, strict=True))}
            for q in self.questions
        ]
        return pandas.DataFrame(rows).assign(vote=pandas.Series(self.votes, dtype="object"))

    def vote(self, row: int, best: str, by: str | None = None) -> None:
        """Vote for the model that wrote the best completion of a question, or `tie`; replaces an earlier vote there.

        Raises GPTError for what is neither.
        """
        if best not in (*self.models, TIE):
            raise GPTError(f"a vote is for {', '.join(self.models)} or {TIE}, not {best!r}{nearest(best, self.models)}")
        self.choose(row, self.models.index(best) if best in self.models else None, by)

    def __repr__(self) -> str:
        without = f"{len(self.missing)} without a vote"
        return f"<comparison of {', '.join(self.models)}: {len(self.questions)} rows, {without}>"


def compare(
    gpt,
    models: Sequence[str],
    prompts: Sequence[Asked],
    *,
    rankings: str | None = None,
    samples: int = 1,
    seed: int = 0,
    tick: Tick | None = None,
    **options,
) -> Comparison:
    """Give the same prompts with the same seeds to each model; `options` are those of `gpt.prompts`.

    `rankings` names the file that keeps the votes (default: MODEL-vs-MODEL). `tick(what, done, total, tokens)` reports
    progress. An interrupt ends it and keeps nothing. Raises GPTError for fewer than two models, one twice, an unknown
    one, and no prompt or one twice.
    """
    models = [models] if isinstance(models, str) else list(models)
    prompts, chats = texts_of(prompts)
    check_several(gpt, models, "%%compare MODEL MODEL")
    check_prompts(prompts)
    if samples < 1:
        raise GPTError(f"--samples is at least 1, not {samples}")
    file = gpt.rankings.named(rankings or shortened("-vs-".join(models)))
    settings = {**options, "seed": seed, "samples": samples}
    questions = []
    batches = sample(gpt, prompts, models, settings, tick, chats=chats)
    for prompt, *completions in (row for batch in batches for row in batch):
        number, sent = len(questions) // samples, prompts_sent(models, completions)
        for k in range(samples):
            entries = (entry_of(m, c.samples[k], seed + k) for m, c in zip(models, completions, strict=True))
            shown = shuffled(len(models), f"{seed + k} {number} {prompt}")
            questions.append(Question(prompt, tuple(entries), shown, sent, messages=chats.get(prompt, ())))
    return Comparison(file, questions, models, settings, anybody=True)


def shortened(name: str) -> str:
    """The name, or as much of it as a name may have with a digest of the whole."""
    return name if len(name) <= 64 else f"{name[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def side_by_side(question: Question, answer: Ranking | None) -> list[Inline]:
    """What each model wrote to one prompt, words that no other has tinted, the best marked."""
    pieces = differences([text.strip() for text in question.texts])
    best = answer.order[0] if answer else ()
    mark = Span("tie" if len(best) > 1 else "✓ best", "bold", GREEN)
    return [
        [mark, "\n"] * (place in best) + written(each, of_text)
        for place, (each, of_text) in enumerate(zip(question.completions, pieces, strict=True))
    ]
