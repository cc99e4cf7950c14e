// The curves of a saved run, from the columns that its report holds.

import { Curves } from "./curves";
import { element, toggle } from "./dom";
import { download } from "./export";
import { rate } from "./format";
import type { Panel } from "./layout";
import type { CurvesPart } from "./parts";
import { Series, type Evaluation } from "./series";

/** The part as the run and the panels that `Curves` draws: column `c0` for the first panel, `e0` its evaluations. */
export function asSeries(part: CurvesPart): { run: Series; panels: Panel[] } {
  const run = new Series();
  const evaluations = new Map<number, Evaluation>();
  run.append("step", part.steps);
  part.columns.forEach((column, k) => run.append(`c${k}`, column.map((value) => value ?? NaN)));
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
  run.evaluations = [...evaluations.values()].sort((one, other) => one.step - other.step);
  run.steps = part.steps[part.steps.length - 1] ?? null;
  return { run, panels };
}

export function drawCurves(part: CurvesPart): { node: HTMLElement; destroy: () => void } {
  const node = element("div", "gpt-part gpt-saved-curves");
  const host = element("div", "gpt-curves");
  const { run, panels } = asSeries(part);
  const curves = new Curves(host, [run], panels, part.alarms);
  const tools = element("div", "gpt-part-tools");
  tools.append(toggle("Download PNG", () => download("curves.png", curves.picture().toDataURL("image/png"))));
  const said = element("p", "gpt-spoken", part.alt);
  node.append(said, host);
  if (part.of > part.steps.length) {
    const [kept, all] = [part.steps.length, part.of].map((count) => count.toLocaleString("en-US"));
    node.append(element("p", "gpt-quiet gpt-kept", `${kept} of ${all} steps, the highest and lowest among them`));
  }
  node.append(tools);
  return { node, destroy: () => curves.destroy() };
}
