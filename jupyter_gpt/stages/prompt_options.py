"""The options of everything that asks a model: sampling, techniques, tools, constraints, budgets, the prompt itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.options import Count, NotNegative, Options, option
from jupyter_gpt.prompting.options import Budget, Techniques
from jupyter_gpt.runs.retention import BEST
from jupyter_gpt.stages.checkpoints import LATEST, checked_step, typed_step
from jupyter_gpt.stages.index import Retrieval
from jupyter_gpt.stages.stage import Bound

BODY = """
The question, for a model with a chat template (an assistant); the beginning of a
document, for one without (a base model), because base models complete documents. A
first line that begins with `system:`, `user:` or `assistant:` makes it a chat, every
such line a turn.

  {variable}              filled from this notebook; {paper.title}, {rows[0]["name"]}
                          too. Any other brace is just a brace, and {{variable}} stays
                          {variable}.
  {{gen name}}            makes it a template: the model fills its holes in one pass, and
                          each becomes a variable of the notebook. The rest stays as it
                          is written. A hole may have max_tokens=5, temperature=0,
                          stop="x", regex="[0-9]+" or json=$schema; without them it ends
                          where the text after it comes. In a chat the holes are in the
                          last turn, an assistant: one.
  {{select name from="a|b"}}
                          a hole with choices; from=$list takes them from a variable
"""


class Document(Options):
    """How the prompt is made of a question."""

    group: ClassVar[str] = "Prompt"

    system: str | None = option(None, "the system prompt", "TEXT")
    as_assistant: bool = option(False, "ask a base model as an assistant: in a document of a conversation")
    few_shot: Any = option(
        None,
        "a $variable with pairs of question and answer to put before the question; with --react the answer is a whole "
        "run: Thought: … Action: … Action Input: … Observation: … Final Answer: …; an agent takes such runs of tasks, "
        "and goals with their numbered lists",
        "$PAIRS",
        variable=True,
    )
    truncate: bool = option(False, "cut the beginning of a prompt that the context cannot hold")


class Asking(Sampling, Document):
    """How one model is asked."""

    model: str | None = option(
        None,
        "the model or endpoint to ask (default: the one made or used last)",
        place=True,
        keyword=True,
        complete="models",
        group="Model",
    )
    history: bool = option(False, "continue the chat with this model (for a base model, its document)", group="Prompt")
    dry_run: bool = option(False, "show the exact prompt and send nothing", group="Prompt")
    calculator: bool = option(
        False,
        "for a model trained to write calls into its text: after <<3*4= the result is computed and inserted, and "
        "generation goes on",
        group="Tools",
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


class Tools(Options):
    """What a model may act with."""

    group: ClassVar[str] = "Tools"

    tools: Any = option(
        None,
        "what it may act with: calculator, python (in a sandbox), search (the index; search:NAME of several), and "
        "$functions of this notebook with a docstring and type hints, separated by commas or spaces; "
        '"mcp:COMMAND" or mcp:URL brings the tools of an MCP server, and asks before each call unless the server '
        "says that the tool only reads; headers "
        "follow the URL, their keys in environment variables (an example is under %%agent)",
        "TOOL,…",
        many=True,
        parted=True,
        variable=True,
        complete="tools",
        hints=("calculator", "python", "search"),
    )
    approve: bool | Callable = option(
        False, "ask before each call: Approve, Edit, Deny; for a tool that writes the user is always asked"
    )
    allow: str | list[str] | None = option(
        None,
        "tools that may run without approval where nobody can be asked, as in a notebook executed by a machine; there "
        "any other call that needs approval is denied",
        "TOOL,…",
        parted=True,
    )
    steps: Count | None = option(None, "maximum number of turns (default: 12)", "N")
    person: Callable | None = option(None, "who is asked before a tool acts", only="python")


class PromptOptions(Asking, Techniques, Tools, Constrained, Budget, Bound):
    """All of them."""

    react: bool = option(False, "think, act, observe, until there is an answer: with --tools", group="Tools")
    on_trace: Callable | None = option(None, "called with the root of the trace whenever it has grown", only="python")


CONSTRAINTS = tuple(Constrained.model_fields)
TECHNIQUES = {"react", *Techniques.model_fields, *Tools.model_fields, *Budget.model_fields}


class Prompt(PromptOptions):
    """ask a model

    Samples an answer and shows it while it is generated; ■ stops it and keeps what was generated so far. Below the
    answer are the form of the prompt, every setting, and the exact prompt; %gpt show last shows them again. A model's
    own generation config is not used: the defaults below are the same for every model.
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
        "%%prompt storyteller --step latest",
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
    step: Annotated[int | str, AfterValidator(checked_step)] | None = option(
        None,
        "ask a checkpoint of the run MODEL, which may be training meanwhile: of this step, the latest, or the best",
        "N|latest|best",
        kind=typed_step,
        hints=(LATEST, BEST),
        group="Model",
    )


