"""What a finetuning run leaves behind: its loss curve, its figures, and the same questions answered before and
after.
"""

from __future__ import annotations

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, image, quoted
from jupyter_gpt.notebook.views.curve import CELL, HEAD, figures, lines, loss_picture, quoted_block, thinned
from jupyter_gpt.notebook.views.run_head import alarm_html, alarm_lines, alarms_of, heading

NOTHING = "(nothing)"  # an answer that ended at once


def run_bundle(run) -> Bundle:
    """The static bundle of a finetuning run as it stands."""
    steps = [e for e in run.events if e["event"] == "step"]
    evaluations = [e for e in run.events if e["event"] == "evaluation"]
    samples = [e for e in run.events if e["event"] == "sample"]
    title, alarms = heading(run, run.kind), alarms_of(run)
    unsaid = {"bits per byte"} | (set() if evaluations else {"validation loss"})  # few conversations: none is held out
    rows = [row for row in figures(run, steps, evaluations) if row[0] not in unsaid]
    start = next((e for e in run.events if e["event"] == "start"), None)
    if start:
        rows.insert(len(rows) - 4, ("parameters trained", trained(start)))
    wide = max(len(name) for name, _ in rows)
    text = [title, made_of(run.recipe), *alarm_lines(alarms), *(f"  {name:<{wide}}  {value}" for name, value in rows)]
    html = [f"<p><b>{escape(title)}</b><br>{escape(made_of(run.recipe))}</p>", *alarm_html(alarms)]
    if steps:
        html.append(image(loss_picture(steps, evaluations, alarms), f"loss curve of {run.name}", 640))
    html.append(
        "<table>" + "".join(f"<tr>{CELL}{escape(n)}</td>{CELL}{escape(v)}</td></tr>" for n, v in rows) + "</table>"
    )
    answered = by_step(samples)
    if answered:
        text += ["", *answers_text(run, answered)]
        html.append(answers_table(run, answered))
    metadata = {
        "steps": [[e["step"], e["loss"], e["lr"], e["tokens_per_second"]] for e in thinned(steps)],
        "evaluations": [[e["step"], e["val_loss"]] for e in evaluations],
        "samples": [[s["step"], s["prompt"], s["text"]] for s in samples],
        "warnings": alarms,
        "figures": rows,
    }
    data = {
        "view": "run",
        "name": run.name,
        "kind": run.kind,
        "status": run.status,
        "mixture": run.recipe["mixture"],
        "base": run.recipe["adapter"] or run.recipe["base"],
    }
    return Bundle("\n".join(text), "\n".join(html), data, metadata)


def made_of(recipe: dict) -> str:
    """What is finetuned and how, in one line, without what only the machine knows."""
    if recipe["adapter"] and not recipe["merge_first"]:
        how = f"a copy of the adapter {recipe['adapter']} of {recipe['base']}"
    elif recipe["lora"]:
        how = f"an adapter of rank {recipe['lora']} on {recipe['base']}" + (", DoRA" if recipe["dora"] else "")
        if tokens := recipe.get("trainable_tokens"):
            how += f", with rows for {', '.join(tokens)}"
    else:
        how = f"all of {recipe['adapter'] or recipe['base']}"
    where = "the assistant's tokens" if recipe["train_on"] == "assistant" else "all tokens"
    return f"{how}, loss on {where}, {recipe['optimizer']}, {recipe['batch_tokens']:,} tokens a step"


def trained(start: dict) -> str:
    """`4,884,480 (3.5%)`: how many numbers were trained, and their share."""
    return f"{start['trained']:,} ({100 * start['trained'] / start['parameters']:.3g}%)"


def by_step(samples: list[dict]) -> list[tuple[int, list[dict]]]:
    """The answers, step after step; the last ones of a step where it was asked again."""
    found: dict[int, dict[str, dict]] = {}
    for sample in samples:
        found.setdefault(sample["step"], {})[sample["prompt"]] = sample
    return [(step, list(answers.values())) for step, answers in sorted(found.items())]


def heads(run, answered: list) -> list[str]:
    """What stands over the answers of the first and of the last step."""
    first, last = answered[0][0], answered[-1][0]
    base = run.recipe["adapter"] or run.recipe["base"]
    before = f"{base}, before" if first == 0 else f"{run.name}, step {about(first, 0)}"
    return [before, f"{run.name}, after step {about(last, 0)}"][: len(answered)]


def answers_text(run, answered: list) -> list[str]:
    named = list(zip(heads(run, answered), (answered[0][1], answered[-1][1]), strict=False))
    found = []
    for n, sample in enumerate(answered[0][1]):
        found.append(quoted(sample["prompt"]))
        found += [f"  {head}: {quoted(group[n]['text'] or NOTHING)}" for head, group in named if n < len(group)]
    return found


def answers_table(run, answered: list) -> str:
    """Question, base and finetuned model side by side; the answers between are folded away."""
    groups = [answered[0][1], answered[-1][1]][: len(answered)]
    top = "".join(f"{HEAD}{escape(head)}</th>" for head in ("asked", *heads(run, answered)))
    body = "".join(
        f"<tr>{CELL}<i>{lines(quoted(sample['prompt']))}</i></td>"
        + "".join(f"{CELL}{lines(quoted(group[n]['text'] or NOTHING))}</td>" for group in groups if n < len(group))
        + "</tr>"
        for n, sample in enumerate(groups[0])
    )
    table = f"<table><tr>{top}</tr>{body}</table>"
    between = "".join(
        f"<p><i>step {step}</i><br>" + "<br>".join(lines(s["text"] or NOTHING) for s in group) + "</p>"
        for step, group in answered[1:-1]
    )
    if between:
        table += f"<details><summary>the answers between</summary>{quoted_block(between)}</details>"
    return table
