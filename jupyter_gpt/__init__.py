"""Every stage of training a GPT assistant, and every technique of prompting one, as a notebook cell.

`%load_ext jupyter_gpt` gives the magics; `from jupyter_gpt import gpt` the same things from Python. Neither imports
torch: that waits until the first cell that needs it, or until nobody runs a cell, so loading is instant.
"""

import os

__version__ = "0.1.0"

# torch's OpenMP threads spin for milliseconds at every barrier. Beside a browser, on a machine with few cores, each
# then waits for the other's time slice: with one core busy a training step of 0.8 s took 7.3 s. Read when torch is
# imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def __getattr__(name: str):
    """`gpt`, the session of this process, made when it is first asked for."""
    if name == "gpt":
        from jupyter_gpt.session import gpt

        return gpt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(ip) -> None:
    """`%load_ext jupyter_gpt`: registers the magics, their completion and their empty-body hook."""
    from jupyter_gpt.notebook.magics import load

    load(ip)


def unload_ipython_extension(ip) -> None:
    """`%unload_ext jupyter_gpt`: takes away what loading added; models and runs stay in `gpt`."""
    from jupyter_gpt.notebook.magics import unload

    unload(ip)
