import { expect, test } from "vitest";
import { Column, Series } from "../src/series";

test("a column grows past its buffer", () => {
  const column = new Column();
  expect(column.last).toBeUndefined();
  for (let k = 0; k < 3; k++) column.append(Array.from({ length: 1000 }, (_, n) => 1000 * k + n));
  expect(column.length).toBe(3000);
  expect(column.last).toBe(2999);
  expect([...column.view()]).toEqual(Array.from({ length: 3000 }, (_, n) => n));
});

test("events are sorted by their kind, and all are forgotten at once", () => {
  const series = new Series();
  series.name = "tale";
  series.append("step", [1, 2]);
  series.event({ event: "evaluation", step: 2, val_loss: 3 });
  series.event({ event: "sample", step: 2, prompt: "Once", text: " upon" });
  series.event({ event: "end", status: "finished", error: null });
  expect(series.evaluations).toHaveLength(1);
  expect(series.samples[0].text).toBe(" upon");
  expect(series.end?.status).toBe("finished");
  expect([...series.column("step")]).toEqual([1, 2]);
  expect([...series.column("nothing")]).toEqual([]);
  series.clear();
  expect([series.name, series.evaluations, series.samples, series.end, series.column("step").length]).toEqual(["tale", [], [], null, 0]);
});
