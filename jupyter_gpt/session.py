"""The session: the one object `gpt`, with everything the magics do as plain functions.

A magic parses its line and body, calls one function here, and shows what it returns; a script or a test does the same.
What trains is a function of its own module, taken in as a method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.arguments import command
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.models.endpoints import Endpoint
from jupyter_gpt.models.models import Model, Models
from jupyter_gpt.notebook.views import inspect as look
from jupyter_gpt.options import method
from jupyter_gpt.retrieval.embedders import Embedders
from jupyter_gpt.retrieval.indexes import Indexes, index
from jupyter_gpt.runs.run import Run, Runs
from jupyter_gpt.stages import classify, pretrain, reward, rlhf, sft
from jupyter_gpt.stages.arena import Arena, arena
from jupyter_gpt.stages.compare import Comparison, compare
from jupyter_gpt.stages.corpus import Corpora, Corpus
from jupyter_gpt.stages.evaluate import evaluate
from jupyter_gpt.stages.evaluate_index import evaluate_index
from jupyter_gpt.stages.launch import resume
from jupyter_gpt.stages.merge import merge
from jupyter_gpt.stages.prompt import (
    Prompting,
    plain_options,
    prompt,
    prompt_batch,
    prompt_with_techniques,
    uses_technique,
)
from jupyter_gpt.stages.rag import rag
from jupyter_gpt.stages.rank import RankingTask, rank
from jupyter_gpt.stages.rankings import AllRankings
from jupyter_gpt.stages.serve import Server, Serving

STAGES = "jupyter_gpt.stages"
ASKING = ("jupyter_gpt.stages.prompt:prompt_with_techniques", "jupyter_gpt.stages.prompt:prompt")  # options of prompts
INTERNAL = ("indexes", "send", "call_user", "form", "on_all", "deadline")  # of these, what only the session gives


class Session:
    """Models, runs and corpora of this kernel and of the folder it works in."""

    pretrain = method(pretrain.Pretrain, pretrain.pretrain)
    sft = method(sft.SFT, sft.sft)
    classify = method(classify.Classify, classify.classify)
    reward = method(reward.RewardModel, reward.reward)
    rlhf = method(rlhf.RLHF, rlhf.rlhf)
    merge = command()(merge)
    resume = command()(resume)
    evaluate = command(*ASKING, without=("model", *INTERNAL))(evaluate)
    index = command()(index)
    evaluate_index = command(*ASKING, without=("model", *INTERNAL))(evaluate_index)
    rag = command(*ASKING, without=INTERNAL)(rag)
    search = command("jupyter_gpt.retrieval.indexes:KeptIndex.search")(look.search)
    tokens = command()(look.tokens)
    batch = command()(look.batch)
    plan = command(f"{STAGES}.planning:plan", without=("stages",))(look.plan)
    show = command()(look.show)

    def __init__(self):
        self.runs = Runs()
        self.models = Models(self.finish_first)
        self.corpora = Corpora()
        self.prompting = Prompting()
        self.rankings = AllRankings()
        self.serving = Serving(self.models)
        self.indexes = Indexes(Embedders(self.models))
        self.answered: dict[tuple[str, str], list[tuple[str, str]]] = {}  # (index, model): questions with their answers

    @property
    def home(self) -> Path:
        """The folder everything is kept in."""
        return store.home()

    def finish_first(self, name: str) -> None:
        """Wait for a run of this kernel that is still making `name`."""
        if name in self.runs and self.runs[name].alive:
            self.runs[name].wait()

    @command()
    def pull(
        self, source: str, name: str | None = None, *, overwrite: bool = False, progress: Callable | None = None
    ) -> Model:
        """Bring a published model into the user's cache, under `name` or its own name; it is loaded when first used.

        `source` is a name of the catalogue or of the hub, a folder, or a `.gguf` file; `progress(what, done, total)` is
        told how many bytes have come. Raises GPTError, one line, for what cannot be had or is not safe to read.
        """
        from jupyter_gpt.models.pull import pull

        return pull(self.models, source, name, overwrite, progress)

    @command()
    def load(self, name: str, *, dtype: str | None = None, device: str | None = None) -> Model:
        """Bring a model into memory, in `dtype` (float32, bfloat16, float16) on `device` (cpu, cuda, cuda:1).

        Raises GPTError when it is damaged or does not fit; the message says what would.
        """
        return self.models.load(name, dtype, device)

    @command()
    def unload(self, name: str) -> Model:
        """Take a model out of memory and give that back to the system; it stays on disk and loads at its next use."""
        self.models.unload(name)
        return self.models.about(name)

    @command()
    def save(self, name: str, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a model to `folder` as a plain transformers folder, which loads anywhere without this package.

        An adapter is written as peft writes it; the README.md in its folder says how it loads together with its base.
        A folder that this cell filled, or that holds this model as it was made before, is written anew. Raises GPTError
        for one with another model, unless `overwrite`, and for one with anything else in it.
        """
        from jupyter_gpt.models.save import save

        self.finish_first(name)
        model = self.models.about(name)
        return save(
            model, Path(folder), overwrite, self.models.folder(model.base) if getattr(model, "base", None) else None
        )

    @command()
    def corpus(
        self,
        name: str,
        mixture: Mapping[str, float] | str,
        *,
        tokens: int | None = None,
        variables: Mapping | None = None,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Corpus:
        """Declare the weighted mixture `mixture` (a mapping, or its YAML) as `name`, and count what is in it.

        `tokens` is the length of the run to reckon epochs for. Raises GPTError for a source that is missing, empty or
        unreadable, a weight that is none, and a name that another cell gave to another mixture, unless `overwrite`.
        """
        from jupyter_gpt.data import mixture as mixtures

        store.check_name(name)
        weights = mixtures.parse(mixture) if isinstance(mixture, str) else mixtures.check(mixture)
        new = self.corpora.new(name, weights, overwrite)
        return self.corpora.keep(replace(new, rows=mixtures.survey(weights, variables, seed, tokens)))

    @command("jupyter_gpt.stages.compare:compare", *ASKING, without=("model", *INTERNAL))
    def compare(self, models: Sequence[str], prompts: Sequence[str], **options) -> Comparison:
        """The same prompts with the same seeds to each of `models`, side by side, to be voted on.

        `options` are those of `gpt.prompts`, and `rankings`, the name under which the votes are kept. Raises GPTError
        for fewer than two models, one twice, an unknown one, and no prompt or one twice.
        """
        return compare(self, models, prompts, **options)

    @command("jupyter_gpt.stages.rank:rank", *ASKING, without=INTERNAL)
    def rank(self, name: str, prompts: Sequence[str] = (), **options) -> RankingTask:
        """Sample completions of each prompt and have them ranked; the answers are `gpt.rankings[name]`.

        `options`: `model` (or several), `samples` (4), `seed`, `by` (whose answers are asked for: person), `judge` (a
        function `f(prompt, completion) -> float`, or a model), `rankings_file` (what others said), and those of
        `gpt.prompts`. Nothing waits for a person: see `.missing` and `.rank(i, order)`. Raises GPTError, one line, for
        what cannot be ranked.
        """
        return rank(self, name, prompts, **options)

    @command("jupyter_gpt.stages.arena:arena", *ASKING, without=("model", "samples", *INTERNAL))
    def arena(self, models: Sequence[str], prompts: Sequence[str] = (), **options) -> Arena:
        """Every two of `models` on each prompt, to be voted on blind; `.leaderboard` has Elo with intervals.

        `options`: `name` (what the votes are kept under), `seed`, `by`, `judge` as in `rank`, and those of
        `gpt.prompts`. Raises GPTError for fewer than two models, and one that is there twice or unknown.
        """
        return arena(self, models, prompts, **options)

    @command(*ASKING, without=("tasks", "levels", *INTERNAL))
    def prompt(self, text: str | list[dict], **options) -> Completion:
        """Ask a model: a text, or messages with `role` and `content`.

        `options` are those of `jupyter_gpt.stages.prompt.prompt`: `model` (default: the one made or used last),
        `samples`, `temperature` (default 0.7; 0 is greedy), `top_p`, `top_k`, `min_p`, `max_tokens`, `min_tokens`,
        `stop`, `seed`, `system`, `history`, `logprobs`, `as_assistant`, `few_shot`, `truncate`, `dry_run`,
        `variables`, and `on_token`, which is called with the completion so far about ten times a second. Ctrl-C
        ends the answer and keeps what came. Raises GPTError, one line, for what cannot be asked.

        With a technique (`cot=True`, `samples=20, vote=True`, `reflect=2`, `tree=True`, …) or a budget (`max_calls`, …)
        the options are also those of `jupyter_gpt.stages.prompt.prompt_with_techniques`: the completion then has an
        `answer`, its `trace` has every call, and its `usage` is that of all of them.
        """
        if uses_technique(options):
            return prompt_with_techniques(self.models, self.prompting, text, indexes=self.indexes, **options)
        return prompt(self.models, self.prompting, [text], **plain_options(options))[0]

    @command(*ASKING, without=("tasks", "levels", *INTERNAL))
    def prompts(self, texts: Sequence[str | list[dict]], **options) -> list[Completion]:
        """Ask one model many things at once, batched together; the options are those of `prompt`."""
        if uses_technique(options):
            return prompt_batch(self.models, self.prompting, texts, indexes=self.indexes, **options)
        return prompt(self.models, self.prompting, texts, **plain_options(options))

    @command("jupyter_gpt.stages.template:template", *ASKING, without=INTERNAL)
    def template(self, text: str | list[dict], **options) -> Completion:
        """Have a model fill the holes of a template, such as `Name: {{gen name max_tokens=5}}`, in one pass.

        `options` are those of `jupyter_gpt.stages.template.template`, the sampling options of `prompt` among
        them; `max_tokens` is of each hole. The completion's `value` has the holes by name. Raises GPTError, one line,
        for a
        hole that is not understood.
        """
        from jupyter_gpt.stages.template import template

        return template(self.models, self.prompting, text, **options)

    @command(*ASKING, without=INTERNAL)
    def agent(self, goal: str | list[dict], *, tasks: int = 10, **options) -> Completion:
        """Give a model a goal: it keeps a list of tasks, works it off with its `tools`, adds to it and reorders it.

        `tasks`: how many it works off at most; `levels` (2): lists within its list; `steps` (12): turns of one task.
        The other options are those of `prompt` with `tools`, budgets among them. The completion's `trace` has every
        call,
        and in `trace["result"]` what was done and what was left. Raises GPTError, one line, for what makes no sense.
        """
        if tasks < 1:
            raise GPTError(f"--tasks is 1 or more, not {tasks}")
        return prompt_with_techniques(self.models, self.prompting, goal, indexes=self.indexes, tasks=tasks, **options)

    @property
    def last(self) -> Completion:
        """The last completion. Raises GPTError when there is none yet."""
        if self.prompting.last is None:
            raise GPTError("nothing was prompted yet: %%prompt asks a model")
        return self.prompting.last

    @command("jupyter_gpt.models.endpoints:Endpoints.declare")
    def endpoint(self, name: str, base_url: str, model: str, **options) -> Endpoint:
        """Make the model of an OpenAI-compatible server usable here, as `gpt.models[name]`; it is not asked anything
        yet.

        `options` are those of `jupyter_gpt.models.endpoints.Endpoints.declare`: `key_env` names the environment
        variable that holds the key, which is never kept. Raises GPTError for a name that is a model's of the kernel.
        """
        if name in self.models and self.models.about(name).kind != "endpoint":
            raise GPTError(f"{name} is a model of this kernel: choose another name for the endpoint")
        return self.models.endpoints.declare(name, base_url, model, **options)

    @command()
    def serve(self, *, port: int | None = None, host: str | None = None, token_env: str | None = None) -> Server:
        """Serve the models of this kernel as OpenAI does, until `.stop()`; `.url` and `.token` are for the client.

        `port` (8000; 0 takes a free one), `host` (loopback), `token_env`: the environment variable that holds the
        token; without it there is a new one. Raises GPTError when the port is taken or it serves elsewhere already.
        """
        return self.serving.start(port, host, token_env)

    @command()
    def stop(self, name: str) -> Run:
        """Stop a run gracefully and wait until its model is kept."""
        run = self.runs[name]
        run.stop()
        return run.wait()


gpt = Session()
