// A report as the metadata of an output holds it (jupyter_gpt/report/json.py writes it), read with distrust: a notebook may
// come from anywhere, and from a newer version.

export type Inline = string | number | null | Value | Span | Bar | Inline[];

/** A number, and how it is written. */
export interface Value {
  kind: "value";
  value: number;
  text: string;
}

export interface Span {
  kind: "span";
  content: Inline;
  style: string[];
  tint: string;
  tooltip: string;
}

export interface Bar {
  kind: "bar";
  segments: { share: number; colour: string; name: string }[];
  width: number;
  /** Whether what is left of the whole is shown too. */
  rest: boolean;
}

export interface Paragraph {
  kind: "paragraph";
  content: Inline;
  style: string[];
}

export interface Table {
  kind: "table";
  header: Inline[];
  rows: Inline[][];
  /** l or r for each column. */
  sides: string;
  wrap: boolean;
}

export interface Samples {
  kind: "samples";
  columns: Inline[];
  rows: { prompt: Inline; texts: Inline[] }[];
}

/** `null` breaks the line. */
export interface Boxes {
  kind: "boxes";
  boxes: ({ text: string; note: string; tint: string; tooltip: string } | null)[];
}

/** A picture: the `place`-th of the HTML in the same output. */
export interface Picture {
  kind: "chart";
  alt: string;
  width: number;
  place: number;
}

export interface CurvesPanel {
  title: string;
  names: { line: string; points: string };
  smoothed: boolean;
  limit: number | null;
  /** Step, value, and where there is an interval its bounds. */
  evaluated: (number | null)[][];
}

export interface CurvesPart {
  kind: "curves";
  alt: string;
  alarms: number[];
  panels: CurvesPanel[];
  steps: number[];
  /** A column of values for each panel. */
  columns: (number | null)[][];
  /** How many steps there were. */
  of: number;
  place: number;
}

export interface Figures {
  kind: "figures";
  rows: { name: string; value: Inline }[];
}

export interface Alarm {
  kind: "alarm";
  content: Inline;
}

export interface Folded {
  kind: "folded";
  title: Inline;
  parts: Part[];
}

export interface Tree {
  kind: "tree";
  head: Inline;
  parts: Part[];
  children: Tree[];
  opened: boolean;
  quiet: boolean;
}

export type Part = Paragraph | Figures | Table | Samples | Boxes | Picture | CurvesPart | Alarm | Folded | Tree;

export interface Report {
  title: Inline;
  parts: Part[];
}

export const FORMAT = 1; // of json.py
const MOST = 250_000; // values in a report; a larger one would hold up the page
const DEEP = 60; // levels of folds and trees

/** The report in an output's metadata; null where there is none, and an error that says what is wrong with one. */
export function readReport(metadata: unknown): Report | null {
  const held = isObject(metadata) ? metadata.parts : undefined;
  if (!isObject(held)) return null;
  if (typeof held.format !== "number" || held.format > FORMAT) {
    throw new Error("This report was saved by a newer version of jupyter_gpt");
  }
  return new Reader().report(held);
}

/** Inline content as plain text. */
export function plain(content: Inline): string {
  if (content === null) return "–";
  if (typeof content === "string") return content;
  if (typeof content === "number") return content.toLocaleString("en-US");
  if (Array.isArray(content)) return content.map(plain).join("");
  if (content.kind === "value") return content.text;
  return content.kind === "span" ? plain(content.content) : "";
}

type Fields = Record<string, unknown>;

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
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
    this.count();
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
        return { kind: "chart", alt, width: number(value.width ?? 640), place: this.pictures++ };
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
    return { kind: "table", header, rows, sides, wrap: value.wrap === true };
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
    this.count();
    if (value === null) return null;
    const [shown, note, tint, tooltip] = texts(value, 4);
    return { text: shown, note, tint, tooltip };
  }

  private curves(value: Fields): CurvesPart {
    const steps = this.numbers(value.steps).map(number);
    const columns = this.list(value.columns).map((column) => this.numbers(column));
    const panels = this.list(value.panels).map((each) => this.panel(each));
    if (!panels.length || columns.length !== panels.length) throw malformed("the curves");
    if (columns.some((column) => column.length !== steps.length)) throw malformed("the curves");
    if (steps.some((step, i) => i > 0 && step <= steps[i - 1])) throw malformed("the steps");
    const alarms = this.numbers(value.alarms).map(number);
    const of = number(value.of ?? steps.length);
    return { kind: "curves", alt: text(value.alt ?? ""), alarms, panels, steps, columns, of, place: this.pictures++ };
  }

  private panel(value: unknown): CurvesPanel {
    if (!isObject(value)) throw malformed("a panel");
    const [line, points] = texts(value.names, 2);
    return {
      title: text(value.title),
      names: { line, points },
      smoothed: value.smoothed === true,
      limit: typeof value.limit === "number" ? value.limit : null,
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
        this.count();
        return this.tree(child);
      }),
      opened: value.opened !== false,
      quiet: value.quiet === true,
    }));
  }

  private inlines(value: unknown): Inline[] {
    return this.list(value ?? []).map((each) => this.inline(each));
  }

  private inline(value: unknown): Inline {
    this.count();
    if (value === null || typeof value === "string" || typeof value === "number") return value;
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
    if (value.kind !== "bar") throw malformed("content");
    const segments = this.list(value.segments).map((each) => {
      const [share, colour, name] = this.list(each);
      return { share: number(share), colour: text(colour), name: text(name) };
    });
    return { kind: "bar", segments, width: number(value.width ?? 140), rest: Number(value.columns ?? 0) > 0 };
  }

  private list(value: unknown): unknown[] {
    if (!Array.isArray(value)) throw malformed("a list");
    return value;
  }

  /** Numbers, with null where one is unknown. */
  private numbers(value: unknown): (number | null)[] {
    const found = this.list(value);
    this.left -= found.length;
    return found.map((each) => (each === null ? null : number(each)));
  }

  private count(): void {
    if (this.left-- < 0) throw new Error("This report is too large to be drawn");
  }

  private inside<T>(read: () => T): T {
    if (++this.depth > DEEP) throw malformed("the nesting");
    const found = read();
    this.depth--;
    return found;
  }
}

function malformed(what: string): Error {
  return new Error(`This report cannot be drawn: ${what} is not as it should be`);
}

function text(value: unknown): string {
  if (typeof value !== "string") throw malformed("a text");
  return value;
}

function texts(value: unknown, count: number): string[] {
  if (!Array.isArray(value) || value.length !== count) throw malformed("a text");
  return value.map(text);
}

function number(value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw malformed("a number");
  return value;
}

function words(value: unknown): string[] {
  return text(value ?? "").split(" ").filter(Boolean);
}

function pair(value: unknown): unknown[] {
  if (!Array.isArray(value) || value.length !== 2) throw malformed("a pair");
  return value;
}
