"""`%%rlhf`: from an assistant and what people, or a function, prefer, to an aligned one."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import bind, watch
from jupyter_gpt.notebook.magics.options import DTYPE, RUNNING, STEPS, Command, Option, parse
from jupyter_gpt.stages.rl_recipe import ALGORITHMS, DEFAULT_ALGORITHM

COMMAND = Command(
    name="%%rlhf",
    summary="reinforcement learning from rankings or rewards",
    about=(
        "Has the policy answer the prompts, rewards the answers and makes the better ones likelier. PPO learns "
        "token by "
        "token with a critic, GRPO compares the answers to one prompt with each other, DPO learns straight from "
        "rankings. "
        "Without --reward a reward model is made from the rankings first. Policy, reference, critic and reward "
        "model share "
        "one base in memory. The KL to the reference is held down so that the policy stays a language model; a red "
        "line "
        "says when it runs away or collapses, and what to do. The model is gpt.models[NAME]; ■ keeps it as of that "
        "step."
    ),
    groups=(
        (
            "Who learns what",
            (
                Option("NAME", "what to call the model and its run", needed=True),
                Option(
                    "--policy", "the model to start from; it stays as it is", "MODEL", needed=True, complete="models"
                ),
                Option("--algo", "the algorithm", choices=ALGORITHMS, default=DEFAULT_ALGORITHM),
                Option(
                    "--rankings",
                    "rankings that %%rank kept: DPO's lessons, or those of a reward model",
                    "NAME",
                    complete="rankings",
                ),
                Option(
                    "--reward",
                    "a reward model, or a $function(prompt, completion) -> float; several are added up",
                    "REWARD",
                    many=True,
                    kept=True,
                    complete="models",
                ),
                Option("--weights", "what each of several rewards counts (default: 1 each)", "X", number, many=True),
            ),
        ),
        (
            "Length and size",
            (
                STEPS,
                Option("--prompts-per-step", "prompts (for dpo: rankings) of one step", "N", whole, default=8),
                Option("--samples", "completions of each prompt", "K", whole, default=8),
                Option("--max-tokens", "tokens of a completion, at most", "N", whole, default=64),
                Option("--lora", "rank of the adapters; 0 trains copies of the whole model", "R", whole, default=16),
                DTYPE,
                Option(
                    "--held-out", "share of the prompts that is only ever evaluated on", "SHARE", number, default=0.1
                ),
            ),
        ),
        (
            "Algorithm",
            (
                Option("--lr", "peak learning rate of the policy (default: by algorithm)", "X", number),
                Option("--value-lr", "that of ppo's critic (default: three times as much)", "X", number),
                Option(
                    "--kl",
                    "coefficient of the KL penalty: what a nat away from the reference costs, in units of the reward "
                    "(grpo: of the group advantage)",
                    "X",
                    number,
                    default=0.05,
                ),
                Option(
                    "--kl-target",
                    "adapt that coefficient so that the KL stays at so many nats a completion",
                    "NATS",
                    number,
                ),
                Option(
                    "--kl-limit", "nats a completion at which the KL counts as running away", "NATS", number, default=30
                ),
                Option("--clip", "how far the ratio to the sampling policy may move", "X", number, default=0.2),
                Option("--epochs", "updates on each batch (default: 4, grpo 1)", "N", whole),
                Option("--gamma", "discount of later rewards, ppo", "X", number, default=1),
                Option("--lam", "lambda of the advantage estimates, ppo", "X", number, default=0.95),
                Option(
                    "--mask-truncated-completions",
                    "grpo: leave completions that were cut at --max-tokens out of the loss",
                    kind=None,
                ),
                Option(
                    "--missing-eos-penalty",
                    "ppo: take so much off the reward of a completion that was cut at --max-tokens",
                    "X",
                    number,
                ),
                Option(
                    "--use-score-scaling",
                    "ppo: divide the rewards by the standard deviation of all of the run so far",
                    kind=None,
                ),
                Option("--beta", "dpo: how tightly the reference holds", "X", number, default=0.1),
            ),
        ),
        (
            "Watching",
            (
                Option("--eval-every", "steps between evaluations and samples (default: six in a run)", "N", whole),
                Option("--beside", "earlier runs, drawn into the same charts", "RUN", complete="runs", many=True),
            ),
        ),
        ("Running", RUNNING),
    ),
    body="""
One prompt a line; empty lines are skipped. Without any, those of the rankings are used.
""",
    sketch=("prompt", "…"),
    examples=(
        "%%rlhf aligned --policy assistant --algo ppo --rankings taste",
        "Tell me about the fox.",
        "Why was Anna sad?",
        "",
        "%%rlhf polite --policy assistant --algo grpo --reward $polite --steps 40",
        "Tell me about the fox.",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Trains, showing the live view; the cell ends when the run does, unless `--background`."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.data.render import fill

    name, out = given.pop("name"), given.pop("out", None)
    background = given.pop("background", False)
    others = [gpt.runs[other] for other in given.pop("beside", ())]
    prompts = [fill(text.strip(), ip.user_ns)[0] for text in cell.splitlines() if text.strip()]
    job = gpt.rlhf(name, prompts, background=True, variables=ip.user_ns, **given)
    watch(job, others, background)
    bind(ip, out, job if background or not out else gpt.models[name])
