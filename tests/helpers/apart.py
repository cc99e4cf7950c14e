"""Processes of their own, each forked from one that has imported torch and transformers: to import them anew takes five
seconds. It has one thread: sums over other threads are other numbers.
"""

import io
import multiprocessing
import os
import sys
import traceback
from contextlib import redirect_stdout

IMPORTS = ("peft", "transformers.models.llama.modeling_llama", "jupyter_gpt.session", "jupyter_gpt.stages.ppo")


def processes():
    """What `multiprocessing` starts them with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTS))
    return context


def _run(script: str, arguments: tuple[str, ...], environment: dict[str, str], answers) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, out, error = ["", *arguments], io.StringIO(), ""
    try:
        with redirect_stdout(out):
            exec(compile(script, "script", "exec"), {"__name__": "__main__"})
    except BaseException:
        error = traceback.format_exc()
    answers.send((out.getvalue(), error))


def printed(script: str, *arguments: object) -> str:
    """What a script prints. Raises AssertionError with the traceback of one that fails."""
    context = processes()
    answers, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(script, tuple(map(str, arguments)), dict(os.environ), theirs))
    process.start()
    theirs.close()
    try:
        out, error = answers.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    process.join()
    assert not error, error
    return out
