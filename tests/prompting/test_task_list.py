"""The agent with a scripted model: its list, its tasks, its levels, its end."""

import json

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import run
from jupyter_gpt.prompting.options import Budget, Options
from jupyter_gpt.prompting.task_list import LISTED, MEMORY, list_grammar, read, results
from jupyter_gpt.prompting.tools.approval import Approval, Toolset
from jupyter_gpt.prompting.tools.tool import tool
from jupyter_gpt.stages.prompt_techniques import check_options, compose


class Shop:
    def __init__(self):
        self.calls = []

    def tools(self):
        def price(item: str) -> int:
            """What an item costs."""
            self.calls.append(("price", item))
            return {"bread": 3, "tea": 5}[item]

        def buy(item: str) -> str:
            """Buys an item."""
            self.calls.append(("buy", item))
            return f"bought {item}"

        return tool(price), tool(buy, writes=True)


@pytest.fixture
def shop():
    return Shop()


def turn(name, given):
    return f"Thought: go\nAction: {name}\nAction Input: {json.dumps(given)}"


def final(answer):
    return f"Thought: I now know the answer\nFinal Answer: {answer}"


def work(ask, shop, goal="Have breakfast", toolset=None, **options):
    options = Options(toolset=toolset or Toolset(shop.tools() if shop else ()), **{"tasks": 10, "levels": 1, **options})
    check_options(options, ask.chat)
    return run(ask, compose(options), goal, options)


def nodes(ask, kind):
    return [node for node in ask.root.walk() if node.kind == kind]


def said(prompt):
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def test_it_plans_works_off_and_answers(scripted, shop):
    ask = scripted(
        [
            "1. Find the price of bread\n2. Find the price of tea",
            turn("price", {"item": "bread"}),
            final("bread costs 3"),
            "1. Find the price of tea",
            turn("price", {"item": "tea"}),
            final("tea costs 5"),
            "none",
            "8 in all",
        ]
    )
    answer = work(ask, shop)
    assert (answer.text, answer.answer) == ("8 in all", "8 in all")
    assert shop.calls == [("price", "bread"), ("price", "tea")]
    assert [node.label for node in nodes(ask, "task")] == [
        "task: Find the price of bread",
        "task: Find the price of tea",
    ]
    assert ask.root.result == {
        "goal": "Have breakfast",
        "left": [],
        "done": [
            {"task": "Find the price of bread", "result": "bread costs 3"},
            {"task": "Find the price of tea", "result": "tea costs 5"},
        ],
    }
    assert "price(item: string): What an item costs." in said(ask.send.asked[0])


def test_what_was_found_is_remembered(scripted, shop):
    ask = scripted(["1. a\n2. b", final("first result"), "1. b", final("second result"), "none", "done"])
    work(ask, shop)
    second_task, last = said(ask.send.asked[3]), said(ask.send.asked[5])
    assert "1. a\n   Result: first result" in second_task
    assert "Your task now, and nothing else: b" in second_task
    assert "2. b\n   Result: second result" in last


def test_tasks_are_added_and_reordered(scripted, shop):
    ask = scripted(["1. a\n2. b", final("ok"), "1. c\n2. b", final("ok"), "1. b", final("ok"), "none", "done"])
    work(ask, shop)
    assert [node.label for node in nodes(ask, "task")] == ["task: a", "task: c", "task: b"]
    assert [node.text for node in nodes(ask, "tasks")] == ["1. a\n2. b", "1. c\n2. b", "1. b", "none"]


def test_a_task_that_was_done_is_not_done_again(scripted, shop):
    ask = scripted(["1. Look at it.\n2. look at it", final("ok"), "1. LOOK at it!", "done"])
    work(ask, shop)
    assert len(nodes(ask, "task")) == 1
    first, second = nodes(ask, "tasks")
    assert "left out" in first.note
    assert second.text == "none"


def test_a_list_of_what_was_done_leaves_the_rest_on_it(scripted, shop):
    ask = scripted(["1. a\n2. b", final("ok"), "1. a", final("ok"), "none", "done"])
    work(ask, shop)
    assert [node.label for node in nodes(ask, "task")] == ["task: a", "task: b"]
    assert nodes(ask, "tasks")[1].note.endswith("listed already: a; the list is kept")


EXAMPLES = (
    ("Know what tea and bread cost", "1. Price of tea\n2. Price of bread"),
    ("Price of tea", f"{turn('price', {'item': 'tea'})}\nObservation: 5\n{final('5')}"),
)


