// A report as the metadata of an output holds it (jupyter_gpt/report/json.py writes it), read with distrust: a notebook may
// come from anywhere, and from a newer version.

import { type Fields, isObject, malformed, text, texts, number, flag, near, colour, words, pair, FAR } from "./checks";
import { plain, TAGS, type Inline, type Element, type Table, type Samples, type Boxes, type Plot, type Group, type Bars, type CurvesPanel, type Told, type CurvesPart, type Tree, type Part, type Report } from "./parts";

export const FORMAT = 1; // of json.py
const MOST = 250_000; // values in a report, 64 characters of a text one; a larger report would hold up the page
const DEEP = 60; // levels of folds and trees
const PIXELS = 89; // of an inch of a plot
const LINK = /^(https?:\/\/|mailto:)\S+$/i;

/** The report in an output's metadata; null where there is none, and an error that says what is wrong with one. */
export function readReport(metadata: unknown): Report | null {
  const held = isObject(metadata) ? metadata.parts : undefined;
  if (!isObject(held)) return null;
  if (typeof held.format !== "number" || held.format > FORMAT) {
    throw new Error("This report was saved by a newer version of jupyter_gpt");
  }
  return new Reader().report(held);
}

class Reader {
  private left = MOST;
  private pictures = 0;
  private depth = 0;

  report({ title, parts }: Fields): Report {
    return { title: this.inline(title ?? ""), parts: this.parts(parts) };
  }

  /** Lists within the list stand for parts that vary. */
  private parts(value: unknown): Part[] {
    return this.inside(() =>
      this.list(value ?? []).flatMap((each) => (Array.isArray(each) ? this.parts(each) : [this.part(each)])),
    );
  }

  private part(value: unknown): Part {
    this.spend(1);
    if (!isObject(value)) throw malformed("a part");
    switch (value.kind) {
      case "paragraph":
        return { kind: "paragraph", content: this.inline(value.content), style: words(value.style) };
      case "figures":
        return {
          kind: "figures",
          rows: this.list(value.rows).map((row) => ({ name: text(pair(row)[0]), value: this.inline(pair(row)[1]) })),
        };
      case "table":
        return this.table(value);
      case "samples":
        return this.samples(value);
      case "boxes":
        return { kind: "boxes", boxes: this.list(value.boxes).map((each) => this.box(each)) };
      case "chart": {
        const alt = plain(this.inline(value.alt));
        const plot = isObject(value.plot) ? this.plot(value.plot) : null;
        const width = isObject(value.plot) ? PIXELS * this.size(value.plot)[0] : number(value.width ?? 640);
        return { kind: "chart", alt, width, plot, place: this.pictures++ };
      }
      case "curves":
        return this.curves(value);
      case "alarm":
        return { kind: "alarm", content: this.inline(value.content) };
      case "folded":
        return { kind: "folded", title: this.inline(value.title), parts: this.parts(value.parts) };
      case "tree":
        return this.tree(value);
    }
    throw malformed("a kind of part");
  }

  private table(value: Fields): Table {
    const header = this.inlines(value.header);
    const rows = this.list(value.rows).map((row) => this.inlines(row));
    const width = header.length || rows[0]?.length || 0;
    if (rows.some((row) => row.length !== width)) throw malformed("a table");
    const sides = text(value.sides ?? "") || `l${"r".repeat(Math.max(0, width - 1))}`;
    return { kind: "table", header, rows, sides, wrap: flag(value.wrap) };
  }

  private samples(value: Fields): Samples {
    const columns = this.inlines(value.columns);
    const rows = this.list(value.rows).map((row) => {
      const [prompt, texts] = pair(row);
      return { prompt: this.inline(prompt), texts: this.inlines(texts) };
    });
    if (rows.some(({ texts }) => texts.length !== columns.length)) throw malformed("samples");
    return { kind: "samples", columns, rows };
  }

  private box(value: unknown): Boxes["boxes"][number] {
    this.spend(1);
    if (value === null) return null;
    const [shown, note, tint, tooltip] = texts(value, 4);
    return { text: shown, note, tint, tooltip };
  }

