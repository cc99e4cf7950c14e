"""Each technique against a scripted model: what it asks, what it makes of the answers, what it does with nonsense."""

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.answers import Form
from jupyter_gpt.prompting.ask import run, text_of
from jupyter_gpt.prompting.options import Budget, Options
from jupyter_gpt.stages.prompt_techniques import check_options, compose

SUM = "What is 2 + 3 * 4?"


def solve(ask, options, question=SUM):
    return run(ask, compose(options), question, options)


def kinds(ask):
    return [node.kind for node in ask.root.walk()][1:]


# chain of thought


def test_zero_shot_has_two_passes(scripted):
    ask = scripted(["3 * 4 = 12, 2 + 12 = 14.", "14."])
    answer = solve(ask, Options(cot=True))
    assert answer.answer == "14" and answer.text.startswith("3 * 4")
    think, extract = ask.send.asked
    assert think == f"{SUM}\n\nLet's think step by step."
    assert [turn["role"] for turn in extract] == ["user", "assistant", "user"]
    assert extract[0]["content"] == think and extract[1]["content"] == answer.text
    assert ask.send.settings[1]["temperature"] == 0.0
    assert kinds(ask) == ["call", "extract"]


def test_a_base_model_is_given_documents(scripted):
    ask = scripted([" 3 * 4 = 12.", " 14.\nQ: more"], chat=False, stop="END")
    assert solve(ask, Options(cot=True)).answer == "14"
    first, second = ask.send.asked
    assert first == f"Q: {SUM}\nA: Let's think step by step."
    assert second == first + " 3 * 4 = 12.\nTherefore, the answer is"
    assert ask.send.settings[0]["stop"] == ["END", "\nQ:", "\nTherefore, the answer is"]
    assert ask.send.settings[1]["stop"] == ["END", "\n"]


def test_worked_examples_show_how_and_are_read_directly(scripted):
    shots = (("1 + 1?", "One more than 1 is 2. The answer is 2."),)
    ask = scripted(["12 + 2. The answer is 14."])
    assert solve(ask, Options(cot=True, few_shot=shots)).answer == "14"
    assert ask.send.asked == [SUM], "the examples are turns that the session puts before it"
    ask = scripted([" 12 + 2. The answer is 14."], chat=False)
    assert solve(ask, Options(cot=True, few_shot=shots)).answer == "14"
    assert ask.send.asked == [f"Q: 1 + 1?\nA: {shots[0][1]}\n\nQ: {SUM}\nA:"]


def test_thinking_is_free_and_the_answer_is_constrained(scripted):
    ask = scripted(["thought", "14"])
    answer = solve(ask, Options(cot=True, constraint={"regex": r"\d+"}))
    assert answer.answer == "14"
    assert "regex" not in ask.send.settings[0] and ask.send.settings[1]["regex"] == r"\d+"


def test_reasoning_that_names_its_answer_is_not_asked_for_another(scripted):
    ask = scripted(["3 * 4 = 12. The answer is 14.", "never asked"])
    assert solve(ask, Options(cot=True)).answer == "14" and kinds(ask) == ["call"]
    ask = scripted(lambda prompt, n: ("#### 14", "it is so", "So \\boxed{14}")[n] if isinstance(prompt, str) else "13")
    assert solve(ask, Options(cot=True, samples=3, vote=True)).answer == "14"
    assert kinds(ask) == ["call", "sample", "sample", "extract", "sample", "vote"], "the one that named none is asked"


def test_a_named_answer_that_keeps_the_form_is_taken_and_any_other_is_asked_for(scripted):
    either = {"choice": ["red", "blue"]}
    ask = scripted(["Not red. The answer is blue.", "never asked"])
    assert solve(ask, Options(cot=True, constraint=either)).answer == "blue" and len(ask.send.asked) == 1
    ask = scripted(["The answer is: the blue one.", "blue"])
    assert solve(ask, Options(cot=True, constraint=either)).answer == "blue" and len(ask.send.asked) == 2


def test_reasoning_that_was_cut_off_invents_no_answer(scripted):
    ask = scripted(["First, 3 * 4 = 12, and then…", "never asked"])
    answer = solve(ask, Options(cot=True))
    assert answer.answer is None and ask.root.answer is None and len(ask.send.asked) == 1
    assert answer.note == "no answer: stopped at --max-tokens 8"
    ask = scripted(["The answer is 14. To check this, one…"])
    assert solve(ask, Options(cot=True)).answer == "14"
    ask = scripted(lambda prompt, n: ("First, 3 * 4 is…", "The answer is 14.", "And then…")[n])
    assert solve(ask, Options(cot=True, samples=3, vote=True)).answer == "14"
    assert [node.note.partition(":")[0] for node in ask.solutions] == ["no answer", "", "no answer"]


