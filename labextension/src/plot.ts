// A plot from its numbers: the pointer reads them, and a part can be zoomed into. What is drawn is said in scatter.ts,
// bar_chart.ts and matrix.ts.

import { element, toggle } from "./dom";
import { barChart } from "./bar_chart";
import { framed } from "./figure";
import { matrix } from "./matrix";
import type { ChartPart, Plot, Table } from "./parts";
import { scatter } from "./scatter";
import { legendOf, standalone, svg, type Box, type Scale } from "./svg";
import { readTheme, watchTheme, type Theme } from "./theme";
import { KEYS, scaled, type View } from "./view";

const NEAR = 24; // pixels from the pointer to what it reads
export const DASHES = "4 3";

/** What is zoomed into of each axis; null is all of it. */
interface Seen {
  x: View | null;
  y: View | null;
}

/** Something that the pointer reads near to it, or within its box if it has one; what it says, the first line first. */
export interface Spot {
  x: number;
  y: number;
  box?: Box;
  says: () => string[];
}

export interface Picture {
  drawing: SVGSVGElement;
  spots: Spot[];
  /** Where the axes are that can be zoomed into, if any. */
  panes: { box: Box; x: Scale | null; y: Scale | null }[];
}

export interface Kind {
  /** What can be left out. */
  names: { name: string; colour: string; shape: string }[];
  /** All there is to see of the axes that can be zoomed into; whether the x axis is logarithmic. */
  all: Seen & { log: boolean };
  draw: (width: number, theme: Theme, seen: Seen, hidden: ReadonlySet<number>) => Picture;
  table: () => Table;
}

export function drawPlot(part: ChartPart & { plot: Plot }): { node: HTMLElement; destroy: () => void } {
  const { plot } = part;
  const kind = plot.kind === "scatter" ? scatter(plot) : plot.kind === "barchart" ? barChart(plot) : matrix(plot);
  const view = new PlotView(kind, part);
  return { node: framed({ node: view.node, table: kind.table, svg: () => view.saved() }, "chart", part.alt), destroy: view.destroy };
}

class PlotView {
  readonly node = element("div", "gpt-plot");
  private readonly legend = element("div", "gpt-legend");
  private readonly canvas = element("div", "gpt-plot-canvas");
  private readonly tip = element("div", "gpt-tip");
  private readonly reset = toggle("reset zoom", () => this.zoom({ x: null, y: null }));
  private readonly hidden = new Set<number>();
  private readonly stop: (() => void)[] = [];
  private readonly ring = svg("circle", { r: 7, fill: "none", "stroke-width": 2 });
  private readonly band = svg("rect", { class: "gpt-band" });
  private seen: Seen = { x: null, y: null };
  private picture: Picture | null = null;
  private theme: Theme;

