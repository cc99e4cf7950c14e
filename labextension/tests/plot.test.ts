import { expect, test } from "vitest";
import { range } from "../src/plot";

test("an axis has room around its values, on a logarithmic scale in proportion", () => {
  expect(range([0, 10], false, 0.1)).toEqual({ min: -1, max: 11 });
  const { min, max } = range([1, 100], true, 0.5);
  expect([min, max].map((each) => Number(each.toFixed(6)))).toEqual([0.1, 1000]);
});

test("an axis of one value or of none is one all the same", () => {
  expect(range([5])).toEqual({ min: 4.5, max: 5.5 });
  expect(range([0])).toEqual({ min: -1, max: 1 });
  expect(range([3], true)).toEqual({ min: 1.5, max: 6 });
  expect(range([])).toEqual({ min: 0, max: 1 });
  const far = range([1e-300, 1e30], true);
  expect(far.min > 0 && Number.isFinite(far.max)).toBe(true);
});
