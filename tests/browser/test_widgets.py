"""The widgets alone in a page, told by a model that stands for the kernel: what comes late, twice, in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jupyter_gpt.notebook.views.widget import STATIC

MODEL = """async ([code, state, marks]) => {
  const hear = {};
  const fields = { mark: "m", state };
  window.sent = [];
  const outputs = marks.map((mark) => ({ data: { "text/html": `<span class="gpt-${mark}"></span>` } }));
  window.outputs = Object.assign(outputs, { get: (i) => outputs[i], set: (i, output) => { outputs[i] = output; } });
  const model = {
    get: (name) => fields[name],
    on: (event, heard) => { hear[event] = heard; },
    send: (message) => { window.sent.push(message); },
    widget_manager: { context: { model: { cells: [{ outputs }] } } },
  };
  window.tell = (message) => hear["msg:custom"](message, []);
  window.become = (changed) => {
    fields.state = { ...fields.state, ...changed };
    hear["change:state"]();
  };
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const widget = (await import(url)).default();
  widget.initialize({ model });
  if (!marks.length) widget.render({ el: document.querySelector("main") });
}"""


class Shown:
    """A widget in a page whose clock stands still; with `marks` in a notebook whose outputs have these."""

    def __init__(self, page, name: str, state: dict, marks: tuple[str, ...] = ()):
        self.page = page
        page.emulate_media(reduced_motion="reduce")
        page.clock.install(time=0)
        page.clock.pause_at(1000)
        page.set_content("<main></main>")
        page.add_style_tag(content=(STATIC / f"{name}.css").read_text(encoding="utf-8"))
        page.evaluate(MODEL, [(STATIC / f"{name}.js").read_text(encoding="utf-8"), state, list(marks)])

    def sent(self) -> list[dict]:
        """What the widget has sent since this was last asked, but for that it is ready."""
        found = self.page.evaluate("() => window.sent.splice(0)")
        return [message for message in found if message["type"] not in ("ready", "heard")]

    def tell(self, **message) -> None:
        self.page.evaluate("message => window.tell(message)", message)

    def become(self, **state) -> None:
        self.page.evaluate("state => window.become(state)", state)

    def pass_(self, milliseconds: int) -> None:
        self.page.clock.run_for(milliseconds)

    def press_held(self, key: str, times: int) -> None:
        """A key that repeats while it is down."""
        for _ in range(times):
            self.page.keyboard.down(key)
        self.page.keyboard.up(key)

    def click_once_more(self) -> None:
        """The second click of a double click."""
        self.page.mouse.down(click_count=2)
        self.page.mouse.up(click_count=2)


@pytest.fixture
def show(browser) -> Iterator[Callable[..., Shown]]:
    pages = []

    def make(name: str, **state) -> Shown:
        pages.append(browser.new_page())
        return Shown(pages[-1], name, state)

    yield make
    for page in pages:
        page.close()


@pytest.mark.parametrize("marks", [("m", "other"), ("other",)])
def test_a_report_is_kept_by_the_notebook_that_holds_it(browser, marks):
    """Another notebook on the same kernel hears of it too."""
    page = browser.new_page()
    trace = Shown(page, "trace", {"title": "", "line": ""}, marks)
    trace.tell(type="output", data={"text/html": "report"}, metadata={}, last=True)
    held = "m" in marks
    assert [message["type"] for message in trace.sent()] == ["kept"] * held
    assert page.evaluate("() => window.outputs.some(({ data }) => data['text/html'] === 'report')") == held
    page.close()


def test_a_report_is_kept_by_the_page_that_has_drawn_it(show):
    trace = show("trace", title="", line="")
    trace.tell(type="output", data={}, metadata={}, last=True)
    assert [message["type"] for message in trace.sent()] == ["kept"]


def node(label: str, **fields) -> dict:
    empty = {"kind": "call", "label": label, "facts": [], "text": "", "prompt": "", "result": "", "note": ""}
    return {**empty, "pruned": False, **fields}


def tree(page) -> list[str]:
    """The labels of the nodes, those within others behind their parent's."""
    return page.locator(".gpt-node").evaluate_all(
        "nodes => nodes.map(n => (n.parentElement.closest('.gpt-node')?.querySelector('b').textContent ?? '')"
        " + '/' + n.querySelector('b').textContent)"
    )


