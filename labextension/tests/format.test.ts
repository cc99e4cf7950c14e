import { describe, expect, test } from "vitest";
import { compact, count, duration, fixed, percent, rate } from "../src/format";

describe("numbers as people read them", () => {
  test.each([
    [count(12345.4), "12,345"],
    [compact(999), "999"],
    [compact(21437), "21.4k"],
    [compact(2.5e6), "2.5M"],
    [compact(-3e9), "-3B"],
    [compact(1.2e12), "1.2T"],
    [fixed(Math.PI), "3.142"],
    [fixed(2, 1), "2.0"],
    [rate(0), "0"],
    [rate(0.0031), "3.10e-3"],
    [rate(0.02), "0.02"],
    [percent(0.4321), "43.2%"],
    [duration(65), "1:05"],
    [duration(3725), "1:02:05"],
    [duration(-3), "0:00"],
  ])("%s", (shown, expected) => expect(shown).toBe(expected));

  test("what is unknown is a dash", () => {
    for (const show of [count, compact, fixed, rate, percent, duration]) {
      for (const value of [null, undefined, NaN, Infinity]) expect(show(value)).toBe("–");
    }
  });
});