def test_examples_show_how_to_plan_to_keep_the_list_and_to_act(scripted, shop):
    ask = scripted(["1. Price of bread", final("3"), "none", "3"])
    work(ask, shop, goal="Know what bread costs", few_shot=EXAMPLES)
    plan, task, left, _ = ask.send.asked
    assert [m["role"] for m in plan] == ["user", "assistant", "user"]
    assert plan[0]["content"].replace(EXAMPLES[0][0], "Know what bread costs") == plan[2]["content"]
    assert plan[1]["content"] == EXAMPLES[0][1]
    assert task[0]["content"].startswith("You work towards this goal: Know what bread costs\n\nAnswer the question.")
    assert (task[1]["content"], task[-1]["content"]) == ("Price of tea", "Price of bread")
    assert [m["content"] for m in left[1::2]] == ["1. Price of bread", "none"]
    assert "1. Price of tea\n   Result: 5\n\nTasks left:\n1. Price of bread" in left[0]["content"]
    assert "2. Price of bread\n   Result: done\n\nTasks left:\nnone" in left[2]["content"]


def test_examples_are_in_the_document_of_a_base_model(scripted, shop):
    ask = scripted(["1. a", " Easy.\nFinal Answer: ok", "none", "done"], chat=False)
    assert work(ask, shop, few_shot=EXAMPLES).text == "done"
    assert f"no more than needed.\n\nAnswer: {EXAMPLES[0][1]}\n\nGoal: Have breakfast" in ask.send.asked[0]
    assert "\n\nQuestion: Price of tea\nThought: go\n" in ask.send.asked[1]


def test_a_list_that_always_grows_ends(scripted, shop):
    count = iter(range(1000))

    def grow(prompt, n):
        text = said(prompt)
        if "final answer to the goal" in text:
            return "enough"
        return final("ok") if "Your task now" in text else "\n".join(f"- task {next(count)}" for _ in range(5))

    ask = scripted(grow)
    assert work(ask, shop, tasks=4).text == "enough"
    assert len(nodes(ask, "task")) == 4
    assert "after 4 tasks" in ask.root.note
    assert len(ask.root.result["left"]) == 5


def test_a_goal_of_its_own_gets_a_list_of_its_own(scripted, shop):
    ask = scripted(
        [
            "1. Shop",
            turn("delegate", {"goal": "Buy tea"}),
            "1. Find the price",
            turn("price", {"item": "tea"}),
            final("5"),
            "none",
            "tea costs 5",
            final("tea bought for 5"),
            "none",
            "all done",
        ]
    )
    assert work(ask, shop, levels=2).text == "all done"
    [inner] = [node for node in nodes(ask, "tool") if node.label == "delegate"]
    assert inner.text == "tea costs 5"
    assert [node.label for node in inner.walk() if node.kind == "task"] == ["task: Find the price"]
    assert "delegate(goal: string)" in said(ask.send.asked[0])
    assert "delegate" not in said(ask.send.asked[2])  # no level below the second


def test_recursion_into_the_same_goal_is_refused(scripted, shop):
    ask = scripted(["1. Do it all", turn("delegate", {"goal": "have breakfast!"}), final("no"), "none", "done"])
    work(ask, shop, levels=5)
    [refused] = [node for node in nodes(ask, "tool") if node.label == "delegate"]
    assert refused.text == "Error: that is the goal that is being worked on already"


def test_recursion_ends_at_the_number_of_tasks(scripted, shop):
    count = iter(range(1000))

    def deeper(prompt, n):
        text = said(prompt)
        if "final answer to the goal" in text:
            return "up"
        if text.startswith("Observation") or "cannot act" in text:
            return final("back")
        if "Your task now" in text:
            return turn("delegate", {"goal": f"goal {next(count)}"})
        return "none" if "Which tasks are left" in text else f"1. task {next(count)}"

    ask = scripted(deeper)
    assert work(ask, shop, levels=50, tasks=6).text == "up"
    assert len(nodes(ask, "task")) == 6
    assert any("no tasks are left" in node.text for node in nodes(ask, "tool"))


