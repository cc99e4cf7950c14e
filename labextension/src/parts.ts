// A report and its parts, as the page draws them.

export type Inline = string | number | null | Value | Span | Bar | Markdown | Inline[];

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

/** An answer as it was written, and what is drawn of it. */
export interface Markdown {
  kind: "markdown";
  text: string;
  blocks: Element[];
}

/** An element of Markdown; what `value` is of each tag says jupyter_gpt/report/markdown.py. */
export type Element = string | { tag: Tag; value: string; inside: Element[] };

export const TAGS = ["p", "h", "ul", "ol", "li", "quote", "hr", "pre", "table", "tr", "th", "td", "b", "i", "a", "br", "code"] as const;
export type Tag = (typeof TAGS)[number];

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

/** A plot, drawn from its numbers; of what has none (saved by an earlier version) the `place`-th picture of the HTML. */
export interface ChartPart {
  kind: "chart";
  alt: string;
  width: number;
  plot: Plot | null;
  place: number;
}

// What the fields of plots mean says jupyter_gpt/report/charts.py. `ratio` is the height by the width, `width` in pixels.
export type Plot = Scatter | BarChart | Matrix;

export interface Group {
  name: string;
  points: { x: number; y: number; label: string; size: number | null; bounds: [number, number] | null }[];
  colour: string;
  shape: "dot" | "ring" | "star";
  joined: boolean;
  written: boolean;
}

export interface Scatter {
  kind: "scatter";
  groups: Group[];
  x: string;
  y: string;
  log: boolean;
  diagonal: boolean;
  ratio: number;
}

export interface Bars {
  title: string;
  values: (number | null)[];
  colours: string[];
  bounds: ([number, number] | null)[];
  limit: number | null;
  top: number | null;
  cut: string;
}

export interface BarChart {
  kind: "barchart";
  names: string[];
  panels: Bars[];
  x: string;
  stacked: boolean;
  ratio: number;
}

export interface Matrix {
  kind: "matrix";
  rows: string[];
  columns: string[];
  counts: number[][];
  x: string;
  y: string;
  ratio: number;
}

export interface CurvesPanel {
  title: string;
  names: { line: string; points: string };
  smoothed: boolean;
  limit: number | null;
  /** Step, value, and where there is an interval its bounds. */
  evaluated: (number | null)[][];
}

/** What a run tells of each panel over its steps. */
export interface Told {
  name: string;
  steps: number[];
  /** A column of values for each panel. */
  columns: (number | null)[][];
  /** How many steps there were. */
  of: number;
}

export interface CurvesPart {
  kind: "curves";
  alt: string;
  alarms: number[];
  panels: CurvesPanel[];
  /** The run, and those drawn beside it. */
  runs: Told[];
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

export type Part = Paragraph | Figures | Table | Samples | Boxes | ChartPart | CurvesPart | Alarm | Folded | Tree;

export interface Report {
  title: Inline;
  parts: Part[];
}

/** Inline content as plain text. */
export function plain(content: Inline): string {
  if (content === null) return "–";
  if (typeof content === "string") return content;
  if (typeof content === "number") return content.toLocaleString("en-US");
  if (Array.isArray(content)) return content.map(plain).join("");
  if (content.kind === "value") return content.text;
  if (content.kind === "markdown") return content.text;
  return content.kind === "span" ? plain(content.content) : "";
}
