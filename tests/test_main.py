"""`python -m jupyter_gpt` as a stranger would run it: from any folder, with no terminal, with mistakes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from jupyter_gpt import __main__ as main_module
from jupyter_gpt.__main__ import find, lab_command, lab_environment, main, parse, shipped
from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.execute import MAX_LINES, _first_line, _text, kernel_environment, summary

ROOT = Path(main_module.__file__).resolve().parent.parent


def write(path, *sources, tags=()):
    """A notebook of these code cells; the last one carries the tags."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-1].metadata["tags"] = list(tags)
    kernel = {"name": "not-installed", "display_name": "Nowhere", "language": "python"}
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title"), *cells], metadata={"kernelspec": kernel}
    )
    nbformat.write(nb, path)
    return path


def command(*arguments):
    return [sys.executable, "-m", "jupyter_gpt", *map(str, arguments)]


def environment(**more):
    clean = {key: value for key, value in os.environ.items() if key != "JUPYTER_GPT_HOME"}
    return clean | {"PYTHONPATH": str(ROOT), "JUPYTER_PATH": "/nowhere"} | more


def run(*arguments, cwd, **more):
    """The real command, with no terminal."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


MAKES = """
import json, pathlib
home = pathlib.Path('.jupyter_gpt')
for name in ('runs', 'models'): (home / name / 'story').mkdir(parents=True)
events = [{'event': 'start', 'steps': 600, 'parameters': 5_800_000}, {'event': 'step', 'step': 600},
          {'event': 'evaluation', 'step': 500, 'val_loss': 1.2345},
          {'event': 'end', 'status': 'finished', 'seconds': 61.5}]
(home / 'runs/story/recipe.yaml').write_text('kind: pretrain\\nrecipe: {steps: 600}')
(home / 'runs/story/events.jsonl').write_text('\\n'.join(map(json.dumps, events)))
_ = (home / 'models/story/config.json').write_text('{}')
"""


SLEEPS = """
import time
try:
    open('up', 'w').close()
    time.sleep(600)
except KeyboardInterrupt:
    print('stopped gracefully')
"""

PATIENT = """
import time
for n in range(2):
    try:
        open(f'heard-{n}', 'w').close()
        time.sleep(600)
    except KeyboardInterrupt:
        pass
print('ended by itself')
"""


def test_a_notebook_that_passes(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    source = "import os, sys\nprint('where', os.getcwd())\nprint('who', sys.executable)"
    notebook = write(folder / "fine.ipynb", source, MAKES, "1/0", tags=["raises-exception"])
    before = notebook.read_bytes()
    ran = run("--execute", "elsewhere/fine.ipynb", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[1].startswith("[1/3] import os, sys") and lines[1].endswith(" s  ok")
    assert f"    where {folder}" in lines and f"    who {sys.executable}" in lines
    assert any(re.search(r"^story +pretrain +finished +600 of 600 .* 1.234 at step 500", line) for line in lines)
    assert notebook.read_bytes() == before
    executed = nbformat.read(folder / ".jupyter_gpt/executed/fine.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text.startswith("where")
    assert str(folder / ".jupyter_gpt/executed/fine.ipynb") in lines[-1]
    assert ran.stderr == ""


CLAIMS = """%load_ext jupyter_gpt
from jupyter_gpt import gpt
for n in range(20):
    gpt.claim(f"claim {n}", n, above=-1 if n else 0)
