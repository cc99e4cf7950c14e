import { expect, test } from "vitest";
import { linearTicks, logTicks, stepLabel, valueLabels } from "../src/ticks";

test("a logarithmic axis has no more labels than there is room for", () => {
  expect(logTicks(1, 1000, 5)).toEqual([1, 10, 100, 1000]);
  expect(logTicks(2, 9, 8)).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
  for (const room of [2, 3, 5, 8]) {
    for (const [min, max] of [[1, 1e6], [0.5, 12], [2.1, 2.4]]) {
      const ticks = logTicks(min, max, room);
      expect(ticks.length).toBeLessThanOrEqual(room);
      expect(ticks.every((tick) => tick >= min && tick <= max)).toBe(true);
    }
  }
});

test("labels have just the digits that tell them apart", () => {
  expect(valueLabels([2, 2.5, 3])).toEqual(["2.0", "2.5", "3.0"]);
  expect(valueLabels([0, 250000, 500000])).toEqual(["0", "250k", "500k"]);
  expect(valueLabels([0.001, 0.002])).toEqual(["1e-3", "2e-3"]);
  expect([500, 12000, 3e6].map(stepLabel)).toEqual(["500", "12k", "3M"]);
});

test("ticks of a linear axis are even, and an axis of one value or of no end has none", () => {
  expect(linearTicks(0, 1, 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
  expect(linearTicks(-3, 7, 4)).toEqual([0, 5]);
  for (const [min, max] of [[1, 1], [1e30, 1e30 * (1 + 1e-15)], [0, Infinity], [NaN, 1]]) expect(linearTicks(min, max, 5)).toEqual([]);
  for (const [min, max] of [[0, 1], [-1, 1], [1, Infinity]]) expect(logTicks(min, max, 5).length).toBeLessThan(7); // and it ends
});
