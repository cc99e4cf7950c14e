import { describe, expect, test } from "vitest";
import { plain, type Inline } from "../src/parts";
import { FORMAT, readReport } from "../src/read_report";

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

  test("what earlier versions saved is read: charts without numbers, and 1 and 0 for true and false", () => {
    const [chart, tree, table] = report([
      { kind: "chart", alt: "a" },
      { kind: "tree", head: "a", opened: 0, quiet: 1 },
      { kind: "table", rows: [], wrap: 1 },
    ])!.parts as any[];
    expect(chart).toEqual({ kind: "chart", alt: "a", width: 640, plot: null, place: 0 });
    expect([tree.opened, tree.quiet, table.wrap]).toEqual([false, true, true]);
  });

  test("a plot of a kind that is not known yet is the picture of the HTML", () => {
    expect(report([{ kind: "chart", alt: "a", plot: { kind: "sunburst" } }])!.parts).toMatchObject([{ plot: null, place: 0 }]);
  });

  test("plots have what they leave out, and only points and colours that can be drawn", () => {
    const group = { kind: "group", name: "a", points: [[0, 1], [2, null], [1e300, 1]], colour: "url(#x)" };
    const plot = (held: object) => (report([{ kind: "chart", alt: "a", plot: held }])!.parts[0] as any).plot;
    expect(plot({ kind: "scatter", groups: [group], log: true })).toEqual({
      kind: "scatter",
      groups: [{ name: "a", points: [{ x: 0, y: 1, label: "", size: null, bounds: null }], colour: "#666666", shape: "dot", joined: false, written: false }],
      x: "", y: "", log: false, diagonal: false, ratio: 3.4 / 7.2,
    });
    expect(() => plot({ kind: "matrix", rows: ["a"], columns: ["b"], counts: [[1, 2]] })).toThrow("a matrix");
    expect(() => plot({ kind: "barchart", names: ["a"], panels: [{ title: "t", values: [1, 2] }] })).toThrow("the bars");
  });

  test("other runs have steps of their own", () => {
    const panel = { title: "t", names: ["a", "b"], evaluated: [] };
    const part = { kind: "curves", alarms: [], panels: [panel], steps: [1], columns: [[2]], name: "own" };
    const others = [{ name: "hen", of: 9, steps: [5, 6], columns: [[1, null]] }];
    expect(report([{ ...part, others }])!.parts).toMatchObject([{ runs: [{ name: "own", of: 1 }, { name: "hen", of: 9, steps: [5, 6] }] }]);
    expect(() => report([{ ...part, others: [{ ...others[0], steps: [1] }] }])).toThrow("the curves");
  });

  test("of Markdown only known elements and safe addresses", () => {
    const read = (blocks: unknown) => report([{ kind: "paragraph", content: { kind: "markdown", text: "x", blocks } }]);
    expect(read([{ tag: "p", inside: ["a"] }])!.parts).toMatchObject([{ content: { blocks: [{ tag: "p", value: "", inside: ["a"] }] } }]);
    expect(() => read([{ tag: "script", inside: ["a"] }])).toThrow("Markdown");
    for (const value of ["javascript:alert(1)", " https://x.org", "//x.org", "data:text/html,x", "https:x y"]) {
      expect(() => read([{ tag: "a", value, inside: ["a"] }]), value).toThrow("Markdown");
    }
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
