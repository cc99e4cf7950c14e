"""What a run of RL leaves behind: reward, KL, entropy and the rest as curves, and the same prompts answered as it went.

Tokens of the samples are coloured by their advantage: green was better than expected, red worse.
"""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.notebook.views.bundle import Bundle, about, escape, image, marked, plain, quoted
from jupyter_gpt.notebook.views.curve import CELL, GREY
from jupyter_gpt.notebook.views.measures import measures_html, measures_text
from jupyter_gpt.notebook.views.panels import Panel, picture, points
from jupyter_gpt.notebook.views.run_head import alarm_html, alarm_lines, alarms_of, heading, step_of

MOST = 4  # steps whose samples are shown side by side
TITLES = {
    "reward": "reward",
    "kl": "KL, nats a completion",
    "entropy": "entropy, nats a token",
    "length": "length, tokens",
    "clip_fraction": "clip fraction",
    "value_loss": "value loss",
    "loss": "loss",
    "accuracy": "accuracy",
    "margin": "implied reward margin",
}
SHOWN = {
    "ppo": ("reward", "kl", "entropy", "length", "clip_fraction", "value_loss"),
    "grpo": ("reward", "kl", "entropy", "length", "clip_fraction", "loss"),
    "dpo": ("loss", "accuracy", "margin", "kl", "entropy", "length"),
}


