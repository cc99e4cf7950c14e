"""`%gpt VERB`: one line for everything that is not a cell of its own."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.notebook.magics import config, evaluate, ranking, training
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import Command, Magic, help_text, parse

VERBS: dict[str, tuple[Command | Magic, Callable | str]] = {  # what a verb does, or its name in `verbs`
    "models": (Magic("models", "Models"), "models"),
    "pull": (Magic("models", "Pull"), "pull"),
    "load": (Magic("models", "Load"), "load"),
    "unload": (Magic("models", "Unload"), "unload"),
    "save": (Magic("models", "Save"), "save"),
    "merge": (Magic("models", "Merge"), "merge"),
    "runs": (Magic("runs", "Runs"), "runs"),
    "show": (Magic("notebook.views.inspect", "Show"), "show_it"),
    "stop": (Magic("runs", "Stop"), "stop"),
    "resume": (Magic("runs", "Resume"), "resume"),
    "tokens": (Magic("tokens", "Tokens"), "tokens"),
    "batch": (Magic("tokens", "Batch"), "batch"),
    "plan": (Magic("plan", "Plan"), "plan"),
    "reward": (training.reward, lambda gpt, given, ip: training.reward.train(ip, given)),
    "arena": (ranking.arena, ranking.arena.verb),
    "evaluate": (Magic("prompt_options", "Evaluate"), evaluate.evaluate),
    "index": (Magic("index", "Index"), "index"),
    "indexes": (Magic("index", "Indexes"), "indexes"),
    "search": (Magic("index", "Search"), "search"),
    "serve": (Magic("serve", "Serve"), "serve"),
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
    from jupyter_gpt.notebook.magics import verbs  # here: `%load_ext` builds no report

    out, does = given.pop("out", None), VERBS[verb][1]
    does = getattr(verbs, does) if isinstance(does, str) else does
    bind(ip, out, does(gpt, given, ip))


def command(verb: str) -> Command:
    """The command of a verb. Raises GPTError for one that there is not."""
    if verb not in VERBS:
        raise GPTError(f"%gpt has no verb {verb}{nearest(verb, (*VERBS, 'help'))}")
    found = VERBS[verb][0]
    return found if isinstance(found, Command) else found.COMMAND
