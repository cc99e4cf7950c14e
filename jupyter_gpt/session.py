"""The session: the one object `gpt`, with everything the magics do as plain functions.

A magic parses its line and body, calls one function here, and shows what it returns; a script or a test does the same.
What trains is a function of its own module, taken in as a method.
"""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.models.endpoints import Endpoint, EndpointOptions
from jupyter_gpt.models.models import Models
from jupyter_gpt.notebook.views import inspect as look
from jupyter_gpt.options import method
from jupyter_gpt.report.parts import Paragraph
from jupyter_gpt.report.report import Report, ShownAsTable
from jupyter_gpt.retrieval.embedders import Embedders
from jupyter_gpt.retrieval.indexes import Indexes
from jupyter_gpt.runs.run import Runs
from jupyter_gpt.stages import (
    claims,
    classify,
    corpus,
    delete,
    index,
    models,
    plan,
    pretrain,
    push,
    ranking_options,
    reward,
    rlhf,
    runs,
    serve,
    sft,
    tokens,
)
from jupyter_gpt.stages import prompt_options as options
from jupyter_gpt.stages.arena import arena
from jupyter_gpt.stages.checkpoints import at_step
from jupyter_gpt.stages.compare import compare
from jupyter_gpt.stages.corpus import Corpora
from jupyter_gpt.stages.evaluate import evaluate
from jupyter_gpt.stages.evaluate_index import EvaluateIndex, evaluate_index
from jupyter_gpt.stages.evaluate_tasks import EvaluateTasks, evaluate_tasks
from jupyter_gpt.stages.prompt import Prompting, prompt, uses_technique
from jupyter_gpt.stages.prompt_techniques import prompt_batch, prompt_with_techniques
from jupyter_gpt.stages.rag import rag
from jupyter_gpt.stages.rank import rank
from jupyter_gpt.stages.rankings import AllRankings
from jupyter_gpt.stages.serve import Serving
from jupyter_gpt.stages.template import template


def ask_one(session, given: options.Prompt) -> Completion:
    """Raises GPTError, one line, for what cannot be asked."""
    given = at_step(session, given)
    if uses_technique(given.chosen):
        return prompt_with_techniques(session.models, session.prompting, given.text, given, indexes=session.indexes)
    return prompt(session.models, session.prompting, [given.text], given)[0]


def ask_many(session, given: options.Prompts) -> list[Completion]:
    """The completions in order."""
    if uses_technique(given.chosen):
        return prompt_batch(session.models, session.prompting, given.texts, given, session.indexes)
    return prompt(session.models, session.prompting, given.texts, given)


def run_agent(session, given: options.Agent) -> Completion:
    """The completion's `trace` has every call, and in `trace["result"]` what was done and what was left."""
    return prompt_with_techniques(session.models, session.prompting, given.goal, given, indexes=session.indexes)


def declare_endpoint(session, given: EndpointOptions) -> Endpoint:
    """Raises GPTError for the name of a model that is none."""
    if given.name in session.models and session.models.about(given.name).kind != "endpoint":
        raise GPTError(f"{given.name} is a model of this kernel: choose another name for the endpoint")
    return session.models.endpoints.declare(given)


class Session(ShownAsTable):
    """Models, runs and corpora of this kernel and of the folder it works in."""

    pretrain = method(pretrain.Pretrain, pretrain.pretrain)
    sft = method(sft.SFT, sft.sft)
    classify = method(classify.Classify, classify.classify)
    reward = method(reward.RewardModel, reward.reward)
    rlhf = method(rlhf.RLHF, rlhf.rlhf)
    stop = method(runs.Stop, runs.stop)
    resume = method(runs.Resume, runs.resume)
    corpus = method(corpus.CorpusOptions, corpus.corpus)
    pull = method(models.Pull, models.pull)
    load = method(models.Load, models.load)
    unload = method(models.Unload, models.unload)
    save = method(models.Save, models.save)
    merge = method(models.Merge, models.merge)
    push = method(push.Push, push.push)
    rename = method(delete.Rename, delete.rename)
    delete = method(delete.Delete, delete.delete)
    search = method(index.Search, index.search)
    index = method(index.Index, index.index)
    batch = method(tokens.Batch, tokens.batch)
    tokens = method(tokens.Tokens, tokens.tokens)
    plan = method(plan.Plan, plan.plan)
    show = method(look.Show, look.show)
    serve = method(serve.Serve, serve.serve)
    prompt = method(options.Prompt, ask_one, "prompt")
    prompts = method(options.Prompts, ask_many, "prompts")
    template = method(options.Template, lambda session, given: template(session, at_step(session, given)), "template")
    agent = method(options.Agent, run_agent, "agent")
    rag = method(options.Rag, rag)
    rank = method(ranking_options.Rank, lambda session, given: rank(session, **given.chosen), "rank")
    compare = method(ranking_options.Compare, lambda session, given: compare(session, **given.chosen), "compare")
    arena = method(ranking_options.Arena, lambda session, given: arena(session, **given.chosen), "arena")
    evaluate = method(options.Evaluate, evaluate)
    evaluate_index = method(EvaluateIndex, evaluate_index)
    evaluate_tasks = method(EvaluateTasks, evaluate_tasks)
    endpoint = method(EndpointOptions, declare_endpoint, "endpoint")
    claim = method(claims.ClaimOptions, claims.claim)

    def __init__(self):
        self.runs = Runs()
        self.models = Models(self.finish_first)
        self.corpora = Corpora()
        self.prompting = Prompting()
        self.rankings = AllRankings()
        self.serving = Serving(self.models)
        self.indexes = Indexes(Embedders(self.models))
        self.claims = claims.Claims()
        self.answered: dict[tuple[str, str], list[tuple[str, str]]] = {}  # (index, model): questions with their answers

    @property
    def report(self) -> Report:
        """The tables of models and runs, and the names of what else there is."""
        others = {"corpora": self.corpora, "rankings": self.rankings, "indexes": self.indexes}
        names = [Paragraph(f"{what}: {', '.join(found)}") for what, found in others.items() if found]
        parts = [*self.models.report.parts, Paragraph(""), *self.runs.report.parts, *names]
        return Report("", parts, {"view": "session"})

    @property
    def home(self) -> Path:
        """The folder everything is kept in."""
        return store.home()

    def finish_first(self, name: str) -> None:
        """Wait for a run of this kernel that is still making `name`. Raises GPTError for one of other processes, where
        there is no older model of that name."""
        if name not in self.runs:
            return
        run = self.runs[name]
        if run.here:
            run.wait()
        elif run.held and name not in self.models:
            raise GPTError(
                f"{name} is {run.status} in a separate process (step {run.step:,} of {run.steps:,}): %gpt show "
                f"{name} follows it, %%prompt {name} --step latest prompts its last checkpoint"
            )

    @property
    def last(self) -> Completion:
        """The last completion. Raises GPTError when there is none yet."""
        if self.prompting.last is None:
            raise GPTError("nothing was prompted yet: %%prompt asks a model")
        return self.prompting.last


gpt = Session()
