"""`%gpt VERB`: one line for everything that is not a cell of its own."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.notebook.magics import training
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import Command, help_text, parse
from jupyter_gpt.notebook.magics.verbs import (
    arena,
    config,
    evaluate,
    index,
    merge,
    models,
    plan,
    runs,
    serve,
    show,
    tokens,
)

VERBS: dict[str, tuple[Command | training.TrainingMagic, Callable]] = {
    "models": (models.MODELS, models.models),
    "pull": (models.PULL, models.pull),
    "load": (models.LOAD, models.load),
    "unload": (models.UNLOAD, models.unload),
    "save": (models.SAVE, models.save),
    "merge": (merge.MERGE, merge.merge),
    "runs": (runs.RUNS, runs.runs),
    "show": (show.SHOW, show.show_it),
    "stop": (runs.STOP, runs.stop),
    "resume": (runs.RESUME, runs.resume),
    "tokens": (tokens.TOKENS, tokens.tokens),
    "batch": (tokens.BATCH, tokens.batch),
    "plan": (plan.PLAN, plan.plan),
    "reward": (training.reward, lambda gpt, given, ip: training.reward.train(ip, given)),
    "arena": (arena.ARENA, arena.arena),
    "evaluate": (evaluate.EVALUATE, evaluate.evaluate),
    "index": (index.INDEX, index.index),
    "indexes": (index.INDEXES, index.indexes),
    "search": (index.SEARCH, index.search),
    "serve": (serve.SERVE, serve.serve),
    "config": (config.CONFIG, config.config),
}


def overview() -> str:
    """What `%gpt` alone prints: every verb with its line."""
    lines = [f"  {verb:<8}  {command(verb).summary}" for verb in VERBS]
    head = "%gpt VERB: look after models and runs, look at what they read"
    return "\n".join([head, "", *lines, "", "%gpt VERB --help explains one."])


def run(ip, line: str) -> None:
    """Does what the verb says; alone, or asked for help, says what there is."""
    verb, *rest = line.split(maxsplit=1)[:2] or [""]
    rest = "".join(rest)
    if verb in ("", "help", "--help", "-h"):
        asked = rest.strip()
        print(help_text(command(asked)) if asked else overview())
        return
    given = parse(command(verb), rest, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt

    bind(ip, given.get("out"), VERBS[verb][1](gpt, given, ip))


def command(verb: str) -> Command:
    """The command of a verb. Raises GPTError for one that there is not."""
    if verb not in VERBS:
        raise GPTError(f"%gpt has no verb {verb}{nearest(verb, (*VERBS, 'help'))}")
    found = VERBS[verb][0]
    return found if isinstance(found, Command) else found.COMMAND