"""


def test_the_claims_come_last_and_whole_also_where_one_fails(tmp_path):
    ran = run("--execute", write(tmp_path / "claims.ipynb", CLAIMS, "%gpt claims"), cwd=tmp_path)
    assert ran.returncode == 1 and "1 of 20 claims does not hold: claim 0" in ran.stdout, ran.stdout
    last = ran.stdout.partition("no model and no run was made")[2].splitlines()
    assert last[2].split()[0] == "claim" and [line.split()[1] for line in last[4:24]] == [str(n) for n in range(20)]
    assert [line.split()[-1] for line in last[4:24]] == ["no"] + ["yes"] * 19
    assert last[-1].startswith("executed notebook")


STAGES = (
    "%load_ext jupyter_gpt\nimport pandas\n"
    "docs = [f'The fox saw {n} birds.' for n in range(99)]\n"
    "rows = pandas.DataFrame({'prompt': docs[:9], 'completion': docs[9:18]})\n"
    "def short(prompt, completion):\n    return -len(completion)",
    "%%corpus woods\n$docs: 1",
    "%%pretrain fox --corpus woods --depth 1 --width 32 --heads 2 --context 32 --batch-tokens 64 --minutes 0.005",
    "%%sft reply --base fox --lora 2 --steps 2 --context 32 --batch-tokens 64 --answer-tokens 2\n$rows: 1",
    "%gpt merge reply",
    "%%rank taste --model reply --judge $short --temperature 1.5 --max-tokens 6\n"
    "The\nfox\nsaw\nbirds\n5\nThe fox\nfox saw\n7",
    "%gpt reward judge --rankings taste --base reply --lora 2 --steps 1",
    "%%rlhf aligned --policy reply --algo grpo --reward $short --lora 2 --steps 1 --samples 2 --max-tokens 2\nThe\nfox",
    "%gpt index kb $docs --embedder fox --chunk-tokens 16",
    '%gpt search kb "The fox" --map none',
    "%gpt save reply-merged ./reply",
    "%gpt pull ./reply --name mine",
    "%gpt config endpoint far --base-url http://127.0.0.1:9/v1 --model m",
)


def test_run_all_works_twice_and_a_changed_notebook_replaces_nothing(tmp_path):
    cache = {"JUPYTER_GPT_CACHE": str(tmp_path / "cache"), "JUPYTER_GPT_CONFIG": str(tmp_path / "config")}
    notebook = write(tmp_path / "all.ipynb", *STAGES)
    ran = run("--execute", notebook, cwd=tmp_path, **cache)
    assert ran.returncode == 0, ran.stdout
    again = nbformat.read(notebook, as_version=4)
    again.cells.append(nbformat.v4.new_code_cell(STAGES[3].replace("--steps 2", "--steps 3")))
    nbformat.write(again, notebook)
    ran = run("--execute", notebook, cwd=tmp_path, **cache)
    assert ran.returncode == 1 and f"[{len(STAGES) + 1}/{len(STAGES) + 1}]" in ran.stdout, ran.stdout
    assert "GPTError: reply was made by sft with steps 2, not 3: choose another name, or use --overwrite" in ran.stdout


def test_a_cell_that_fails_is_shown_and_ends_it(tmp_path):
    write(tmp_path / "bad.ipynb", "print('before')", "int('x')", "print('never')")
    ran = run("--execute", "bad", cwd=tmp_path, JUPYTER_GPT_HOME=str(tmp_path / "home"))
    assert ran.returncode == 1
    assert "FAILED: ValueError" in ran.stdout
    assert "    ValueError: invalid literal for int() with base 10: 'x'" in ran.stdout
    assert "never" not in ran.stdout and "\x1b" not in ran.stdout
    assert "no model and no run was made" in ran.stdout
    assert (tmp_path / "home/executed/bad.ipynb").is_file()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_sigterm_ends_the_kernel_and_keeps_the_notebook(tmp_path):
    write(tmp_path / "sleeps.ipynb", SLEEPS, "print('never')")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command("--execute", "sleeps.ipynb"), cwd=tmp_path, env=environment(), **pipes) as process:
        deadline = time.monotonic() + 240
        while not (tmp_path / "up").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "ending the kernel" in out and "never" not in out and "Traceback" not in error
    assert (tmp_path / ".jupyter_gpt/executed/sleeps.ipynb").is_file()


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    write(tmp_path / "dies.ipynb", "import os; os._exit(3)")
    ran = run("--execute", "dies.ipynb", cwd=tmp_path)
    assert ran.returncode == 1 and "FAILED: the kernel died" in ran.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_ends_the_cell_gracefully_and_keeps_the_notebook(tmp_path):
    write(tmp_path / "sleeps.ipynb", SLEEPS, "print('never')")
    with subprocess.Popen(
        command("--execute", "sleeps.ipynb"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 240
        while not (tmp_path / "up").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "stopped gracefully" in out and "never" not in out
    assert (tmp_path / ".jupyter_gpt/executed/sleeps.ipynb").is_file()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_again_interrupts_again_for_a_run_that_stops_with_an_evaluation(tmp_path):
    write(tmp_path / "patient.ipynb", PATIENT, "print('never')")
    with subprocess.Popen(
        command("--execute", "patient.ipynb"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        for file in ("heard-0", "heard-1"):
            deadline = time.monotonic() + 240
            while not (tmp_path / file).exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "skips the evaluation" in out and "ended by itself" in out and "never" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch.ipynb"], "there is no notebook nosuch.ipynb"),
        (["--execute", "a/b.ipynb"], "there is no notebook a/b.ipynb"),
        (["--execute", "junk.ipynb"], "cannot be read as a notebook"),
        (["--execute", "empty.ipynb"], "cannot be read as a notebook"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["--execute", "junk.ipynb", "--", "--port=1"], "are JupyterLab's"),
    ],
)
def test_mistakes_are_one_line_and_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.ipynb").write_text("{ not json")
    (tmp_path / "empty.ipynb").write_text("")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_help_reads_like_a_man_page(capsys):
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for heading in (
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "FILES",
        "ENVIRONMENT",
        "EXIT STATUS",
        "EXAMPLES",
    ):
        assert f"\n{heading}\n" in f"\n{page}"
    assert max(map(len, page.splitlines())) <= 110


def test_the_command_line():
    assert parse([]).notebook == "00_tour.ipynb" and not parse([]).execute
    given = parse(["mine.ipynb", "--", "--no-browser", "--port=1"])
    assert given.notebook == "mine.ipynb" and given.lab == ["--no-browser", "--port=1"]


def test_notebooks_are_found_there_first_then_here_then_in_the_package(tmp_path, monkeypatch, capsys):
    own = tmp_path / "wheel"
    own.mkdir()
    (own / "00_tour.ipynb").write_text("the package's")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert find("00_tour.ipynb", own) == here / "00_tour.ipynb"
    assert "copied 00_tour.ipynb" in capsys.readouterr().out
    (here / "00_tour.ipynb").write_text("mine")
    assert find("00_tour", own).read_text() == "mine"  # never overwritten
    assert capsys.readouterr().out == ""
    (here / "notebooks").mkdir()
    (here / "notebooks/00_tour.ipynb").write_text("the checkout's")
    assert find("00_tour", own).read_text() == "the checkout's"
    with pytest.raises(GPTError, match="did you mean 00_tour"):
        find("00_tuor", own)


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/00_tour.ipynb").write_text("{}")
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.chdir(tmp_path / "locked")
    with pytest.raises(GPTError, match="cannot be copied"):
        find("00_tour", tmp_path / "own")


def test_the_packages_notebooks_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "jupyter_gpt"
    package.mkdir(parents=True)
    monkeypatch.setattr(main_module, "__file__", str(package / "__main__.py"))
    (package.parent / "notebooks").mkdir()  # somebody else's folder: not a checkout
    assert shipped() is None
    (package.parent / "pyproject.toml").touch()
    assert shipped() == package.parent / "notebooks"
    (package / "notebooks").mkdir()
    assert shipped() == package / "notebooks"


def test_root_is_let_in_and_told(monkeypatch, capsys):
    monkeypatch.setattr(os, "getuid", lambda: 0, raising=False)
    assert lab_command(Path("a.ipynb"), ["--no-browser"])[1:] == [
        "-m",
        "jupyterlab",
        "a.ipynb",
        "--no-browser",
        "--allow-root",
    ]
    assert "as root" in capsys.readouterr().out
    monkeypatch.setattr(os, "getuid", lambda: 1000, raising=False)
    assert "--allow-root" not in lab_command(Path("a.ipynb"), [])
    assert capsys.readouterr().out == ""


def test_jupyterlab_finds_this_pythons_kernel_first(monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "/elsewhere")
    own, other = lab_environment()["JUPYTER_PATH"].split(os.pathsep)
    assert Path(own) == Path(sys.prefix) / "share/jupyter" and other == "/elsewhere"


def test_the_kernel_of_a_checkout_finds_the_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/else")
    paths = kernel_environment()["PYTHONPATH"].split(os.pathsep)
    assert paths[-1] == "/else" and (len(paths) == 2) == (ROOT / "pyproject.toml").is_file()


def test_text_is_cut_where_it_is_long_but_errors_are_not():
    stream = nbformat.v4.new_output("stream", text="\n".join(map(str, range(100))) + "\n")
    error = nbformat.v4.new_output("error", ename="E", evalue="v", traceback=["\x1b[31mline\x1b[0m"] * 40)
    lines = _text([stream, error], whole_errors=True).splitlines()
    assert len(lines) == MAX_LINES + 40 and lines[MAX_LINES - 1] == f"… {100 - MAX_LINES + 1} more lines"
    assert lines[-1] == "line"
    assert _first_line("\n\n  %%pretrain x\nstories: 1") == "%%pretrain x"
    assert len(_first_line("x" * 100)) == 64


def test_the_table_of_what_was_made(gpt, train):
    run = train(steps=2)
    text = summary(gpt.home)
    assert re.search(r"tiny +pretrain +finished +2 of 2", text) and str(gpt.models["tiny"].folder) in text
    assert summary(gpt.home, since=time.time() + 60) == "no model and no run was made" and run.step == 2


def test_an_error_is_one_line_whatever_it_quotes():
    from jupyter_gpt.errors import GPTError, nearest

    long = str(GPTError(f"there is no model {'a' * 200_000}\n\x1b[31mred\x1b[0m\ud800: choose another"))
    assert long == f"there is no model {'a' * 80}… [31mred [0m : choose another".replace("  ", " ")
    assert len(str(GPTError("word " * 1000))) == 300
    assert str(GPTError("two  spaces stay")) == "two  spaces stay"
    assert nearest("pretrain" + "x" * 1_000_000, ["pretrain", "sft"]) == " (there is pretrain, sft)"
