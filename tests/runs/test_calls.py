"""A user's function in the middle of a job: who calls it, what it answers, what breaks it."""

import os
import signal
import threading
import time

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs import worker as jobs
from jupyter_gpt.runs.worker import Call, Job, Worker


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
    assert job.done.wait(60)
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
        time.sleep(600)

    def job():
        try:
            yield Call(slow)
        except KeyboardInterrupt:
            told.append("broken")
        yield
        return "ended"

    assert worker.submit(job()).wait(interrupted=lambda: told.append("asked")) == "ended"
    assert sorted(told) == ["asked", "broken"]


def test_a_call_taken_on_and_interrupted_before_it_began_is_made_in_the_end():
    job = Job(iter(()))
    job.ask(Call(lambda: 3))
    call = job.take()
    assert job.take() is None
    job.leave_call()
    assert job.take() is call


@pytest.fixture
def wedged(monkeypatch):
    """A worker that is in one step of a job until `release` is set; and that job."""
    monkeypatch.setattr(jobs, "BUSY", 0.3)
    monkeypatch.setattr(jobs, "STUCK", 1.5)
    release, here = threading.Event(), Worker("wedged")

    def stuck():
        release.wait()
        yield

    job = here.submit(stuck())
    yield here, job
    release.set()
    assert job.done.wait(60)


def short():
    yield
    return "done"


def test_a_step_that_does_not_end_is_told_and_then_an_error(wedged, monkeypatch):
    monkeypatch.setattr(jobs, "STUCK", 60.0)
    worker, said = wedged[0], []

    def told(text, **_):
        said.append(text)
        jobs.STUCK = 0.0

    monkeypatch.setattr(jobs, "print", told, raising=False)
    with pytest.raises(
        GPTError, match=r"in one step of another job for \d+ s \(threading.py, line \d+\): wait"
    ) as caught:
        worker.submit(short()).wait()
    assert "\n" not in str(caught.value)
    [line] = said
    assert line.startswith("Waiting: the kernel's worker")


def test_an_interrupt_ends_the_waiting_for_a_worker_that_does_not_answer(wedged, monkeypatch):
    monkeypatch.setattr(jobs, "STUCK", 60.0)
    monkeypatch.setattr(jobs, "print", lambda *_, **__: signal.raise_signal(signal.SIGINT), raising=False)
    stopped, (worker, _) = [], wedged
    with pytest.raises(KeyboardInterrupt):
        worker.submit(short()).wait(None, lambda: stopped.append(True))
    assert stopped == [True]


def test_after_a_job_was_left_the_next_says_so_and_a_free_worker_goes_on(wedged, monkeypatch):
    monkeypatch.setattr(jobs, "STUCK", 60.0)
    worker, job = wedged
    with pytest.raises(KeyboardInterrupt):
        job.wait(lambda: signal.raise_signal(signal.SIGINT), lambda: None)
    with pytest.raises(GPTError, match="restart the kernel"):
        worker.submit(short()).wait()


def test_a_worker_that_was_busy_is_waited_for(monkeypatch):
    monkeypatch.setattr(jobs, "BUSY", 0.1)
    worker = Worker("slow")

    def slow():
        time.sleep(0.5)
        yield

    worker.submit(slow())
    assert worker.submit(short()).wait() == "done"


def test_a_second_interrupt_leaves_the_job_a_moment_to_end(worker):
    going, heard = threading.Event(), []

    def job():
        while not going.is_set():
            yield

    def tick():
        if len(heard) < 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        worker.submit(job()).wait(tick, lambda: heard.append(time.monotonic()), grace=0.3)
    assert len(heard) == 2 and time.monotonic() - heard[1] >= 0.3
    going.set()
