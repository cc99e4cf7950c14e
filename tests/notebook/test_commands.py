"""Each door hands the session what the cell said, shows the result, and binds it."""

import sys
from inspect import signature
from types import SimpleNamespace

import pytest

from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.verbs import VERBS, command
from jupyter_gpt.runs import provenance

pytestmark = pytest.mark.usefixtures("pictures")


def test_corpus(ip, succeed, fake_gpt, shown):
    succeed("%%corpus bedtime --seed 3 --out c\nstories: 2\n./books/*.txt: 1\n")
    [(verb, said)] = fake_gpt.calls
    assert verb == "corpus"
    assert said == {
        "name": "bedtime",
        "mixture": "stories: 2\n./books/*.txt: 1\n",
        "seed": 3,
        "variables": ip.user_ns,
    }
    assert shown == ["corpus bedtime"]
    assert ip.user_ns["c"].name == "bedtime"


def test_a_page_is_told_that_the_sources_are_being_read(succeed, fake_gpt, monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda data, **_: shown.append(data["text/plain"]))
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data["text/plain"]) or handle)
    succeed("%%corpus bedtime\nstories: 2\n")
    assert shown == ["loading the sources …", "corpus bedtime"]


def test_pretrain_hands_over_every_option(ip, succeed, fake_gpt, shown):
    ip.user_ns["texts"] = ["Once", "2 + 2 ="]
    succeed(
        "%%pretrain tale --depth 6 --steps 2k --lr 0.01 --compile off --prompts $texts --out m\nstories: 3\n",
    )
    [(verb, said)] = fake_gpt.calls
    assert verb == "pretrain"
    assert said == {
        "name": "tale",
        "mixture": "stories: 3\n",
        "depth": 6,
        "steps": 2000,
        "lr": 0.01,
        "compile": False,
        "prompts": ["Once", "2 + 2 ="],
        "background": True,
        "variables": ip.user_ns,
    }
    assert shown == ["run tale: finished"]
    assert ip.user_ns["m"] is fake_gpt.models["tale"]


def test_pretrain_in_the_background_binds_the_run(ip, succeed, fake_gpt, shown, capsys):
    succeed("%%pretrain tale --background --out r\nstories: 3\n")
    assert ip.user_ns["r"] is fake_gpt.runs["tale"]
    assert fake_gpt.runs["tale"].status == "running"
    assert shown == []
    assert "trains in the background" in capsys.readouterr().out


def test_pretrain_from_a_corpus_needs_no_body(succeed, fake_gpt, shown):
    succeed("%%pretrain tale --corpus bedtime")
    assert "mixture" not in fake_gpt.calls[0][1] or fake_gpt.calls[0][1]["mixture"] is None
    assert fake_gpt.calls[0][1]["corpus"] == "bedtime"


def test_pretrain_says_which_cell_it_is(ip, succeed, fake_gpt, shown, monkeypatch):
    parent = {"metadata": {"cellId": "abc"}}
    monkeypatch.setattr(type(ip), "get_parent", lambda self: parent, raising=False)
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: False)
    succeed("%%pretrain tale\nstories: 3\n")
    assert fake_gpt.calls[0][1]["name"] == "tale" and provenance.running_cell() == "abc"
    parent["metadata"]["cellId"] = "vscode-notebook-cell:/home/me/a.ipynb#W2sZmlsZQ=="
    assert provenance.running_cell() is None, "a place in a notebook, which another cell may have tomorrow"
    parent["metadata"]["cellId"] = "abc"
    monkeypatch.setenv("JPY_SESSION_NAME", "talks/tour.ipynb")
    here = provenance.running_cell()
    monkeypatch.setenv("JPY_SESSION_NAME", "talks/copy.ipynb")
    assert here.startswith("abc@") and provenance.running_cell() != here, "a copy of a notebook has the same ids"
    ip.run_line_magic("unload_ext", "jupyter_gpt")
    assert provenance.running_cell() is None


def test_a_failed_run_fails_the_cell_and_binds_nothing(ip, fake_gpt, shown, capsys):
    fake_gpt.error = ZeroDivisionError("a bug")
    result = ip.run_cell("%%pretrain tale --out m\nstories: 3\n")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert "Traceback" in capsys.readouterr().out
    assert "m" not in ip.user_ns