NODES = {"0": node("root"), "0.0": node("one"), "0.0.0": node("apples", text="apples"), "0.1": node("two")}
TREE = ["/root", "root/one", "one/apples", "root/two"]


def test_nodes_that_come_before_everything_is_sent_do_not_disturb_the_tree(show):
    trace = show("trace", title="tree", line="")
    trace.tell(type="nodes", whole=False, nodes={"0.1": NODES["0.1"], "0.0.0": {"text": "app"}}, gone=[])
    trace.tell(type="nodes", whole=True, nodes=NODES, gone=[])
    assert tree(trace.page) == TREE
    trace.tell(type="nodes", whole=True, nodes=NODES, gone=[])
    assert tree(trace.page) == TREE


def test_a_tree_asks_again_where_everything_was_lost(show):
    trace = show("trace", title="tree", line="")
    trace.page.evaluate("() => window.sent.splice(0)")
    for _ in range(2):
        trace.tell(type="nodes", whole=False, nodes={"0.1": NODES["0.1"]}, gone=[])
        trace.pass_(600)
    assert [message["type"] for message in trace.page.evaluate("() => window.sent")] == ["ready"]


def test_what_is_folded_while_one_searches_stays_so_as_the_tree_grows(show):
    trace = show("trace", title="tree", line="")
    trace.tell(type="nodes", whole=True, nodes=NODES, gone=[])
    one = trace.page.locator(".gpt-node", has_text="one").last
    trace.page.get_by_label("Search the trace").fill("apples")
    assert one.get_attribute("open") is not None
    one.locator("summary").first.click()
    trace.tell(type="nodes", whole=False, nodes={"0.2": node("three", text="apples")}, gone=[])
    assert one.get_attribute("open") is None and trace.page.get_by_text("2 found").is_visible()
    trace.page.get_by_label("Search the trace").fill("apple")
    assert one.get_attribute("open") is not None


CALL = {"tool": "save", "description": "Saves.", "why": "", "writes": True, "problem": "", "decided": None}


def test_a_double_click_and_a_held_key_allow_one_call(show):
    form = show("approval", call=1, arguments='{"text": "one"}', **CALL)
    allow = form.page.get_by_role("button", name="Allow", exact=True)
    allow.click()
    assert [message["call"] for message in form.sent()] == [1]
    form.become(call=2, arguments='{"text": "two"}')  # the kernel is quick
    form.click_once_more()
    assert form.sent() == []
    allow.focus()
    form.page.keyboard.down("Enter")
    form.become(call=3, arguments='{"text": "three"}')
    form.press_held("Enter", 3)
    assert [message["call"] for message in form.sent()] == [2]
    allow.click()
    assert [message["call"] for message in form.sent()] == [3]


def test_a_call_that_comes_late_does_not_take_the_place_of_the_next(show):
    """As JupyterLab sets a state that it asked for before, when its connection was lost."""
    form = show("approval", call=1, arguments='{"text": "one"}', **CALL)
    form.become(call=2, arguments='{"text": "two"}')
    form.become(call=1, arguments='{"text": "one"}')
    form.page.get_by_role("button", name="Allow", exact=True).click()
    assert [message["call"] for message in form.sent()] == [2]


QUESTION = {
    "heard": 1,
    "answers": None,
    "row": 0,
    "rows": 3,
    "ranked": 0,
    "prompt": "Why?",
    "texts": [[["because", False]], [["therefore", False]]],
    "mostly": [False, False],
    "copies": [1, 1],
    "order": None,
    "reason": "",
    "undo": False,
    "error": None,
}


@pytest.mark.parametrize("best_only", [True, False])
def test_a_ranking_without_an_answer_is_sent_again_until_there_is_one(show, best_only):
    form = show("rank", best_only=best_only, **QUESTION)
    for label in ["A is better"] if best_only else ["Tie the rest", "Save ranking"]:
        form.page.get_by_role("button", name=label).click()
    [first] = form.sent()
    form.become(heard=2)  # the answer to another page
    form.pass_(6000)
    assert form.sent() == [first] and form.page.locator(".gpt-rank.gpt-slow").is_visible()
    form.become(heard=3, answers=first["id"], row=1, ranked=1)
    form.pass_(20_000)
    assert form.sent() == [] and form.page.get_by_text("2 of 3, 1 ranked").is_visible()


