"""How many files of the package a cell passes through, from its line to its first token or its first loss.

    python tests/benchmarks/files_passed.py prompt      # `%%prompt --cot --samples 4 --vote`, until a view shows text
    python tests/benchmarks/files_passed.py pretrain    # `%%pretrain`, until a view shows a loss

Counts the files whose functions are entered, on any thread; code that runs at import does not count.
"""

import inspect
import os
import sys
import tempfile
import threading
from pathlib import Path

HOME = tempfile.TemporaryDirectory()
os.environ.update(JUPYTER_GPT_HOME=HOME.name, JUPYTER_GPT_CACHE=f"{HOME.name}/cache", HF_HUB_OFFLINE="1")

from IPython.core.interactiveshell import InteractiveShell  # noqa: E402

import jupyter_gpt  # noqa: E402

ROOT = Path(jupyter_gpt.__file__).parent
CELLS = {
    "prompt": ("prompt", "tiny --cot --samples 4 --vote --max-tokens 40 --temperature 1", "How many birds are there?"),
    "pretrain": ("pretrain", "tiny --steps 20 --depth 1", "stories: 1"),
}
entered: dict[str, str] = {}  # file -> the first function entered in it
counting = threading.Event()


def profile(frame, event, argument) -> None:
    """Note the file of each function that is entered, while counting."""
    path = frame.f_code.co_filename
    counted = event == "call" and counting.is_set() and path.startswith(str(ROOT))
    if counted and is_function(frame) and is_function(frame.f_back):
        entered.setdefault(os.path.relpath(path, ROOT), frame.f_code.co_name)


def is_function(frame) -> bool:
    """Whether it is no body of a module or of a class, which run at import."""
    return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)


def stop_when_shown(cell: str) -> None:
    """End the counting where a view has been given the first text, or the first loss."""
    if cell == "prompt":
        from jupyter_gpt.notebook.views import trace_live as view

        name, ready = "Growing", lambda args: any(node.text for node in args[0].walk())
    else:
        from jupyter_gpt.notebook.views import live as view

        name, ready = "LiveRun", lambda args: len(jupyter_gpt.gpt.runs["tiny"].history) > 0
    kind = getattr(view, name)
    method = "show" if hasattr(kind, "show") else "pump"
    draw = getattr(kind, method)

    def drawn(self, *args, **options):
        draw(self, *args, **options)
        was_counting = counting.is_set()
        counting.clear()
        if was_counting and not ready(args):
            counting.set()

    setattr(kind, method, drawn)


def main(cell: str) -> None:
    threading.setprofile(profile)  # before any thread of the package starts
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "jupyter_gpt")
    from jupyter_gpt.notebook.views import place

    place.is_live = lambda: True  # as where somebody watches
    jupyter_gpt.gpt.models  # noqa: B018  the session is there
    if cell == "prompt":  # a model to ask
        jupyter_gpt.gpt.pretrain("tiny", {"stories": 1}, steps=2, depth=1, context=256)
    stop_when_shown(cell)
    sys.setprofile(profile)
    counting.set()
    shell.run_cell_magic(*CELLS[cell])
    counting.clear()
    sys.setprofile(None)
    for path in sorted(entered):
        print(f"  {path}: {entered[path]}")
    print(f"{len(entered)} files of jupyter_gpt: %%{' '.join(CELLS[cell][:2])}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "prompt")
