"""Runs of every kind in processes of their own, one of which may be killed in the middle of a step."""

import os
import signal
import time
import traceback
from pathlib import Path

from helpers.apart import processes

EVERY = {"checkpoint_every": 7, "eval_every": 10, "sample_every": 10}


def short(prompt, completion):
    return -float(len(completion))


def begin(gpt, kind: str):
    """A run `a` in the background."""
    from helpers.tiny import DOCUMENTS, TINY, tiny_model

    if kind == "pretrain":
        options = {**TINY, "steps": 24, "checkpoint_every": 7}
        return gpt.pretrain(
            "a", {"$docs": 1.0}, variables={"docs": DOCUMENTS}, overwrite=True, background=True, **options
        )
    tiny_model(gpt)
    if kind == "sft":
        rows = [(f"How many saw {n}?", f"{n} small birds.") for n in range(60)]
        options = dict(lora=4, lora_dropout=0.2, context=64, batch_tokens=64, answer_tokens=4)
        return gpt.sft("a", rows, "tiny", steps=24, background=True, **EVERY, **options)
    if kind == "classify":
        rows = [(f"{n} {word}", word[0]) for n in range(20) for word in ("birds", "foxes", "hens")]
        return gpt.classify("a", rows, "tiny", batch=8, steps=24, background=True, **EVERY)
    return gpt.rlhf(
        "a",
        [f"Tale {n}. The old fox" for n in range(6)],
        policy="tiny",
        algo="ppo",
        reward="$short",
        variables={"short": short},
        background=True,
        max_tokens=6,
        prompts_per_step=2,
        samples=4,
        lora=4,
        steps=6,
        eval_every=3,
        checkpoint_every=2,
    )


def die_in_a_step(gpt, after: int) -> None:
    """Killed between a gradient and the update, once so many steps are done."""
    from jupyter_gpt.nn.optimizer import Optimizers

    real = Optimizers.step

    def step(*given):
        if gpt.runs["a"].step >= after:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    Optimizers.step = step


def die_in_a_checkpoint(gpt, at: int) -> None:
    """Killed when the checkpoint's weights are written, its optimizer is not, and the training has gone on."""
    import safetensors.torch

    from jupyter_gpt.runs.run import Run

    real = safetensors.torch.save_file

    def save_file(tensors, path, *rest, **options):
        real(tensors, path, *rest, **options)
        if f".writing-{at:07}" in str(path):
            run, end = gpt.runs["a"], time.monotonic() + 10
            while run.step <= at or (Run(run.folder).step <= at and time.monotonic() < end):  # also on disk
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = save_file


def _part(home: Path, kind: str, die, at: int, resume: bool) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["JUPYTER_GPT_HOME"] = str(home)
    from jupyter_gpt.nn import devices
    from jupyter_gpt.session import Session

    devices.peak_flops = lambda *_: None  # else each measures it anew
    try:
        gpt = Session()
        if die:
            die(gpt, at)
        run = gpt.resume("a", variables={"short": short}, background=True) if resume else begin(gpt, kind)
        run.wait()
        assert run.status == "finished", run.status
    except BaseException:
        (home / "error").write_text(traceback.format_exc())
        raise


def in_a_process(home: Path, kind: str, die=None, at: int = 0, resume: bool = False) -> int:
    """The run `a` under `home`, begun or resumed; returns its exit status."""
    process = processes().Process(target=_part, args=(home, kind, die, at, resume))
    home.mkdir(exist_ok=True)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), (home / "error").read_text()
    return process.exitcode
