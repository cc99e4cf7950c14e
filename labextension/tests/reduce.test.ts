import { describe, expect, test } from "vitest";
import { grid, lowerBound, place, reduce, Smoothed, visible } from "../src/reduce";
import { Series } from "../src/series";

/** A run with `count` steps whose loss is `loss(step)`. */
function run(count: number, loss: (step: number) => number): Series {
  const series = new Series();
  const steps = Array.from({ length: count }, (_, k) => k + 1);
  series.append("step", steps);
  series.append("loss", steps.map(loss));
  return series;
}

test("the first step of a view is found, and a neighbour on either side", () => {
  expect([0, 1, 2.5, 5, 9].map((x) => lowerBound([1, 2, 3, 5], x))).toEqual([0, 0, 2, 3, 4]);
  expect(visible([1, 2, 3, 4, 5, 6], { min: 3, max: 4 })).toEqual([1, 5]);
});

describe("a chart", () => {
  const view = { min: 0, max: 1000 };

  test("draws every step while they are few, evaluations too", () => {
    const few = run(10, (step) => step);
    few.event({ event: "evaluation", step: 4.5, val_loss: 2 });
    const on = grid([few], view, 100, false);
    expect(on.edges).toBeNull();
    expect(on.xs).toEqual([1, 2, 3, 4, 4.5, 5, 6, 7, 8, 9, 10]);
    expect(reduce(few.column("step"), few.column("loss"), on, view).mean).toEqual([1, 2, 3, 4, null, 5, 6, 7, 8, 9, 10]);
  });

  test.each([false, true])("bins many steps by pixel and keeps every extreme (log axis: %s)", (log) => {
    const many = run(1000, (step) => (step === 777 ? 50 : step % 2));
    const on = grid([many], view, 100, log);
    expect(on.xs).toHaveLength(100);
    const { low, high, mean } = reduce(many.column("step"), many.column("loss"), on, view);
    expect(Math.max(...high.map((value) => value ?? 0))).toBe(50);
    mean.forEach((value, k) => {
      if (value === null) expect([low[k], high[k]]).toEqual([null, null]);
      else expect(low[k]! <= value && value <= high[k]!).toBe(true);
    });
  });

  test("leaves out values that are not numbers", () => {
    const gap = run(3, (step) => (step === 2 ? NaN : step));
    const on = grid([gap], view, 100, false);
    expect(reduce(gap.column("step"), gap.column("loss"), on, view).mean).toEqual([1, null, 3]);
  });

  test("places evaluations on their step, the later of two in one bin", () => {
    const on = { xs: [5, 15], edges: new Float64Array([0, 10, 20]) };
    const points = [1, 2, 12].map((step) => ({ step, value: step }));
    expect(place(points, on, false)).toEqual([2, 12]);
    expect(place([{ step: 12, value: null }], on, false)).toEqual([null, null]);
  });

  test("shows the very last step and its evaluation, which lie on the border of the last bin", () => {
    const long = run(1000, (step) => (step === 1000 ? 7 : 1));
    const on = grid([long], view, 100, false);
    expect(on.edges).not.toBeNull();
    expect(reduce(long.column("step"), long.column("loss"), on, view).high.at(-1)).toBe(7);
    expect(place([{ step: 1000, value: 3 }], on, false).at(-1)).toBe(3);
  });
});

describe("the moving average", () => {
  test("begins at the first value and trails what comes", () => {
    const smooth = new Smoothed().of(Float32Array.from({ length: 200 }, (_, k) => (k < 100 ? 4 : 2)), 20);
    expect(smooth[0]).toBe(4);
    expect(smooth[110]).toBeGreaterThan(2);
    expect(smooth[199]).toBeCloseTo(2, 2);
  });

  test("computed as values arrive it is what it is computed at once", () => {
    const values = Float32Array.from({ length: 3000 }, (_, k) => Math.sin(k / 50));
    const growing = new Smoothed();
    for (const end of [1, 10, 1500, 3000]) growing.of(values.subarray(0, end), 60);
    expect(growing.of(values, 60)).toEqual(new Smoothed().of(values, 60));
    expect(growing.of(values, 10)).toEqual(new Smoothed().of(values, 10)); // another window begins anew
    const others = values.map((value) => -value); // of a run that was cut back and has grown again
    expect(growing.of(others, 10)).toEqual(new Smoothed().of(others, 10));
  });
});
