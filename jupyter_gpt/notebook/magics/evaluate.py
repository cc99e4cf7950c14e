"""`%gpt evaluate`: which technique, with which model, is worth its price."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.errors import GPTError, reading
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import parse


def evaluate(gpt, given: dict, ip) -> object:
    """Measures and shows; the result is the evaluation."""
    from jupyter_gpt.notebook.views.place import is_live
    from jupyter_gpt.notebook.views.progress import Progress
    from jupyter_gpt.stages.evaluate import evaluation_report

    if "index" in given:
        return evaluate_index(gpt, given)
    if "models" not in given:
        raise GPTError("%gpt evaluate wants --models, the models to ask (or --index, the indexes to search)")
    options = dict(given)
    if "techniques" in options:
        options["techniques"] = {text: flags(text, ip.user_ns) for text in options["techniques"]}
    line = Progress(lambda done, total: f"{done:,} of {total:,} answers") if is_live() else None
    try:
        found = gpt.evaluate(progress=line, **options)
    finally:
        if line:
            line.close()
    show(evaluation_report(found))
    return found


def evaluate_index(gpt, given: dict) -> object:
    """Retrieval from indexes; the result is the table."""
    from jupyter_gpt.stages.evaluate_index import retrieval_report

    wrong = next((name for name in ("techniques", "score", "questions", "seed") if name in given), None)
    if wrong:
        raise GPTError(f"--{wrong} goes with techniques, not with --index")
    options = {name: value for name, value in given.items() if name not in ("task", "index", "out")}
    if isinstance(given["task"], str):
        import pandas

        path: str = given["task"]
        if not Path(path).is_file():
            raise GPTError(f"there is no file of questions {path}: JSON, JSON lines or CSV, or a $variable")
        with reading(path, "it should be JSON, JSON lines or CSV"):
            csv = path.endswith(".csv")
            table = pandas.read_csv(path) if csv else pandas.read_json(path, lines=path.endswith(".jsonl"))
            options["questions"] = table
    else:
        options["questions"] = given["task"]
    table = gpt.evaluate_index(options.pop("questions"), given["index"], **options)
    show(retrieval_report(table))
    return table


def flags(text: str, variables) -> dict:
    """The options of one technique. Raises GPTError for flags that %%prompt has not, or that belong to the whole."""
    from jupyter_gpt.notebook.magics.prompting import prompt

    if not text.strip().startswith("-"):
        return {}
    given = parse(prompt.COMMAND, text, variables) or {}
    wrong = next((name for name in ("model", "out", "dry_run", "history", "seed") if name in given), None)
    if wrong:
        raise GPTError(f"--techniques {text!r}: --{wrong.replace('_', '-')} belongs to no technique")
    return given
