// Drawing in SVG with the colours of the page: what is on the screen is what is downloaded.

import { element } from "./dom";
import type { Theme } from "./theme";
import { linearTicks, logTicks, stepLabel, valueLabels } from "./ticks";

type Attributes = Record<string, string | number>;

export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Attributes = {}, ...inside: (Node | string)[]): SVGElementTagNameMap[K] {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, typeof value === "number" ? String(Math.round(100 * value) / 100) : value);
  made.append(...inside);
  return made;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface Scale {
  min: number;
  max: number;
  /** Pixels of a value, and the value at pixels. */
  at: (value: number) => number;
  back: (pixels: number) => number;
  log: boolean;
}

export function scaleOf(min: number, max: number, from: number, to: number, log = false): Scale {
  const [put, take] = log ? [Math.log, Math.exp] : [Number, Number];
  const [low, high] = [put(min), put(max)];
  const each = (to - from) / (high - low || 1);
  return { min, max, log, at: (value) => from + (put(value) - low) * each, back: (pixels) => take(low + (pixels - from) / each) };
}

/** The ticks that there is room for, and their labels; `whole` for numbers that are counted. */
export function ticksOf({ min, max, log }: Scale, room: number, whole = false): [number, string][] {
  const ticks = (log ? logTicks(min, max, room) : linearTicks(min, max, room)).filter((tick) => !whole || Number.isInteger(tick));
  const labels = whole || log ? ticks.map(stepLabel) : valueLabels(ticks);
  return ticks.map((tick, k) => [tick, labels[k]]);
}

/** Pixels that the labels of a y axis take. */
export function margin(y: Scale, height: number): number {
  return 12 + 6.4 * Math.max(2, ...ticksOf(y, height / 34).map(([, label]) => label.length));
}

export interface Named {
  x?: string;
  y?: string;
  whole?: boolean;
}

/** The lines and labels of both axes; an axis without a scale has none. */
export function axes(box: Box, x: Scale | null, y: Scale | null, theme: Theme, named: Named = {}): SVGGElement {
  const made = svg("g", { "font-size": 11, fill: theme.solid.muted });
  const line = (x1: number, y1: number, x2: number, y2: number) => svg("line", { x1, y1, x2, y2, stroke: theme.solid.grid, "stroke-width": 1 });
  const { left, top, width, height } = box;
  for (const [tick, label] of y ? ticksOf(y, height / 34) : []) {
    made.append(line(left, y!.at(tick), left + width, y!.at(tick)));
    made.append(svg("text", { x: left - 6, y: y!.at(tick) + 4, "text-anchor": "end" }, label));
  }
  for (const [tick, label] of x ? ticksOf(x, width / 64, named.whole) : []) {
    made.append(line(x!.at(tick), top, x!.at(tick), top + height));
    made.append(svg("text", { x: x!.at(tick), y: top + height + 16, "text-anchor": "middle" }, label));
  }
  if (named.x) made.append(svg("text", { x: left + width / 2, y: top + height + 32, "text-anchor": "middle" }, named.x));
  if (named.y) {
    const [at, middle] = [left - (y ? margin(y, height) : 0) - 4, top + height / 2];
    made.append(svg("text", { x: at, y: middle, "text-anchor": "middle", transform: `rotate(-90 ${at} ${middle})` }, named.y));
  }
  return made;
}

/** An SVG on its own: with the ground and the font of the page. */
export function standalone(drawing: SVGSVGElement, theme: Theme): string {
  const made = drawing.cloneNode(true) as SVGSVGElement;
  const [width, height] = ["width", "height"].map((name) => made.getAttribute(name) ?? "0");
  made.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  made.setAttribute("viewBox", `0 0 ${width} ${height}`);
  made.setAttribute("font-family", theme.font.replaceAll('"', "'"));
  made.prepend(svg("rect", { width, height, fill: theme.solid.ground }));
  return new XMLSerializer().serializeToString(made);
}

/** The picture of an SVG at twice its size, as the address of a PNG. */
export async function toPNG(source: string): Promise<string> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
  await image.decode();
  const made = element("canvas");
  [made.width, made.height] = [2 * image.width, 2 * image.height];
  const ctx = made.getContext("2d")!;
  ctx.scale(2, 2);
  ctx.drawImage(image, 0, 0);
  return made.toDataURL("image/png");
}

/** Names with their colours in rows below one another, as wide as `width`; each is given as its mark and its name. */
export function legendOf(names: [string, string][], width: number, top: number, theme: Theme): { drawing: SVGGElement; height: number } {
  const drawing = svg("g", { "font-size": 11, fill: theme.solid.text });
  let [x, y] = [8, top + 12];
  for (const [colour, name] of names) {
    const needed = 36 + 6.4 * name.length;
    if (x > 8 && x + needed > width) [x, y] = [8, y + 18];
    drawing.append(svg("rect", { x, y: y - 7, width: 12, height: 4, fill: colour }), svg("text", { x: x + 17, y }, name));
    x += needed;
  }
  return { drawing, height: names.length ? y - top + 8 : 0 };
}

let serial = 0;

/** What keeps a drawing inside a box, and how to name it. */
export function clipped(box: Box): { clip: SVGClipPathElement; name: string } {
  const name = `gpt-clip-${serial++}`;
  const { left: x, top: y, width, height } = box;
  return { name: `url(#${name})`, clip: svg("clipPath", { id: name }, svg("rect", { x, y, width, height })) };
}
