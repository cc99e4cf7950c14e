"""The static tree of a technique: everything that was asked is in it, in both formats, and nothing of it is HTML."""

import re

import pytest

from helpers.rendered import folded
from jupyter_gpt.inference.completion import Completion, Usage
from jupyter_gpt.prompting.trace import Node, trace_report, tree, unsent_report
from jupyter_gpt.report.parts import Varies
from jupyter_gpt.report.report import Report


@pytest.fixture
def done():
    root = Node("technique", "chain of thought, 2 samples, vote")
    call = root.add(Node("call", "thinks", prompt="<|user|>What «is» 2+2?", calls=1, tokens_in=9, seconds=0.5))
    for n, answer in enumerate(("4", "<b>5</b>"), start=1):
        sample = call.add(
            Node("sample", f"sample {n}", text=f"So it is {answer}.", answer=answer, votes=n, tokens_out=4)
        )
        sample.pruned = n == 2
        sample.add(
            Node("extract", "reads off", prompt="then?", text=answer, calls=1, tokens_in=20, tokens_out=1, seconds=0.1)
        )
    root.add(Node("vote", "2 votes", result={"4": 2, "<b>5</b>": 1}, note="no majority"))
    return Completion(
        "So it is 4.\n\nAnswer: 4",
        prompt="<|user|>What?",
        usage=Usage(49, 10, 1.5),
        answer="4",
        trace=root.as_dict(),
        model="m",
        form="assistant",
        notes=("no majority",),
        finish_reason="stop",
    )


def report_of(root):
    return Report("", [Varies([tree(root)])])


def test_the_text_is_a_tree(done):
    lines = report_of(Node.from_dict(done.trace)).text.splitlines()[1:-1]
    assert lines[0] == "chain of thought, 2 samples, vote · 49 tokens in, 10 out"
    assert lines[1] == "├─ thinks · 49 tokens in, 10 out · 0.5 s"
    assert lines[2] == "│  ├─ sample 1 · → 4 · 1 vote · 20 tokens in, 5 out  So it is 4."
    assert lines[4].startswith("│  └─ sample 2 · → <b>5</b> · 2 votes · pruned")
    assert lines[-1] == "└─ 2 votes  [no majority]"


def test_the_html_folds_and_escapes(done):
    html = report_of(Node.from_dict(done.trace)).html
    assert html.count("<details") == html.count("</details>") == 7 + 3, "a fold for each node and for each prompt"
    assert "<b>5</b>" not in html and "&lt;b&gt;5&lt;/b&gt;" in html
    assert "What &laquo;is&raquo; 2+2?" in html and html.count("«") == 1
    assert not re.search(r"<(svg|style|script)|var\(", html)


def test_each_text_is_shown_once():
    long = "First the train leaves, then it arrives, and the time between the two was asked for; it is 95 minutes."
    root = Node("technique", "2 samples, vote", children=[Node("sample", text=long), Node("sample", text="Just 95.")])
    root.add(Node("vote", "2 votes", text=long))
    html = report_of(root).html
    assert html.count(long[:60]) == 2, "the line of its node and, behind the click, the whole"
    assert html.count(long) == 1 and html.count("Just 95.") == 1
    assert long[:20] not in Report("", [tree(root, long)]).html, "it is the answer above the tree"


def test_what_nbval_compares_does_not_depend_on_what_was_sampled(done):
    report = trace_report(done)
    other = Node(
        "technique", "chain of thought, 2 samples, vote", children=[Node("call", "thinks", text="«other»", calls=1)]
    )
    another = Completion(
        "x",
        prompt="<|user|>What?",
        usage=Usage(3, 4, 9.5),
        answer="five",
        trace=other.as_dict(),
        model="m",
        form="assistant",
        notes=("no majority",),
        finish_reason="length",
    )
    again = trace_report(another)
    assert folded(report.text).replace("«…»\n\n«…»", "«…»") == folded(again.text)
    below = [folded(b.html).split("<p ")[-2] for b in (report, again)]
    assert below[0] == below[1] and "«…»" in below[0]
    assert report.data == again.data and report.text.startswith("answer: «4»")
    assert report.metadata["trace"] == done.trace
    assert "[████████████░░░░░░░░░░░░]" in report.text and "width:50.00%" in report.html


def test_a_thousand_nodes_are_drawn_within_reason(done):
    root = Node("tree", "bfs")
    for n in range(1000):
        root.add(Node("thought", f"step {n}", prompt="p" * 2000, text="t", calls=1))
    html = report_of(root).html
    assert len(html) < 1_800_000 and "too long here" in html


def test_a_dry_run_shows_the_prompts_that_can_be_known(done):
    report = unsent_report(done)
    assert "nothing was sent" in report.text and report.text.endswith("\n\n<|user|>What «is» 2+2?\n\nthen?\n\nthen?")


class Heard:
    """A TraceTree that sends into a list."""

    def __new__(cls):
        from jupyter_gpt.notebook.views.trace_live import TraceTree

        tree = TraceTree()
        tree.sent = []
        tree.send = lambda content, buffers=None: tree.sent.append(content)
        return tree


def test_only_news_is_sent_and_all_of_it_to_a_page_that_was_loaded(done):
    tree, root = Heard(), Node.from_dict(done.trace)
    tree._pages.add("a page")
    tree.pump(root, at_once=True)
    assert tree.sent[-1]["whole"] and list(tree.sent[-1]["nodes"])[:3] == ["0", "0.0", "0.0.0"]
    root.children[0].children[1].text = "now this"
    call = root.add(Node("call", "another"))
    tree.pump(root, at_once=True)
    assert tree.sent[-1]["nodes"].keys() == {"0.0.1", "0.2"} and tree.sent[-1]["nodes"]["0.0.1"] == {"text": "now this"}
    tree.pump(root, at_once=True)
    assert len(tree.sent) == 2, "nothing new, nothing sent"
    root.children.remove(call)
    tree.pump(root, at_once=True)
    assert tree.sent[-1] == {"type": "nodes", "whole": False, "nodes": {}, "gone": ["0.2"]}
    tree._on_message(tree, {"type": "ready", "page": "another"}, [])
    assert tree.sent[-1]["whole"] and len(tree.sent[-1]["nodes"]) == 7


def test_it_is_sent_again_until_somebody_was_heard(done, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("jupyter_gpt.notebook.views.trace_live.time.monotonic", lambda: clock[0])
    tree, root = Heard(), Node.from_dict(done.trace)
    for _ in range(40):
        clock[0] += 0.1
        tree.pump(root)
    assert [message["whole"] for message in tree.sent] == [True] * len(tree.sent) and 3 <= len(tree.sent) <= 5
    tree._on_message(tree, {"type": "heard", "page": "p"}, [])
    before = len(tree.sent)
    clock[0] += 60
    tree.pump(root)
    assert len(tree.sent) == before


def test_an_agent_s_answer_is_shown_whole(done):
    done.text, done.answer = "Take the early train:\n\n1. Ulm at 9\n2. Bonn at 12", "Take the early train:"
    text = trace_report(done).text
    assert "2. Bonn at 12" in text.split("chain of thought")[0] and "answer:" not in text
