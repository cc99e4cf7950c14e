import { describe, expect, test } from "vitest";
import { FORMAT, plain, readReport, type Inline } from "../src/parts";

const report = (parts: unknown, format: unknown = FORMAT) => readReport({ parts: { format, title: "t", parts } });

describe("reading a report", () => {
  test("there may be none", () => {
    for (const none of [undefined, null, {}, { figures: {} }, { parts: null }, { parts: 3 }]) expect(readReport(none)).toBeNull();
  });

  test("lists within the parts are parts that vary, and defaults are filled in", () => {
    const read = report([[{ kind: "paragraph", content: "a" }, [{ kind: "table", rows: [["x", 5]] }]]]);
    expect(read?.parts).toEqual([
      { kind: "paragraph", content: "a", style: [] },
      { kind: "table", header: [], rows: [["x", 5]], sides: "lr", wrap: false },
    ]);
  });

  test("pictures are counted in the order of the HTML, within folds too", () => {
    const chart = { kind: "chart", alt: ["loss ", { value: 0.5, text: "0.500" }] };
    const fold = { kind: "folded", title: "t", parts: [chart] };
    const [first, folded, last] = report([chart, fold, chart])!.parts as any[];
    expect([first.place, folded.parts[0].place, last.place]).toEqual([0, 1, 2]);
    expect(first.alt).toBe("loss 0.500");
  });

  test("inline content as text", () => {
    const content: Inline = ["a ", 1234, null, { kind: "value", value: 0.5, text: "0.50" }];
    expect(plain(content)).toBe("a 1,234–0.50");
  });

  test("a newer format, a malformed report and one without end are refused", () => {
    const paragraph = (content: unknown) => ({ kind: "paragraph", content });
    const deep = (levels: number): unknown => (levels ? [deep(levels - 1)] : "x");
    const curves = { kind: "curves", steps: [1, 2], columns: [[1, 2]], panels: [], alarms: [] };
    expect(() => report([], FORMAT + 1)).toThrow("newer version");
    expect(() => report([], "1")).toThrow("newer version");
    for (const wrong of [
      {},
      [null],
      [{ kind: "script" }],
      [{ kind: "__proto__" }],
      [paragraph({ kind: "html", content: "<b>" })],
      [paragraph({ value: "1", text: "1" })],
      [paragraph({ value: 1, text: {} })],
      [paragraph(deep(1000))],
      [{ kind: "table", header: ["a"], rows: [["b", "c"]] }],
      [{ kind: "samples", columns: ["a", "b"], rows: [["p", ["x"]]] }],
      [{ kind: "figures", rows: [["a"]] }],
      [{ kind: "tree", head: "a", children: [{ kind: "paragraph", content: "b" }] }],
      [{ kind: "boxes", boxes: [["a"]] }],
      [curves],
      [{ ...curves, panels: [{ title: "a", names: ["a", "b"], evaluated: [] }], steps: [2, 1] }],
    ]) {
      expect(() => report(wrong), JSON.stringify(wrong).slice(0, 80)).toThrow("not as it should be");
    }
    const many = Array.from({ length: 300_000 }, () => paragraph("x"));
    expect(() => report(many)).toThrow("too large");
  });
});
