import { expect, test } from "vitest";
import { free, type Rectangle } from "../src/scatter";

test("labels of neighbouring points stay within the box and lie on no other label", () => {
  const box = { left: 40, width: 600 };
  const labels: Rectangle[] = [];
  for (const x of [500, 503, 520, 523, 60]) labels.push(free(x, 100, 180, box, labels));
  for (const [k, a] of labels.entries()) {
    expect(a.left >= 40 && a.right <= 640).toBe(true);
    for (const b of labels.slice(0, k)) expect(a.left >= b.right || b.left >= a.right || Math.abs(a.bottom - b.bottom) >= 13).toBe(true);
  }
});

test("a label that is wider than the box begins at its left", () => {
  expect(free(300, 100, 900, { left: 40, width: 600 }, []).left).toBe(40);
});
