"""`%%pretrain`, `%%sft`, `%%classify`, `%%rlhf` and `%gpt reward`: a stage that trains, watched while it works."""

from __future__ import annotations

import time

from jupyter_gpt.notebook.magics.notebook import bind, show, watch
from jupyter_gpt.notebook.magics.options import Magic, parse


class TrainingMagic(Magic):
    """The magic of a stage that trains."""

    def run(self, ip, line: str, cell: str = "") -> None:
        """Trains, showing the live view; the cell ends when the run does, unless `--background`."""
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is not None:
            bind(ip, given.pop("out", None), self.train(ip, given, cell))

    def train(self, ip, given: dict, cell: str = "") -> object:
        """Trains with the options `given`; returns the model, or the run in the background."""
        from jupyter_gpt import gpt

        background = given.pop("background", False)
        others = [gpt.runs[other] for other in given.pop("beside", None) or ()]
        body = next((name for name in self.options.model_fields if self.options.details(name).get("body")), None)
        if body is not None and cell.strip():
            given[body] = prompts_of(cell, ip.user_ns) if body == "prompts" else cell
        run = getattr(gpt, self.stage)(**given, background=True, variables=ip.user_ns)
        if self.stage == "sft" and not background:
            show_conversations(run)
        watch(run, others, background)
        return run if background or run.name not in gpt.models else gpt.models[run.name]


def prompts_of(cell: str, variables: dict) -> list[str]:
    """The prompts in a body, one a line, with their `{variable}` holes filled."""
    from jupyter_gpt.data.render import fill

    return [fill(text.strip(), variables)[0] for text in cell.splitlines() if text.strip()]


def show_conversations(run) -> None:
    """Waits until the run has its conversations in tokens, and shows the first of them; nothing of a run that
    failed.
    """
    from jupyter_gpt import gpt
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
    if written.exists() and run.status != "failed":  # after a failure an earlier run of that name is back
        tokenizer = with_template(gpt.models[run.recipe["adapter"] or run.recipe["base"]].tokenizer)
        show(conversations_report(run.name, Conversations.open(run.folder / "data"), tokenizer))


pretrain = TrainingMagic("pretrain", "Pretrain")
sft = TrainingMagic("sft", "SFT")
classify = TrainingMagic("classify", "Classify")
rlhf = TrainingMagic("rlhf", "RLHF")
reward = TrainingMagic("reward", "RewardModel")