  constructor(
    private readonly kind: Kind,
    private readonly part: ChartPart,
  ) {
    this.theme = readTheme(this.node);
    this.reset.hidden = true;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "group");
    const keys = "Arrow keys pan, plus and minus zoom, Escape shows everything.";
    this.canvas.setAttribute("aria-label", `Chart. ${part.plot?.kind === "matrix" ? "" : keys}`);
    if (kind.names.length > 1) this.legend.append(...kind.names.map((each, k) => this.entry(each, k)));
    const head = element("div", "gpt-tools");
    head.append(this.legend, this.reset);
    this.canvas.append(this.tip);
    this.node.append(head, this.canvas);
    this.stop.push(watchTheme(() => this.draw()));
    const observer = new ResizeObserver(() => this.draw());
    observer.observe(this.node);
    this.stop.push(() => observer.disconnect());
    this.listen();
  }

  readonly destroy = () => this.stop.forEach((each) => each());

  /** The drawing with its legend, on the page's ground. */
  saved(): string {
    const shown = this.draw().cloneNode(true) as SVGSVGElement;
    const [width, height] = ["width", "height"].map((name) => Number(shown.getAttribute(name)));
    const names = this.kind.names.length > 1 ? this.kind.names.filter((_, k) => !this.hidden.has(k)) : [];
    const legend = legendOf(names.map(({ name, colour }) => [colour, name]), width, height, this.theme);
    shown.setAttribute("height", String(height + legend.height));
    shown.append(legend.drawing);
    return standalone(shown, this.theme);
  }

  private entry({ name, colour, shape }: Kind["names"][number], k: number): HTMLElement {
    const dot = element("span", `gpt-dot gpt-${shape}`);
    dot.style.color = colour;
    const button = toggle("", () => {
      if (!this.hidden.delete(k)) this.hidden.add(k);
      button.setAttribute("aria-pressed", String(!this.hidden.has(k)));
      this.draw();
    });
    button.className = "gpt-entry gpt-switch";
    button.setAttribute("aria-pressed", "true");
    button.append(dot, element("span", "", name));
    return button;
  }

  private draw(): SVGSVGElement {
    this.theme = readTheme(this.node);
    const most = this.part.plot?.kind === "matrix" ? 900 : 1.25 * this.part.width;
    const width = Math.max(240, Math.min(this.node.clientWidth || this.part.width, most));
    this.picture = this.kind.draw(width, this.theme, this.seen, this.hidden);
    const { drawing } = this.picture;
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", this.part.alt);
    drawing.style.font = `11px ${this.theme.font}`;
    this.canvas.replaceChildren(drawing, this.tip);
    this.canvas.style.width = `${width}px`;
    this.leave();
    this.reset.hidden = !this.seen.x && !this.seen.y;
    return drawing;
  }

  private zoom({ x, y }: Seen): void {
    const { all } = this.kind;
    this.seen = { x: within(x, all.x, all.log), y: within(y, all.y, false) };
    this.draw();
  }

  private listen(): void {
    const { canvas } = this;
    let from: { x: number; y: number; pane: Picture["panes"][number] } | null = null;
    const at = (event: MouseEvent) => {
      const { left, top } = canvas.getBoundingClientRect();
      return { x: event.clientX - left, y: event.clientY - top };
    };
    canvas.addEventListener("pointerdown", (event) => {
      const place = at(event);
      const pane = this.paneAt(place);
      if (event.button !== 0 || !pane) return;
      from = { ...place, pane };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const place = at(event);
      if (from) this.drag(from, place);
      else this.read(place);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      const [start, end] = [from, at(event)];
      from = null;
      this.band.remove();
      this.select(start, end);
    });
    canvas.addEventListener("pointercancel", () => ((from = null), this.band.remove()));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("dblclick", () => this.zoom({ x: null, y: null }));
    canvas.addEventListener("keydown", (event) => {
      const move = KEYS[event.key];
      const pane = this.picture?.panes[0];
      if (!move || !pane || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const sideways = event.key.startsWith("Arrow");
      this.zoom({ x: pane.x && moved(pane.x, move), y: sideways ? this.seen.y : pane.y && moved(pane.y, move) });
    });
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the notebook
      const place = at(event);
      const pane = this.paneAt(place);
      if (!pane) return;
      event.preventDefault();
      const by = Math.exp(event.deltaY / 200);
      const around = (scale: Scale | null, pixels: number, low: number, high: number) =>
        scale && moved(scale, (view) => scaled(view, by, (pixels - low) / (high - low)));
      const { left, top, width, height } = pane.box;
      this.zoom({ x: around(pane.x, place.x, left, left + width), y: around(pane.y, place.y, top + height, top) });
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
  }

  private paneAt(place: { x: number; y: number }): Picture["panes"][number] | undefined {
    return this.picture?.panes.find(({ box }) => holds(box, place));
  }

  private drag({ x, y, pane }: { x: number; y: number; pane: Picture["panes"][number] }, to: { x: number; y: number }): void {
    const { box } = pane;
    const [left, right] = inside(x, to.x, box.left, box.width);
    const [top, bottom] = pane.y ? inside(y, to.y, box.top, box.height) : [box.top, box.top + box.height];
    const place = { x: left, y: top, width: right - left, height: bottom - top };
    for (const [name, value] of Object.entries(place)) this.band.setAttribute(name, String(value));
    this.picture?.drawing.append(this.band);
    this.tip.hidden = true;
  }

  private select({ x, y, pane }: { x: number; y: number; pane: Picture["panes"][number] }, to: { x: number; y: number }): void {
    const { box } = pane;
    const [left, right] = inside(x, to.x, box.left, box.width);
    const [top, bottom] = inside(y, to.y, box.top, box.height);
    if (right - left < 5 || (pane.y && bottom - top < 5)) return;
    const seen = (scale: Scale | null, low: number, high: number) => scale && { min: scale.back(low), max: scale.back(high) };
    this.zoom({ x: seen(pane.x, left, right), y: seen(pane.y, bottom, top) });
  }

  private read(place: { x: number; y: number }): void {
    let nearest: Spot | null = null;
    let least = NEAR ** 2;
    for (const spot of this.picture?.spots ?? []) {
      const away = (spot.x - place.x) ** 2 + (spot.y - place.y) ** 2;
      const far = spot.box ? (holds(spot.box, place) ? 0 : Infinity) : away;
      if (far < least) [nearest, least] = [spot, far];
    }
    if (!nearest) return this.leave();
    const [first, ...more] = nearest.says();
    this.tip.replaceChildren(element("b", "", first), ...more.map((line) => element("div", "", line)));
    this.tip.hidden = false;
    const width = this.canvas.clientWidth;
    const right = nearest.x < width / 2;
    this.tip.style.left = right ? `${nearest.x + 14}px` : "auto";
    this.tip.style.right = right ? "auto" : `${width - nearest.x + 14}px`;
    this.tip.style.top = `${Math.max(0, nearest.y - 12)}px`;
    if (nearest.box) return;
    this.ring.setAttribute("cx", String(nearest.x));
    this.ring.setAttribute("cy", String(nearest.y));
    this.ring.setAttribute("stroke", this.theme.solid.text);
    this.picture?.drawing.append(this.ring);
  }

  private leave(): void {
    this.tip.hidden = true;
    this.ring.remove();
  }
}

