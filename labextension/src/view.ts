// Where the x axis looks: all steps so far, or the part that was zoomed into.

import type { Series } from "./series";

export interface View {
  min: number;
  max: number;
}

/** All steps so far. The end moves in strides, so that a curve grows calmly into the room it has. */
export function whole(runs: Series[], log: boolean): View {
  let last = 1;
  let first = Infinity;
  let planned = Infinity;
  for (const run of runs) {
    const steps = run.column("step");
    if (!steps.length) continue;
    first = Math.min(first, steps[0]);
    if (steps[steps.length - 1] >= last) {
      last = steps[steps.length - 1];
      planned = run.steps || Infinity;
    }
  }
  let end = 20;
  while (end < last) end *= 1.3;
  end = Math.max(last, Math.min(end, planned), 2);
  const resumed = first > 2 && first < Infinity;
  return { min: log ? 1 : resumed ? first - 1 : 0, max: end };
}

/** `view` kept inside `all`; null when it shows everything anyway. */
export function within(view: View, all: View): View | null {
  const width = Math.max(2, Math.min(view.max - view.min, all.max - all.min));
  const min = Math.max(all.min, Math.min(view.min, all.max - width));
  return width >= all.max - all.min ? null : { min, max: min + width };
}

/** `view` made `factor` times as wide around the point at fraction `at` of it. */
export function scaled({ min, max }: View, factor: number, at: number): View {
  const still = min + (max - min) * at;
  return { min: still - (still - min) * factor, max: still + (max - still) * factor };
}

function shifted({ min, max }: View, by: number): View {
  return { min: min + (max - min) * by, max: max + (max - min) * by };
}

/** What each key does to the view; null shows everything. */
export const KEYS: Record<string, (view: View) => View | null> = {
  ArrowLeft: (view) => shifted(view, -1 / 8),
  ArrowRight: (view) => shifted(view, 1 / 8),
  "+": (view) => scaled(view, 0.7, 0.5),
  "=": (view) => scaled(view, 0.7, 0.5),
  "-": (view) => scaled(view, 1 / 0.7, 0.5),
  Escape: () => null,
  "0": () => null,
};