  private curves(value: Fields): CurvesPart {
    const panels = this.list(value.panels).map((each) => this.panel(each));
    if (!panels.length) throw malformed("the curves");
    const runs = [value, ...this.list(value.others ?? [])].map((each) => this.told(each, panels.length));
    const alarms = this.numbers(value.alarms).map(number);
    this.pictures++; // the HTML has one of it too
    return { kind: "curves", alt: text(value.alt ?? ""), alarms, panels, runs };
  }

  private told(value: unknown, panels: number): Told {
    if (!isObject(value)) throw malformed("a run");
    const steps = this.numbers(value.steps).map(number);
    const columns = this.list(value.columns).map((column) => this.numbers(column).map(near));
    if (columns.length !== panels || columns.some((column) => column.length !== steps.length)) throw malformed("the curves");
    if (steps.some((step, i) => Math.abs(step) > FAR || (i > 0 && step <= steps[i - 1]))) throw malformed("the steps");
    return { name: text(value.name ?? ""), steps, columns, of: number(value.of ?? steps.length) };
  }

  private plot(value: Fields): Plot | null {
    const [width, height] = this.size(value);
    const ratio = height / width;
    const texts = (given: unknown) => this.list(given ?? []).map((each) => (this.spend(1), text(each)));
    switch (value.kind) {
      case "scatter": {
        const groups = this.list(value.groups).map((each) => this.group(each));
        const log = flag(value.log) && groups.every(({ points }) => points.every(({ x }) => x > 0));
        const names = { x: text(value.x ?? ""), y: text(value.y ?? "") };
        return { kind: "scatter", groups, log, ...names, diagonal: flag(value.diagonal), ratio };
      }
      case "barchart": {
        const names = texts(value.names);
        const panels = this.list(value.panels).map((each) => this.bars(each, names.length));
        if (!panels.length) throw malformed("the bars");
        return { kind: "barchart", names, panels, x: text(value.x ?? ""), stacked: flag(value.stacked), ratio };
      }
      case "matrix": {
        const [rows, columns] = [texts(value.rows), texts(value.columns)];
        const counts = this.list(value.counts).map((row) => this.numbers(row).map(number));
        const fits = counts.length === rows.length && counts.every((row) => row.length === columns.length);
        if (!fits || counts.some((row) => row.some((count) => count < 0))) throw malformed("a matrix");
        const names = { x: text(value.x ?? "predicted"), y: text(value.y ?? "true") };
        return { kind: "matrix", rows, columns, counts, ...names, ratio };
      }
    }
    return null; // a newer kind: its picture is in the HTML
  }

  /** Inches: those of the picture. */
  private size({ kind, size }: Fields): [number, number] {
    const usual = kind === "matrix" ? [4.2, 3.2] : kind === "barchart" ? [7.6, 1.9] : [7.2, 3.4];
    const [width, height] = this.numbers(pair(size ?? usual)).map((each) => Math.max(1, Math.min(20, number(each))));
    return [width, height];
  }

  private group(value: unknown): Group {
    if (!isObject(value)) throw malformed("a group of points");
    const { shape = "dot" } = value;
    if (shape !== "dot" && shape !== "ring" && shape !== "star") throw malformed("a shape");
    const labels = this.list(value.labels ?? []);
    const sizes = this.numbers(value.sizes ?? []);
    const bounds = this.list(value.bounds ?? []).map((each) => this.bounds(each));
    const points = this.list(value.points).flatMap((each, i) => {
      const [x, y] = this.numbers(pair(each)).map(near);
      if (x === null || y === null) return [];
      return [{ x, y, label: text(labels[i] ?? ""), size: sizes[i] ?? null, bounds: bounds[i] ?? null }];
    });
    const named = { name: text(value.name), colour: colour(value.colour ?? "#3b82c4") };
    return { ...named, points, shape, joined: flag(value.joined), written: flag(value.written) };
  }

