"""`%%prompt`: asks a model, and shows its answer as it is written."""

from __future__ import annotations

from contextlib import nullcontext

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import TEMPERATURE
from jupyter_gpt.notebook.lexer import number, spelled, whole
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, parse

BODY = """
The question, for a model with a chat template (an assistant); the beginning of a
document, for one without (a base model), because base models complete documents. A
first line that begins with `system:`, `user:` or `assistant:` makes it a chat, every
such line a turn.

  {variable}              filled from this notebook; {paper.title}, {rows[0]["name"]}
                          too. Any other brace is just a brace, and {{variable}} stays
                          {variable}.
  {{gen name}}            makes it a template: the model fills its holes in one pass, and
                          each becomes a variable of the notebook. The rest stands as it
                          is written. A hole may have max_tokens=5, temperature=0,
                          stop="x", regex="[0-9]+" or json=$schema; without them it ends
                          where the text after it comes. In a chat the holes stand in the
                          last turn, an assistant: one.
  {{select name from="a|b"}}
                          a hole with choices; from=$list takes them from a variable
"""

TECHNIQUES = (
    "Techniques",
    (
        Option(
            "--cot",
            "tokens to think: it writes its steps first, then reads the answer off; --few-shot shows it worked "
            "examples. Without a constraint on the thinking: --regex and the like hold the answer only",
            kind=None,
        ),
        Option("--vote", "with --samples N: the answer that most samples reach (self-consistency)", kind=None),
        Option(
            "--best-of",
            "with --samples N: the answer scored highest, by f(prompt, completion) or by a reward model",
            "$REWARD|MODEL",
            kept=True,
            complete="models",
        ),
        Option(
            "--reflect",
            "ask it N times (1) whether it met the target, and to revise. Without --check it judges itself, "
            "and on questions with right answers that often makes them worse",
            "N",
            lambda text: whole(text or "1"),
            optional=True,
        ),
        Option(
            "--check",
            "with --reflect: f(prompt, answer), True where it is right, else what is wrong in words",
            "$FUNCTION",
            kept=True,
        ),
        Option(
            "--tree",
            "tree of thoughts: proposes steps, scores them, keeps the promising ones, goes back from dead ends",
            kind=None,
        ),
        Option(
            "--breadth",
            "with --tree: steps proposed from each state, and states kept on each level",
            "B",
            whole,
            default=5,
        ),
        Option("--depth", "with --tree: steps at most", "D", whole, default=3),
        Option(
            "--search",
            "with --tree: level by level by each state's score (bfs), by the sum of scores (beam), or the "
            "best step first (dfs)",
            choices=("bfs", "dfs", "beam"),
            default="bfs",
        ),
        Option(
            "--value",
            "with --tree: f(prompt, steps so far), higher is better, 0 a dead end (default: the model says "
            "sure, likely or impossible)",
            "$FUNCTION",
            kept=True,
        ),
        Option(
            "--expert",
            "condition on good performance: asked as a leading expert (in FIELD), to work it out step by "
            "step to be sure",
            "FIELD",
            lambda text: text or True,
            optional=True,
        ),
    ),
)
TOOLS = (
    Option(
        "--tools",
        "what it may act with: calculator, python (in a sandbox), search (the index; search:NAME of "
        "several), and $functions of this notebook with a docstring and type hints, parted by commas or spaces",
        "TOOL,…",
        many=True,
        parted=True,
        kept=True,
        complete="tools",
        hints=("calculator", "python", "search"),
    ),
    Option(
        "--approve", "show each call before it acts: Approve, Edit, Deny; a tool that writes is always shown", kind=None
    ),
    Option(
        "--allow",
        "tools that may act where nobody can be asked, as in a notebook run by a machine; all others that "
        "would be shown are denied there",
        "TOOL,…",
        many=True,
        parted=True,
    ),
)
ACTING = (
    "Tools",
    (
        Option("--react", "think, act, look, until there is an answer: with --tools", kind=None),
        *TOOLS,
        Option("--steps", "turns at most", "N", whole, default=12),
        Option(
            "--calculator",
            "for a model trained to write calls into its text: after <<3*4= the result is worked out and "
            "put there, and it writes on",
            kind=None,
        ),
    ),
)
CONSTRAINTS = (
    "Constraints",
    (
        Option("--regex", "the whole answer matches it (Rust's syntax: no look-around, no back references)", "REGEX"),
        Option(
            "--json",
            "the answer is JSON of this schema: a file, a $variable with a dict or a pydantic model, or true for "
            "any JSON",
            "SCHEMA",
            kept=True,
            complete="files",
        ),
        Option("--choice", "the answer is one of these", '"A|B"', kept=True, complete="variables"),
        Option(
            "--grammar",
            "the answer is a text of this Lark grammar: a file, or a $variable with its text",
            "FILE",
            kept=True,
            complete="files",
        ),
    ),
)
BUDGETS = (
    "Budgets",
    (
        Option("--max-calls", "requests in all", "N", whole),
        Option("--max-tokens-total", "tokens in all, read and written", "N", whole),
        Option("--max-seconds", "seconds in all", "S", number),
        Option("--max-cost", "dollars in all; for endpoints whose price is known", "DOLLARS", number),
    ),
)

