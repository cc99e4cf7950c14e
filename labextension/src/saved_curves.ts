// The curves of saved runs, from the columns that their report holds.

import { Curves } from "./curves";
import { element } from "./dom";
import { cell, framed } from "./figure";
import { rate } from "./format";
import type { Panel } from "./layout";
import type { CurvesPart, Table } from "./parts";
import { Series, type Evaluation } from "./series";

/** The part as the runs and the panels that `Curves` draws: column `c0` for the first panel, `e0` its evaluations. */
export function asSeries(part: CurvesPart): { runs: Series[]; panels: Panel[] } {
  const evaluations = new Map<number, Evaluation>();
  const panels = part.panels.map((panel, k): Panel => {
    for (const [step, value, low, high] of panel.evaluated) {
      if (step === null) continue;
      const at = evaluations.get(step) ?? { step };
      evaluations.set(step, { ...at, [`e${k}`]: value, [`l${k}`]: low ?? null, [`h${k}`]: high ?? null });
    }
    return {
      column: `c${k}`,
      evaluation: panel.evaluated.length ? `e${k}` : undefined,
      interval: panel.evaluated.some((row) => row.length > 2) ? [`l${k}`, `h${k}`] : undefined,
      limit: panel.limit,
      smoothed: panel.smoothed,
      fromZero: k > 0,
      title: panel.title,
      names: panel.names,
      format: (value) => (typeof value === "number" && Math.abs(value) >= 1000 ? value.toFixed(0) : rate(value)),
    };
  });
  const runs = part.runs.map(({ name, steps, columns }) => {
    const run = new Series();
    run.name = name;
    run.steps = steps[steps.length - 1] ?? null;
    run.append("step", steps);
    columns.forEach((column, k) => run.append(`c${k}`, column.map((value) => value ?? NaN)));
    return run;
  });
  runs[0].evaluations = [...evaluations.values()].sort((one, other) => one.step - other.step);
  return { runs, panels };
}

/** A row for each step at which there is a value; with several runs, first the name of the run. */
export function asTable({ runs, panels }: CurvesPart): Table {
  const many = runs.length > 1;
  const tested = panels.map((panel) => new Map(panel.evaluated.map(([step, value]) => [step, value])));
  const used = panels.map((_panel, k) => tested[k].size > 0);
  const named = panels.flatMap(({ title, names }, k) => [title, ...(used[k] ? [names.points === title ? `${title}, evaluated` : names.points] : [])]);
  const rows = runs.flatMap(({ name, steps, columns }, i) => {
    const at = new Map(steps.map((step, k) => [step, k]));
    const all = i ? steps : [...new Set([...steps, ...tested.flatMap((each) => [...each.keys()].filter((step) => step !== null))])];
    return all.sort((one, other) => one - other).map((step) => [
      ...(many ? [name] : []),
      step,
      ...panels.flatMap((_panel, k) => [
        cell(columns[k][at.get(step) ?? -1] ?? null),
        ...(used[k] ? [cell((i ? null : tested[k].get(step)) ?? null)] : []),
      ]),
    ]);
  });
  const header = [...(many ? ["run"] : []), "step", ...named];
  return { kind: "table", header, rows, sides: `${many ? "l" : ""}${"r".repeat(header.length)}`, wrap: false };
}

export function drawCurves(part: CurvesPart): { node: HTMLElement; destroy: () => void } {
  const node = element("div", "gpt-saved-curves");
  const host = element("div", "gpt-curves");
  const { runs, panels } = asSeries(part);
  const curves = new Curves(host, runs, panels, part.alarms);
  node.append(host);
  for (const { name, of, steps } of part.runs) {
    if (of <= steps.length) continue;
    const [kept, all] = [steps.length, of].map((count) => count.toLocaleString("en-US"));
    const whose = part.runs.length > 1 ? `${name}: ` : "";
    node.append(element("p", "gpt-quiet gpt-kept", `${whose}${kept} of ${all} steps, the highest and lowest among them`));
  }
  const drawing = { node, table: () => asTable(part), svg: () => curves.drawing() };
  return { node: framed(drawing, "curves", part.alt), destroy: () => curves.destroy() };
}
