"""`%gpt VERB`: one line for everything that is not a cell of its own."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.notebook.magics import config, evaluate, ranking, training, verbs
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import Command, Magic, help_text, parse

VERBS: dict[str, tuple[Command | Magic, Callable]] = {
    "models": (Magic("models", "Models"), verbs.models),
    "pull": (Magic("models", "Pull"), verbs.pull),
    "load": (Magic("models", "Load"), verbs.load),
    "unload": (Magic("models", "Unload"), verbs.unload),
    "save": (Magic("models", "Save"), verbs.save),
    "merge": (Magic("models", "Merge"), verbs.merge),
    "runs": (Magic("runs", "Runs"), verbs.runs),
    "show": (Magic("notebook.views.inspect", "Show"), verbs.show_it),
    "stop": (Magic("runs", "Stop"), verbs.stop),
    "resume": (Magic("runs", "Resume"), verbs.resume),
    "tokens": (Magic("tokens", "Tokens"), verbs.tokens),
    "batch": (Magic("tokens", "Batch"), verbs.batch),
    "plan": (Magic("plan", "Plan"), verbs.plan),
    "reward": (training.reward, lambda gpt, given, ip: training.reward.train(ip, given)),
    "arena": (ranking.arena, ranking.arena.verb),
    "evaluate": (Magic("prompt_options", "Evaluate"), evaluate.evaluate),
    "index": (Magic("index", "Index"), verbs.index),
    "indexes": (Magic("index", "Indexes"), verbs.indexes),
    "search": (Magic("index", "Search"), verbs.search),
    "serve": (Magic("serve", "Serve"), verbs.serve),
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

    out = given.pop("out", None)
    bind(ip, out, VERBS[verb][1](gpt, given, ip))


def command(verb: str) -> Command:
    """The command of a verb. Raises GPTError for one that there is not."""
    if verb not in VERBS:
        raise GPTError(f"%gpt has no verb {verb}{nearest(verb, (*VERBS, 'help'))}")
    found = VERBS[verb][0]
    return found if isinstance(found, Command) else found.COMMAND