def test_a_direct_answer_that_was_cut_off_is_none_and_has_no_vote(scripted):
    ask = scripted(["Add 3 and 4, which…"])
    assert solve(ask, Options()).answer is None and kinds(ask) == ["call"]
    ask = scripted(lambda prompt, n: ("14", "Add 3 and 4, which…")[n])
    assert solve(ask, Options(samples=2, vote=True)).votes == 1 and kinds(ask) == ["call", "sample", "sample", "vote"]
    assert ask.solutions[1].note == "no answer: stopped at --max-tokens 5"


def test_the_form_of_the_answer_decides_how_it_is_read(scripted):
    number = Form("number", question=SUM)
    said = ["3 * 4 = 12, and 2 + 12 = 14. That is all there is to it, as anybody who can add and multiply can see."]
    assert (
        solve(scripted(said), Options(form=number)).answer == "14" and solve(scripted(said), Options()).answer is None
    )
    ask = scripted([*said, "It is said.", "As I said."])
    assert solve(ask, Options(cot=True, form=number)).answer == "14", "where asking gives none, the reasoning has one"
    votes = scripted(lambda prompt, n: ("fourteen", "14.0", "$14", "9")[n])
    assert solve(votes, Options(samples=4, vote=True, form=number)).votes == 3


def test_a_model_that_gives_no_answer_is_asked_once_more_then_said_so(scripted):
    essay = "well " * 60
    ask = scripted(["thought", essay, "14"])
    assert solve(ask, Options(cot=True)).answer == "14"
    ask = scripted(["thought", essay, essay])
    answer = solve(ask, Options(cot=True))
    assert answer.answer is None and "gave no answer" in answer.note
    assert len(ask.send.asked) == 3


def test_templates_can_be_replaced(scripted):
    own = {"cot": {"trigger": "Denken wir nach.", "extract": ""}}
    ask = scripted(["Also 14. Answer: 14"], templates=own)
    assert solve(ask, Options(cot=True)).answer == "14"
    assert ask.send.asked == [f"{SUM}\n\nDenken wir nach."]


# self-consistency


def sampled(*answers):
    """A model whose samples reach these answers."""
    return lambda prompt, n: f"So. {answers[n]}" if isinstance(prompt, str) else prompt[1]["content"].split()[-1]


def test_the_majority_wins_and_the_spread_is_shown(scripted):
    ask = scripted(sampled(12, 14, 14, 20, 14))
    answer = solve(ask, Options(cot=True, samples=5, vote=True))
    assert answer.answer == "14" and answer.votes == 3
    vote = next(node for node in ask.root.walk() if node.kind == "vote")
    assert vote.result == {"14": 3, "12": 1, "20": 1} and vote.note == ""
    assert [node.votes for node in ask.solutions] == [1, 3, 3, 1, 3]
    assert ask.root.answer == "14"
    assert ask.root.totals().calls == 6, "one call draws five samples, five read their answers off"


@pytest.mark.parametrize(
    ("answers", "taken", "said"),
    [
        ((1, 2, 3), "1", "no majority: 1 of 3 each for 1, 2, 3"),
        ((5, 7, 7, 5), "5", "no majority: 2 of 4 each for 5, 7"),
        ((5, 7, 7, 5, 7, 9, 8), "7", "no majority: the most frequent answer has 3 of 7"),
    ],
)
def test_no_majority_is_said(scripted, answers, taken, said):
    ask = scripted(sampled(*answers))
    assert solve(ask, Options(cot=True, samples=len(answers), vote=True)).answer == taken
    assert next(node for node in ask.root.walk() if node.kind == "vote").note.startswith(said)


def test_samples_without_any_answer(scripted):
    ask = scripted(lambda prompt, n: "well " * 60)
    assert solve(ask, Options(cot=True, samples=2, vote=True)).answer is None
    assert "no answer could be extracted" in next(node for node in ask.root.walk() if node.kind == "vote").note


def test_a_vote_without_thinking_reads_the_answers(scripted):
    ask = scripted(lambda prompt, n: ("14", "The answer is 14.", "12")[n])
    assert solve(ask, Options(samples=3, vote=True)).answer == "14"
    assert len(ask.send.asked) == 1


