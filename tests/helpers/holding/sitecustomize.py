"""A run in a process of its own takes no step after that of HOLD_AT, unless it is asked to stop or to pause."""

import os
import time

from jupyter_gpt.runs.control import FolderControl, asked
from jupyter_gpt.runs.events import Step

if "HOLD_AT" in os.environ:
    look = FolderControl.look

    def held(control, run, event):
        from jupyter_gpt.runs import runner

        runner.LOOK = 0.0  # steps are written at once
        if isinstance(event, Step) and event.step >= max(int(os.environ["HOLD_AT"]), vars(control).get("after", 0)):
            control.after = event.step + 1
            while not ((found := asked(control.path.parent))["stop"] or found["pause"]):
                time.sleep(0.01)
            control.next = 0.0
        look(control, run, event)

    FolderControl.look = held
