import { expect, test } from "vitest";
import { layoutOf, type Declared } from "../src/layout";
import { Series } from "../src/series";

const metric = (name: string, more: Partial<Declared> = {}): Declared => ({
  name,
  label: name,
  unit: "",
  chart: null,
  format: ".2f",
  summary: false,
  smooth: true,
  limit: null,
  ...more,
});

test("whatever is declared has a chart, in its order, unless it wants none or is the points of another", () => {
  const val = metric("val_loss", { label: "validation loss", chart: "loss" });
  const { panels } = layoutOf([metric("loss", { unit: "nats" }), val, metric("bits", { chart: "" }), metric("mine")]);
  expect(panels.map(({ column }) => column)).toEqual(["loss", "mine"]);
  expect(panels[0]).toMatchObject({ evaluation: "val_loss", title: "loss, nats", fromZero: false });
  expect(panels[0].names).toEqual({ line: "loss", points: "validation loss" });
  expect(panels[1]).toMatchObject({ evaluation: "mine", fromZero: true });
});

test("a number is the mean of last steps, or what the last evaluation found, in the metric's format", () => {
  const run = new Series();
  const { stats } = layoutOf([metric("loss", { summary: true }), metric("share", { summary: true, format: ".1%" })]);
  expect(stats.map(({ value }) => value(run))).toEqual(["–", "–"]);
  run.append("loss", [5]);
  expect(stats.map(({ note }) => note(run))).toEqual(["mean of 1 step", ""]);
  run.append("loss", [9, ...new Array<number>(10).fill(2)]);
  run.event({ event: "evaluation", step: 7, share: 0.25 });
  expect(stats.map(({ value }) => value(run))).toEqual(["2.00", "25.0%"]);
  expect(stats.map(({ note }) => note(run))).toEqual(["mean of last 10 steps", "step 7"]);
});
