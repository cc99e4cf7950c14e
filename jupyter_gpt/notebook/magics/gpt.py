"""`%gpt VERB`: one line for everything that is not a cell of its own."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_gpt.errors import GPTError, nearest
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
    reward,
    runs,
    serve,
    show,
    tokens,
)

VERBS: dict[str, tuple[Command, Callable]] = {
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
    "reward": (reward.REWARD, reward.reward),
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
    lines = [f"  {verb:<8}  {command.summary}" for verb, (command, _) in VERBS.items()]
    head = "%gpt VERB: look after models and runs, look at what they read"
    return "\n".join([head, "", *lines, "", "%gpt VERB --help explains one."])


def run(ip, line: str) -> None:
    """Does what the verb says; alone, or asked for help, says what there is."""
    verb, *rest = line.split(maxsplit=1)[:2] or [""]
    rest = "".join(rest)
    if verb in ("", "help", "--help", "-h"):
        asked = rest.strip()
        print(help_text(_verb(asked)[0]) if asked else overview())
        return
    command, function = _verb(verb)
    given = parse(command, rest, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt

    bind(ip, given.get("out"), function(gpt, given, ip))


def _verb(verb: str) -> tuple[Command, Callable]:
    if verb not in VERBS:
        raise GPTError(f"%gpt has no verb {verb}{nearest(verb, (*VERBS, 'help'))}")
    return VERBS[verb]
