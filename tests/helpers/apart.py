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


def _run(script: str, arguments: tuple[str, ...], environment: dict[str, str], line) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, out, error = ["", *arguments], io.StringIO(), ""
    try:
        with redirect_stdout(out):
            exec(compile(script, "script", "exec"), {"__name__": "__main__", "line": line})
    except BaseException:
        error = traceback.format_exc()
    line.send((out.getvalue(), error))


def start(script: str, *arguments: object):
    """The process of a script, and the line to it: a connection, which the script has by the name `line`."""
    context = processes()
    ours, theirs = context.Pipe()
    given = (script, tuple(map(str, arguments)), dict(os.environ), theirs)
    process = context.Process(target=_run, args=given, daemon=True)  # it ends with the tests
    process.start()
    theirs.close()
    return process, ours


def printed(script: str, *arguments: object) -> str:
    """What a script prints. Raises AssertionError with the traceback of one that fails."""
    process, line = start(script, *arguments)
    try:
        out, error = line.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    process.join()
    assert not error, error
    return out