def test_best_of_n_by_a_reward(scripted):
    ask = scripted(lambda prompt, n: "x" * (3, 9, 5)[n])
    seen = []
    answer = solve(ask, Options(samples=3, best_of=lambda p, c: seen.append(p) or len(c)))
    assert answer.text == "x" * 9 and answer.score == 9 and seen == [SUM] * 3
    assert [node.pruned for node in ask.solutions] == [True, False, True]


def test_a_vote_that_is_stopped_counts_what_came(scripted):
    ask = scripted(lambda prompt, n: f"So {(14, 14, 3)[n]}.", budget=Budget(max_calls=1))
    answer = solve(ask, Options(cot=True, samples=3, vote=True))
    assert answer.answer == "14" and "--max-calls 1" in ask.root.note


# reflection


def test_reflection_revises_until_the_check_passes(scripted):
    ask = scripted(["13", "15", "14"])
    answer = solve(
        ask, Options(reflect=5, check=lambda q, a: a == "14" or f"{a} is too {'low' if a < '14' else 'high'}.")
    )
    assert answer.answer == "14" and ask.root.note == ""
    assert [text_of(p) for p in ask.send.asked][1:] == [
        "That is wrong. 13 is too low. Find the mistake and write the whole answer again.",
        "That is wrong. 15 is too high. Find the mistake and write the whole answer again.",
    ]
    assert [n.label for n in ask.root.walk() if n.kind == "check"] == ["fails the check"] * 2 + ["passes the check"]


def test_reflection_without_a_check_asks_the_model(scripted):
    ask = scripted(["13", "It is 14, not 13.", "14", "Correct."])
    assert solve(ask, Options(reflect=3)).answer == "14"
    assert len(ask.send.asked) == 4 and len(ask.send.asked[2]) == 5


def test_reflection_ends_when_it_goes_round_in_a_circle_and_says_that_nothing_passed(scripted):
    ask = scripted(["13", "15", "13", "never asked"])
    answer = solve(ask, Options(reflect=9, check=lambda q, a: False))
    assert answer.answer == "13" and len(ask.send.asked) == 3
    assert "no answer passed the check" in ask.root.note
    assert any("the revision ends here" in node.note for node in ask.root.walk())


def test_a_check_that_returns_nothing_is_refused_and_its_own_errors_are_its_own(scripted):
    with pytest.raises(GPTError, match="--check got None"):
        solve(scripted(["13"]), Options(reflect=1, check=lambda q, a: None))
    with pytest.raises(ZeroDivisionError):
        solve(scripted(["13"]), Options(reflect=1, check=lambda q, a: 1 / 0))


def test_composition_thinks_votes_and_reflects(scripted):
    def say(prompt, n):
        if isinstance(prompt, str):
            return f"So {(13, 13, 14)[n]}"
        if prompt[-1]["content"].startswith("Therefore"):
            return prompt[-2]["content"].split()[-1]
        return "Now 14"

    ask = scripted(say)
    answer = solve(ask, Options(cot=True, samples=3, vote=True, reflect=2, check=lambda q, a: a == "14"))
    assert answer.answer == "14" and ask.root.answer == "14"
    assert kinds(ask)[:8] == ["call", "sample", "extract", "sample", "extract", "sample", "extract", "vote"]


# expert


def test_an_expert_is_asked_with_the_words_that_did_best(scripted):
    ask = scripted(["It is 14."])
    solve(ask, Options(expert="arithmetic"))
    assert ask.send.asked == [
        "You are a leading expert in arithmetic. Answer as such an expert would, correctly and completely.\n\n"
        f"{SUM}\n\nLet's work this out in a step by step way to be sure we have the right answer."
    ]
    ask = scripted(["It is 14.", "14"])
    solve(ask, Options(expert=True, cot=True))
    assert (
        ask.send.asked[0].endswith("to be sure we have the right answer.") and "step by step." not in ask.send.asked[0]
    )


# tree of thoughts: a walk to the number 10 by adding 1, 2 or 5


STEPS = ("+1", "+2", "+5")


def walker(prompt, n):
    """Proposes the n-th step, or the answer when the steps written in the prompt reach 10."""
    done = [line for line in prompt.splitlines() if line in STEPS]
    return f"Answer: {'; '.join(done)}" if sum(map(int, done)) == 10 else STEPS[n]


def closeness(prompt, steps):
    total = sum(int(s) for s in steps.splitlines() if s in STEPS)
    return 0 if total > 10 else total + 1


