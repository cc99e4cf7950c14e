"""`%gpt push`: a model to the Hugging Face hub, with a model card written from what made it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.models import Model
from jupyter_gpt.nn.sizes import amount, short
from jupyter_gpt.options import option
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.runs.events import declared, last_of, recent
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.stage import Bound

CARD = "README.md"
STAGES = {
    "pretrain": "pretrained from scratch",
    "sft": "finetuned on conversations (SFT)",
    "classify": "finetuned to classify texts",
    "reward": "trained as a reward model",
    "rlhf": "aligned by reinforcement learning or preferences (RLHF)",
    "merge": "an adapter merged into its base",
}
USE = """\
```python
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = {auto}.from_pretrained("{repo}")
```
"""


class Push(Bound):
    """upload a model to the Hugging Face hub, with a model card

    Uploads the plain transformers or peft folder that %gpt save writes, with a model card: data, recipe, figures and
    lineage, and the licence of the base. The repository is created if there is none, public as on the hub by default;
    one that exists gets a commit, and keeps what it had in its history. It needs a token with write access, from
    `hf auth login` or the environment variable HF_TOKEN. --dry-run sends nothing and shows the card and the files.
    """

    magic: ClassVar[str] = "%gpt push"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt push storyteller me/storyteller --dry-run",
        "%gpt push storyteller me/storyteller --private",
    )

    name: str = option(..., "a model of this folder or of the user's cache", place=True, complete="models")
    repo: str = option(..., "owner/name of the repository on the hub", place=True)
    private: bool = option(False, "create it as a private repository (default: public); one that exists stays as it is")
    licence: str | None = option(
        None, "licence of the model, as the hub writes it: mit, apache-2.0 (default: that of its base)", "LICENCE"
    )
    dry_run: bool = option(False, "send nothing: show the model card and the files")


@dataclass(frozen=True)
class Pushed:
    """What was sent. files: bytes by name."""

    url: str
    card: str
    files: dict[str, int]


def push(session, options: Push) -> Pushed | Report:
    """Raises GPTError, one line, where the hub cannot be reached or says no. Nothing here changes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from jupyter_gpt.models.save import save

    try:
        validate_repo_id(options.repo)
    except HFValidationError:
        raise GPTError(f"{options.repo!r:.80} is not a repository of the hub: write owner/name") from None
    if "/" not in options.repo:
        raise GPTError(f"{options.repo} has no owner: write owner/{options.repo}")
    session.finish_first(options.name)
    model = session.models.about(options.name)
    if model.kind == "endpoint":
        raise GPTError(f"{options.name} is an endpoint: only its server has its weights")
    base = session.models.folder(model.base) if model.base else None
    if not options.dry_run:
        check_token()
    with tempfile.TemporaryDirectory(prefix="jupyter_gpt-push-") as place:
        folder = save(model, Path(place) / options.name, base=base)
        run = session.runs[model.name] if model.name in session.runs else None  # noqa: SIM401 a GPTError, no KeyError
        card = card_of(model, run, options, (folder / CARD).read_text() if model.base else "")
        store.write_text(folder / CARD, card)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        if options.dry_run:
            return dry_run_report(options, card, files)
        return Pushed(send(folder, options), card, files)


def check_token() -> None:
    from huggingface_hub import get_token

    if not get_token():
        raise GPTError("pushing needs a token of the hub with write access: set HF_TOKEN, or run hf auth login")


