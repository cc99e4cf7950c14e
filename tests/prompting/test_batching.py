"""Techniques at once: their calls go out together, and each gets what it would have got alone."""

import threading

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import Ask, run
from jupyter_gpt.prompting.batching import run_batched


def echo(prompts, calls, **settings):
    from jupyter_gpt.inference.completion import Completion

    calls.append((len(prompts), threading.current_thread()))
    return [Completion(f"{prompt}!") for prompt in prompts]


def chain(question, length, seen):
    def work(send, call_user):
        ask = Ask(send, call_user=call_user)

        def technique(ask, question, options):
            for _ in range(length):
                [node] = ask.nodes([question])
                question = node.text
                ask.user(lambda: seen.append(threading.current_thread()))
            return node

        return run(ask, technique, question, None).text

    return work


def test_calls_are_batched_and_answers_find_their_way():
    calls, seen = [], []
    work = [chain(f"q{i}", i % 3 + 1, seen) for i in range(9)]
    done = list(run_batched(work, lambda prompts, **s: echo(prompts, calls, **s), at_once=9))
    assert {task.number: task.result for task in done} == {i: f"q{i}" + "!" * (i % 3 + 1) for i in range(9)}
    assert [count for count, _ in calls] == [9, 6, 3]
    assert {thread for _, thread in calls} == set(seen) == {threading.current_thread()}


def test_no_more_at_once_than_asked():
    calls = []
    done = list(run_batched([chain(f"q{i}", 2, []) for i in range(10)], lambda p, **s: echo(p, calls, **s), at_once=4))
    assert len(done) == 10 and max(count for count, _ in calls) <= 4


def test_an_error_is_the_tasks_own():
    def send(prompts, **settings):
        if any("bad" in prompt for prompt in prompts):
            raise GPTError("too long")
        return echo(prompts, [])

    done = {task.number: task for task in run_batched([chain("good", 1, []), chain("bad", 1, [])], send, at_once=1)}
    assert done[0].result == "good!" and isinstance(done[1].error, GPTError)


def test_an_interrupt_ends_those_under_way_and_begins_no_more():
    rounds = []

    def send(prompts, **settings):
        rounds.append(len(prompts))
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return echo(prompts, [])

    done = list(run_batched([chain(f"q{i}", 5, []) for i in range(6)], send, at_once=3))
    assert rounds == [3, 3] and sorted(task.number for task in done) == [0, 1, 2]
    assert all(task.result.endswith("!") for task in done)


@pytest.mark.parametrize("at_once", [1, 2, 50])
def test_settings_that_differ_go_apart(at_once):
    calls = []

    def work(i):
        return lambda send, call: send([f"q{i}"], samples=i % 2 + 1)[0].text

    done = list(run_batched([work(i) for i in range(6)], lambda p, **s: echo(p, calls, **s), at_once=at_once))
    assert [task.result for task in sorted(done, key=lambda t: t.number)] == [f"q{i}!" for i in range(6)]
