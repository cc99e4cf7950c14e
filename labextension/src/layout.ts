// Which charts and numbers a run is watched by: whatever metrics it declares (jupyter_gpt/runs/events.py).

import type { Metric } from "./chart";
import { count, formatted } from "./format";
import type { Series } from "./series";

/** A metric as a run declares it; what the fields mean is said in events.py. */
export interface Declared {
  name: string;
  label: string;
  unit: string;
  chart: string | null;
  format: string;
  summary: boolean;
  smooth: boolean;
  limit: number | null;
}

export interface Panel extends Metric {
  title: string;
  /** What its line and its points are called. */
  names: { line: string; points: string };
  format: (value: number | null | undefined) => string;
}

export interface Stat {
  label: string;
  value: (run: Series) => string;
  /** What the label adds about the value. */
  note: (run: Series) => string;
}

export interface Layout {
  /** The large chart, and the small ones below it. */
  panels: Panel[];
  stats: Stat[];
}

const STATS = 4; // at most

/** A chart for each metric that has one of its own; the points of another may be drawn into it. */
export function layoutOf(declared: Declared[]): Layout {
  const own = declared.filter(({ name, chart }) => chart === null || chart === name);
  const panels = own.map((metric, k): Panel => {
    const points = declared.find(({ name, chart }) => chart === metric.name && name !== chart) ?? metric;
    return {
      column: metric.name,
      evaluation: points.name,
      smoothed: metric.smooth,
      fromZero: k > 0,
      title: metric.unit ? `${metric.label}, ${metric.unit}` : metric.label,
      names: { line: metric.label, points: points === metric ? `${metric.label}, evaluated` : points.label },
      format: (value) => formatted(value, metric.format),
    };
  });
  return { panels, stats: declared.filter(({ summary }) => summary).slice(0, STATS).map(statOf) };
}

/** Of what steps tell, the mean of the last 10, as in run_report.py; else what the last evaluation found. */
function statOf({ name, label, format }: Declared): Stat {
  const last = (run: Series) => run.evaluations.filter((each) => typeof each[name] === "number").at(-1);
  const recent = (run: Series) => mean(run.column(name), 10);
  const steps = ({ length }: Float32Array) => (length < 10 ? `${length} step${length === 1 ? "" : "s"}` : "last 10 steps");
  return {
    label,
    value: (run) => formatted(recent(run) ?? last(run)?.[name], format),
    note: (run) =>
      recent(run) !== null ? `mean of ${steps(run.column(name))}` : last(run) ? `step ${count(last(run)!.step)}` : "",
  };
}

/** Mean of the last known values. */
export function mean(values: Float32Array, last = 20): number | null {
  const found = [...values.subarray(-last)].filter((value) => value === value);
  return found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : null;
}