@pytest.mark.parametrize("search", ["bfs", "dfs", "beam"])
@pytest.mark.parametrize("chat", [True, False])
def test_the_search_finds_the_way(scripted, search, chat):
    ask = scripted(walker, chat=chat)
    answer = solve(ask, Options(tree=True, breadth=3, depth=8, search=search, value=closeness), question="Reach 10.")
    assert sum(map(int, answer.answer.split("; "))) == 10
    pruned = [node for node in ask.root.walk() if node.pruned]
    assert any(node.score > 0 for node in pruned if node.score), "what was promising and not followed is pruned too"
    assert search == "dfs" or any(node.note == "a dead end" for node in pruned)


def test_breadth_one_is_greedy_and_depth_ends_it(scripted):
    ask = scripted(walker)
    answer = solve(ask, Options(tree=True, breadth=1, depth=2, value=closeness), question="Reach 10.")
    assert answer.text.splitlines()[:2] == ["+1", "+1"]
    assert [node.label for node in ask.root.walk() if node.kind == "call"] == ["concludes"]


def test_a_tree_whose_conclusion_is_cut_off_has_no_answer(scripted):
    ask = scripted(lambda prompt, n: "The sum of these is…" if "What is the answer?" in prompt else STEPS[n])
    assert solve(ask, Options(tree=True, breadth=1, depth=1, value=closeness), question="Reach 10.").answer is None
    assert [n.note for n in ask.root.walk() if n.label == "concludes"] == ["no answer: stopped at --max-tokens 5"]


def test_depth_first_goes_back_from_a_dead_end(scripted):
    maze = {(): ["left", "right"], ("left",): ["wall", "pit"], ("right",): ["Answer: out", "wall"]}

    def say(prompt, n):
        return maze[tuple(line for line in prompt.splitlines() if line in ("left", "right"))][n]

    def value(prompt, steps):
        last = steps.splitlines()[-1]
        return {"left": 5, "right": 3, "wall": 0, "pit": -1}.get(last, 9)

    ask = scripted(say)
    answer = solve(ask, Options(tree=True, breadth=2, depth=4, search="dfs", value=value), question="Out?")
    assert answer.answer == "out" and answer.text == "right\nAnswer: out"
    left = next(node for node in ask.root.walk() if node.text == "left")
    assert left.pruned and "backtracks" in left.note


def test_the_model_judges_and_is_asked_once_more_when_it_does_not(scripted):
    def say(prompt, n):
        if isinstance(prompt, list):
            return "Sure!" if "+5" in prompt[0]["content"] else "hm"
        if "one word" in prompt:
            return "That depends." if "+1" not in prompt else "impossible"
        return STEPS[n]

    ask = scripted(say)
    solve(ask, Options(tree=True, breadth=3, depth=1), question="Reach 10.")
    thoughts = {node.text: node for node in ask.root.walk() if node.kind == "thought"}
    assert [thoughts[step].score for step in STEPS] == [0.0, 1.0, 20.0]
    assert "counted as likely" in thoughts["+2"].note


def test_a_tree_that_runs_out_keeps_its_best(scripted):
    ask = scripted(walker, budget=Budget(max_calls=3))
    answer = solve(ask, Options(tree=True, breadth=3, depth=9, value=closeness), question="Reach 10.")
    assert answer.text.splitlines() == ["+5"] and "--max-calls 3" in ask.root.note


# nonsense


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(vote=True), "--vote chooses among several samples"),
        (Options(samples=3, vote=True, best_of=len), "leave one out"),
        (Options(samples=3, reflect=1), "to choose one of the samples"),
        (Options(check=bool), "add --reflect"),
        (Options(tree=True, cot=True), "leave --cot out"),
        (Options(tree=True, samples=4, vote=True), "leave --samples"),
        (Options(depth=2), "--depth belongs to --tree"),
    ],
)
def test_contradictions_are_refused_with_the_reason(options, said):
    with pytest.raises(GPTError, match=said):
        check_options(options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": "dfs!"}, "--search is bfs or dfs or beam"),
        ({"breadth": 0}, "--breadth 0 must be above zero"),
        ({"samples": 2, "best_of": 3}, "best_of=3 is of type int: wanted is a function"),
    ],
)
def test_values_out_of_range_are_refused(options, said):
    with pytest.raises(GPTError, match=said):
        Options.of(**options)


def test_what_a_base_model_cannot_do_is_said():
    with pytest.raises(GPTError, match="--as-assistant"):
        check_options(Options(reflect=1), chat=False)
    with pytest.raises(GPTError, match="--value"):
        check_options(Options(tree=True), chat=False)
    check_options(Options(tree=True, value=len), chat=False)