def send(folder: Path, options: Push) -> str:
    """Create the repository and upload the folder; its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    from jupyter_gpt.data.hub import Unreachable, reach

    try:
        api = HfApi(endpoint=reach())
    except Unreachable as error:
        raise GPTError(f"{options.name} was not pushed: {error}") from None
    shown = not are_progress_bars_disabled()
    disable_progress_bars()  # a notebook would be saved with them
    try:
        api.create_repo(options.repo, private=options.private or None, exist_ok=True)
        made = f"{options.name}, with %gpt push of jupyter_gpt"
        api.upload_folder(repo_id=options.repo, folder_path=folder, commit_message=made)
        return f"{api.endpoint}/{options.repo}"
    except Exception as error:  # the client raises what its HTTP library raises
        raise GPTError(f"{options.name} was not pushed: {reason(error)}") from None
    finally:
        if shown:
            enable_progress_bars()


def reason(error: Exception) -> str:
    """Why the hub said no, in one line, without the token."""
    import os

    from huggingface_hub import get_token

    from jupyter_gpt.runs.trackers import without_secrets

    said = getattr(error, "server_message", None) or next(
        (line.strip() for line in reversed(str(error).splitlines()) if line.strip()), ""
    )
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = f"the hub answered {status}: {said}" if status else f"{type(error).__name__}: {said}"
    return without_secrets(text, {**os.environ, "TOKEN": get_token() or ""})[:300]


def dry_run_report(options: Push, card: str, files: Mapping[str, int]) -> Report:
    who = "private" if options.private else "public"
    rows = [(name, Varies(amount(size))) for name, size in files.items()]
    return Report(
        f"{options.name} to {options.repo}, {who} if it is new: nothing was sent (--dry-run)",
        [Table(("file", "size"), rows, "lr"), Paragraph(Varies(card), "code")],
        {"view": "push", "name": options.name, "repo": options.repo},
    )


# the model card


def card_of(model: Model, run: Run | None, options: Push, adapter: str) -> str:
    """The model card: metadata of the hub, then what it is, how it is used, data, figures and recipe.

    `adapter` is the README that `save` writes for an adapter: its base, and how both are loaded.
    """
    import yaml

    recipe = run.recipe if run else {}
    front, _, body = adapter.removeprefix("---\n").partition("---\n") if adapter else ("", "", "")
    licence = options.licence or model.licence
    about = {
        **(yaml.safe_load(front) or {}),
        "license": hub_licence(licence),
        "library_name": "peft" if model.base else "transformers",
        "pipeline_tag": "text-classification" if model.labels else "text-generation",
        "datasets": sorted({name for source in sources(recipe) if (name := dataset_of(source))}),
        "tags": ["jupyter_gpt", model.kind],
    }
    metadata = yaml.safe_dump({k: v for k, v in about.items() if v}, sort_keys=False, allow_unicode=True)
    size = f"{short(model.parameters)} parameters"
    lines = [f"# {options.repo.partition('/')[2]}", ""]
    lines += [f"A model of {size}, {STAGES.get(model.kind, model.kind)}: {' → '.join(model.lineage)}.", ""]
    if body:
        lines += [*body.strip().splitlines()[2:], ""]
    else:
        auto = "AutoModelForSequenceClassification" if model.labels else "AutoModelForCausalLM"
        lines += [USE.format(auto=auto, repo=options.repo)]
    stated = f"`{licence}`" if licence else "not stated, neither for this model nor for what it was made from"
    lines += ["## Licence", "", f"{stated[0].upper()}{stated[1:]}.", ""]
    if run is not None:
        lines += [*data_section(recipe), *figures_section(run), *recipe_section(recipe)]
    lines += ["Made with jupyter_gpt."]
    return f"---\n{metadata}---\n" + "\n".join(lines) + "\n"


def hub_licence(licence: str | None) -> str | None:
    """As the hub writes it: `Apache-2.0` is `apache-2.0`."""
    return "-".join(licence.lower().split()) if licence else None


def sources(recipe: Mapping) -> list[str]:
    """The data sources of a recipe."""
    lines = (recipe.get("cell") or "").splitlines()
    return [*recipe.get("mixture", {}), *(line.strip() for line in lines if line.strip().startswith("hf:"))]


def dataset_of(source: str) -> str | None:
    """The dataset of the hub that a source names."""
    if not source.startswith("hf:"):
        return None
    return "/".join(source.removeprefix("hf:").partition("@")[0].partition(":")[0].split("/")[:2])


def data_section(recipe: Mapping) -> list[str]:
    mixture = recipe.get("mixture") or {}
    if not mixture:
        return []
    rows = [f"| `{without_place(source)}` | {weight:g} |" for source, weight in mixture.items()]
    return ["## Data", "", "| source | weight |", "|---|---|", *rows, ""]


def figures_section(run: Run) -> list[str]:
    """The last value of each metric that the run declares as a figure of it."""
    measured, last = last_of(run.events, "evaluation"), last_of(run.events, "step")
    rows = []
    for metric in declared(run.events):
        value = measured.get(metric.name, recent(run.events) if metric.name == "loss" else last.get(metric.name))
        if metric.summary and value is not None:
            low, high = (measured.get(name) for name in metric.interval or (None, None))
            interval = "" if low is None else f" ({low:{metric.format}} to {high:{metric.format}})"
            rows.append(f"| {metric.title} | {value:{metric.format}}{interval} |")
    tokens = f", {last['tokens']:,} tokens" if last.get("tokens") else ""
    steps = f"After {last.get('step', 0):,} of {run.steps:,} steps{tokens}."
    return ["## Figures", "", steps, "", "| figure | value |", "|---|---|", *rows, ""] if rows else []


def recipe_section(recipe: Mapping) -> list[str]:
    import yaml

    shown = yaml.safe_dump(without_places(recipe), sort_keys=False, allow_unicode=True)
    return [
        "## Recipe",
        "",
        "<details><summary>every option</summary>",
        "",
        "```yaml",
        shown,
        "```",
        "",
        "</details>",
        "",
    ]


def without_places(value):
    """A recipe without paths of this machine."""
    if isinstance(value, Mapping):
        return {without_place(key): without_places(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return without_place(value) if isinstance(value, str) else value


def without_place(text: str) -> str:
    """A source, of a path of this machine its last part alone."""
    return PurePath(text).name if "\n" not in text and (PurePath(text).is_absolute() or text.startswith("~")) else text
