"""The front end's displays and its messages, for tests of what is shown in their place."""

from __future__ import annotations

from types import SimpleNamespace


class Displays:
    """Stands for the front end's displays: `shown` is every (action, report of mime types), `metadata` that of each,
    `forms` are the ranking forms.
    """

    def __init__(self):
        self.shown, self.metadata, self.forms = [], [], []

    def display(self, data, raw=False, metadata=None, display_id=None):
        self.shown.append(("display", data))
        self.metadata.append(metadata)
        return SimpleNamespace(update=self.update) if display_id else None

    def update(self, data, raw, metadata=None):
        self.shown.append(("update", data))
        self.metadata.append(metadata)


def present(monkeypatch, there: bool) -> None:
    """Whether a person watches."""
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: there)
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.draws_over", lambda: there)


def hear(form, what: str, page: str = "first", **more) -> dict:
    """A message of the front end to a form; returns the form's state."""
    form._handle_custom_msg({"type": what, "page": page, **more}, [])
    return form.state
