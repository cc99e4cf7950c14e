"""Whatever a tool does, its call ends and the kernel goes on."""

import signal
import sys
import threading
import time

import pytest

from helpers.stopping import interrupted_soon
from jupyter_gpt.prompting.tools.call import call
from jupyter_gpt.prompting.tools.tool import tool


def run(function, seconds=None, **arguments):
    return call(tool(function, seconds=seconds), arguments)


def test_a_call_tells_result_time_and_what_was_printed(capsys):
    def work(n: int):
        """Works."""
        print("on it")
        print("careful", file=sys.stderr)
        time.sleep(0.02)
        return n * 2

    done = run(work, n=21)
    assert (done.text, done.ok, done.printed) == ("42", True, "on it\ncareful\n")
    assert done.seconds >= 0.02
    assert capsys.readouterr() == ("", "")


def test_what_is_printed_is_the_result_of_one_that_returns_nothing():
    def say():
        """Says."""
        print("hello")

    assert run(say).text == "hello\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(3), GeneratorExit(), KeyError("k")])
def test_what_it_raises_is_the_result(error):
    def bad():
        """Fails."""
        raise error

    done = run(bad)
    assert not done.ok
    assert done.text.startswith(f"Error: {type(error).__name__}")
    assert "in bad" in done.error


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_tool_that_hangs_is_stopped_and_the_handler_given_back(stubborn):
    before = signal.getsignal(signal.SIGINT)

    def hang():
        """Hangs."""
        if stubborn:
            try:
                time.sleep(600)
            except BaseException:
                time.sleep(600)
        time.sleep(600)

    done = run(hang, seconds=0.2)
    assert not done.ok
    assert "longer than 0.2 s" in done.text
    assert signal.getsignal(signal.SIGINT) is before


def test_a_busy_loop_is_stopped_too():
    def spin():
        """Spins."""
        while True:
            pass

    assert "longer than" in run(spin, seconds=0.2).text


def test_on_the_edge_of_its_time_nobody_else_is_interrupted():
    def brief():
        """Just in time, or not."""
        time.sleep(0.02)
        return "in time"

    seen = {run(brief, seconds=0.02 + 0.0002 * (n % 5 - 2)).ok for n in range(60)}
    time.sleep(0.1)  # a signal gone astray would end the test here
    assert seen <= {True, False}


def test_the_interrupt_button_is_not_the_tools_affair():
    def wait():
        """Waits."""
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt), interrupted_soon():
        run(wait)


def test_megabytes_are_cut_printed_and_returned():
    def flood():
        """Floods."""
        for _ in range(1000):
            print("x" * 10_000)
        return "y" * 5_000_000

    done = run(flood)
    assert len(done.text) < 2100
    assert done.text.endswith("(4,998,000 more characters)")
    assert len(done.printed) < 2100
    assert "more characters" in done.printed


def test_off_the_main_thread_a_late_tool_is_left_behind():
    found, free = [], threading.Event()

    def hang():
        """Hangs."""
        free.wait(600)

    thread = threading.Thread(target=lambda: found.append(run(hang, seconds=0.2)))
    thread.start()
    thread.join(60)
    free.set()
    assert "longer than 0.2 s" in found[0].text
