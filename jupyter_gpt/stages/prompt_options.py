"""The options of everything that asks a model: sampling, techniques, tools, constraints, budgets, the prompt itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from jupyter_gpt.inference.completion import TEMPERATURE
from jupyter_gpt.options import Count, Options, option
from jupyter_gpt.stages.index import Retrieval
from jupyter_gpt.stages.stage import PROMPT_TEXTS, Bound

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
PROMPTS = """
One prompt a line; empty lines are skipped. {variable} is filled from the notebook.
"""


def rounds(text: str) -> int:
    """The value of --reflect: 1 where none is given. ValueError says what is wanted instead."""
    if text and not text.isdecimal():
        raise ValueError("a whole number (such as 2)")
    return int(text or 1)


def unescaped(text: str) -> str:
    r"""A text in which `\n` and `\t` stand for a new line and a tab. ValueError says what is wanted instead."""
    if not text:
        raise ValueError("some text")
    return text.replace("\\n", "\n").replace("\\t", "\t")


class Sampled(Options):
    """How answers are sampled."""

    group: ClassVar[str] = "Sampling"

    samples: int = option(
        1,
        "number of answers; in float32 sample k is the answer of --seed S+k, but for a token whose draw falls on a "
        "rounding of its logits (one in tens of thousands); in bfloat16 the two share their random numbers only",
        "N",
    )
    temperature: float | None = option(
        None, f"sampling temperature; 0 is greedy decoding (default: {TEMPERATURE})", "T"
    )
    top_p: float | None = option(
        None, "nucleus sampling: only the most likely tokens whose probabilities add up to P", "P"
    )
    top_k: int | None = option(None, "only the K most likely tokens; 0 is all", "K")
    min_p: float | None = option(None, "only tokens at least P times as likely as the most likely one", "P")
    max_tokens: int = option(256, "maximum number of tokens in an answer", "N")
    min_tokens: int = option(0, "minimum number of tokens in an answer", "N")
    stop: str | list[str] | None = option(
        None, r"texts that end the answer before them, each in quotes; \n is a new line", "TEXT", kind=unescaped
    )
    seed: int = option(0, "random seed of the sampling", "S")


class Document(Options):
    """How the prompt is made of a question."""

    group: ClassVar[str] = "Prompt"

    system: str | None = option(None, "the system prompt", "TEXT")
    as_assistant: bool = option(False, "ask a base model as an assistant: in a document of a conversation")
    few_shot: Any = option(
        None,
        "a $variable with pairs of question and answer to put before the question; with --react the answer is a "
        "whole run: "
        "Thought: … Action: … Action Input: … Observation: … Final Answer: …; an agent takes such runs of tasks, "
        "and goals "
        "with their numbered lists",
        "$PAIRS",
        variable=True,
    )
    truncate: bool = option(False, "cut the beginning of a prompt that the context cannot hold")


class Asking(Sampled, Document):
    """How one model is asked."""

    model: str | None = option(
        None,
        "the model or endpoint to ask (default: the one made or used last)",
        place=True,
        keyword=True,
        complete="models",
        group="Model",
    )
    logprobs: int = option(0, "show each token's probability and its K most likely alternatives", "K", group="Sampling")
    history: bool = option(False, "the chat with this model goes on (for a base model, its document)", group="Prompt")
    dry_run: bool = option(False, "show the exact prompt and send nothing", group="Prompt")
    calculator: bool = option(
        False,
        "for a model trained to write calls into its text: after <<3*4= the result is computed and inserted, and "
        "generation goes on",
        group="Tools",
    )
    lookup: bool = option(
        False, "guess a greedy answer from its prompt (prompt-lookup decoding): faster where it quotes", only="python"
    )
    variables: Mapping | None = option(None, "values of `{name}` holes, by name", only="python")
    on_token: Callable | None = option(
        None, "called with the completion so far about ten times a second", only="python"
    )


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # BaseModel has a deprecated method of that name

    class Constrained(Options):
        """What the answer has to be."""

        group: ClassVar[str] = "Constraints"

        regex: Any = option(
            None, "the whole answer matches it (Rust's syntax: no look-around, no back references)", "REGEX"
        )
        json: Any = option(
            None,
            "the answer is JSON of this schema: a file, a $variable with a dict or a pydantic model, or true for "
            "any JSON",
            "SCHEMA",
            variable=True,
            complete="files",
        )
        choice: Any = option(None, "the answer is one of these", '"A|B"', variable=True, complete="variables")
        grammar: Any = option(
            None,
            "the answer is a text of this Lark grammar: a file, or a $variable with its text",
            "FILE",
            variable=True,
            complete="files",
        )


class Techniques(Options):
    """Techniques of prompting."""

    group: ClassVar[str] = "Techniques"

    cot: bool = option(
        False,
        "tokens to think: it writes its steps first, then reads the answer off; --few-shot shows it worked examples. "
        "Without a constraint on the thinking: --regex and the like hold the answer only",
    )
    vote: bool = option(False, "self-consistency, with --samples N: the answer that most samples reach")
    best_of: Any = option(
        None,
        "with --samples N: the answer scored highest, by f(prompt, completion) or by a reward model",
        "$REWARD|MODEL",
        variable=True,
        complete="models",
    )
    reflect: int = option(
        0,
        "ask it N times (1) whether it met the target, and to revise. Without --check it judges itself, and on "
        "questions "
        "with right answers that often makes them worse",
        "N",
        kind=rounds,
        optional=True,
    )
    check: Any = option(
        None,
        "with --reflect: f(prompt, answer), True where it is right, else what is wrong in words",
        "$FUNCTION",
        variable=True,
    )
    tree: bool = option(
        False, "tree of thoughts: proposes steps, scores them, keeps the promising ones, goes back from dead ends"
    )
    breadth: int = option(5, "with --tree: steps proposed from each state, and states kept on each level", "B")
    depth: int = option(3, "with --tree: maximum number of steps", "D")
    search: Literal["bfs", "dfs", "beam"] = option(
        "bfs",
        "with --tree: level by level by each state's score (bfs), by the sum of scores (beam), or the best step "
        "first (dfs)",
    )
    value: Any = option(
        None,
        "with --tree: f(prompt, steps so far), higher is better, 0 a dead end (default: the model says sure, likely or "
        "impossible)",
        "$FUNCTION",
        variable=True,
    )
    expert: str | bool = option(
        False,
        "condition on good performance: asked as a leading expert (in FIELD), to work it out step by step to be sure",
        "FIELD",
        kind=lambda text: text or True,
        optional=True,
    )
    on_trace: Callable | None = option(None, "called with the root of the trace whenever it has grown", only="python")


class Tools(Options):
    """What a model may act with."""

    group: ClassVar[str] = "Tools"

    tools: Any = option(
        None,
        "what it may act with: calculator, python (in a sandbox), search (the index; search:NAME of several), and "
        "$functions of this notebook with a docstring and type hints, separated by commas or spaces",
        "TOOL,…",
        many=True,
        parted=True,
        variable=True,
        complete="tools",
        hints=("calculator", "python", "search"),
    )
    approve: bool | Callable = option(
        False, "show each call before it acts: Approve, Edit, Deny; a tool that writes is always shown"
    )
    allow: str | list[str] | None = option(
        None,
        "tools that may act where nobody can be asked, as in a notebook run by a machine; all others that would be "
        "shown are "
        "denied there",
        "TOOL,…",
        parted=True,
    )
    steps: int | None = option(None, "maximum number of turns (default: 12)", "N")
    person: Callable | None = option(None, "who is asked before a tool acts", only="python")


class Budgets(Options):
    """Where a technique ends at the latest."""

    group: ClassVar[str] = "Budgets"

    max_calls: int | None = option(None, "maximum number of requests", "N")
    max_tokens_total: int | None = option(None, "maximum number of tokens, prompts and answers together", "N")
    max_seconds: float | None = option(None, "time limit in seconds", "S")
    max_cost: float | None = option(None, "maximum cost in dollars; for endpoints whose price is known", "DOLLARS")


class Prompting(Asking, Techniques, Tools, Constrained, Budgets, Bound):
    """All of them."""

    react: bool = option(False, "think, act, observe, until there is an answer: with --tools", group="Tools")


class Prompt(Prompting):
    """ask a model

    Samples an answer and shows it as it is written; the notebook's ■ stops it and keeps what came. Under the answer
    stand how the question was put, every setting, and the exact prompt; %gpt show last shows them again. A model's own
    generation settings are not used: what is not said here has the default told here, for every model.
    """

    magic: ClassVar[str] = "%%prompt"
    groups: ClassVar[tuple[str, ...]] = ("Model", "Sampling", "Techniques", "Tools", "Constraints", "Budgets", "Prompt")
    body_help: ClassVar[str] = BODY
    body_sketch: ClassVar[tuple[str, ...]] = ("the question, or the beginning of a document", "…")
    examples: ClassVar[tuple[str, ...]] = (
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
    )

    text: str | list[dict] = option(
        ..., "the question: a text, or messages with `role` and `content`", positional=True, body=True, only="python"
    )


class Prompts(Prompting):
    """ask one model many things at once, batched together

    The options are those of `gpt.prompt`.
    """

    texts: list[str | list[dict]] = option(..., "the questions", positional=True, body=True, only="python")


class Template(Prompt):
    """have a model fill the holes of a template in one pass

    A template is a text such as `Name: {{gen name max_tokens=5}}`; `max_tokens` is of each hole. The completion's
    `value` has the holes by name.
    """


class Agent(Asking, Tools, Budgets, Bound):
    """give a model a goal and tools

    The model writes a list of tasks, works off the first with the tools, remembers its result, and looks at the list
    again: adds, takes out, reorders; a part that is a goal of its own gets a list of its own. It ends when the list is
    empty,
    at
    --tasks or at a budget, with what there is; the notebook's ■ does the same. What a tool does is contained: its
    errors, its time and its output are bounded, and Python runs in a sandbox.
    """

    magic: ClassVar[str] = "%%agent"
    groups: ClassVar[tuple[str, ...]] = ("Model", "Tools", "List", "Budgets", "Sampling", "Prompt")
    body_help: ClassVar[str] = "\nThe goal. {variable} is filled from this notebook.\n"
    body_sketch: ClassVar[tuple[str, ...]] = ("the goal",)
    examples: ClassVar[tuple[str, ...]] = (
        "%%agent assistant --tools calculator,search,$order --max-calls 40",
        "Find out which of the two offers is cheaper a kilo, and order that one.",
    )

    samples: Any = option(None, "an agent is one", only="none")
    min_tokens: Any = option(0, "minimum number of tokens in an answer", only="python")
    stop: Any = option(None, "texts that end an answer before them", only="python")
    logprobs: Any = option(0, "most likely alternatives of each token", only="python")
    history: Any = option(None, "an agent begins anew", only="none")
    calculator: Any = option(None, "an agent has tools", only="none")
    goal: str | list[dict] = option(..., "the goal", positional=True, body=True, only="python")
    steps: int | None = option(None, "maximum number of turns in one task (default: 12)", "N", group="Tools")
    tasks: int = option(10, "maximum number of tasks, on all levels together", "N", group="List")
    levels: int = option(2, "maximum depth of lists within lists; 1 is the list itself", "N", group="List")
    on_trace: Callable | None = option(None, "called with the root of the trace whenever it has grown", only="python")


class Rag(Retrieval, Prompting):
    """answer a question from documents, with sources

    Finds the chunks of an index that are nearest to the question, puts those that fit into the prompt, best first, and
    asks a model to answer from them. Each sentence of the answer is then held against its sources: one is supported
    where what it adds to the question, its words, numbers, names and negations, stands in a source; any other is
    marked, with the reason. Where nothing near the question is found, the answer is "I don't know" and no model is
    asked. Documents are quoted as data: what they say is no instruction.
    """

    magic: ClassVar[str] = "%%rag"
    groups: ClassVar[tuple[str, ...]] = (
        "Model",
        "Retrieval",
        "Sampling",
        "Techniques",
        "Constraints",
        "Budgets",
        "Prompt",
    )
    body_help: ClassVar[str] = "\nThe question. {variable} is filled from this notebook.\n"
    body_sketch: ClassVar[tuple[str, ...]] = ("the question",)
    examples: ClassVar[tuple[str, ...]] = ("%%rag assistant --index docs --k 4", "How many days of leave do I have?")

    question: str = option(..., "the question", positional=True, body=True, only="python")
    index: str = option(..., "the index to search", "NAME", positional=True, complete="indexes", group="Retrieval")
    near: float | None = option(
        None,
        "relevance threshold: the cosine from which on a chunk is near (default: what questions about other things "
        "reach by "
        "chance, measured when the index was made)",
        "COSINE",
        group="Retrieval",
    )
    history: bool = option(
        False, "the question follows up on the last; it is rewritten to stand by itself", group="Prompt"
    )
    temperature: float | None = option(
        None, "sampling temperature; 0 is greedy decoding (default: 0, with --samples 0.7)", "T", group="Sampling"
    )


class Ranking(Prompting):
    """What rank, compare and arena have in common: who judges, and where it is kept."""

    group: ClassVar[str] = "Models and rankings"

    groups: ClassVar[tuple[str, ...]] = ("Models and rankings", "Sampling", "Prompt")

    no_form: bool = option(False, "ask for no rankings: only those there are", only="magic")
    tick: Callable | None = option(None, "called with (what, done, total, tokens)", only="python")


class Rank(Ranking):
    """a model's answers to each prompt, to be ranked by a person or a judge

    Samples several completions of each prompt and asks in a form which are better: by dragging, by number keys or by
    buttons, ties allowed. Their order is shuffled, and whose they are is not told. Each ranking is on disk at the
    moment it is given, and the cell waits for nobody: the same cell, run again, goes on where it stopped, in a new
    kernel too. A reward model learns from the rankings, and %%rlhf from that. With --judge or --rankings nobody is
    asked, so the notebook runs without a person.
    """

    group: ClassVar[str] = "Models and rankings"

    magic: ClassVar[str] = "%%rank"
    body_help: ClassVar[str] = (
        PROMPTS
        + """