class Prompts(PromptOptions):
    """ask one model many things at once, batched together

    The options are those of `gpt.prompt`.
    """

    texts: list[str | list[dict]] = option(..., "the questions", positional=True, body=True, only="python")


class Template(Prompt):
    """have a model fill the holes of a template in one pass

    A template is a text such as `Name: {{gen name max_tokens=5}}`. The completion's `value` has the holes by name.
    """

    max_tokens: Count = option(64, "maximum number of tokens in each hole")


class Agent(Asking, Tools, Budget, Bound):
    """give a model a goal and tools

    The model writes a list of tasks, does the first with the tools, remembers its result, and revises the list: adds,
    removes, reorders; a task that is a goal of its own gets a list of its own. It ends when the list is empty, at
    --tasks, or when a budget is spent, and answers from what there is; so it does when ■ stops it. Errors, time and
    output of a tool are limited, and Python runs in a sandbox.
    """

    magic: ClassVar[str] = "%%agent"
    groups: ClassVar[tuple[str, ...]] = ("Model", "Tools", "List", "Budgets", "Sampling", "Prompt")
    body_help: ClassVar[str] = "\nThe goal. {variable} is filled from this notebook.\n"
    body_sketch: ClassVar[tuple[str, ...]] = ("the goal",)
    examples: ClassVar[tuple[str, ...]] = (
        "%%agent assistant --tools calculator,search,$order --max-calls 40",
        "Find out which of the two offers is cheaper a kilo, and order that one.",
        "",
        """%%agent assistant --tools 'mcp:https://host/mcp --header "Authorization: Bearer ${KEY}"'""",
        "List the open issues, and close those that are answered.",
    )

    samples: Any = option(None, "an agent is one sample", only="none")
    min_tokens: Any = option(0, "minimum number of tokens in an answer", only="python")
    stop: Any = option(None, "texts that end an answer before them", only="python")
    logprobs: Any = option(0, "most likely alternatives of each token", only="python")
    history: Any = option(None, "an agent starts without a history", only="none")
    calculator: Any = option(None, "an agent has tools", only="none")
    goal: str | list[dict] = option(..., "the goal", positional=True, body=True, only="python")
    steps: Count | None = option(None, "maximum number of turns in one task (default: 12)", "N", group="Tools")
    tasks: Count = option(10, "maximum number of tasks, on all levels together", "N", group="List")
    levels: Count = option(2, "maximum depth of lists within lists; 1 is the list itself", "N", group="List")
    on_trace: Callable | None = option(None, "called with the root of the trace whenever it has grown", only="python")


