"""`%%sft`: from a document completer to an assistant, in one cell."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import bind, show, watch
from jupyter_gpt.notebook.magics.options import CHECKPOINTING, DTYPE, LENGTH, RUNNING, Command, Option, parse
from jupyter_gpt.stages.pretrain_recipe import OPTIMIZERS
from jupyter_gpt.stages.sft_recipe import LOAD_IN

CONVERSATIONS = """
One source a line with its weight, as YAML, or the conversations themselves.

  ./mine.jsonl: 1         a file, glob or folder; each row `messages`, `prompt` and `completion`, Alpaca's
                          `instruction`, `input`, `output`, or ShareGPT's `conversations`; .json, .csv and
                          .parquet too; OpenAI's `weight`, `tools` and `tool_calls` are heeded
  hf:owner/name: 1        a dataset of the Hugging Face hub
  $chats: 1               a variable of this notebook: a list of rows, or a DataFrame
  stories-qa: 2           generated questions about generated stories
  sums-cot: 1             generated sums, the answers with their steps

  user: Who sang?         turns of `system:`, `user:` and `assistant:`;
  assistant: The hen.     `---` alone on a line between conversations
"""

COMMAND = Command(
    name="%%sft",
    summary="finetune a model on conversations: a base model becomes an assistant",
    about=(
        "Supervised finetuning: the same language modelling, on little but good data, with the loss on what the "
        "assistant says alone. Before it trains, it shows the first conversations with the trained tokens marked; "
        "while "
        "it trains, the same questions are asked at fixed steps. With --lora only a small adapter is trained, and the "
        "base stays as it is; many adapters share one base in memory. A base that is an adapter itself is continued as "
        "a copy of it. Without a length it trains for three epochs, on generated conversations for a million tokens."
    ),
    groups=(
        (
            "Name and data",
            (
                Option("NAME", "what to call the model and its run", needed=True),
                Option("--base", "the model to start from", "MODEL", needed=True, complete="models"),
                Option(
                    "--train-on",
                    "what the loss is on: the assistant's tokens, or all of them",
                    choices=("assistant", "all"),
                    default="assistant",
                ),
                Option(
                    "--context",
                    "tokens a row; longer conversations are cut or refused (default: 1024, or what the "
                    "base was made for)",
                    "T",
                    whole,
                ),
                Option(
                    "--over-long",
                    "what becomes of conversations that are longer",
                    choices=("cut", "refuse"),
                    default="cut",
                ),
                Option(
                    "--bad-rows",
                    "a row that cannot be learned from ends the run, or is skipped and counted (default: refuse; "
                    "of a dataset of the hub skip)",
                    choices=("refuse", "skip"),
                ),
                Option("--held-out", "share of the conversations kept for validation (default: 0.05)", "SHARE", number),
            ),
        ),
        (
            "Length",
            (
                *LENGTH,
                Option(
                    "--epochs",
                    "see all conversations so many times, instead of --steps; of several sources as many tokens in "
                    "all, by their weights",
                    "N",
                    number,
                ),
            ),
        ),
        (
            "Adapter",
            (
                Option(
                    "--lora",
                    "train an adapter of this rank, and freeze the base; where the base has not learned the "
                    "tokens of the chat template, their rows in embedding and head are trained with it",
                    "R",
                    whole,
                ),
                Option(
                    "--lora-targets",
                    "the layers it adapts, by name (default: all linear layers but the head)",
                    "LAYER",
                    many=True,
                    hints=("all-linear", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
                ),
                Option("--lora-alpha", "its scale, over the rank (default: twice the rank)", "X", number),
                Option("--lora-dropout", "share of its inputs that is dropped", "SHARE", number, default=0),
                Option("--dora", "learn the magnitudes of the weights too", kind=None),
                Option("--rslora", "scale by the square root of the rank", kind=None),
                Option(
                    "--load-in",
                    "hold the frozen base in so many bits (QLoRA), where the GPU's library can",
                    choices=LOAD_IN,
                ),
                Option(
                    "--merge-first",
                    "of a base that is an adapter: merge it into its base and train all weights",
                    kind=None,
                ),
            ),
        ),
        (
            "Optimisation",
            (
                Option(
                    "--optimizer",
                    "adamw, or muon for the matrices (default: muon for all weights of a narrow model)",
                    choices=OPTIMIZERS,
                ),
                Option("--lr", "peak learning rate (default: by width; ten times as much for an adapter)", "X", number),
                Option(
                    "--batch-tokens",
                    "tokens of one optimizer step, in packed rows (default: 2048; of a length in epochs or "
                    "tokens a thousandth, from 2048 to 65536)",
                    "N",
                    whole,
                ),
                Option(
                    "--micro-tokens",
                    "tokens that go through the model at once: fewer need less memory, same result "
                    "(default: what the memory that is free holds)",
                    "N",
                    whole,
                ),
                Option(
                    "--warmup", "share of the steps in which the learning rate rises (default: 0.02)", "SHARE", number
                ),
                Option("--decay", "share of the steps in which it falls to zero (default: 0.8)", "SHARE", number),
                Option("--weight-decay", "pull towards zero", "X", number, default=0),
                Option("--clip", "longest gradient, by norm", "X", number, default=1),
                DTYPE,
                CHECKPOINTING,
            ),
        ),
        (
            "Watching",
            (
                Option(
                    "--questions",
                    "what is asked at fixed steps, each in quotes, or a $variable with a list "
                    "(default: held-out questions)",
                    "TEXT",
                    many=True,
                ),
                Option("--answer-tokens", "tokens of such an answer, at most", "N", whole, default=64),
                Option("--eval-every", "steps between validations (default: ten in a run)", "N", whole),
                Option("--eval-tokens", "held-out tokens read by each validation", "N", whole, default=16384),
                Option("--sample-every", "steps between the questions (default: six times in a run)", "N", whole),
                Option("--beside", "earlier runs, drawn into the same charts", "RUN", complete="runs", many=True),
            ),
        ),
        ("Running", RUNNING),
    ),
    body=CONVERSATIONS,
    examples=(
        "%%sft assistant --base storyteller --steps 300",
        "stories-qa: 1",
        "",
        "%%sft polite --base smollm2-135m-instruct --lora 16 --epochs 2",
        "./mine.jsonl: 1",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Shows what is trained on, then trains in the live view; the cell ends when the run does, unless
    `--background`.
    """
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt

    name, out = given.pop("name"), given.pop("out", None)
    background = given.pop("background", False)
    others = [gpt.runs[other] for other in given.pop("beside", ())]
    job = gpt.sft(
        name,
        cell if cell.strip() else None,
        given.pop("base"),
        background=True,
        variables=ip.user_ns,
        **given,
    )
    if not background:
        show_conversations(job)
    watch(job, others, background)
    bind(ip, out, job if background or not out else gpt.models[name])


def show_conversations(job) -> None:
    """Waits until the run has its conversations in tokens, and shows the first of them; nothing of a run that
    failed.
    """
    import time

    from jupyter_gpt.data.chat import with_template
    from jupyter_gpt.data.conversation_tokens import Conversations
    from jupyter_gpt.notebook.views.conversations import conversations_bundle

    written = job.folder / "data" / "conversations.json"
    try:
        while job.alive and not written.exists():
            time.sleep(0.02)
    except BaseException:
        job.stop()
        raise
    if written.exists() and job.status != "failed":  # after a failure an earlier run of that name is back
        from jupyter_gpt import gpt

        tokenizer = with_template(gpt.models[job.recipe["adapter"] or job.recipe["base"]].tokenizer)
        show(conversations_bundle(job.name, Conversations.open(job.folder / "data"), tokenizer))
