import { describe, expect, it } from "vitest";
import {
  bytes,
  ended,
  endsHigh,
  isEmpty,
  lineageOf,
  modelLine,
  progress,
  PROTOCOL,
  runLine,
  sparkline,
  statusLine,
  statusOf,
  timeLeft,
  valueOf,
  type Model,
  type Run,
  type State,
  type Words,
} from "../src/panel/state";

/** English as it stands, filled in as gettext fills it in. */
const words: Words = {
  __: (text, ...values) => text.replace(/%(\d)/g, (_, n) => String(values[n - 1])),
  _n: (one, many, n, ...values) => words.__(n === 1 ? one : many, ...values),
};

const run = (more: Partial<Run> = {}): Run => ({
  name: "tale",
  kind: "pretrain",
  steps: 4000,
  status: "running",
  diverged: false,
  stage: null,
  step: 1000,
  metric: "training loss, nats per token",
  format: ".3f",
  value: 2.4312,
  curve: [],
  pace: 0.1,
  seconds: 100,
  failure: null,
  here: true,
  ...more,
});

const model = (more: Partial<Model> = {}): Model => ({
  name: "tale",
  kind: "base",
  parameters: 607_000,
  trained: null,
  base: null,
  lineage: ["tale"],
  disk: 2_400_000,
  resident: false,
  cached: false,
  ...more,
});

const state = (more: Partial<State> = {}): State => ({
  protocol: PROTOCOL,
  version: "0.1.0",
  home: "/home",
  models: [],
  runs: [],
  more_runs: 0,
  indexes: [],
  endpoints: [],
  server: null,
  memory: { kernel: 1, machine: [1, 2], gpus: [] },
  tasks: [],
  ...more,
});

describe("a run", () => {
  it("tells its steps and the time left", () => {
    expect(timeLeft(run())).toBeCloseTo(300);
    expect(runLine(run(), words)).toBe("step 1,000 / 4,000 · 5:00 left");
    expect(valueOf(run())).toBe("training loss 2.431");
    expect(progress(run())).toBe(0.25);
  });

  it("tells no time where there is none to tell", () => {
    expect(timeLeft(run({ pace: null }))).toBeNull();
    expect(timeLeft(run({ steps: 0 }))).toBeNull();
    expect(timeLeft(run({ status: "paused" }))).toBeNull();
    expect(progress(run({ steps: 0 }))).toBeNull();
    expect(runLine(run({ steps: 0 }), words)).toBe("step 1,000");
    expect(runLine(run({ status: "finished", step: 4000 }), words)).toBe("step 4,000 / 4,000 · 1:40");
    expect(valueOf(run({ value: null }))).toBe("");
  });

  it("says what it prepares", () => {
    expect(runLine(run({ step: 0, stage: "tokenizing" }), words)).toBe("tokenizing");
    expect(runLine(run({ step: 0 }), words)).toBe("preparing");
  });

  it("says that it diverged, or is damaged", () => {
    expect(statusOf(run({ diverged: true }), words)).toBe("running, diverged");
    expect(statusOf(run({ error: "torn" }), words)).toBe("damaged");
    expect(runLine(run({ error: "torn" }), words)).toBe("torn");
  });
});

describe("a model", () => {
  it("tells what it is and where", () => {
    expect(modelLine(model(), words)).toBe("base · 607k");
    const resident = { resident: true, dtype: "float32", device: "cpu" };
    const adapter = { kind: "assistant", base: "tale", trained: 82_000, ...resident };
    expect(modelLine(model(adapter), words)).toBe("assistant · 607k (82k in the adapter) · float32 · cpu");
    expect(lineageOf(model())).toBe("");
    expect(lineageOf(model({ lineage: ["tale", "tale (sft)"] }))).toBe("tale → tale (sft)");
  });

  it("has a size", () => {
    expect([0, 12_300, 538e6, 999.6e6, 1.24e9].map(bytes)).toEqual(["0 kB", "12 kB", "538 MB", "1.0 GB", "1.2 GB"]);
  });
});

describe("the status bar", () => {
  it("tells the run of this kernel first, and nothing where none trains", () => {
    const other = run({ name: "other", here: false });
    expect(statusLine(state({ runs: [other, run()] }), words)).toBe(
      "tale · step 1,000 / 4,000 · training loss 2.431 · 5:00 left",
    );
    expect(statusLine(state({ runs: [run({ step: 0, stage: "tokenizing" })] }), words)).toBe("tale · tokenizing");
    expect(statusLine(state({ runs: [run({ status: "paused" })] }), words)).toMatch(/paused$/);
    expect(statusLine(state({ runs: [run({ status: "finished" }), run({ error: "torn" })] }), words)).toBe("");
    expect(statusLine(null, words)).toBe("");
  });
});

describe("what has ended", () => {
  it("is a run of over a minute that was active before", () => {
    const before = state({ runs: [run({ name: "long" }), run({ name: "short" }), run({ name: "on" })] });
    const now = state({
      runs: [
        run({ name: "long", status: "failed" }),
        run({ name: "short", status: "finished", seconds: 59 }),
        run({ name: "on" }),
        run({ name: "older", status: "finished" }),
      ],
    });
    expect(ended(before, now).map(({ name }) => name)).toEqual(["long"]);
    expect(ended(null, now)).toEqual([]);
    expect(ended(now, now)).toEqual([]);
  });
});

describe("an empty folder", () => {
  it("is one whose only models came from the hub", () => {
    expect(isEmpty(state({ models: [model({ cached: true })] }))).toBe(true);
    expect(isEmpty(state({ models: [model({ cached: true, resident: true })] }))).toBe(false);
    expect(isEmpty(state({ runs: [run()] }))).toBe(false);
  });
});

describe("a sparkline", () => {
  it("fills its box from left to right, large values on top", () => {
    expect(sparkline([], 100, 24)).toBe("");
    expect(sparkline([3, 1, 2], 100, 24)).toBe("M0.0 0.0L50.0 24.0L100.0 12.0");
    expect(sparkline([5], 100, 24)).toBe("M0.0 24.0L100.0 24.0");
  });

  it("ends high or low, which leaves the other corner to its value", () => {
    expect(endsHigh([1, 2, 3])).toBe(true);
    expect(endsHigh([3, 2, 1])).toBe(false);
    expect(endsHigh([2, 2])).toBe(false);
  });
});
