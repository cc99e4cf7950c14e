"""`%%rank`, `%%compare` and `%gpt arena`: completions put in order by a person in a form, or by a judge."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import Magic, parse


class RankingMagic(Magic):
    """Samples, shows what there is and, where a person is there, the form for what is missing."""

    def run(self, ip, line: str, cell: str = "") -> None:
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is None:
            return
        from jupyter_gpt.data.render import fill

        out = given.pop("out", None)
        given["prompts"] = [fill(text.strip(), ip.user_ns)[0] for text in cell.splitlines() if text.strip()]
        self.rank(given, lambda found: bind(ip, out, found))

    def rank(self, given: dict, bound) -> object:
        from jupyter_gpt import gpt
        from jupyter_gpt.notebook.views.rank import Page

        form = not given.pop("no_form", False)
        with Page() as page:
            found = getattr(gpt, self.class_name.lower())(tick=page.working, **given)
            bound(found)
            page.show(found, form=form)
        return found

    def verb(self, gpt, given: dict, ip) -> object:
        """As a verb of `%gpt`, whose prompts are an option."""
        given["prompts"] = prompts_of(given.get("prompts"))
        return self.rank(given, lambda found: None)


def prompts_of(given: object) -> list[str]:
    """The prompts of a list, or of a file of one a line; none for None. Raises GPTError for anything else."""
    if given is None:
        return []
    if isinstance(given, str):
        path = Path(given).expanduser()
        if not path.is_file():
            raise GPTError(f"--prompts {given}: there is no such file")
        try:
            given = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise GPTError(f"--prompts {path} is not UTF-8 text: byte {error.start} cannot be read") from error
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise GPTError("--prompts wants a list of texts as $name, or a text file with one a line")
    found = [text.strip() for text in given if text.strip()]
    if not found:
        raise GPTError("--prompts holds no prompt: give one at least, or leave it out")
    return found


rank = RankingMagic("prompt_options", "Rank")
compare = RankingMagic("prompt_options", "Compare")
arena = RankingMagic("prompt_options", "Arena")
