"""`%gpt VERB`: one line for everything that is not a cell of its own. Each verb calls one function of the session and
shows its result.
"""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.errors import GPTError, nearest, reading
from jupyter_gpt.nn.sizes import amount
from jupyter_gpt.notebook.magics.cells import CELLS, LoadingMagic, RankingMagic, TrainingMagic
from jupyter_gpt.notebook.magics.notebook import say, show, watch
from jupyter_gpt.notebook.magics.options import Command, Magic, described, help_text, parse
from jupyter_gpt.report.parts import Inline, Paragraph, Varies


def models(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.models`."""
    from jupyter_gpt.models.listing import catalogue_report, models_report

    show(catalogue_report() if given.get("catalogue") else models_report(gpt.models))
    return gpt.models


def pull(gpt, given: dict, ip) -> object:
    """Pulls, with a progress line in a live front end; leaves one line about the model, which is the result."""
    from jupyter_gpt.notebook.views.progress import progress_line

    with progress_line() as (bar, leave):
        model = gpt.pull(**given, progress=bar)
        leave(pulled(model))
    return model


def pulled(model):
    """One line: its size, whether base or assistant, its licence; and where it came from, which may differ."""
    from jupyter_gpt.models.listing import kind_of
    from jupyter_gpt.report.report import Report

    licence = model.licence or "not stated"
    line = f"{model.name}: {kind_of(model)} model, {model.parameters:,} parameters, licence {licence}"
    source = Paragraph(["from ", Varies(str(model.source))])
    return Report(line, [source], {"view": "model", "name": model.name, "parameters": model.parameters})


def load(gpt, given: dict, ip) -> object:
    """Loads it; the result is the model."""
    model = gpt.load(**given, variables=ip.user_ns)
    print(f"{model.name} is in memory, {model.dtype} on {model.device}")
    for note in model.notes:
        print(note)
    return model


def unload(gpt, given: dict, ip) -> object:
    """Unloads it and prints the memory freed; the result is the model."""
    name = given["name"]
    size, freed = gpt.models.unload(name)
    if not size:
        print(f"{name} was not in memory")
    elif freed:
        say(f"{name} is no longer in memory: ", Varies(amount(size)), " freed")
    else:
        say(f"{name} is unloaded, but a variable of the notebook still holds its weights, ", Varies(amount(size)))
    return gpt.models.about(name)


def save(gpt, given: dict, ip) -> object:
    """Writes it; the result is the folder."""
    folder = gpt.save(**given)
    if "gguf" in given:
        print(f"{given['name']} is in {given['gguf']}, for llama.cpp and what is built on it")
        return folder
    print(f"{given['name']} is in {given['folder']}")
    if base := gpt.models.about(given["name"]).base:
        print(f"it is an adapter of {base}, which is not in that folder: its README.md says how both are loaded")
    return folder


def merge(gpt, given: dict, ip) -> object:
    """Merges and prints the new model, which is the result."""
    model = gpt.merge(**given)
    print(f"{model.name}: {given['name']} merged into its base, {model.parameters:,} parameters")
    return model


def push(gpt, given: dict, ip) -> object:
    """Pushes it and says where it is, or shows what would be sent; the result is what was sent, or that report."""
    pushed = gpt.push(**given)
    if given.get("dry_run"):
        show(pushed)
    else:
        say(f"{given['name']} is on the hub: ", Varies(pushed.url), f", {len(pushed.files)} files")
    return pushed


def delete(gpt, given: dict, ip) -> object:
    """Deletes it and says what that gave back; the result is the bytes of each kind of thing."""
    freed = gpt.delete(**given)
    say(f"deleted {' and '.join(freed)} {given['name']}: ", Varies(amount(sum(freed.values()))), " on disk")
    return freed


def rename(gpt, given: dict, ip) -> object:
    """Renames it; the result is the kinds of what was renamed."""
    kinds = gpt.rename(**given)
    print(f"{' and '.join(kinds)} {given['name']} renamed to {given['new']}")
    return kinds


def runs(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.runs`."""
    from jupyter_gpt.runs.run import runs_report

    show(runs_report(gpt.runs))
    return gpt.runs


def stop(gpt, given: dict, ip) -> object:
    """Stops the run and waits until its model is saved; the result is the run."""
    from jupyter_gpt.runs.run import standing

    run = gpt.stop(**given)
    say(f"{run.name} is {standing(run)} at step ", Varies(run.step), f" of {run.steps:,}")
    return run


def resume(gpt, given: dict, ip) -> object:
    """Resumes the run, with the live view; the result is the model, or the run in the background."""
    background = given.pop("background", False) or given.get("detach", False)
    run = gpt.resume(variables=ip.user_ns, background=True, **given)
    watch(run, background=background)
    return run if background or run.name not in gpt.models else gpt.models[run.name]


def show_it(gpt, given: dict, ip) -> object:
    """Shows it and returns at once; the result is the run, the rankings, the list of them, or the completion."""
    from jupyter_gpt.notebook.views import inspect as look
    from jupyter_gpt.notebook.views.follow import follow
    from jupyter_gpt.notebook.views.place import is_live
    from jupyter_gpt.notebook.views.run_report import run_report
    from jupyter_gpt.runs.run import ACTIVE
    from jupyter_gpt.stages.rank import reopened

    names, tokens = given["names"], given.get("tokens", False)
    if names == [look.LAST]:
        show(*look.views(gpt, names, tokens))
        return gpt.last
    look.check(gpt, names, tokens)
    shown = [gpt.runs[name] if name in gpt.runs else reopened(gpt, name) for name in names]
    if names[0] in gpt.runs and gpt.runs[names[0]].status in ACTIVE and is_live():
        overlays = [other for name, other in zip(names[1:], shown[1:], strict=True) if name in gpt.runs]
        follow(shown[0], lambda run: run_report(run, overlays), overlays=overlays, background=True)
    else:
        for report in look.views(gpt, names):
            show(report)
    return shown if len(shown) > 1 else shown[0]


def tokens(gpt, given: dict, ip) -> list[int]:
    """Shows the tokens; the result is their integers."""
    tokens = gpt.tokens(given["model"], " ".join(given["text"]))
    show(tokens.report)
    return tokens


def batch(gpt, given: dict, ip) -> object:
    """Shows the rows; the result is the batch they are the top of, `(B, T+1)` token ids."""
    from jupyter_gpt.data.documents import Documents
    from jupyter_gpt.stages.tokens import batch_report, varies

    run, drawn, columns = gpt.runs[given["run"]], given.get("rows", 4), given.get("cols", 10)
    if drawn < 1 or columns < 2:
        raise GPTError(f"%gpt batch draws at least one row of two tokens, not {drawn} of {columns}")
    rows = gpt.batch(run.name, rows=drawn, seed=given.get("seed"))
    documents = Documents.open(run.folder / "data")
    report = batch_report(
        rows,
        documents.tokenizer(),
        documents.eot,
        name=run.name,
        varies=varies(gpt, run.name),
        shown_rows=drawn,
        shown_columns=columns,
    )
    show(report)
    return rows


def plan(gpt, given: dict, ip) -> object:
    """Shows the plan; the result is the `Plan`, or those of GPT-3 and LLaMA."""
    from jupyter_gpt.stages.plan import SLIDE_COUNT, plan_report, slide_report

    made = gpt.plan(**given)
    show(slide_report(**{"count": SLIDE_COUNT, **given}) if isinstance(made, list) else plan_report(made))
    return made


def index(gpt, given: dict, ip) -> object:
    """Builds or updates the index, with a progress line in a live front end; the result is the index."""
    from jupyter_gpt.notebook.views.progress import megabytes, percent, progress_line
    from jupyter_gpt.retrieval.document_sources import files
    from jupyter_gpt.stages.index import index_report

    given["variables"] = ip.user_ns
    for source in given.get("sources") or []:
        if not source.startswith(("$", "http://", "https://")):
            files(source)  # on a line every word is a path, none is a text

    def drawn(bar, amount):
        def progress(what, done, total):
            bar.amount = amount
            bar(what, done, total)

        return progress if bar else None

    with progress_line() as (bar, leave):
        kept = gpt.index(**given, progress=drawn(bar, percent), fetching=drawn(bar, megabytes))
        leave(index_report(kept))
    return kept


def indexes(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.indexes`."""
    show(gpt.indexes.report)
    return gpt.indexes


def search(gpt, given: dict, ip) -> object:
    """Shows the hits; the result is the list of them."""
    from jupyter_gpt.notebook.views.place import Place
    from jupyter_gpt.retrieval.index_map import index_map
    from jupyter_gpt.stages.rag import hits_report

    with Place() as place:
        kept = gpt.indexes[given["index"]]
        embedder = kept.about["embedder"]
        if not gpt.indexes.embedders.loaded and embedder not in gpt.models:  # a model tells so itself
            place.loading(embedder)
        how, question = given.pop("map", "pca"), given["query"]
        hits = gpt.search(**given)
        drawn = [] if how == "none" else index_map(kept, kept.vectors([question])[0], hits, how)
        place.put(hits_report(kept.name, question, hits, ranked(given, embedder), drawn))
    return hits


def ranked(options: dict, embedder: str) -> str:
    """A line about how the hits were ranked."""
    how = f"ranked by {embedder}'s cosine"
    if options.get("keyword"):
        how = "ranked by BM25"
    if "hybrid" in options:
        share = "" if options["hybrid"] is True else f" ({options['hybrid']:g} to {1 - options['hybrid']:g})"
        how = f"ranked by {embedder}'s cosine and BM25, fused by reciprocal rank{share}"
    if options.get("rerank"):
        how += f", then by {options['rerank']}"
    if options.get("mmr"):
        how += ", spread out (maximal marginal relevance)"
    return how + (f"; only where {options['filter']}" if options.get("filter") else "")


def serve(gpt, given: dict, ip) -> object:
    """Starts or stops the server and prints its address; the result is the server."""
    if given.pop("stop", False):
        if given:
            raise GPTError("%gpt serve --stop takes no other option")
        server = gpt.serving.stop()
        print("the server is stopped")
        return server
    before = gpt.serving.server
    server = gpt.serve(**given)
    token = ["token: ", Varies(f"{server.token[:4]}…"), " (the whole token: gpt.serve().token)"]
    if server is before:
        token = "as before, with the same token"
    elif server.token_env:
        token = f"token: that in {server.token_env}"
    say("serving at ", shown(server), "\n", token)
    return server


def shown(server) -> Inline:
    """The address; a free port chosen by the system differs each time."""
    before, after = server.url.split(f":{server.port}/")
    return [before, ":", str(server.port) if server.requested_port else Varies(str(server.port)), "/", after]


def evaluate(gpt, given: dict, ip) -> object:
    """Evaluates, with a progress line in a live front end; the result is the evaluation."""
    from jupyter_gpt.notebook.views.progress import count_of, progress_line

    if "index" in given:
        return evaluate_index(gpt, given)
    if "tasks" in given:
        return evaluate_tasks(gpt, given)
    if wrong := next((name for name in ("shots", "chat") if name in given), None):
        raise GPTError(f"--{wrong} goes with --tasks")
    if "models" not in given:
        raise GPTError("%gpt evaluate requires --models (or --index, the indexes to search)")
    options = dict(given)
    if "techniques" in options:
        options["techniques"] = {text: flags(text, ip.user_ns) for text in options["techniques"]}
    with progress_line(count_of("answers")) as (bar, leave):
        evaluation = gpt.evaluate(progress=bar, **options)
        leave(evaluation.report)
    return evaluation


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


def evaluate_tasks(gpt, given: dict) -> object:
    """Published benchmarks, with a progress line in a live front end; the result has the scores."""
    from jupyter_gpt.notebook.views.progress import count_of, progress_line

    options = {name: value for name, value in given.items() if name not in ("task", "models")}
    if wrong := next((name for name in options if name not in ("tasks", "shots", "chat", "questions", "seed")), None):
        raise GPTError(f"--{wrong.replace('_', '-')} goes with techniques, not with --tasks")
    with progress_line(count_of("requests")) as (bar, leave):
        found = gpt.evaluate_tasks([given["task"], *given.get("models", ())], progress=bar, **options)
        leave(found.report)
    return found


def flags(text: str, variables) -> dict:
    """The options of one technique. Raises GPTError for flags that %%prompt has not, or that belong to the whole."""
    if not text.strip().startswith("-"):
        return {}
    given = parse(CELLS["prompt"].COMMAND, text, variables) or {}
    wrong = next((name for name in ("model", "step", "out", "dry_run", "history", "seed") if name in given), None)
    if wrong:
        raise GPTError(f"--techniques {text!r}: --{wrong.replace('_', '-')} belongs to no technique")
    return given


def claims(gpt, given: dict, ip) -> object:
    """Shows the table, then raises GPTError if a claim does not hold; the result is `gpt.claims`."""
    show(gpt.claims.report)
    gpt.claims.check()
    return gpt.claims


def config(gpt, given: dict, ip) -> object:
    """Shows or changes what is set; the result is the endpoints or the texts."""
    from jupyter_gpt.notebook.magics.config import config

    return config(gpt, given, ip)


VERBS: dict[str, Magic] = {
    "models": Magic("models", "Models", models),
    "pull": Magic("models", "Pull", pull),
    "load": Magic("models", "Load", load),
    "unload": Magic("models", "Unload", unload),
    "save": Magic("models", "Save", save),
    "merge": Magic("models", "Merge", merge),
    "push": Magic("push", "Push", push),
    "delete": Magic("delete", "Delete", delete),
    "rename": Magic("delete", "Rename", rename),
    "runs": Magic("runs", "Runs", runs),
    "show": Magic("notebook.views.inspect", "Show", show_it),
    "stop": Magic("runs", "Stop", stop),
    "resume": Magic("runs", "Resume", resume),
    "tokens": Magic("tokens", "Tokens", tokens),
    "batch": Magic("tokens", "Batch", batch),
    "plan": Magic("plan", "Plan", plan),
    "reward": TrainingMagic("reward", "RewardModel"),
    "arena": RankingMagic("ranking_options", "Arena"),
    "evaluate": Magic("prompt_options", "Evaluate", evaluate),
    "claims": Magic("claims", "ShowClaims", claims),
    "index": Magic("index", "Index", index),
    "indexes": Magic("index", "Indexes", indexes),
    "search": LoadingMagic("index", "Search", search),
    "serve": Magic("serve", "Serve", serve),
    "config": Magic("notebook.magics.config", "Config", config),
}


def overview() -> str:
    """What `%gpt` alone prints: every verb with its summary."""
    lines = [f"  {verb:<8}  {command(verb).summary}" for verb in VERBS]
    head = "%gpt VERB: look after models and runs, look at what they read"
    return "\n".join([head, "", *lines, "", "%gpt VERB --help explains one."])


def run(ip, line: str) -> None:
    """Runs the verb; without one, or for `help`, prints help."""
    verb, *rest = line.split(maxsplit=1)[:2] or [""]
    rest = "".join(rest)
    if verb in ("", "help", "--help", "-h"):
        print(help_text(command(rest.strip())) if rest.strip() else overview())
        return
    command(verb)
    VERBS[verb].run(ip, rest)


def command(verb: str) -> Command:
    """The command of a verb. Raises GPTError for an unknown one."""
    if verb not in VERBS:
        raise GPTError(f"%gpt has no verb {verb}{nearest(verb, (*VERBS, 'help'))}")
    return VERBS[verb].COMMAND


def describe(name: str, kind: str = "") -> dict:
    """What a magic accepts, for the panel's comm. `name` is as it is typed: `%%sft`, `%gpt show`. GPTError for none."""
    cell = CELLS.get(name.removeprefix("%%")) if name.startswith("%%") else None
    return {"command": described(cell.COMMAND if cell else command(name.removeprefix("%gpt ")))}