def test_a_broken_view_leaves_nothing_training(ip, fake_gpt, shown, monkeypatch):
    def broken(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("jupyter_gpt.notebook.views.follow.follow", broken)
    ip.run_cell("%%pretrain tale\nstories: 3\n")
    assert fake_gpt.runs["tale"].status == "stopped"


def test_earlier_runs_are_drawn_beside(succeed, fake_gpt, shown, monkeypatch, fails):
    seen = []
    monkeypatch.setattr("jupyter_gpt.notebook.views.follow.follow", lambda run, report_of, **more: seen.append(more))
    succeed("%%pretrain tale --beside storyteller --steps 5\nstories: 3\n")
    assert seen == [{"overlays": [fake_gpt.runs["storyteller"]], "background": False}]
    assert fails("%%pretrain b --beside nobody\nstories: 3\n").startswith("there is no nobody")
    assert [said["name"] for _, said in fake_gpt.calls] == ["tale"]


def test_mistakes_reach_nobody(fails, fake_gpt):
    assert fails("%%pretrain tale --dept 4\nstories: 3") == ("%%pretrain has no option --dept (did you mean --depth?)")
    assert fails("%%corpus\nstories: 3") == "%%corpus requires NAME: %%corpus NAME [options]"
    assert fails("%gpt shw storyteller") == "%gpt has no verb shw (did you mean show?)"
    assert (
        fails("%gpt show storytelle")
        == "there is no run and there are no rankings storytelle (did you mean storyteller?)"
    )
    assert fails("%gpt help mdels") == "%gpt has no verb mdels (did you mean models?)"
    assert fake_gpt.calls == []


def test_runs_and_models(ip, succeed, fake_gpt, shown):
    succeed("%gpt runs --out r")
    succeed("%gpt models --out m")
    assert ip.user_ns["r"] is fake_gpt.runs
    assert ip.user_ns["m"] is fake_gpt.models
    assert (
        "storyteller  pretrain  finished  2 of 2                 ≈6.688  ≈7.500 at step ≈0  ≈2,048       ≈1" in shown[0]
    )
    assert "storyteller       1.23M  base  storyteller  MIT       «5 MB»  «cpu, float32, 5 MB»" in shown[1]


def test_no_runs_and_no_models_yet(succeed, fake_gpt, shown):
    fake_gpt.runs.clear()
    fake_gpt.models.clear()
    succeed("%gpt runs\n%gpt models")
    assert shown[0] == "No runs yet. Train one with %%pretrain NAME."
    assert shown[1].startswith("No models yet. Train one with %%pretrain NAME.\n")


def test_show_stop_resume(ip, succeed, fake_gpt, shown):
    succeed("%gpt show storyteller --out r")
    assert ip.user_ns["r"] is fake_gpt.runs["storyteller"]
    succeed("%gpt stop storyteller")
    succeed("%gpt resume storyteller --out m")
    assert [verb for verb, _ in fake_gpt.calls] == ["stop", "resume"]
    assert fake_gpt.calls[1][1] == {"name": "storyteller", "variables": ip.user_ns, "background": True}
    shows = "run storyteller: finished"
    assert shown == [shows, "storyteller is finished at step ≈2 of 2", shows]
    assert ip.user_ns["m"] is fake_gpt.models["storyteller"]


def test_show_says_why_a_run_failed_and_what_has_not_begun(succeed, fake_gpt, shown, fails):
    run = fake_gpt.runs["storyteller"]
    run.status, run.events = "failed", [*run.events, {"event": "end", "status": "failed", "error": "the disk is full"}]
    succeed("%gpt show storyteller")
    run.events = run.events[-1:]
    succeed("%gpt show storyteller")
    assert shown == [
        "run storyteller: failed\nwhy: the disk is full",
        "storyteller: pretrain, failed before its first step\nwhy: the disk is full",
    ]
    assert fails("%gpt hepl") == "%gpt has no verb hepl (did you mean help?)"
    assert fails("%gpt SHOW storyteller") == "%gpt has no verb SHOW (did you mean show?)"


def test_a_run_of_another_version_is_shown_as_an_error(fake_gpt, shown, fails, monkeypatch):
    report = sys.modules["jupyter_gpt.notebook.views.run_report"]
    monkeypatch.setattr(report, "run_report", lambda run, beside: run.recipe["dial"])
    assert "'dial' is missing, another version" in fails("%gpt show storyteller")


def test_the_tokens_of_a_run_of_another_kind_vary_and_it_has_no_batches(fake_gpt, shown, fails):
    from jupyter_gpt.stages.tokens import varies

    fake_gpt.runs["storyteller"].kind = "reward"
    assert varies(fake_gpt, "storyteller")
    assert "what a pretraining run reads" in fails("%gpt batch storyteller")


def test_show_does_not_wait_for_a_run_that_still_runs(succeed, fake_gpt, shown, monkeypatch):
    fake_gpt.runs["storyteller"].status = "running"
    succeed("%gpt show storyteller")
    assert shown == ["run storyteller: running"]  # nobody watches: the picture so far
    seen = []
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: True)
    monkeypatch.setattr(
        "jupyter_gpt.notebook.views.follow.follow", lambda run, report_of, **more: seen.append((run, more))
    )
    succeed("%gpt show storyteller --out r")
    assert seen == [(fake_gpt.runs["storyteller"], {"overlays": [], "background": True})]
    assert fake_gpt.runs["storyteller"].status == "running"


def test_every_door_takes_out_and_explains_itself(succeed, fake_gpt, shown, capsys):
    lines = ["%%corpus --help", "%%pretrain --help", *(f"%gpt {verb} --help" for verb in VERBS)]
    commands = [CELLS["corpus"].COMMAND, CELLS["pretrain"].COMMAND, *map(command, VERBS)]
    for line, each in zip(lines, commands, strict=True):
        succeed(line)
        printed = capsys.readouterr().out
        assert printed.startswith(f"{each.name}: {each.summary}\n")
        assert "--out VAR" in printed
        assert max(map(len, printed.splitlines())) <= 90
    assert fake_gpt.calls == []


def test_gpt_alone_lists_the_verbs(succeed, fake_gpt, capsys):
    for line in ("%gpt", "%gpt help", "%gpt --help"):
        succeed(line)
        printed = capsys.readouterr().out
        assert all(f"\n  {verb} " in printed for verb in VERBS)
    succeed("%gpt help show")
    assert capsys.readouterr().out.startswith("%gpt show: ")


def test_the_options_of_a_corpus_are_those_of_the_session():
    from jupyter_gpt.session import Session

    assert set(signature(Session.corpus).parameters) - {"self", "mixture", "variables"} == {
        option.key for _, group in CELLS["corpus"].COMMAND.groups for option in group if option.key != "out"
    }
