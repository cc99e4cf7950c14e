"""The session: the one object `gpt`, with everything the magics do as plain functions.

A magic parses its line and body, calls one function here, and shows what it returns; a script or a test does the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.session import store
from jupyter_gpt.session.compare import Comparison, compare
from jupyter_gpt.session.corpora import Corpora, Corpus
from jupyter_gpt.session.endpoints import Endpoint
from jupyter_gpt.session.jobs import worker
from jupyter_gpt.session.models import Model, Models
from jupyter_gpt.session.prompting import Prompting, prompt
from jupyter_gpt.session.rankings import AllRankings
from jupyter_gpt.session.recipes import header
from jupyter_gpt.session.runs import Run, Runs, cut_events
from jupyter_gpt.session.serve import Server, Serving


class Session:
    """Models, runs and corpora of this kernel and of the folder it works in."""

    def __init__(self):
        self.runs = Runs()
        self.models = Models(self.finish_first)
        self.corpora = Corpora()
        self.prompting = Prompting()
        self.rankings = AllRankings()
        self.serving = Serving(self.models)

    @property
    def home(self) -> Path:
        """The folder everything is kept in."""
        return store.home()

    def finish_first(self, name: str) -> None:
        """Wait for a run of this kernel that is still making `name`."""
        if name in self.runs and self.runs[name].alive:
            self.runs[name].wait()

    def pull(
        self, source: str, name: str | None = None, *, overwrite: bool = False, progress: Callable | None = None
    ) -> Model:
        """Bring a published model into the user's cache, under `name` or its own name; it is loaded when first used.

        `source` is a name of the catalogue or of the hub, a folder, or a `.gguf` file; `progress(what, done, total)` is
        told how many bytes have come. Raises GPTError, one line, for what cannot be had or is not safe to read.
        """
        from jupyter_gpt.session.pull import pull

        return pull(self.models, source, name, overwrite, progress)

    def load(self, name: str, *, dtype: str | None = None, device: str | None = None) -> Model:
        """Bring a model into memory, in `dtype` (float32, bfloat16, float16) on `device` (cpu, cuda, cuda:1).

        Raises GPTError when it is damaged or does not fit; the message says what would.
        """
        return self.models.load(name, dtype, device)

    def unload(self, name: str) -> Model:
        """Take a model out of memory and give that back to the system; it stays on disk and loads at its next use."""
        self.models.unload(name)
        return self.models.about(name)

    def save(self, name: str, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a model to `folder` as a plain transformers folder, which loads anywhere without this package.

        A folder that holds this model from before is written anew. Raises GPTError for one with anything else in it,
        unless `overwrite` and it is another model's.
        """
        from jupyter_gpt.session.save import save

        self.finish_first(name)
        return save(self.models.about(name), Path(folder), overwrite)

    def corpus(
        self,
        name: str,
        mixture: Mapping[str, float] | str,
        *,
        tokens: int | None = None,
        variables: Mapping | None = None,
        seed: int = 0,
    ) -> Corpus:
        """Declare the weighted mixture `mixture` (a mapping, or its YAML) as `name`, and count what is in it.

        `tokens` is the length of the run to reckon epochs for. Raises GPTError for a source that is missing, empty or
        unreadable, or a weight that is none.
        """
        from jupyter_gpt.data import mixture as mixtures

        store.check_name(name)
        weights = mixtures.parse(mixture) if isinstance(mixture, str) else mixtures.check(mixture)
        return self.corpora.declare(name, weights, mixtures.survey(weights, variables, seed, tokens))

    def pretrain(
        self,
        name: str,
        mixture: Mapping[str, float] | str | None = None,
        *,
        corpus: str | None = None,
        tokenizer: str = "bpe",
        background: bool = False,
        overwrite: bool = False,
        variables: Mapping | None = None,
        maker: str | None = None,
        **options,
    ) -> Run:
        """Train a GPT from scratch on `mixture`, or on a declared `corpus`; the model is `gpt.models[name]`.

        `tokenizer` is `bpe`, `char` or the name of a model; `options` are those of
        `jupyter_gpt.training.recipe.pretraining_recipe`. Blocks until the run ends, unless `background`; Ctrl-C stops
        it gracefully. `variables` serves `$name` sources; `maker` tells the cell that asks, so that another cell's
        model is not replaced unless `overwrite`.

        Raises GPTError, one line, for what cannot be trained; whatever had that name before is then untouched.
        """
        from jupyter_gpt.data import mixture as mixtures
        from jupyter_gpt.data import sources
        from jupyter_gpt.training.recipe import pretraining_recipe

        store.check_name(name)
        if (mixture is None) == (corpus is None):
            raise GPTError("say what to train on: sources with weights in the body, or --corpus NAME, not both")
        weights = self.corpora[corpus].weights if corpus is not None else mixture
        weights = mixtures.parse(weights) if isinstance(weights, str) else mixtures.check(weights)
        recipe = pretraining_recipe(weights, tokenizer=tokenizer, **options)
        if tokenizer not in ("bpe", "char") and tokenizer not in self.models:
            raise GPTError(f"--tokenizer {tokenizer} is neither bpe, char nor a model{nearest(tokenizer, self.models)}")
        for source in weights:
            sources.check(source, variables)
        self.claim(name, "pretrain", maker, overwrite)
        self.only_one()
        run = self.open_run(name, "pretrain", maker, recipe.as_dict())
        return self.start(run, recipe, variables, background, resuming=False)

    def compare(self, models: Sequence[str], prompts: Sequence[str], **options) -> Comparison:
        """The same prompts with the same seeds to each of `models`, side by side, to be voted on.

        `options` are those of `gpt.prompts`, and `rankings`, the name under which the votes are kept. Raises GPTError
        for fewer than two models, one twice, an unknown one, and no prompt or one twice.
        """
        return compare(self, models, prompts, **options)

    def prompt(self, text: str | list[dict], **options) -> Completion:
        """Ask a model: a text, or messages with `role` and `content`.

        `options` are those of `jupyter_gpt.session.prompting.prompt`: `model` (default: the one made or used last),
        `samples`, `temperature` (default 0.7; 0 is greedy), `top_p`, `top_k`, `min_p`, `max_tokens`, `min_tokens`,
        `stop`, `seed`, `system`, `history`, `logprobs`, `as_assistant`, `few_shot`, `truncate`, `dry_run`,
        `variables`, and `on_token`, which is called with the completion so far about ten times a second. Ctrl-C
        ends the answer and keeps what came. Raises GPTError, one line, for what cannot be asked.
        """
        return prompt(self.models, self.prompting, [text], **options)[0]

    def prompts(self, texts: Sequence[str | list[dict]], **options) -> list[Completion]:
        """Ask one model many things at once, batched together; the options are those of `prompt`."""
        return prompt(self.models, self.prompting, texts, **options)

    @property
    def last(self) -> Completion:
        """The last completion. Raises GPTError when there is none yet."""
        if self.prompting.last is None:
            raise GPTError("nothing was prompted yet: %%prompt asks a model")
        return self.prompting.last

    def endpoint(self, name: str, base_url: str, model: str, **options) -> Endpoint:
        """Make the model of an OpenAI-compatible server usable here, as `gpt.models[name]`; it is not asked anything yet.

        `options` are those of `jupyter_gpt.session.endpoints.Endpoints.declare`: `key_env` names the environment
        variable that holds the key, which is never kept. Raises GPTError for a name that is a model's of the kernel.
        """
        if name in self.models and self.models.about(name).kind != "endpoint":
            raise GPTError(f"{name} is a model of this kernel: choose another name for the endpoint")
        return self.models.endpoints.declare(name, base_url, model, **options)

    def serve(self, **options) -> Server:
        """Serve the models of this kernel as OpenAI does, until `.stop()`; `.url` and `.token` are for the client.

        `options`: `port` (8000; 0 takes a free one), `host` (loopback), `token_env`, the environment variable that holds
        the token; without it there is a new one. Raises GPTError when the port is taken or it serves elsewhere already.
        """
        return self.serving.start(**options)

    def resume(self, name: str, *, variables: Mapping | None = None, background: bool = False) -> Run:
        """Go on with a run that was stopped, interrupted or failed, from its last checkpoint, to the same end.

        Raises GPTError for a run that has finished, is running, or has nothing to go on from.
        """
        from jupyter_gpt.training import checkpoint
        from jupyter_gpt.training.recipe import Recipe

        run = self.runs[name]
        if run.status == "finished":
            raise GPTError(f"run {name} has finished all its {run.steps} steps: there is nothing to resume")
        if run.alive:
            raise GPTError(f"run {name} is {run.status}" + (": unpause it" if run.status == "paused" else " already"))
        recipe = Recipe.from_dict(run.recipe)
        self.only_one()
        store.lock(run.folder)
        found = checkpoint.latest(run.folder / "checkpoints")
        if found is None:
            run.events[:] = cut_events(run.folder / "events.jsonl", -1)
            return self.start(run, recipe, variables, background, resuming=False)
        run.events[:] = cut_events(run.folder / "events.jsonl", int(found.name[5:]))
        return self.start(run, recipe, variables, background, resuming=True)

    def stop(self, name: str) -> Run:
        """Stop a run gracefully and wait until its model is kept."""
        run = self.runs[name]
        run.stop()
        return run.wait()

    def claim(self, name: str, kind: str, maker: str | None, overwrite: bool) -> None:
        """Refuse a name that something else made. A cell may always make again what it made."""
        holders = []
        if name in self.models:
            holders.append(self.models.about(name))
        if name in self.runs:
            if self.runs[name].status in ("running", "paused"):
                raise GPTError(f"run {name} is still running: %gpt stop {name}, or wait for it")
            holders.append(self.runs[name])
        for holder in [] if overwrite else holders:
            if holder.kind != kind:
                raise GPTError(f"{name} was made by {holder.kind}: choose another name, or say --overwrite")
            if maker and holder.maker and holder.maker != maker:
                raise GPTError(f"{name} was made by another cell: choose another name, or say --overwrite")

    def only_one(self) -> None:
        """Refuse a second run beside one that trains: both would be slower than one after the other."""
        busy = next((run for run in self.runs.known.values() if run.alive), None)
        if busy:
            raise GPTError(
                f"run {busy.name} is {busy.status} (step {busy.step} of {busy.steps}): "
                f"wait for it, or %gpt stop {busy.name}"
            )

    def open_run(self, name: str, kind: str, maker: str | None, recipe: dict) -> Run:
        """An empty run folder; an older run of that name is parked until the new one has something to keep."""
        folder = self.runs.folder(name)
        parked = folder.with_name(f".old-{name}")
        if folder.exists():
            shutil.rmtree(parked, ignore_errors=True)
            os.replace(folder, parked)
        store.write_text(folder / "recipe.yaml", header(kind, maker, recipe))
        store.lock(folder)
        run = self.runs.known[folder] = Run(folder)
        return run

    def start(self, run: Run, recipe, variables: Mapping | None, background: bool, resuming: bool) -> Run:
        """Put the run on the worker of its device, and wait for it unless `background`."""
        run.stopping.clear()
        run.paused.clear()
        job = worker("torch").submit(self.training_job(run, recipe, variables, resuming))
        run.job = job
        if not background:
            run.wait()
        return run

    def training_job(self, run: Run, recipe, variables: Mapping | None, resuming: bool):
        """The generator the worker runs; imports torch on the worker, not on whoever asked."""
        from jupyter_gpt.session.runner import drive
        from jupyter_gpt.training.device import default_device
        from jupyter_gpt.training.prepare import prepare

        def keep(training, status: str) -> None:
            self.models.keep(
                run.name, training.model, training.tokenizer, run.kind, run.maker, [f"{run.name} ({run.kind})"],
                training.step,
            )  # fmt: skip
            shutil.rmtree(run.folder.with_name(f".old-{run.name}"), ignore_errors=True)
            if status == "finished":
                shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)

        named = recipe.tokenizer if recipe.tokenizer not in ("bpe", "char") else None
        tokenizer = self.models[named].tokenizer if named else None
        preparation = prepare(recipe, run.folder, default_device(), variables, tokenizer)
        try:
            yield from drive(run, preparation, resuming, keep)
        except BaseException:
            self.give_back(run)
            raise

    def give_back(self, run: Run) -> None:
        """After a failure: bring the parked older run back if the new one has not come past its first step."""
        parked = run.folder.with_name(f".old-{run.name}")
        if parked.exists() and run.step == 0:
            shutil.rmtree(run.folder)
            os.replace(parked, run.folder)
            self.runs.known.pop(run.folder, None)


gpt = Session()
