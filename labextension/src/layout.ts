// Which figures a kind of run is watched by: the large chart, the small ones below it, the numbers above.

import type { Metric } from "./chart";
import { compact, count, fixed, percent, rate } from "./format";
import type { Series } from "./series";

export interface Small extends Metric {
  title: string;
  format: (value: number) => string;
}

export interface Layout {
  main: Metric;
  /** What the lines of the large chart are called in the legend, and shorter under the cursor. */
  names: { training: string; evaluated: string };
  help: string;
  small: Small[];
  /** Numbers beside step, speed and time: how they are read off a run, and what the label adds about them. */
  stats: [label: string, value: (run: Series) => string, note?: (run: Series) => string][];
}

const line = (column: string, title: string, format: Small["format"], evaluation?: string): Small => ({
  column,
  title,
  format,
  evaluation,
  smoothed: true,
  fromZero: true,
});

const last = (name: string, show: (value: number | null | undefined) => string) => (run: Series) =>
  show(run.evaluations.at(-1)?.[name]);
const recent = (name: string, digits: number) => (run: Series) => fixed(mean(run.column(name)), digits);

/** Mean of the last 20 known values. */
export function mean(values: Float32Array): number | null {
  const known = [...values.subarray(-20)].filter((value) => value === value);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

const evaluated = (run: Series) => (run.evaluations.length ? `step ${count(run.evaluations.at(-1)!.step)}` : "");

const SPEED: Small = line("tokens_per_second", "tokens per second", compact);

const LOSS: Layout = {
  main: { column: "loss", evaluation: "val_loss", smoothed: true, fromZero: false },
  names: { training: "training loss", evaluated: "validation loss" },
  help: "Loss over steps. Arrow keys pan, plus and minus zoom, Escape shows everything.",
  small: [{ column: "lr", title: "learning rate", smoothed: false, fromZero: true, format: rate }, SPEED],
  stats: [
    ["train loss", (run) => fixed(run.now?.training_loss), () => "mean of last 10 steps"], // run_figures.py
    ["val loss", last("val_loss", fixed), evaluated],
    ["bits per byte", last("bits_per_byte", fixed), evaluated],
  ],
};

const LENGTH = line("length", "length, tokens", (value) => fixed(value, 1), "length");
const KL = line("kl", "KL, nats a completion", (value) => fixed(value, 2), "kl");
const ENTROPY = line("entropy", "entropy, nats a token", (value) => fixed(value, 2), "entropy");

const CLIPPED = line("clip_fraction", "clip fraction", percent);

const RL: Layout = {
  main: { column: "reward", evaluation: "reward", smoothed: true, fromZero: false },
  names: { training: "reward", evaluated: "reward of watched prompts" },
  help: "Reward over steps. Arrow keys pan, plus and minus zoom, Escape shows everything.",
  small: [KL, ENTROPY, LENGTH, CLIPPED, line("value_loss", "value loss", (value) => fixed(value)), SPEED],
  stats: [
    ["reward", recent("reward", 2)],
    ["KL", recent("kl", 2)],
    ["entropy", recent("entropy", 2)],
  ],
};

const LAYOUTS: Record<string, Layout> = {
  reward: {
    ...LOSS,
    small: [line("accuracy", "accuracy on pairs", percent, "accuracy"), LOSS.small[0]],
    stats: [LOSS.stats[0], LOSS.stats[1], ["held-out accuracy", last("accuracy", percent), evaluated]],
  },
  rlhf: RL,
  grpo: { ...RL, small: [KL, ENTROPY, LENGTH, CLIPPED, line("loss", "loss", (value) => fixed(value)), SPEED] },
  dpo: {
    ...LOSS,
    small: [
      line("accuracy", "accuracy on pairs", percent, "accuracy"),
      line("margin", "implied reward margin", (value) => fixed(value, 2)),
    ],
    stats: [LOSS.stats[0], LOSS.stats[1], ["KL", last("kl", (value) => fixed(value, 2)), evaluated]],
  },
};

/** How a run is watched, by its kind. */
export function layoutOf(run: Series): Layout {
  return LAYOUTS[run.kind] ?? LOSS;
}
