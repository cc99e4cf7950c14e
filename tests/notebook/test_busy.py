"""The status of a kernel whose cell runs, while messages are answered beside it."""

from types import SimpleNamespace

import pytest

from jupyter_gpt.notebook.views import busy

CELL = {"msg_type": "execute_request", "msg_id": "1"}


@pytest.fixture
def ip():
    """A shell whose kernel writes down what it tells, and of which message."""

    class Kernel:
        parent = CELL

        def __init__(self):
            self.told = []

        def get_parent(self):
            return self.parent

        def _publish_status(self, status, channel, parent=None):
            self.told.append((status, channel, parent))

    called = {}
    events = SimpleNamespace(register=called.__setitem__, unregister=lambda name, _: called.pop(name))
    busy.forget()
    yield SimpleNamespace(kernel=Kernel(), events=events, called=called)
    busy.forget()


def test_each_idle_beside_a_cell_is_followed_by_that_the_cell_runs(ip):
    busy.running_cell(ip)
    tell = ip.kernel._publish_status
    tell("busy", "shell")
    assert ip.kernel.told == [("busy", "shell", None)]
    tell("idle", "control")
    assert ip.kernel.told[1:] == [("idle", "control", None), ("busy", "shell", CELL)]
    ip.called["post_run_cell"](None)
    tell("idle", "shell", parent=CELL)
    assert ip.kernel.told[3:] == [("idle", "shell", CELL)]


def test_what_is_forgotten_is_told_as_before(ip):
    busy.running_cell(ip)
    busy.running_cell(ip)
    busy.forget()
    ip.kernel._publish_status("idle", "shell")
    assert ip.kernel.told == [("idle", "shell", None)] and not ip.called
