// The charts in words: the legend above them, and the numbers under the cursor.

import { element } from "./dom";
import { count } from "./format";
import type { Panel } from "./layout";
import { lowerBound } from "./reduce";
import type { Series } from "./series";
import type { Theme } from "./theme";

/** Index of the step nearest to `step`; `steps` ascends and is not empty. */
export function nearest(steps: Float32Array, step: number): number {
  const at = Math.min(steps.length - 1, lowerBound(steps, step));
  return at > 0 && step - steps[at - 1] < steps[at] - step ? at - 1 : at;
}

/** A line of the legend. */
export interface Entry {
  name: string;
  colour: string;
  dashed: boolean;
  /** Which of several runs it stands for. */
  run: number | null;
}

/** What the lines mean, and with several runs, whose they are. */
export function legend(runs: Series[], theme: Theme, { names, evaluation = "" }: Panel, hidden: ReadonlySet<number>): Entry[] {
  const many = runs.length > 1;
  const entries = runs.map((run, i): Entry => {
    const colour = hidden.has(i) ? theme.muted : theme.runs[i % theme.runs.length];
    return { name: many ? run.name : names.line, colour, dashed: false, run: many ? i : null };
  });
  if (runs.some((run) => run.evaluations.some((each) => typeof each[evaluation] === "number"))) {
    entries.push({ name: names.points, colour: many ? theme.muted : theme.validation, dashed: true, run: null });
  }
  return entries;
}

export function entry({ name, colour, dashed }: Entry): HTMLElement {
  const line = element("span", "gpt-entry");
  const swatch = element("span", `gpt-swatch ${dashed ? "gpt-dashes" : "gpt-line"}`);
  swatch.style.color = colour;
  line.append(swatch, element("span", "", name));
  return line;
}

/** What the large chart shows of each run at `step`: averaged (`strong[i]`: run i's line), raw, and evaluated. */
export function reading(
  runs: Series[],
  strong: Float32Array[],
  step: number,
  theme: Theme,
  { column, evaluation: points, names, format }: Panel,
  hidden: ReadonlySet<number>,
): HTMLElement[] {
  const many = runs.length > 1;
  const rows: HTMLElement[] = [];
  let shown = Math.round(step);
  runs.forEach((run, i) => {
    const steps = run.column("step");
    if (hidden.has(i) || !steps.length || step > steps[steps.length - 1] * 1.02 + 1) return;
    const at = nearest(steps, step);
    if (!rows.length) shown = steps[at];
    const colour = theme.runs[i % theme.runs.length];
    const raw = `raw ${format(run.column(column)[at])}`;
    rows.push(row(colour, many ? run.name : names.line, format(strong[i][at]), raw));
    const evaluation = run.evaluations.filter((each) => each.step <= steps[at]).at(-1);
    if (typeof evaluation?.[points ?? ""] !== "number") return;
    const when = `step ${count(evaluation.step)}`;
    rows.push(row(many ? colour : theme.validation, names.points, format(evaluation[points ?? ""]), when));
  });
  return [element("div", "gpt-tip-step", `step ${count(shown)}`), ...rows];
}

function row(colour: string, name: string, value: string, note: string): HTMLElement {
  const line = element("div", "gpt-tip-row");
  const dot = element("span", "gpt-dot");
  dot.style.background = colour;
  line.append(dot, element("span", "gpt-tip-name", name));
  line.append(element("b", "", value), element("span", "gpt-tip-note", note));
  return line;
}
