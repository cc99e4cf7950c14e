import { expect, test } from "vitest";
import { csv } from "../src/export";
import type { Inline } from "../src/parts";
import { leading, sorted } from "../src/table";

test("the number that a cell begins with", () => {
  const value: Inline = { kind: "value", value: 0.25, text: "0.2" };
  const span: Inline = { kind: "span", content: "1,234.5 MB", style: [], tint: "", tooltip: "" };
  const cells: [Inline, number | null][] = [
    [7, 7], [null, null], ["", null], ["name", null], ["1,234", 1234], ["12.5%", 12.5], ["-3", -3], ["−3", -3],
    ["1.5e-3", 0.0015], ["<0.01%", 0.01], ["2.5M", 2.5e6], ["1.5B", 1.5e9], [value, 0.25], [span, 1234.5],
    [["", value, " (", 1, " to ", 2, ")"], 0.25],
  ];
  for (const [cell, number] of cells) expect(leading(cell), JSON.stringify(cell)).toBe(number);
});

test("rows are sorted by number or by name, the unknown last and gaps left out", () => {
  const rows: Inline[][] = [["b10", 2], ["", ""], ["b9", null], ["a", 30]];
  const names = (column: number, direction: "ascending" | "descending") =>
    sorted(rows, column, direction).map(([name]) => name);
  expect(names(1, "descending")).toEqual(["a", "b10", "b9"]);
  expect(names(1, "ascending")).toEqual(["b10", "a", "b9"]);
  expect(names(0, "ascending")).toEqual(["a", "b9", "b10"]);
  expect(rows[0][0]).toBe("b10");
});

test("values with commas, quotes and line breaks are quoted", () => {
  expect(csv([["a", "b,c"], ['say "x"', "1\n2"]])).toBe('a,"b,c"\r\n"say ""x""","1\n2"');
});
