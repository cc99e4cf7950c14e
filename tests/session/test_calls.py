"""A user's function in the middle of a job: who calls it, what it answers, what breaks it."""

import os
import signal
import threading
import time

import pytest

from jupyter_gpt.calls import Call
from jupyter_gpt.session.jobs import Job, Worker


@pytest.fixture(scope="module")
def worker():
    return Worker("test")


def test_a_waited_for_call_is_made_on_the_waiting_thread_and_answered(worker):
    def job():
        first = yield Call(threading.get_ident)
        second = yield Call(lambda: 7)
        return first, second

    assert worker.submit(job()).wait() == (threading.get_ident(), 7)


def test_a_call_of_a_job_that_nobody_waits_for_is_made_all_the_same(worker):
    def job():
        return (yield Call(threading.current_thread))

    job = worker.submit(job())
    assert job.done.wait(10)
    assert job.result is not worker and job.result is not threading.main_thread()


def test_other_jobs_go_on_while_one_waits_for_its_call(worker):
    def other():
        yield
        return "done"

    def job():
        return (yield Call(lambda: worker.submit(other()).wait()))

    assert worker.submit(job()).wait() == "done"


def test_an_error_comes_out_with_the_line_that_raised_it(worker):
    def faulty():
        return 1 / 0

    def job():
        yield Call(faulty)

    with pytest.raises(ZeroDivisionError) as error:
        worker.submit(job()).wait()
    assert "faulty" in [entry.name for entry in error.traceback]


def test_an_interrupt_breaks_the_function_and_the_job_is_told(worker):
    told = []

    def slow():
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        time.sleep(20)

    def job():
        try:
            yield Call(slow)
        except KeyboardInterrupt:
            told.append("broken")
        yield
        return "ended"

    began = time.monotonic()
    assert worker.submit(job()).wait(interrupted=lambda: told.append("asked")) == "ended"
    assert sorted(told) == ["asked", "broken"] and time.monotonic() - began < 5


def test_a_call_taken_on_and_interrupted_before_it_began_is_made_in_the_end():
    job = Job(iter(()))
    job.ask(Call(lambda: 3))
    call = job.take()
    assert job.take() is None
    job.leave_call()
    assert job.take() is call
