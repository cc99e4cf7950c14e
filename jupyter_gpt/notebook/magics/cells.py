"""The cell magics: each calls one function of the session with the options of its line and its body, and shows the
result.
"""

from __future__ import annotations

import time
from contextlib import nullcontext

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics.notebook import show, watch
from jupyter_gpt.notebook.magics.options import Magic


def corpus(gpt, given: dict, ip, cell: str):
    """Declares the corpus and displays its table."""
    from jupyter_gpt.notebook.views.place import Place

    with Place() as place:
        place.loading("the sources")
        from jupyter_gpt.stages.corpus import corpus_report

        corpus = gpt.corpus(mixture=cell, variables=ip.user_ns, **given)
        place.put(corpus_report(corpus))
    return corpus


def prompts_of(cell: str, variables: dict) -> list[str]:
    """The prompts in a body, one per line, with their `{variable}` holes filled."""
    from jupyter_gpt.data.render import fill

    return [fill(text.strip(), variables)[0] for text in cell.splitlines() if text.strip()]


class TrainingMagic(Magic):
    """The magic of a stage that trains."""

    def does(self, gpt, given: dict, ip, cell: str = ""):
        """Trains, with the live view, until the run ends; returns the model, or with `--background` the run."""
        background = given.pop("background", False) or given.get("detach", False)
        others = [gpt.runs[other] for other in given.pop("beside", None) or ()]
        body = next((name for name in self.options.model_fields if self.options.details(name).get("body")), None)
        if body is not None and cell.strip():
            given[body] = prompts_of(cell, ip.user_ns) if body == "prompts" else cell
        run = getattr(gpt, self.stage)(**given, background=True, variables=ip.user_ns)
        if given.get("dry_run"):
            show(run)
            return run
        if self.stage == "sft" and run.here and not background:
            show_conversations(gpt, run)
        watch(run, others, background)
        return run if background or run.name not in gpt.models else gpt.models[run.name]


def show_conversations(gpt, run) -> None:
    """Waits until the run's conversations are tokenized, and shows the first of them; nothing if the run failed."""
    from jupyter_gpt.data.chat import with_template
    from jupyter_gpt.data.conversation_dataset import Conversations
    from jupyter_gpt.notebook.views.conversations import conversations_report

    written = run.folder / "data" / "conversations.json"
    try:
        while run.alive and not written.exists():
            time.sleep(0.02)
    except BaseException:
        run.stop()
        raise
    if written.exists() and run.status != "failed":  # after a failure an earlier run of that name is restored
        tokenizer = with_template(gpt.models[run.recipe["adapter"] or run.recipe["base"]].tokenizer)
        show(conversations_report(run.name, Conversations.open(run.folder / "data"), tokenizer))


class RankingMagic(Magic):
    """Samples, shows the completions and, where a person is present, the form that asks for the missing rankings."""

    def does(self, gpt, given: dict, ip, cell: str | None = None):
        from jupyter_gpt.notebook.views.rank import Page

        blind = given.pop("blind", "blind" not in self.options.model_fields)
        form = not given.pop("no_form", False) and blind
        if cell is not None:
            given["prompts"] = prompts_of(cell, ip.user_ns)
        with Page() as page:
            task = getattr(gpt, self.class_name.lower())(tick=page.working, **given)
            page.show(task, form=form)
        return task


class LoadingMagic(Magic):
    """The magic of a stage whose first word is a model or an index: says that it is loaded before all else."""

    def run(self, ip, line: str, *cell: str) -> None:
        from jupyter_gpt.notebook.views.place import announced

        with nullcontext() if "--help" in line else announced(line.partition(" ")[0]):
            super().run(ip, line, *cell)


