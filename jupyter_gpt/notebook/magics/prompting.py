"""`%%prompt`, `%%agent`, `%%rag`: a model is asked, and its answer shown as it is written."""

from __future__ import annotations

from contextlib import nullcontext

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.magics.notebook import bind
from jupyter_gpt.notebook.magics.options import Magic, parse


class PromptMagic(Magic):
    def run(self, ip, line: str, cell: str) -> None:
        """Asks, showing the answer as it grows; an interrupted answer is kept, and the cell passes."""
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is None:
            return
        from jupyter_gpt import gpt
        from jupyter_gpt.data.render import turns
        from jupyter_gpt.inference.completion_report import completion_report, prompt_report
        from jupyter_gpt.notebook.views.place import Writing
        from jupyter_gpt.stages.prompt import uses_technique

        out, body = given.pop("out", None), cell.strip("\n")
        chat = turns(body)
        question = chat or body
        holes = "{{" in body and has_holes([turn["content"] for turn in chat] if chat else [body])
        if uses_technique(given):
            if holes:
                raise GPTError("a template is filled in one pass, which no technique goes with: leave one of them out")
            acts = bool(given.get("react") or given.get("tools"))
            bind(ip, out, show_trace(gpt.prompt, question, ip.user_ns, given, acts))
            return
        ask = gpt.template if holes else gpt.prompt
        with Writing() as writing:
            done = ask(question, variables=ip.user_ns, on_token=writing.show, **given)
            if given.get("dry_run"):
                writing.put(prompt_report(done))
            else:
                writing.put(completion_report(done, None if done.remote else gpt.models[done.model].tokenizer))
        if holes:
            ip.push(variables_of(done))
        bind(ip, out, done)


class AgentMagic(Magic):
    def run(self, ip, line: str, cell: str) -> None:
        """Works on the goal, showing the tree as it grows; an interrupted agent keeps what it found."""
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is None:
            return
        from jupyter_gpt import gpt

        bind(ip, given.pop("out", None), show_trace(gpt.agent, cell.strip("\n"), ip.user_ns, given, acts=True))


class RagMagic(Magic):
    def run(self, ip, line: str, cell: str) -> None:
        """Finds, asks, checks and shows, the answer as it grows; an interrupted answer is kept, and the cell passes."""
        given = parse(self.COMMAND, line, ip.user_ns)
        if given is None:
            return
        from jupyter_gpt import gpt
        from jupyter_gpt.inference.completion_report import prompt_report
        from jupyter_gpt.notebook.views.place import Writing
        from jupyter_gpt.retrieval.index_map import index_map
        from jupyter_gpt.stages.rag import answer_report

        out = given.pop("out", None)
        with Writing() as writing:
            answer = gpt.rag(cell, variables=ip.user_ns, on_token=writing.show, **given)
            if given.get("dry_run") and answer.completion is not None:
                writing.put(prompt_report(answer.completion))
            else:
                index = gpt.indexes[answer.index]
                question = index.vectors([answer.asked])[0]
                writing.put(answer_report(answer, index_map(index, question, answer.hits or answer.left)))
        bind(ip, out, answer)


def show_trace(ask, question, variables, given: dict, acts: bool):
    """Shows the tree of what is asked as it grows, then the answer with the whole tree; returns the completion."""
    from jupyter_gpt.notebook.views.approval import Asking
    from jupyter_gpt.notebook.views.trace_live import Growing
    from jupyter_gpt.prompting.trace_report import trace_report, unsent_report

    with Growing() as growing, Asking() if acts else nullcontext() as person:
        approving = {"person": person} if acts else {}
        done = ask(question, variables=variables, on_trace=growing.show, **approving, **given)
        growing.put(unsent_report(done) if given.get("dry_run") else trace_report(done))
    return done


def has_holes(texts: list[str]) -> bool:
    """Whether any of these texts is a template."""
    from jupyter_gpt.prompting.template import is_template

    return any(map(is_template, texts))


def variables_of(done) -> dict:
    """The holes of a template as variables: lists of them where there were several samples."""
    values = [sample.value for sample in done.samples]
    names = next((list(value) for value in values if value), [])
    if len(values) == 1:
        return values[0] or {}
    return {name: [value and value[name] for value in values] for name in names}


prompt = PromptMagic("prompt_options", "Prompt")
agent = AgentMagic("prompt_options", "Agent")
rag = RagMagic("prompt_options", "Rag")
