// What the kernel answers (jupyter_gpt/notebook/panel.py says how), and what the panel makes of it. Nothing here touches the page.

import { compact, count, duration, formatted } from "../format";

export interface Model {
  name: string;
  error?: string;
  kind: string;
  parameters: number | null;
  /** Parameters of the adapter itself, and its base. */
  trained: number | null;
  base: string | null;
  lineage: string[];
  disk: number;
  resident: boolean;
  /** In the user's cache, for all notebooks. */
  cached: boolean;
  memory?: number;
  dtype?: string;
  device?: string;
}

export interface Run {
  name: string;
  error?: string;
  kind: string;
  steps: number;
  status: string;
  diverged: boolean;
  /** What it prepares before its first step. */
  stage: string | null;
  step: number;
  metric: string;
  format: string;
  value: number | null;
  curve: number[];
  /** Seconds per step. */
  pace: number | null;
  seconds: number | null;
  failure: string | null;
  /** Whether this kernel trains it, and so can stop it. */
  here: boolean;
}

export interface Index {
  name: string;
  error?: string;
  embedder: string;
  documents: number;
  chunks: number;
  disk: number;
}

export interface Endpoint {
  name: string;
  error?: string;
  model: string;
  url: string;
}

export interface Task {
  type: "unload" | "delete";
  name: string;
  kind: string;
  error: string | null;
}

export const PROTOCOL = 1;

export interface State {
  protocol: number;
  version: string;
  home: string;
  models: Model[];
  runs: Run[];
  more_runs: number;
  indexes: Index[];
  endpoints: Endpoint[];
  server: string | null;
  memory: { kernel: number; machine: [number, number]; gpus: [string, number, number][] };
  tasks: Task[];
}

/** The part of JupyterLab's translation bundle that is used here. */
export interface Words {
  __(text: string, ...values: unknown[]): string;
  _n(one: string, many: string, n: number, ...values: unknown[]): string;
}

const ACTIVE = ["running", "paused", "stopping"];
const LONG = 60; // seconds of a run from which on its end is told

export const isActive = (run: Run) => !run.error && ACTIVE.includes(run.status);

export const isResumable = (run: Run) => ["stopped", "interrupted", "failed"].includes(run.status) && !run.error;

export const isEmpty = ({ models, runs, indexes, endpoints }: State) =>
  !(models.some((model) => !model.cached || model.resident) || runs.length || indexes.length || endpoints.length);

/** 538_000_000 → "538 MB": in powers of ten, as disks and model pages count. */
export function bytes(size: number): string {
  if (size < 999.5e3) return `${Math.round(size / 1e3)} kB`;
  return size < 999.5e6 ? `${Math.round(size / 1e6)} MB` : `${(size / 1e9).toFixed(1)} GB`;
}

/** Seconds until the last step; null where nobody can tell. */
export function timeLeft(run: Run): number | null {
  if (run.status !== "running" || run.pace === null || !run.steps || !run.step) return null;
  return Math.max(0, run.steps - run.step) * run.pace;
}

/** 0 to 1; null where the number of steps is not known yet. */
export function progress({ step, steps }: Run): number | null {
  return steps ? Math.min(1, step / steps) : null;
}

/** "finished", or "finished, diverged": so that nobody takes its model for a good one. */
export function statusOf(run: Run, words: Words): string {
  const known: Record<string, string> = {
    running: words.__("running"),
    paused: words.__("paused"),
    stopping: words.__("stopping"),
    finished: words.__("finished"),
    stopped: words.__("stopped"),
    failed: words.__("failed"),
    interrupted: words.__("interrupted"),
  };
  const status = run.error ? words.__("damaged") : (known[run.status] ?? run.status);
  return run.diverged ? words.__("%1, diverged", status) : status;
}

/** "step 120 / 4,000 · 3:20 left" */
export function runLine(run: Run, words: Words): string {
  if (run.error) return run.error;
  if (!run.step && isActive(run)) return run.stage ?? words.__("preparing");
  const steps = run.steps ? `${count(run.step)} / ${count(run.steps)}` : count(run.step);
  const left = timeLeft(run);
  const parts = [words.__("step %1", steps)];
  if (left !== null) parts.push(words.__("%1 left", duration(left)));
  else if (!isActive(run) && run.seconds) parts.push(duration(run.seconds));
  return parts.join(" · ");
}

/** "loss 2.431": the first metric of a run, without its unit. */
export function valueOf(run: Run): string {
  return run.value === null ? "" : `${run.metric.split(",")[0]} ${formatted(run.value, run.format)}`;
}

/** "607k (82k in the adapter) · float32 · cpu" */
export function modelLine(model: Model, words: Words): string {
  if (model.error) return model.error;
  const size = compact(model.parameters);
  const own = model.trained === null ? size : words.__("%1 (%2 in the adapter)", size, compact(model.trained));
  return [model.kind, own, ...(model.resident ? [model.dtype, model.device] : [])].filter(Boolean).join(" · ");
}

/** What it was made from, its last stage at the end; nothing where that is only its name. */
export function lineageOf(model: Model): string {
  return model.error || model.lineage.length < 2 ? "" : model.lineage.join(" → ");
}

/** "train-run · step 120 / 4,000 · loss 2.431 · 3:20 left": of the run that trains; of several, this kernel's. */
export function statusLine(state: State | null, words: Words): string {
  const runs = state?.runs.filter(isActive) ?? [];
  const run = runs.find((each) => each.here) ?? runs[0];
  if (!run) return "";
  if (!run.step) return `${run.name} · ${run.stage ?? words.__("preparing")}`;
  const left = timeLeft(run);
  const steps = run.steps ? `${count(run.step)} / ${count(run.steps)}` : count(run.step);
  const end = left === null ? statusOf(run, words) : words.__("%1 left", duration(left));
  return [run.name, words.__("step %1", steps), valueOf(run), end].filter(Boolean).join(" · ");
}

/** The runs of over a minute that have ended between two states of one kernel. */
export function ended(before: State | null, now: State): Run[] {
  const active = new Set(before?.runs.filter(isActive).map((run) => run.name));
  return now.runs.filter((run) => active.has(run.name) && !isActive(run) && (run.seconds ?? 0) >= LONG);
}

/** The task that a row waits for, or that failed. */
export function taskOf(state: State, kind: string, name: string): Task | undefined {
  return state.tasks.find((task) => task.kind === kind && task.name === name);
}

/** Whether the last tenth of a curve is in its upper half. */
export function endsHigh(values: number[]): boolean {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return Math.max(...values.slice(-Math.ceil(values.length / 10))) > (low + high) / 2;
}

/** An SVG path of values in a box; a lone value is a line across. */
export function sparkline(values: number[], width: number, height: number): string {
  if (!values.length) return "";
  const line = values.length > 1 ? values : [values[0], values[0]];
  const low = Math.min(...line);
  const range = Math.max(...line) - low;
  const y = (value: number) => (range ? height - (height * (value - low)) / range : height);
  const x = (i: number) => (width * i) / (line.length - 1);
  return line.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}
