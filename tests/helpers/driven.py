"""A generator of the stages, run to its end."""

from jupyter_gpt.runs.worker import Call


def outcome(work):
    """What a generator returns; a function of the user's is called as soon as it is asked for."""
    answer = None
    while True:
        try:
            found = work.send(answer)
        except StopIteration as end:
            return end.value
        answer = None
        if isinstance(found, Call):
            found.make()
            answer = found.result