Keys of the form: 1 … 9 put a completion next in the order (or take it out again), = lets
the next one tie with the last, 0 ties all the rest, Enter keeps the ranking, Backspace
takes a step back, u undoes the last ranking, r is for a reason, s or → skips, ← goes
back; on a completion that has the focus ↑ and ↓ move it.
"""
    )
    body_sketch: ClassVar[tuple[str, ...]] = ("prompt", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%rank taste --model assistant --samples 4 --max-tokens 60",
        "Tell me about the fox.",
        "Why was Anna sad?",
        "",
        "%%rank taste --model assistant --judge $polite",
        "Tell me about the fox.",
    )

    name: str = option(..., "name under which the rankings are kept", place=True, complete="rankings")
    prompts: list[str | list[dict]] = option((), "the prompts", positional=True, body=True, only="python")
    model: str | list[str] | None = option(
        None, "whose completions; of several, each writes --samples of them", "MODEL", complete="models"
    )
    samples: int = option(4, "completions of each prompt", "K")
    by: str = option("person", "who ranks; the agreement of several annotators is shown", "WHO")
    judge: str | Callable | None = option(
        None,
        "a $function(prompt, completion) that scores, higher for the better, or a model that is asked for the order",
        "JUDGE",
        complete="models",
        variable=True,
    )
    rankings_file: str | None = option(
        None,
        "import this file's rankings of the prompts (of all its own if there are none): rankings as kept here, or "
        "pairs of "
        "chosen and rejected",
        "FILE",
        flag="--rankings",
        complete="files",
    )
    overwrite: bool = option(
        False,
        "ask these in the place of the questions that another cell asked under this NAME; rankings that were given "
        "are kept",
    )


class Compare(Ranking):
    """several models' answers to the same prompts, side by side

    Gives each prompt to each model, with the same seeds, and shows the completions in columns with their differing
    words tinted. Beside the table a form asks which is better, without saying whose is whose; each vote is kept at once
    under the rankings' name, from which a reward model can be trained. The cell waits for nobody: run it again to go on
    voting.
    """

    group: ClassVar[str] = "Models and rankings"

    magic: ClassVar[str] = "%%compare"
    body_help: ClassVar[str] = PROMPTS
    body_sketch: ClassVar[tuple[str, ...]] = ("prompt", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%compare storyteller smollm2 --max-tokens 60",
        "Once upon a time",
        "The capital of France is",
    )

    model: Any = option(None, "the models take its place", only="none")
    models: list[str] = option(..., "the models to compare, two or more", place="MODEL", many=True, complete="models")
    prompts: list[str | list[dict]] = option(..., "the prompts", positional=True, body=True, only="python")
    rankings: str | None = option(
        None, "name under which the votes are kept (default: MODEL-vs-MODEL)", "NAME", complete="rankings"
    )


class Arena(Ranking):
    """blind votes between models, and a leaderboard of Elo

    Every two of the models answer each prompt, and a form asks which answer is better, without saying whose is whose;
    or a judge votes. Each vote is kept at once, and the same line goes on where it stopped. The leaderboard has Elo
    from a Bradley-Terry model of all votes, with intervals by bootstrap over prompts. Models behind a server (%gpt
    config endpoint) may join.
    """

    group: ClassVar[str] = "Models and rankings"

    magic: ClassVar[str] = "%gpt arena"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt arena base assistant aligned --prompts $questions --max-tokens 60",
        "%gpt arena assistant aligned --judge $polite",
    )

    model: Any = option(None, "the models take its place", only="none")
    samples: Any = option(None, "one completion of each model", only="none")
    models: list[str] = option(..., "the models, two or more", place="MODEL", many=True, complete="models")
    prompts: list[str] = option(
        (), f"{PROMPT_TEXTS} (default: eight of our own)", "TEXT", positional=True, complete="files", lines=True
    )
    judge: str | Callable | None = option(
        None,
        "a $function(prompt, completion) that scores, higher for the better, or a model that is asked which is "
        "better, in both "
        "orders",
        "JUDGE",
        complete="models",
        variable=True,
    )
    by: str = option("person", "who votes", "WHO")
    name: str | None = option(
        None,
        "name under which the votes are kept (default: arena-MODEL-MODEL)",
        "NAME",
        flag="--rankings",
        complete="rankings",
    )
    overwrite: bool = option(
        False,
        "ask these in the place of the questions that another cell asked under these rankings; votes that were "
        "given are kept",
    )


class Evaluate(Prompting):
    """techniques x models on questions with answers: accuracy, cost, what to use

    First the best possible performance, then cost: asks every question with every technique of every model, batched,
    and shows accuracy with its interval, tokens, seconds and dollars of each, and which to use: the best, and the
    cheapest within
    its interval. What the expected answers are, numbers, letters of options, yes or no, or texts, decides how every
    reply
    is read, whichever technique it is from; a reply without a readable answer is counted and wrong, one cut off at
    --max-tokens
    too unless it named its answer. Results are kept as they come: ■ stops, the same line goes on.
    """

    group: ClassVar[str] = "Task"

    magic: ClassVar[str] = "%gpt evaluate"
    groups: ClassVar[tuple[str, ...]] = ("Task",)
    examples: ClassVar[tuple[str, ...]] = (
        '%gpt evaluate $riddles --models mine --techniques direct "--cot" "--reflect"',
        "%gpt evaluate reasoning-gym:chain_sum --models mine mini --questions 100",
    )

    model: Any = option(None, "the models take its place", only="none")
    task: Any = option(
        ...,
        "a $variable or a .csv, .json or .jsonl file with questions and answers, or reasoning-gym:NAME",
        place=True,
        variable=True,
        complete="files",
    )
    models: list[str] = option((), "the models to ask", "MODEL", complete="models")
    index: list[str] = option(
        (),
        "measure retrieval from these indexes instead, by meaning, --keyword and --hybrid with three weights, and "
        "say which "
        "finds most: questions that say where their answers stand (a `quote`, or `source` and `page`); with "
        "--models, answers "
        "with the book closed and open",
        "NAME",
        complete="indexes",
        only="magic",
    )
    techniques: Any = option(
        None,
        "each in quotes, the flags of %%prompt; a word of no flag, such as direct, is none (default: direct "
        '"--cot" "--cot '
        '--samples 5 --vote")',
        "FLAGS",
        many=True,
    )
    questions: int | None = option(None, "the first N only (of reasoning-gym: 50)", "N")
    score: Any = option(
        None,
        "f(answer, expected), true where it is right; answer is what the technique read off, or else the whole "
        "reply (default: "
        "the same number, option, yes or no, or a sentence with the same words)",
        "$FUNCTION",
        variable=True,
    )
    temperature: float | None = option(None, "sampling temperature of all of them", "T")
    max_tokens: int = option(256, "tokens of each answer at most", "N")
    as_assistant: bool = option(False, "ask base models as assistants")
    few_shot: Any = option(None, "a $variable with pairs of question and worked answer", "$PAIRS", variable=True)
    seed: int = option(0, "decides the sampling, and which puzzles", "S")
    progress: Callable | None = option(None, "called with (what, done, total)", only="python")


class EvaluateIndex(Prompting):
    """retrieval of indexes on questions whose answers stand somewhere: recall, MRR, nDCG"""

    magic: ClassVar[str] = "gpt.evaluate_index"

    model: Any = option(None, "the models take its place", only="none")
    questions: Any = option(..., "a table of questions, with a `quote`, or `source` and `page`", positional=True)
    indexes: list[str] = option(..., "names of the indexes", positional=True)
    ks: list[int] | None = option(None, "numbers of hits that recall is measured at")
    models: list[str] = option((), "models to ask, with the book closed and open")
    k: Count = option(4, "chunks that the models are given")
    progress: Callable | None = option(None, "called with (what, done, total)", only="python")
