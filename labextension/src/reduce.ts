// From a column of any length to about as many points as there are pixels: what a chart really draws.

import type { Series } from "./series";
import type { View } from "./view";

/** The x positions to draw at. `edges` is null when every point gets its own, else the bins' borders. */
export interface Grid {
  xs: number[];
  edges: Float64Array | null;
}

export type Values = (number | null)[];

/** First index with steps[index] >= x. */
export function lowerBound(steps: ArrayLike<number>, x: number): number {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Indices [from, to) of the points in view, and one more on either side so that lines run to the border. */
export function visible(steps: ArrayLike<number>, view: View): [number, number] {
  const from = Math.max(0, lowerBound(steps, view.min) - 1);
  const to = Math.min(steps.length, lowerBound(steps, view.max) + 2);
  return [from, to];
}

/** Every step of every run while they are few; one bin a pixel once they are many. */
export function grid(runs: Series[], view: View, width: number, log: boolean): Grid {
  const ranges = runs.map((run) => visible(run.column("step"), view));
  if (ranges.every(([from, to]) => to - from <= 1.5 * width)) {
    const xs = new Set<number>();
    runs.forEach((run, i) => {
      const steps = run.column("step");
      for (let k = ranges[i][0]; k < ranges[i][1]; k++) xs.add(steps[k]);
      for (const evaluation of run.evaluations) xs.add(log ? Math.max(1, evaluation.step) : evaluation.step);
    });
    return { xs: [...xs].sort((a, b) => a - b), edges: null };
  }
  const bins = Math.max(1, Math.floor(width));
  const edges = new Float64Array(bins + 1);
  const low = log ? Math.log(Math.max(1, view.min)) : view.min;
  const high = log ? Math.log(Math.max(1, view.max)) : view.max;
  for (let b = 0; b <= bins; b++) {
    const at = low + ((high - low) * b) / bins;
    edges[b] = log ? Math.exp(at) : at;
  }
  edges[bins] += 1e-6 * (view.max - view.min); // what lies on the last border belongs to the last bin
  const xs = Array.from({ length: bins }, (_, b) => (edges[b] + edges[b + 1]) / 2);
  return { xs, edges };
}

/** Lowest, highest and mean value at each grid position; the three are equal where it holds one point. */
export function reduce(steps: ArrayLike<number>, values: ArrayLike<number>, on: Grid, view: View) {
  const size = on.xs.length;
  const low: Values = new Array(size).fill(null);
  const high: Values = new Array(size).fill(null);
  const mean: Values = new Array(size).fill(null);
  const [from, to] = visible(steps, view);
  let at = 0;
  let k = from;
  if (on.edges) while (k < to && steps[k] < on.edges[0]) k++;
  while (k < to && at < size) {
    if (on.edges ? steps[k] >= on.edges[at + 1] : steps[k] > on.xs[at]) {
      at++;
      continue;
    }
    let least = Infinity;
    let most = -Infinity;
    let sum = 0;
    let n = 0;
    for (; k < to && (on.edges ? steps[k] < on.edges[at + 1] : steps[k] <= on.xs[at]); k++) {
      const value = values[k];
      if (value !== value) continue; // NaN: unknown
      if (value < least) least = value;
      if (value > most) most = value;
      sum += value;
      n++;
    }
    if (n) {
      low[at] = least;
      high[at] = most;
      mean[at] = sum / n;
    }
    at++;
  }
  return { low, high, mean };
}

/** Sparse points (evaluations) on the grid; two in one bin leave the later. */
export function place(points: { step: number; value: number | null }[], on: Grid, log: boolean): Values {
  const values: Values = new Array(on.xs.length).fill(null);
  for (const { step, value } of points) {
    const x = log ? Math.max(1, step) : step;
    const at = on.edges ? lowerBound(on.edges, x + 1e-9) - 1 : lowerBound(on.xs, x);
    if (at >= 0 && at < values.length && value !== null) values[at] = value;
  }
  return values;
}

/**
 * An exponential moving average that widens with what it has seen: over t/8 points at point t, at most over
 * `window`. A fixed one would trail far behind the steep beginning of a loss curve.
 */
export class Smoothed {
  private out = new Float32Array(0);
  private done = 0;
  private state = NaN;
  private window = 0;
  private column: ArrayBufferLike | null = null; // which it has read

  of(values: Float32Array, window: number): Float32Array {
    // another column of the same length may be that of a run which was cut back and has grown again
    if (window !== this.window || values.length < this.done || values.buffer !== this.column) {
      this.done = 0;
      this.state = NaN;
      this.window = window;
      this.column = values.buffer;
    }
    if (values.length > this.out.length) {
      const larger = new Float32Array(Math.max(1024, 2 * values.length));
      larger.set(this.out.subarray(0, this.done));
      this.out = larger;
    }
    for (; this.done < values.length; this.done++) {
      const value = values[this.done];
      if (value === value) {
        const width = Math.max(1, Math.min(window, this.done / 8));
        this.state =
          this.state === this.state ? this.state + (value - this.state) * (2 / (width + 1)) : value;
      }
      this.out[this.done] = this.state;
    }
    return this.out.subarray(0, values.length);
  }
}