/** `view` kept inside `all`; null when it shows everything anyway. */
function within(view: View | null, all: View | null, log: boolean): View | null {
  if (!view || !all) return null;
  const [put, take] = log ? [Math.log, Math.exp] : [Number, Number];
  const [width, whole] = [put(view.max) - put(view.min), put(all.max) - put(all.min)];
  if (!(width < whole)) return null;
  const min = Math.max(put(all.min), Math.min(put(view.min), put(all.max) - width));
  return { min: take(min), max: take(min + width) };
}

/** A view moved on an axis, also on a logarithmic one; null where `move` shows everything. */
function moved({ min, max, log }: Scale, move: (view: View) => View | null): View | null {
  const [put, take] = log ? [Math.log, Math.exp] : [Number, Number];
  const view = move({ min: put(min), max: put(max) });
  return view && { min: take(view.min), max: take(view.max) };
}

function holds({ left, top, width, height }: Box, { x, y }: { x: number; y: number }): boolean {
  return x >= left && x <= left + width && y >= top && y <= top + height;
}

/** Two ends in order, within the box. */
function inside(one: number, other: number, start: number, size: number): [number, number] {
  const [low, high] = [Math.min(one, other), Math.max(one, other)];
  return [Math.max(start, low), Math.min(start + size, high)];
}

/** The least and the most, with some room around them. */
export function range(values: Iterable<number>, log = false, room = 0.06): View {
  let [min, max] = [Infinity, -Infinity];
  for (const value of values) {
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  if (min > max) return log ? { min: 0.1, max: 1 } : { min: 0, max: 1 };
  if (log) {
    const by = Math.exp((Math.log(max) - Math.log(min)) * room) * (max === min ? 2 : 1);
    return { min: min / by, max: max * by };
  }
  const by = (max - min) * room || Math.abs(max) * 0.1 || 1;
  return { min: min - by, max: max + by };
}
