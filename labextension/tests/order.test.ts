import { expect, test } from "vitest";
import { appended, inserted, joined, moved, places, unranked, without, type Order } from "../src/order";

const ORDER: Order = [[1], [2, 3], [4]];

test("a number is placed once, and the order before stays as it was", () => {
  const before = structuredClone(ORDER);
  expect(without(ORDER, 2)).toEqual([[1], [3], [4]]);
  expect(without(ORDER, 1)).toEqual([[2, 3], [4]]);
  expect(appended(ORDER, 5, false)).toEqual([[1], [2, 3], [4], [5]]);
  expect(appended(ORDER, 5, true)).toEqual([[1], [2, 3], [4, 5]]);
  expect(appended(ORDER, 1, true)).toEqual([[2, 3], [4, 1]]);
  expect(appended([], 5, true)).toEqual([[5]]);
  expect(inserted(ORDER, 4, 0)).toEqual([[4], [1], [2, 3]]);
  expect(joined(ORDER, 4, 1)).toEqual([[1, 4], [2, 3]]);
  expect(ORDER).toEqual(before);
});

test("a step moves out of a tie, then into the neighbour's", () => {
  expect(moved(ORDER, 3, -1)).toEqual([[1], [3], [2], [4]]);
  expect(moved(ORDER, 3, 1)).toEqual([[1], [2], [3], [4]]);
  expect(moved(ORDER, 4, -1)).toEqual([[1], [2, 3, 4]]);
  expect(moved(ORDER, 1, -1)).toBe(ORDER); // it is the first
  expect(moved(ORDER, 9, 1)).toBe(ORDER); // it is not ranked
});

test("ties share a rank, and the next rank counts them", () => {
  expect(places(ORDER)).toEqual([1, 2, 4]);
  expect(unranked(ORDER, 6)).toEqual([5, 6]);
});