  private bars(value: unknown, count: number): Bars {
    if (!isObject(value)) throw malformed("the bars");
    const values = this.numbers(value.values).map(near);
    if (values.length !== count) throw malformed("the bars");
    const colours = this.list(value.colours ?? ["#3b82c4"]).map((each) => (this.spend(1), colour(each)));
    const bounds = this.list(value.bounds ?? []).map((each) => this.bounds(each));
    const [limit, top] = this.numbers([value.limit ?? null, value.top ?? null]).map(near);
    return { title: text(value.title), values, colours, bounds, limit, top, cut: text(value.cut ?? "") };
  }

  private bounds(value: unknown): [number, number] | null {
    if (value === null) return null;
    const [low, high] = this.numbers(pair(value)).map(near);
    return low === null || high === null ? null : [low, high];
  }

  private panel(value: unknown): CurvesPanel {
    if (!isObject(value)) throw malformed("a panel");
    const [line, points] = texts(value.names, 2);
    return {
      title: text(value.title),
      names: { line, points },
      smoothed: flag(value.smoothed),
      limit: this.numbers([value.limit ?? null]).map(near)[0],
      evaluated: this.list(value.evaluated).map((row) => this.numbers(row)),
    };
  }

  private tree(value: Fields): Tree {
    return this.inside(() => ({
      kind: "tree",
      head: this.inline(value.head),
      parts: this.parts(value.parts),
      children: this.list(value.children ?? []).map((child) => {
        if (!isObject(child) || child.kind !== "tree") throw malformed("a tree");
        this.spend(1);
        return this.tree(child);
      }),
      opened: flag(value.opened ?? true),
      quiet: flag(value.quiet),
    }));
  }

  private inlines(value: unknown): Inline[] {
    return this.list(value ?? []).map((each) => this.inline(each));
  }

  private inline(value: unknown): Inline {
    this.spend(typeof value === "string" ? 1 + (value.length >> 6) : 1);
    if (value === null || typeof value === "string") return value;
    if (typeof value === "number") return number(value);
    if (Array.isArray(value)) return this.inside(() => this.inlines(value));
    if (!isObject(value)) throw malformed("content");
    if (value.kind === undefined) return { kind: "value", value: number(value.value), text: text(value.text) };
    if (value.kind === "span") {
      return this.inside(() => ({
        kind: "span",
        content: this.inline(value.content),
        style: words(value.style),
        tint: text(value.tint ?? ""),
        tooltip: text(value.tooltip ?? ""),
      }));
    }
    if (value.kind === "markdown") return { kind: "markdown", text: text(value.text), blocks: this.elements(value.blocks) };
    if (value.kind !== "bar") throw malformed("content");
    const segments = this.list(value.segments).map((each) => {
      const [share, colour, name] = this.list(each);
      return { share: number(share), colour: text(colour), name: text(name) };
    });
    return { kind: "bar", segments, width: number(value.width ?? 140), rest: number(value.columns ?? 0) > 0 };
  }

  private elements(value: unknown): Element[] {
    return this.inside(() =>
      this.list(value ?? []).map((each) => {
        this.spend(1);
        if (typeof each === "string") return each;
        if (!isObject(each)) throw malformed("Markdown");
        const tag = TAGS.find((known) => known === each.tag);
        const about = text(each.value ?? "");
        if (!tag || (tag === "a" && !LINK.test(about))) throw malformed("Markdown");
        return { tag, value: about, inside: this.elements(each.inside) };
      }),
    );
  }

  private list(value: unknown): unknown[] {
    if (!Array.isArray(value)) throw malformed("a list");
    return value;
  }

  /** Numbers, with null where one is unknown. */
  private numbers(value: unknown): (number | null)[] {
    const found = this.list(value);
    this.spend(found.length);
    return found.map((each) => (each === null ? null : number(each)));
  }

  private spend(values: number): void {
    this.left -= values;
    if (this.left < 0) throw new Error("This report is too large to be drawn");
  }

  private inside<T>(read: () => T): T {
    if (++this.depth > DEEP) throw malformed("the nesting");
    const found = read();
    this.depth--;
    return found;
  }
}
