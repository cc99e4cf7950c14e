import { describe, expect, test } from "vitest";
import { FORMAT, readReport } from "../src/read_report";

// one of every part, with every field
const element = { tag: "ol", inside: [{ tag: "li", value: "3", inside: ["x", { tag: "a", value: "https://x.org", inside: ["y"] }] }] };
const span = { kind: "span", content: ["a", { value: 0.5, text: "0.5" }, null, 3], style: "bold", tint: "red", tooltip: "t", brackets: "[]" };
const bar = { kind: "bar", segments: [[0.5, "red", "free"]], width: 90, columns: 8 };
const panel = { title: "loss", names: ["a", "b"], smoothed: true, limit: 3, evaluated: [[1, 2, 1, 3]] };
const told = { name: "a", of: 9, steps: [1, 2], columns: [[0.5, null]] };
const group = { kind: "group", name: "g", points: [[1, 2], [3, null]], colour: "#123456", labels: ["a", "b"], bounds: [[1, 2], null], sizes: [1, 2], shape: "star", joined: true, written: true };
const bars = { kind: "bars", title: "t", values: [1, null], colours: ["#123456"], bounds: [[0, 1], null], limit: 1, top: 2, cut: "c" };
const paragraph = { kind: "paragraph", content: ["x", span, bar, { kind: "markdown", text: "m", blocks: [element] }], style: "block code" };
const whole = {
  format: FORMAT,
  title: ["t", span],
  parts: [
    paragraph,
    { kind: "figures", rows: [["a", { value: 1, text: "1" }]] },
    { kind: "table", header: ["a", span], rows: [["b", 1]], sides: "lr", wrap: true },
    { kind: "samples", columns: ["a"], rows: [["p", [span]]] },
    { kind: "boxes", boxes: [["a", "b", "red", "tip"], null] },
    { kind: "chart", alt: "a", width: 640 },
    { kind: "chart", alt: ["a"], plot: { kind: "scatter", groups: [group], x: "x", y: "y", log: true, diagonal: true, size: [7, 3] } },
    { kind: "chart", alt: "a", plot: { kind: "barchart", names: ["a", "b"], panels: [bars], x: "x", stacked: true, size: [7, 3] } },
    { kind: "chart", alt: "a", plot: { kind: "matrix", rows: ["a"], columns: ["b"], counts: [[3]], x: "x", y: "y", size: [4, 3] } },
    { kind: "curves", alt: "a", alarms: [1], panels: [panel], ...told, others: [told] },
    { kind: "alarm", content: span },
    { kind: "folded", title: span, parts: [paragraph], text: true },
    { kind: "tree", head: span, parts: [paragraph], children: [{ kind: "tree", head: "b", opened: false, quiet: true }], opened: 1, quiet: 0 },
    [paragraph],
  ],
};

type Path = (string | number)[];

/** Every place in a JSON value. */
function* places(value: unknown, path: Path = []): Generator<Path> {
  if (path.length) yield path;
  if (typeof value !== "object" || value === null) return;
  for (const key of Array.isArray(value) ? value.keys() : Object.keys(value)) yield* places((value as any)[key], [...path, key]);
}

function replaced(path: Path, by: unknown): unknown {
  const copy = structuredClone(whole) as any;
  const at = path.slice(0, -1).reduce((inside, key) => inside[key], copy);
  if (by === undefined) Array.isArray(at) ? at.splice(path.at(-1) as number, 1) : delete at[path.at(-1)!];
  else at[path.at(-1)!] = by;
  return copy;
}

const WRONG: unknown[] = [
  undefined, null, true, false, 0, -1, 1e308, -1e308, NaN, Infinity, "", "x", "javascript:alert(1)", [], [[]], [null], ["x"], [1, 2, 3], {},
  { kind: "script" }, { kind: "__proto__" }, { value: 1 }, { toString: 1 }, { length: 1e9 }, Array(1000).fill(0),
];

/** What was read is drawn without another look: numbers, the paint of plots, and addresses. */
function safe(read: unknown): void {
  const walk = (value: any, inBar: boolean): void => {
    if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError("a number that is none");
    if (typeof value !== "object" || value === null) return;
    if (value.tag === "a" && !/^(https?:\/\/|mailto:)/i.test(value.value)) throw new TypeError("an address");
    for (const [key, each] of Object.entries(value)) {
      const paints = key === "colour" ? [each] : key === "colours" ? (each as unknown[]) : [];
      if (!inBar && paints.some((paint) => !/^#[0-9a-f]{3,8}$/i.test(String(paint)))) throw new TypeError("a colour");
      walk(each, inBar || key === "segments"); // whose colours become styles, and no others
    }
  };
  walk(read, false);
}

describe("what is malformed", () => {
  test("the whole report is read", () => safe(readReport({ parts: whole })));

  test("any field of any wrong type is read as something safe, or refused in one line", { timeout: 60_000 }, () => {
    let [read, refused] = [0, 0];
    for (const path of places(whole)) {
      for (const by of WRONG) {
        try {
          const report = readReport({ parts: replaced(path, by) });
          if (report) safe(report);
          read++;
        } catch (error) {
          const said = (error as Error).message;
          if (/^This report (cannot be drawn: |is too large|was saved by a newer)/.test(said)) refused++;
          else expect.fail(`${path.join(".")} = ${JSON.stringify(by)}: ${said}`);
        }
      }
    }
    expect(read).toBeGreaterThan(1000);
    expect(refused).toBeGreaterThan(1000);
  });

  test("what is huge is refused before it is drawn", () => {
    const parts = (each: unknown, count: number) => ({ parts: { format: FORMAT, title: "", parts: Array(count).fill(each) } });
    const text = { kind: "paragraph", content: "x".repeat(1_000_000) };
    expect(() => readReport(parts(text, 40))).toThrow("too large");
    expect(() => readReport(parts(paragraph, 100_000))).toThrow("too large");
    const curves = { kind: "curves", panels: [panel], alarms: [], steps: Array.from({ length: 200_000 }, (_, k) => k), columns: [Array(200_000).fill(1)] };
    expect(() => readReport(parts(curves, 1))).toThrow("too large");
  });
});