def test_no_list_is_asked_for_once_more_and_then_said(scripted, shop):
    ask = scripted(["Well, well.", "1. a", final("ok"), "Hm.", "Hm again.", "done"])
    work(ask, shop)
    assert [node.label for node in nodes(ask, "task")] == ["task: a"]
    notes = [node.note for node in nodes(ask, "call") if node.note]
    assert notes == ["no list of tasks", "no list of tasks", "no list of tasks again: the previous one is kept"]
    ask = scripted(["Well.", "Well!", final("ok"), "none", "done"])
    work(ask, shop)
    assert [node.label for node in nodes(ask, "task")] == ["task: Have breakfast"]  # the goal itself is the one task


@pytest.mark.parametrize("calls", [1, 3, 5])
def test_the_budget_ends_it_with_what_there_is(scripted, shop, calls):
    script = [
        "1. a\n2. b",
        turn("price", {"item": "tea"}),
        final("tea costs 5"),
        "1. b",
        turn("price", {"item": "bread"}),
    ]
    ask = scripted(script, budget=Budget(max_calls=calls))
    answer = work(ask, shop)
    assert ask.calls == calls
    assert "--max-calls" in ask.root.note
    assert ("tea costs 5" in answer.text) == (calls >= 3)
    assert len(ask.root.result["done"]) == (calls >= 3)


def test_a_failing_tool_does_not_end_it(scripted, shop):
    ask = scripted(["1. Find the price of gold", turn("price", {"item": "gold"}), final("unknown"), "none", "no gold"])
    assert work(ask, shop).text == "no gold"
    assert "KeyError" in nodes(ask, "tool")[0].text


def test_what_writes_is_denied_headless(scripted, shop):
    script = ["1. Buy tea", turn("buy", {"item": "tea"}), final("denied"), "none", "nothing bought"]
    ask = scripted(script)
    work(ask, shop)
    assert shop.calls == []
    ask = scripted(script)
    work(ask, shop, toolset=Toolset(shop.tools(), Approval(allow=frozenset({"buy"}))))
    assert shop.calls == [("buy", "tea")]


def test_without_tools_the_model_works_alone(scripted):
    ask = scripted(["1. Think", "I thought.", "none", "42"])
    assert work(ask, None).text == "42"
    assert nodes(ask, "task")[0].text == "I thought."


def test_a_base_model_goes_on_with_documents(scripted, shop):
    ask = scripted(["1. a", " Easy.\nFinal Answer: ok", "none", "done"], chat=False)
    assert work(ask, shop).text == "done"
    assert ask.send.asked[0].endswith("no more than needed.\n\nAnswer:")


def test_a_model_of_the_kernel_is_held_to_a_list(scripted, shop):
    ask = scripted(["1. a", final("ok"), "none", "done"])
    work(ask, shop, toolset=Toolset(shop.tools(), constrained=True))
    assert ask.send.settings[0]["grammar"] == list_grammar()
    assert "grammar" in ask.send.settings[1]


def test_the_list_grammar_is_what_read_reads():
    from jupyter_gpt.inference.rules import rule

    held = rule(grammar=list_grammar())
    for text in ("none", "1. abc", "1. abc\n2. def", "\n".join(f"{n}. task" for n in range(1, LISTED + 1))):
        assert held.problem(text) is None
        assert read(text) is not None
    for text in ("", "1.", "2. abc", "1. abc\n", "abc", "\n".join(f"{n}. task" for n in range(1, LISTED + 2))):
        assert held.problem(text)


def test_lists_as_models_write_them():
    assert read("Here is the plan:\n1) a\n 2: b\n* c\n- d\n• e\n") == ["a", "b", "c", "d", "e"]
    assert read("None.") == read("1. none") == read('"none"') == read("- Nothing") == []
    assert read("Nothing is left") == []
    assert read("I think so") is None
    assert read("1. none of the shops is open") == ["none of the shops is open"]
    assert len(read("\n".join(f"{n}. x{n}" for n in range(50)))) == LISTED


def test_memory_has_an_end():
    text = results([(f"task {n}", "x" * 5000) for n in range(100)])
    assert len(text) < MEMORY + 100
    assert "100. task 99" in text


def test_what_makes_no_sense_is_refused(shop):
    acting = Toolset(shop.tools())
    for wrong, why in (
        ({"samples": 3, "vote": True}, "answers once"),
        ({"cot": True}, "leave --cot"),
        ({"levels": 0}, "--levels"),
    ):
        with pytest.raises(GPTError, match=why):
            check_options(Options.of(toolset=acting, tasks=5, **wrong))
