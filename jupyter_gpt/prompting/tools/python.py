"""Python code written by a model, run in pydantic-monty: an interpreter of its own, in a process of its own.

It is not CPython with parts removed: files, sockets, processes and imports from this machine do not exist in it. Time,
memory, recursion and output are limited; a crash ends the worker process, not the kernel. Nothing else in this package
runs code that a model wrote.
"""

from __future__ import annotations

import re

from jupyter_gpt.prompting.tools.call import Failed, on_thread
from jupyter_gpt.prompting.tools.tool import Tool, tool

SECONDS = 5.0  # of computing
MEMORY = 256 << 20  # bytes
DEPTH = 500  # calls within calls
PRINTED = 20_000  # bytes that one program may print


def run_python(code: str) -> str:
    """Runs a short Python program and answers what it prints and the value of its last line.

    Each call starts anew: no variables are kept, there are no files, no network and no packages; math, re, json,
    datetime and random can be imported.
    """
    import pydantic_monty as monty

    code = re.sub(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", r"\1", code, flags=re.DOTALL)
    limits = {
        "max_feed_duration_secs": SECONDS,
        "max_memory": MEMORY,
        "max_recursion_depth": DEPTH,
        "max_total_sleep_secs": 1.0,
    }
    printed = monty.CollectString(max_bytes=PRINTED)

    def run():
        with monty.Monty(max_processes=1, request_timeout=SECONDS + 2) as pool, pool.checkout(limits=limits) as box:
            return box.feed_run(code, print_callback=printed)

    try:
        value = on_thread(SECONDS + 4, run)  # monty checks no interrupts; waiting for its thread does
    except (monty.MontyRuntimeError, monty.MontySyntaxError) as error:
        raise Failed((printed.output + error.display()).strip()) from None
    except monty.MontyError as error:  # the worker crashed or fell silent
        raise Failed(f"{printed.output}{error}".strip()) from None
    shown = printed.output + ("" if value is None else repr(value))
    return shown.strip() or "done; nothing was printed"


def python() -> Tool:
    """The tool."""
    return tool(run_python, name="python", seconds=SECONDS + 5)