COMMAND = Command(
    name="%%prompt",
    summary="ask a model",
    about=(
        "Samples an answer and shows it as it is written; the notebook's ■ stops it and keeps what came. "
        "Under the answer stand how the question was put, every setting, and the exact prompt; %gpt show "
        "last shows them again. A model's own generation settings are not used: what is not said here has "
        "the default told here, for every model."
    ),
    groups=(
        (
            "Model",
            (Option("MODEL", "the model or endpoint to ask (default: the one made or used last)", complete="models"),),
        ),
        (
            "Sampling",
            (
                Option(
                    "--samples",
                    "answers to draw; sample k is what --seed S+k alone would give in float32, but for a token "
                    "whose draw falls on a rounding of its logits, one in tens of thousands; in bfloat16 it has "
                    "the same "
                    "random numbers, and other words sooner or later",
                    "N",
                    whole,
                    default=1,
                ),
                Option("--temperature", "0 always takes the likeliest token", "T", number, default=TEMPERATURE),
                Option("--top-p", "only the likeliest tokens that together have this probability", "P", number),
                Option("--top-k", "only the K likeliest tokens; 0 is all", "K", whole),
                Option("--min-p", "only tokens at least this share as likely as the likeliest", "P", number),
                Option("--max-tokens", "tokens of an answer at most", "N", whole, default=256),
                Option("--min-tokens", "tokens of an answer at least", "N", whole, default=0),
                Option(
                    "--stop",
                    r"texts that end the answer before them, each in quotes; \n is a new line",
                    "TEXT",
                    spelled,
                    many=True,
                ),
                Option("--seed", "decides the sampling", "S", whole, default=0),
                Option("--logprobs", "show each token's probability and its K likeliest alternatives", "K", whole),
            ),
        ),
        TECHNIQUES,
        ACTING,
        CONSTRAINTS,
        BUDGETS,
        (
            "Prompt",
            (
                Option("--system", "the system prompt", "TEXT"),
                Option("--history", "the chat with this model goes on (for a base model, its document)", kind=None),
                Option(
                    "--as-assistant", "ask a base model as an assistant: in a document of a conversation", kind=None
                ),
                Option(
                    "--few-shot",
                    "a $variable with pairs of question and answer to put before the question; with --react the "
                    "answer is a whole run: Thought: … Action: … Action Input: … Observation: … Final Answer: …; "
                    "an agent takes "
                    "such runs of tasks, and goals with their numbered lists",
                    "$PAIRS",
                    kept=True,
                ),
                Option("--truncate", "cut the beginning of a prompt that the context cannot hold", kind=None),
                Option("--dry-run", "show the exact prompt and send nothing", kind=None),
                OUT,
            ),
        ),
    ),
    body=BODY,
    sketch=("the question, or the beginning of a document", "…"),
    examples=(
        "%%prompt smollm2-135m-instruct --samples 3 --seed 7",
        "Explain {topic} to a child.",
        "",
        "%%prompt storyteller --temperature 1 --max-tokens 100",
        "Once upon a time",
        "",
        "%%prompt smollm2-135m-instruct --cot --samples 20 --vote",
        "A farmer has 17 sheep, and all but 9 run away. How many are left?",
        "",
        "%%prompt storyteller --temperature 1",
        'Name: {{gen name max_tokens=5}} Class: {{select role from="mage|thief"}}',
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Asks, showing the answer as it grows; an interrupted answer is kept, and the cell passes."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt
    from jupyter_gpt.data.render import turns
    from jupyter_gpt.notebook.views.completion import Writing, completion_bundle, prompt_bundle
    from jupyter_gpt.stages.prompt import uses_technique

    out, body = given.pop("out", None), cell.strip("\n")
    asked = turns(body) or body
    holes = "{{" in body and has_holes([body] if asked is body else [turn["content"] for turn in asked])
    if uses_technique(given):
        if holes:
            raise GPTError("a template is filled in one pass, which no technique goes with: leave one of them out")
        bind(ip, out, show_with_techniques(gpt, asked, ip.user_ns, given))
        return
    ask = gpt.template if holes else gpt.prompt
    with Writing() as writing:
        done = ask(asked, variables=ip.user_ns, on_token=writing.show, **given)
        if given.get("dry_run"):
            writing.put(prompt_bundle(done))
        else:
            writing.put(completion_bundle(done, None if done.remote else gpt.models[done.model].tokenizer))
    if holes:
        ip.push(variables_of(done))
    bind(ip, out, done)


def has_holes(texts: list[str]) -> bool:
    """Whether any of these texts is a template."""
    from jupyter_gpt.prompting.template import is_template

    return any(map(is_template, texts))


def variables_of(done) -> dict:
    """The holes of a template as variables: lists of them where there were several samples."""
    values = [sample.value for sample in done.samples]
    names = next((list(value) for value in values if value), [])
    if len(values) == 1:
        return values[0] or {}
    return {name: [value and value[name] for value in values] for name in names}


def show_with_techniques(gpt, asked, variables, given: dict):
    """The same with techniques: shows the tree of what is asked as it grows, then the answer with the whole tree."""
    from jupyter_gpt.notebook.views.approval import Asking
    from jupyter_gpt.notebook.views.trace import trace_bundle, unsent_bundle
    from jupyter_gpt.notebook.views.trace_live import Growing

    acts = given.get("react") or given.get("tools")
    with Growing() as growing, Asking() if acts else nullcontext() as person:
        approving = {"person": person} if acts else {}
        done = gpt.prompt(asked, variables=variables, on_trace=growing.show, **approving, **given)
        growing.put(unsent_bundle(done) if given.get("dry_run") else trace_bundle(done))
    return done