def test_a_double_click_and_a_held_key_give_one_vote(show):
    form = show("rank", best_only=True, **QUESTION)
    form.page.get_by_role("button", name="A is better").click()
    [first] = form.sent()
    form.become(heard=2, answers=first["id"], row=1, ranked=1, prompt="How?")
    form.click_once_more()
    assert form.sent() == []
    form.page.locator(".gpt-rank").focus()
    form.page.keyboard.down("1")
    [second] = form.sent()
    form.become(heard=3, answers=second["id"], row=2, ranked=2, prompt="Who?")
    form.press_held("1", 3)
    assert second["row"] == 1 and form.sent() == []


def test_a_card_that_is_dragged_as_the_next_prompt_comes_has_no_place_there(show):
    form = show("rank", best_only=False, **QUESTION)
    for label in ("Tie the rest", "Save ranking"):
        form.page.get_by_role("button", name=label).click()
    [first] = form.sent()
    mouse, board = form.page.mouse, form.page.locator(".gpt-board")
    begin, end = (form.page.locator(each).last.bounding_box() for each in (".gpt-grip", ".gpt-tier"))
    mouse.move(begin["x"] + 3, begin["y"] + 3)
    mouse.down()
    mouse.move(end["x"] + 200, end["y"] + 2, steps=5)
    assert board.locator("[data-drop]").count() == 1
    form.become(heard=2, answers=first["id"], row=1, ranked=1)
    mouse.move(end["x"] + 200, end["y"] + 4)
    mouse.up()
    assert board.locator(".gpt-tier").count() == board.locator("[data-drop]").count() == 0
    form.pass_(10)  # until a click is one again
    form.page.get_by_role("button", name="Tie the rest").click()
    assert board.locator(".gpt-tier").count() == 1


def run(page, update: dict) -> None:
    """Tells a run's events as jupyter_gpt/notebook/views/live.py does."""
    page.evaluate(
        """({ steps, ...update }) => window.tell({ type: "update", run: 0, from: 0, columns: [], rows: 0, now: null,
           ...update })""",
        update,
    )


STEPS = [{"event": "evaluation", "step": step, "loss": 3.0} for step in (1, 2)]


def sample(step: int, text: str) -> dict:
    return {"event": "sample", "step": step, "prompt": "Once", "text": text}


def test_a_stop_that_was_not_seen_to_be_heard_does_not_skip_the_evaluation(show):
    state = {"name": "fox", "kind": "pretrain", "steps": 9, "metrics": []}
    card = show("run", runs=[{**state, "status": "running"}])
    card.pass_(1000)
    for _ in range(2):
        card.page.get_by_role("button", name="Stop").click()
    assert [message["type"] for message in card.sent()] == ["stop", "stop"]
    card.become(runs=[{**state, "status": "stopping"}])
    card.pass_(1000)
    card.click_once_more()
    assert card.sent() == []
    card.page.get_by_role("button", name="Stop").click()
    assert [message["type"] for message in card.sent()] == ["skip"]


def test_samples_sent_again_leave_the_reader_and_those_of_a_run_that_was_cut_back_do_not(show):
    card = show("run", runs=[{"name": "fox", "kind": "pretrain", "status": "running", "steps": 9, "metrics": []}])
    run(card.page, {"to": 4, "events": [*STEPS, sample(1, " a fox"), sample(2, " a hen")]})
    card.pass_(1000)
    slider, texts = card.page.get_by_label("Step of the samples shown"), card.page.locator(".gpt-texts")
    slider.fill("0")
    assert "a fox" in texts.inner_text()
    card.page.evaluate("() => { window.text = document.querySelector('.gpt-texts p'); }")
    run(card.page, {"to": 4, "events": [*STEPS, sample(1, " a fox"), sample(2, " a hen")]})
    card.pass_(1000)
    assert card.page.evaluate("() => window.text.isConnected") and slider.input_value() == "0"
    run(card.page, {"to": 4, "events": [*STEPS, sample(1, " an owl"), sample(2, " a hen")]})
    card.pass_(1000)
    assert "an owl" in texts.inner_text()
