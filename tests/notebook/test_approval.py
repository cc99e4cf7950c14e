"""The approval form: a running cell waits, a click on another thread decides."""

import threading
from types import SimpleNamespace

import pytest

from jupyter_gpt.prompting.tools.approval import Approval, Nobody
from jupyter_gpt.prompting.tools.tool import tool

pytest.importorskip("anywidget")


def save(text: str, copies: int = 1) -> None:
    """Saves a text."""


@pytest.fixture
def form(monkeypatch):
    from jupyter_gpt.notebook.views import approval

    monkeypatch.setattr("jupyter_gpt.notebook.views.widget.static", lambda name: "")
    monkeypatch.setattr(approval, "PATIENCE", 0.5)
    return approval.ApprovalForm()


def click(form, delay=0.15, **message):
    threading.Timer(delay, form._on_message, (form, message, [])).start()


def test_approve_deny_edit(form):
    kept = tool(save, writes=True)
    form._on_message(form, {"type": "ready"}, [])
    form.put(kept, {"text": "a <b>"}, "")
    assert form.state["writes"] and form.state["tool"] == "save" and form.state["decided"] is None
    assert form.state["arguments"] == '{\n "text": "a <b>"\n}'
    click(form, type="approve", call=1)
    found = form.decision()
    assert (found.approved, found.arguments, found.how) == (True, {"text": "a <b>"}, "approved by hand")
    assert form.state["decided"] == "approved by hand"
    form.put(kept, {"text": "b"}, "")
    click(form, 0.05, type="approve", call=1)  # an old click
    click(form, 0.3, type="deny", call=2)
    assert not form.decision().approved
    form.put(kept, {"text": "c"}, "")
    click(form, type="edit", call=3, arguments='{"text": "d", "copies": 2}')
    assert form.decision().arguments == {"text": "d", "copies": 2}
    assert repr(form) == "ApprovalForm()"


def test_a_second_click_that_comes_with_the_next_call_decides_nothing(form):
    class Decided(threading.Event):
        def clear(self) -> None:
            super().clear()
            clicked.start()
            clicked.join(0.3)  # it waits for the call to be shown

    kept = tool(save, writes=True)
    form.put(kept, {"text": "a"}, "")
    message = {"type": "approve", "call": 1}
    clicked = threading.Thread(target=form._on_message, args=(form, message, []))
    form._decided = Decided()
    form.put(kept, {"text": "b"}, "")
    clicked.join()
    assert not form._decided.is_set() and form.state["decided"] is None


def test_an_edit_that_does_not_fit_is_asked_for_again(form):
    def person(tool, arguments, problem):
        form.put(tool, arguments, problem)
        shown.append(form.state["problem"])
        said = '{"text": 3}' if len(shown) == 1 else '{"text": "ok"}'
        click(form, type="edit", call=len(shown), arguments=said)
        return form.decision()

    shown = []
    form._on_message(form, {"type": "ready"}, [])
    found = Approval(person=person).decide(tool(save, writes=True), {"text": "a"})
    assert found.arguments == {"text": "ok"}
    assert shown == ["", "text: Input should be a valid string"]


def test_where_no_click_is_heard_the_question_is_typed(form, monkeypatch):
    from jupyter_gpt.notebook.views import approval, place

    monkeypatch.setattr(place, "is_live", lambda: True)
    monkeypatch.setattr(place, "draws_over", lambda: True)
    monkeypatch.setattr(approval, "ApprovalForm", lambda: form)
    shown = []

    class Handle:
        def update(self, data, raw, metadata):
            shown.append(data)

    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data) or Handle())
    asked = []

    def typed(tool, arguments, problem):
        asked.append(arguments)
        raise Nobody

    monkeypatch.setattr(approval, "by_input", typed)
    waited = []
    monkeypatch.setattr(form, "decision", lambda given=form.decision: waited.append(given()))
    with approval.Asking() as person:
        for _ in range(2):
            with pytest.raises(Nobody):
                person(tool(save), {"text": "x"})
    assert asked == [{"text": "x"}] * 2
    question, cleared = shown  # the form was taken away, and not shown a second time
    assert cleared == {} and '"text": "x"' in question["text/plain"] and form.mark in question["text/html"]
    assert waited == [None]  # nor waited for a second time


def test_a_busy_page_is_waited_for_where_clicks_are_surely_heard(monkeypatch):
    from jupyter_gpt.notebook.views import approval, place

    shell = SimpleNamespace(kernel=SimpleNamespace(_supports_kernel_subshells=True))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(place, "draws_over", lambda: True)
    assert approval.patience() == approval.SLOWEST
    shell.kernel._supports_kernel_subshells = False  # ipykernel 6
    assert approval.patience() == approval.PATIENCE
    shell.kernel._supports_kernel_subshells = True
    monkeypatch.setattr(place, "draws_over", lambda: False)  # VS Code
    assert approval.patience() == approval.PATIENCE


def test_headless_there_is_no_form(monkeypatch):
    from jupyter_gpt.notebook.views.approval import Asking

    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: False)
    with Asking() as person, pytest.raises(Nobody):
        person(tool(save), {"text": "x"})
    assert person.place.widget is None


def test_the_reason_is_the_model_s_thought():
    from jupyter_gpt.notebook.views.approval import reason
    from jupyter_gpt.prompting.trace import Node

    root = Node("technique", "react")
    assert reason(root) == reason(None) == ""
    root.add(Node("call", text="Thought: It asks for a note.\nAction: note\nAction Input: {}", calls=1))
    assert reason(root) == "It asks for a note."
    root.add(Node("call", text='I note it.\n<tool_call>{"name": "note"}</tool_call>', calls=1))
    assert reason(root) == "I note it."
