"""Loading: light, once, and undone without a trace."""

import subprocess
import sys
import tomllib
from pathlib import Path

import jupyter_gpt
from jupyter_gpt.notebook.magics import fill_empty_body, load

MODULES = 50  # that `%load_ext` may import
SCRIPT = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
before = set(sys.modules)
start, began = time.perf_counter(), time.process_time()
shell.run_line_magic("load_ext", "jupyter_gpt")
seconds, work, loaded = time.perf_counter() - start, time.process_time() - began, len(set(sys.modules) - before)
shell.run_cell("%%pretrain --help")
shell.run_cell("%gpt help show")
shell.complete("", "%gpt show ", 10)  # lists the runs on disk
print(*(shell.complete(word, f"%%pretrain x {word}", 13 + len(word))[1] for word in ("--dep", "--corp")))
heavy = {"torch", "transformers", "ipywidgets", "anywidget", "matplotlib", "numpy", "pandas", "tokenizers"}
print(sorted(heavy & {name.split(".")[0] for name in set(sys.modules) - before}))
print(seconds, work, loaded)
"""


def test_loading_imports_little_and_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    completed, heavy, measured = done.stdout.splitlines()[-3:]
    wall, work, loaded = measured.split()
    print(f"%load_ext jupyter_gpt: {float(wall):.3f} s, {float(work):.3f} s of work, {loaded} modules")
    assert (completed, heavy) == ("['--depth'] ['--corpus']", "[]")
    assert int(loaded) < MODULES


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert jupyter_gpt.__version__ == project["version"]


def test_loading_twice_is_loading_once(ip):
    load(ip)
    assert ip.input_transformers_cleanup.count(fill_empty_body) == 1
    ours = [m for m in ip.Completer.custom_matchers if m.__module__.startswith("jupyter_gpt.")]
    assert len(ours) == 1
    assert ip.run_cell("%reload_ext jupyter_gpt").success
    assert ip.input_transformers_cleanup.count(fill_empty_body) == 1


def test_unloading_takes_everything_away(ip):
    ip.run_line_magic("unload_ext", "jupyter_gpt")
    assert fill_empty_body not in ip.input_transformers_cleanup
    assert not [m for m in ip.Completer.custom_matchers if m.__module__.startswith("jupyter_gpt.")]
    assert ip.find_magic("pretrain", "cell") is None
    assert ip.find_magic("corpus", "cell") is None
    assert ip.find_magic("gpt") is None
    ip.run_line_magic("load_ext", "jupyter_gpt")
    assert ip.find_magic("gpt") is not None


def test_only_our_empty_bodies_are_filled(ip, capsys):
    assert fill_empty_body(["%%pretrain --help\n"]) == ["%%pretrain --help\n", "\n"]
    assert fill_empty_body(["%%pretrain"]) == ["%%pretrain\n", "\n"]
    for lines in (["%%pretrain x\n", "stories: 1\n"], ["%%pretrain?\n"], ["%%pretrained\n"], ["x = 1\n"], []):
        assert fill_empty_body(lines) == lines
    ip.run_cell("%%bash")
    assert "the cell body is empty" in capsys.readouterr().err  # others' magics are as they were


def test_question_mark_shows_the_manual(ip):
    for name in ("corpus", "pretrain"):
        found = ip.object_inspect(f"%%{name}")
        assert found["found"]
        assert found["docstring"].startswith(f"%%{name}: ")
    assert ip.object_inspect("%gpt")["docstring"].startswith("%gpt VERB: ")


def test_question_mark_after_a_verb_shows_its_manual(ip, capsys):
    for line in ("%gpt show?", "?%gpt show", "%gpt show ??"):
        ip.run_cell(f"x = 1\n{line}").raise_error()
        assert capsys.readouterr().out.startswith("%gpt show: ")
    assert ip.run_cell("a = 'is it %gpt show?'\nassert a.endswith('show?')").success


def test_braces_and_dollars_reach_the_magic_untouched(fails, fake_gpt):
    assert fails('%gpt show {"a": $b}').startswith('there is no run and there are no rankings {"a": $b}')