class Rag(Retrieval, PromptOptions):
    """answer a question from documents, with sources

    Finds the chunks of an index that are nearest to the question, puts those that fit into the prompt, best first, and
    asks a model to answer from them. Each sentence of the answer is then compared with its sources: it is supported if
    what it adds to the question (words, numbers, names, negations) is in a source; any other sentence is marked, with
    the reason. If no chunk is near the question, the answer is "I don't know" and no model is asked. Documents are
    quoted as data, not as instructions.
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
        "relevance threshold: the least cosine of a chunk that is near the question (default: what questions about "
        "other subjects reach by chance, measured when the index was made)",
        "COSINE",
        group="Retrieval",
    )
    history: bool = option(
        False,
        "the question follows up on the last one, and is first rewritten as a question of its own",
        group="Prompt",
    )
    temperature: NotNegative | None = option(
        None, "sampling temperature; 0 is greedy decoding (default: 0, with --samples 0.7)", "T", group="Sampling"
    )


class Evaluate(PromptOptions):
    """techniques x models on questions with answers: accuracy, cost, what to use

    Asks every question with every technique of every model, batched, and shows accuracy with its interval, tokens,
    seconds and dollars of each, and which to use: the most accurate, and the cheapest within its interval. The form of
    the expected answers (numbers, letters of options, yes or no, texts, sentences) decides how the answer is extracted
    from every reply, whichever technique it is from, and how it is scored; a reply without an answer counts as wrong,
    and so does one cut off at --max-tokens before it stated its answer. Results are saved as they come: after ■ the
    same line continues.
    """

    group: ClassVar[str] = "Task"

    magic: ClassVar[str] = "%gpt evaluate"
    groups: ClassVar[tuple[str, ...]] = ("Task",)
    examples: ClassVar[tuple[str, ...]] = (
        '%gpt evaluate $riddles --models mine --techniques direct "--cot" "--reflect"',
        "%gpt evaluate reasoning-gym:chain_sum --models mine mini --questions 100",
        "%gpt evaluate mine --tasks arc_easy,gsm8k --questions 200",
    )

    model: Any = option(None, "the models take its place", only="none")
    task: Any = option(
        ...,
        "a $variable or a .csv, .tsv, .json, .jsonl or .parquet file with questions and answers, or reasoning-gym:NAME",
        place=True,
        variable=True,
        complete="files",
    )
    models: list[str] = option((), "the models to ask", "MODEL", complete="models")
    index: list[str] = option(
        (),
        "evaluate retrieval from these indexes instead: dense, --keyword, and --hybrid with three weights; questions "
        "then need evidence (a `quote`, or `source` and `page`); with --models, also answers without and with the "
        "index",
        "NAME",
        complete="indexes",
        only="magic",
    )
    techniques: Any = option(
        None,
        "flags of %%prompt, each technique in quotes; a word without a flag, such as direct, is no technique (default: "
        'direct "--cot" "--cot --samples 5 --vote")',
        "FLAGS",
        many=True,
    )
    tasks: list[str] = option(
        (),
        "published benchmarks instead, by lm-evaluation-harness (extra [lm-eval]), such as gsm8k or arc_easy, or task "
        "files in YAML, separated by commas or spaces; the model, or the first of several, takes the place of TASK",
        "TASK",
        parted=True,
        only="magic",
    )
    shots: int | None = option(
        None, "with --tasks: examples before each question (default: as the task says)", "N", only="magic"
    )
    chat: bool = option(False, "with --tasks: put each question into the model's chat template", only="magic")
    questions: Count | None = option(None, "the first N only (of reasoning-gym: 50)", "N")
    score: Any = option(
        None,
        "contains (the expected words), f1 (token F1), rouge (ROUGE-L), judge:MODEL (a model compares the answers), or "
        "$function f(answer, expected), true if it is right, whose answer is what the technique extracted, else the "
        "whole reply (default: equality of numbers, options, yes or no and words; of sentences also token F1)",
        "NAME",
        variable=True,
        complete="models",
        hints=("contains", "f1", "rouge"),
    )
    temperature: NotNegative | None = option(None, "sampling temperature of all of them", "T")
    max_tokens: Count = option(256, "maximum number of tokens in an answer", "N")
    as_assistant: bool = option(False, "ask base models as assistants")
    few_shot: Any = option(None, "a $variable with pairs of question and worked answer", "$PAIRS", variable=True)
    seed: int = option(0, "decides the sampling, and which puzzles", "S")
    progress: Callable | None = option(None, "called with (what, done, total)", only="python")