def prompt(gpt, given: dict, ip, cell: str):
    """Prompts, showing the answer as it grows; an interrupted answer is kept, and the cell passes."""
    from jupyter_gpt.data.render import turns
    from jupyter_gpt.inference.completion_report import completion_report, prompt_report
    from jupyter_gpt.notebook.views.place import Writing
    from jupyter_gpt.prompting.template import is_template
    from jupyter_gpt.stages.prompt import uses_technique

    body = cell.strip("\n")
    if given.get("model") in gpt.models and len(getattr(gpt.models.about(given["model"]), "labels", None) or ()) > 1:
        return labels(gpt, given, body)
    chat = turns(body)
    question = chat or body
    template = "{{" in body and any(map(is_template, [turn["content"] for turn in chat] if chat else [body]))
    if uses_technique(given):
        if template:
            raise GPTError("a template is filled in one pass and cannot be combined with a technique: remove one")
        return show_trace(gpt.prompt, question, ip.user_ns, given, bool(given.get("react") or given.get("tools")))
    send = gpt.template if template else gpt.prompt
    with Writing() as writing:
        completion = send(question, variables=ip.user_ns, on_token=writing.show, **given)
        if given.get("dry_run"):
            writing.put(prompt_report(completion))
        else:
            tokenizer = None if completion.remote else gpt.models[completion.model].tokenizer
            writing.put(completion_report(completion, tokenizer))
    if template:
        ip.push(holes_of(completion))
    return completion


def labels(gpt, given: dict, body: str):
    """The labels of a classifier for each line of the body."""
    from jupyter_gpt.models.scoring import labels_report

    if other := next((name for name in given if name not in ("model", "out")), None):
        raise GPTError(f"--{other.replace('_', '-')} is not for a classifier: {given['model']} labels each line")
    found = gpt.models[given["model"]].classify([line for line in body.splitlines() if line.strip()])
    show(labels_report(given["model"], found))
    return found


def holes_of(completion) -> dict:
    """The holes of a template as variables: lists of them where there were several samples."""
    values = [sample.value for sample in completion.samples]
    names = next((list(value) for value in values if value), [])
    if len(values) == 1:
        return values[0] or {}
    return {name: [value and value[name] for value in values] for name in names}


def agent(gpt, given: dict, ip, cell: str):
    """Works on the goal, showing the tree as it grows; an interrupted agent keeps its results so far."""
    return show_trace(gpt.agent, cell.strip("\n"), ip.user_ns, given, acts=True)


def show_trace(send, question, variables, given: dict, acts: bool):
    """Shows the tree of calls as it grows, then the answer with the whole tree; returns the completion.

    acts: whether tools may be called, for which a person is asked.
    """
    from jupyter_gpt.notebook.views.approval import Asking
    from jupyter_gpt.notebook.views.trace_live import Growing
    from jupyter_gpt.prompting.trace import trace_report, unsent_report

    with Growing() as growing, Asking(growing.shown) if acts else nullcontext() as person:
        approving = {"person": person} if acts else {}
        completion = send(question, variables=variables, on_trace=growing.show, **approving, **given)
        growing.put(unsent_report(completion) if given.get("dry_run") else trace_report(completion))
    return completion


def rag(gpt, given: dict, ip, cell: str):
    """Answers from the index, showing the answer as it grows; an interrupted answer is kept, and the cell passes."""
    from jupyter_gpt.inference.completion_report import prompt_report
    from jupyter_gpt.notebook.views.place import Writing
    from jupyter_gpt.retrieval.index_map import index_map
    from jupyter_gpt.stages.rag import answer_report

    with Writing() as writing:
        answer = gpt.rag(cell, variables=ip.user_ns, on_token=writing.show, **given)
        if given.get("dry_run") and answer.completion is not None:
            writing.put(prompt_report(answer.completion))
        else:
            index = gpt.indexes[answer.index]
            question = index.vectors([answer.asked])[0]
            writing.put(answer_report(answer, index_map(index, question, answer.hits or answer.left)))
    return answer


CELLS: dict[str, Magic] = {
    "agent": LoadingMagic("prompt_options", "Agent", agent),
    "classify": TrainingMagic("classify", "Classify"),
    "compare": RankingMagic("ranking_options", "Compare"),
    "corpus": Magic("corpus", "CorpusOptions", corpus),
    "pretrain": TrainingMagic("pretrain", "Pretrain"),
    "prompt": LoadingMagic("prompt_options", "Prompt", prompt),
    "rag": Magic("prompt_options", "Rag", rag),
    "rank": RankingMagic("ranking_options", "Rank"),
    "rlhf": TrainingMagic("rlhf", "RLHF"),
    "sft": TrainingMagic("sft", "SFT"),
}