def run_bundle(run) -> Bundle:
    """The static bundle of a run of RL as it stands."""
    steps, evaluations, samples, notes = (
        [e for e in run.events if e["event"] == kind] for kind in ("step", "evaluation", "sample", "note")
    )
    recipe, alarms = run.recipe, alarms_of(run)
    title = heading(run, recipe["algo"].upper())
    about_it = recipe_line(recipe)
    rows = figures(run, steps, evaluations)
    text = [title, about_it, *(quoted(note["text"]) for note in notes)]
    text += alarm_lines(alarms)
    wide = max(len(row[0]) for row in rows)
    text += [f"  {name:<{wide}}  {first} → {last}" for name, first, last in rows]
    html = [f"<p><b>{escape(title)}</b><br>{escape(about_it)}</p>"]
    html += [f"<p>{marked(plain(note['text']))}</p>" for note in notes]
    html += alarm_html(alarms)
    if steps:
        said = "; ".join(f"{name} from {first} to {last}" for name, first, last in rows)
        html.append(image(picture(panels(recipe, steps, evaluations), alarms=[a["step"] for a in alarms]), said, 680))
    html.append(
        "<table>"
        + f"<tr>{CELL}</td>{CELL}<i>before</i></td>{CELL}<i>after</i></td></tr>"
        + "".join(f"<tr>{''.join(f'{CELL}{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        + "</table>"
    )
    report = next((e for e in reversed(run.events) if e["event"] == "measures"), None)
    if report:
        text += measures_text(report)
        html.append(measures_html(report))
    shown = [s for s in samples if not s.get("asked")]
    if shown:
        text += sample_lines(shown)
        html.append(sample_table(shown))
    metadata = {
        "steps": [[e["step"], *(e.get(key) for key in SHOWN[recipe["algo"]])] for e in steps],
        "columns": ["step", *SHOWN[recipe["algo"]]],
        "evaluations": evaluations,
        "warnings": alarms,
        "figures": rows,
    }
    data = {
        "view": "rlhf",
        "name": run.name,
        "status": run.status,
        "algo": recipe["algo"],
        "policy": recipe["policy"],
        "reward": recipe["reward"],
        "rankings": recipe["rankings"],
    }
    return Bundle("\n".join(text), "\n".join(html), data, metadata)


def recipe_line(recipe: dict) -> str:
    """What was trained by what, in one line."""
    by = " + ".join(
        f"{weight:g} × {name}" if weight != 1 else name
        for name, weight in zip(recipe["reward"], recipe["weights"], strict=True)
    )
    source = f"rewarded by {by}" if by else f"from the rankings {recipe['rankings']}"
    if recipe["algo"] == "dpo":
        size = f"{recipe['prompts_per_step']} rankings a step, beta {recipe['beta']:g}"
    else:
        size = (
            f"{recipe['prompts_per_step']} prompts × {recipe['samples']} samples of at most {recipe['max_tokens']} "
            f"tokens a "
            f"step, KL coefficient {recipe['kl']:g}"
            + (f" held at {recipe['kl_target']:g} nats" if recipe["kl_target"] else "")
        )
    return f"{recipe['policy']}, {source}; {size}"


def panels(recipe: dict, steps: list[dict], evaluations: list[dict]) -> list[Panel]:
    """The charts of this algorithm."""
    return [
        Panel(TITLES[key], points(steps, key), points(evaluations, key), recipe["kl_limit"] if key == "kl" else None)
        for key in SHOWN[recipe["algo"]]
    ]


def figures(run, steps: list[dict], evaluations: list[dict]) -> list[tuple[str, str, str]]:
    """Name, first and last value of what was watched, marked, and the steps that these are of."""
    first, last = (evaluations[0], evaluations[-1]) if evaluations else ({}, {})
    evaluated = [("evaluated at step", step_of(run, first), step_of(run, last))] if evaluations else []
    names = {
        "reward": "reward of watched prompts",
        "accuracy": "held-out accuracy",
        "kl": "KL, nats a completion",
        "entropy": "entropy, nats a token",
        "length": "length, tokens",
        "truncated": "share cut at --max-tokens",
        "identical": "identical samples",
    }
    rows = [(name, about(first.get(key)), about(last[key])) for key, name in names.items() if last.get(key) is not None]
    seconds = steps[-1]["seconds"] if steps else None
    return [*evaluated, *rows, ("time, s", about(0.0, 0), about(seconds, 0))]


def chosen_steps(samples: Sequence[dict]) -> list[int]:
    """At most MOST of the steps that were sampled, the first and the last among them."""
    steps = sorted({s["step"] for s in samples})
    if len(steps) <= MOST:
        return steps
    return sorted({steps[round(n * (len(steps) - 1) / (MOST - 1))] for n in range(MOST)})


def sample_lines(samples: Sequence[dict]) -> list[str]:
    """The same prompts at the first and the last step, as text."""
    lines = []
    for step in dict.fromkeys((chosen_steps(samples)[0], chosen_steps(samples)[-1])):
        lines.append(f"samples at step {about(step, 0)}")
        for s in (s for s in samples if s["step"] == step):
            worth = f"  reward {about(s['reward'], 2)}" if "reward" in s else ""
            lines.append(f"  {quoted(s['prompt'])} {quoted(s['text'])}{worth}")
    return lines


def sample_table(samples: Sequence[dict]) -> str:
    """A row a prompt, a column a step; tokens coloured by advantage, rewards below."""
    steps = chosen_steps(samples)
    prompts = list(dict.fromkeys(s["prompt"] for s in samples))
    most = max((abs(a) for s in samples for a in s.get("advantages", ())), default=0.0) or 1.0
    head = "".join(f'<th style="text-align:left">step {step}</th>' for step in steps)
    body = []
    for prompt in prompts:
        cells = []
        for step in steps:
            found = next((s for s in samples if s["step"] == step and s["prompt"] == prompt), None)
            cells.append(f"{CELL}{sample_cell(found, most) if found else ''}</td>")
        body.append(
            f'<tr><td style="text-align:left;vertical-align:top;color:{GREY}">{plain(prompt)}</td>{"".join(cells)}</tr>'
        )
    said = "the same prompts as the training went; green tokens were better than expected, red ones worse"
    return f"<p>{said}</p><table>{marked(f'<tr><th></th>{head}</tr>{chr(10).join(body)}')}</table>"


def sample_cell(sample: dict, most: float) -> str:
    """One sample: its tokens coloured by advantage over `most`, its reward below."""
    if "advantages" not in sample:
        return plain(sample["text"])
    spans = []
    for piece, advantage in zip(sample["pieces"], sample["advantages"], strict=True):
        if piece:
            share = min(1.0, abs(advantage) / most)
            colour = "60,159,80" if advantage > 0 else "208,69,69"
            spans.append(
                f'<span style="background:rgba({colour},{0.45 * share:.2f})" '
                f'title="{advantage:+.2f}">{plain(piece)}</span>'
            )
    return f'{"".join(spans)}<br><i style="color:{GREY}">reward {sample["reward"]:.2f}</i>'
