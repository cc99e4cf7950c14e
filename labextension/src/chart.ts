// One chart of one metric over the steps of several runs, drawn by uPlot. Knows no widgets and no kernels.

import uPlot from "uplot";
import { grid, place, reduce, Smoothed, type Grid, type Values } from "./reduce";
import type { Series } from "./series";
import { axes, clipped, margin, scaleOf, svg } from "./svg";
import { faint, type Theme } from "./theme";
import { logTicks, stepLabel, STRIDES, valueLabels } from "./ticks";
import type { View } from "./view";

export interface Metric {
  column: string;
  /** Name of the evaluations' field that is drawn as points, if any. */
  evaluation?: string;
  smoothed: boolean;
  fromZero: boolean;
  /** Names of the evaluations' fields that hold the interval around a point, if any. */
  interval?: [low: string, high: string];
  /** Drawn in red where the values come near it. */
  limit?: number | null;
}

export interface Look {
  logX: boolean;
  logY: boolean;
  /** Points over which the strong line averages; 1 is none. */
  window: number;
}

/** What charts drawn together share: where the x axis looks, the cursor, the colours. */
export interface Shared {
  key: string;
  theme: Theme;
  look: Look;
  /** A step to mark with a thin line, as that of the sample being read. */
  marked: number | null;
  /** Steps at which something went wrong. */
  alarms: number[];
  /** Which of several runs are not drawn. */
  hidden: Set<number>;
  zoom: (view: View | null) => void;
  hover: (step: number | null) => void;
}

// What each run contributes, in the order it is painted.
const LAYERS = ["low", "high", "mean", "evaluation"] as const;
type Layer = (typeof LAYERS)[number];

export class Chart {
  private plot: uPlot | null = null;
  private shape = "";
  private smoothed: Smoothed[] = [];
  private view: View = { min: 0, max: 1 };
  private runs: Series[] = [];

  constructor(
    readonly host: HTMLElement,
    private readonly metric: Metric,
    private readonly shared: Shared,
    /** What its y axis measures, where no caption above it says so. */
    private readonly label?: string,
  ) {}

  draw(runs: Series[], view: View, width: number, height: number): void {
    if (width < 40) return;
    const { look } = this.shared;
    const shape = `${runs.length} ${look.logX} ${look.logY} ${this.shared.theme.font}`;
    this.view = view;
    this.runs = runs;
    const data = this.data(runs, view, width);
    if (!this.plot || shape !== this.shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.options(runs.length, width, height), data, this.host);
    }
    const plot = this.plot;
    plot.batch(() => {
      if (plot.width !== width || plot.height !== height) plot.setSize({ width, height });
      plot.setData(data, false);
      plot.setScale("x", view);
      const [min, max] = this.range(data);
      plot.setScale("y", { min, max });
    });
  }

  /** Pixels from the left of the host to `step`. */
  pixel(step: number): number {
    return this.plot ? this.plot.over.offsetLeft + this.plot.valToPos(step, "x") : 0;
  }

  redraw(): void {
    this.plot?.redraw(false, true);
  }

  /** What is seen now as SVG, in a box of this size. */
  drawing(width: number, height: number): SVGGElement {
    const { look, theme, alarms } = this.shared;
    const made = svg("g");
    if (!this.plot) return made;
    const { min, max } = this.plot.scales.y as View;
    const y = scaleOf(min, max, height - (this.label ? 36 : 22), 8, this.logY);
    const left = margin(y, height) + (this.label ? 18 : 4);
    const box = { left, top: 8, width: width - left - 14, height: height - 8 - (this.label ? 36 : 22) };
    const x = scaleOf(this.view.min, this.view.max, left, left + box.width, look.logX);
    const { clip, name } = clipped(box);
    const marks = svg("g", { "clip-path": name, fill: "none" });
    const count = this.runs.length;
    const [xs, ...columns] = this.plot.data;
    const path = (values: Values) => {
      let [line, pen] = ["", "M"];
      values.forEach((value, k) => {
        if (value === null || value === undefined) return;
        line += `${pen}${x.at(xs[k]).toFixed(1)} ${y.at(value).toFixed(1)}`;
        pen = "L";
      });
      return line;
    };
    columns.forEach((values, k) => {
      const layer = LAYERS[Math.floor(k / count)];
      const line = path(values as Values);
      if (!line) return;
      const own = theme.runs[(k % count) % theme.runs.length];
      const stroke = layer === "evaluation" && count === 1 ? theme.validation : own;
      const faded = layer === "low" || layer === "high";
      const look = { stroke, "stroke-width": layer === "mean" ? 2 : 1.2, "stroke-opacity": faded ? 0.4 : 1 };
      marks.append(svg("path", { d: line, ...look, ...(layer === "evaluation" ? { "stroke-dasharray": "4 4" } : {}) }));
      for (const at of layer === "evaluation" ? this.apart(this.plot!, k + 1) : []) {
        marks.append(svg("circle", { cx: x.at(xs[at]), cy: y.at(values[at]!), r: 3.5, stroke, fill: theme.solid.ground }));
      }
    });
    const upright = (step: number, colour: string) =>
      svg("line", { x1: x.at(step), x2: x.at(step), y1: box.top, y2: box.top + box.height, stroke: colour });
    marks.append(...alarms.map((step) => upright(step, theme.alarm)));
    const { limit, interval, evaluation } = this.metric;
    if (typeof limit === "number") {
      const at = y.at(limit);
      marks.append(svg("line", { x1: left, x2: left + box.width, y1: at, y2: at, stroke: theme.alarm, "stroke-dasharray": "5 4" }));
    }
    this.runs.forEach((run, i) => {
      if (this.shared.hidden.has(i) || !evaluation) return;
      const stroke = count === 1 ? theme.validation : theme.runs[i % theme.runs.length];
      let bounds = "";
      for (const each of run.evaluations) {
        const [low, high] = interval ? [each[interval[0]], each[interval[1]]] : [null, null];
        if (typeof low === "number" && typeof high === "number") bounds += `M${x.at(each.step)} ${y.at(low)}V${y.at(high)}`;
      }
      if (bounds) marks.append(svg("path", { d: bounds, stroke, "stroke-width": 2, "stroke-opacity": 0.5 }));
    });
    made.append(axes(box, x, y, theme, { x: this.label ? "step" : "", y: this.label, whole: true }), clip, marks);
    return made;
  }

  destroy(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  /** The run's strong line at full length; the same numbers that are drawn. */
  strong(runs: Series[], i: number): Float32Array {
    const values = runs[i].column(this.metric.column);
    if (!this.metric.smoothed) return values;
    return (this.smoothed[i] ??= new Smoothed()).of(values, this.shared.look.window);
  }

  private data(runs: Series[], view: View, width: number): uPlot.AlignedData {
    const { logX, window } = this.shared.look;
    const on: Grid = grid(runs, view, width, logX);
    const layers: Record<Layer, Values[]> = { low: [], high: [], mean: [], evaluation: [] };
    const none: Values = new Array(on.xs.length).fill(null);
    runs.forEach((run, i) => {
      if (this.shared.hidden.has(i)) {
        LAYERS.forEach((layer) => layers[layer].push(none));
        return;
      }
      const steps = run.column("step");
      const raw = reduce(steps, run.column(this.metric.column), on, view);
      const smooth = this.metric.smoothed && window > 1;
      layers.low.push(smooth || on.edges ? raw.low : none);
      layers.high.push(on.edges ? raw.high : none);
      layers.mean.push(smooth ? reduce(steps, this.strong(runs, i), on, view).mean : raw.mean);
      const name = this.metric.evaluation;
      const points = name ? run.evaluations.map((e) => ({ step: e.step, value: e[name] ?? null })) : [];
      layers.evaluation.push(name ? place(points, on, logX) : none);
    });
    return [on.xs, ...LAYERS.flatMap((layer) => layers[layer])] as uPlot.AlignedData;
  }

  /**
   * The y axis for what is in view. The first moments of a long run fall from far above: where they would
   * press all the rest flat, they may leave through the top (not on a logarithmic axis, never what is later).
   */
  private range(data: uPlot.AlignedData): [number, number] {
    const { min: from, max: to } = this.view;
    const settled = from + 0.02 * (to - from);
    let min = Infinity;
    let max = -Infinity;
    let later = -Infinity;
    const xs = data[0];
    for (const values of data.slice(1) as Values[]) {
      for (let k = 0; k < values.length; k++) {
        const value = values[k];
        if (value === null || xs[k] < from || xs[k] > to) continue;
        if (value < min) min = value;
        if (value > max) max = value;
        if (xs[k] >= settled && value > later) later = value;
      }
    }
    if (min > max) return this.logY ? [0.1, 1] : [0, 1];
    const { limit, interval } = this.metric;
    const drawn = this.runs.filter((_run, i) => !this.shared.hidden.has(i));
    for (const each of interval ? drawn.flatMap((run) => run.evaluations) : []) {
      if (each.step < from || each.step > to) continue;
      min = Math.min(min, each[interval![0]] ?? min);
      max = Math.max(max, each[interval![1]] ?? max);
      later = Math.max(later, each[interval![1]] ?? later);
    }
    if (typeof limit === "number" && max > limit / 3) max = later = Math.max(max, limit);
    if (this.logY) return [Math.max(1e-12, min) / 1.04, max * 1.06];
    const long = to - from >= 100 && !this.shared.look.logX;
    if (long && later > min && max - min > 1.8 * (later - min)) max = later;
    const pad = (max - min || Math.abs(max) || 1) * 0.07;
    return [this.metric.fromZero ? Math.min(0, min) : min - pad, max + pad];
  }

  private get logY(): boolean {
    return this.shared.look.logY && !this.metric.fromZero;
  }

  private options(count: number, width: number, height: number): uPlot.Options {
    const { shared } = this;
    const { fromZero } = this.metric;
    const { logX } = shared.look;
    const run = (index: number) => (index - 1) % count;
    const layer = (index: number): Layer => LAYERS[Math.floor((index - 1) / count)];
    const colour = (index: number) => shared.theme.runs[run(index) % shared.theme.runs.length];
    const series: uPlot.Series[] = [{}];
    for (let index = 1; index <= LAYERS.length * count; index++) {
      series.push(this.style(layer(index), () => colour(index), count));
    }
    const named = (label?: string): Partial<uPlot.Axis> =>
      label ? { label, labelSize: 18, labelGap: 2, labelFont: `11px ${shared.theme.font}` } : {};
    const axis = (size: number): uPlot.Axis => ({
      stroke: () => shared.theme.muted,
      font: `11px ${shared.theme.font}`,
      grid: { stroke: () => shared.theme.grid, width: 1 },
      ticks: { show: false },
      size,
      gap: 6,
    });
    return {
      width,
      height,
      series,
      legend: { show: false },
      padding: [8, 18, 0, 0],
      scales: {
        x: { time: false, distr: logX ? 3 : 1, auto: false, range: (_u, min, max) => [min, max] },
        y: { distr: this.logY ? 3 : 1, auto: false, range: (_u, min, max) => [min, max] },
      },
      axes: [
        {
          ...axis(26),
          ...named("step"),
          space: 64,
          incrs: STRIDES,
          values: (_u, ticks) => ticks.map(stepLabel),
          ...this.ticks(logX, 46),
        },
        {
          ...axis(fromZero ? 40 : 32),
          size: (_u, labels) => Math.max(fromZero ? 40 : 32, 7 * Math.max(0, ...(labels ?? []).map((label) => label.length)) + 10),
          ...named(this.label),
          space: 32,
          values: (_u, ticks) => valueLabels(ticks),
          ...this.ticks(this.logY, 28),
        },
      ],
      bands: Array.from({ length: count }, (_, i) => ({
        series: [count + 1 + i, 1 + i],
        fill: () => faint(shared.theme.runs[i % shared.theme.runs.length], 0.18),
      })),
      cursor: {
        y: false,
        points: {
          size: (_u, index) => (layer(index) === "mean" ? 9 : 0),
          width: (_u, index) => (layer(index) === "mean" ? 2 : 0),
          fill: (_u, index) => colour(index),
          stroke: () => shared.theme.background,
        },
        hover: { skip: [null, undefined] },
        drag: { x: true, y: false, setScale: false, dist: 4 },
        bind: {
          dblclick: () => () => {
            shared.zoom(null);
            return null;
          },
        },
        sync: {
          key: shared.key,
          setSeries: false,
          scales: ["x", null],
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave" },
        },
      },
      hooks: {
        setSelect: [(u) => this.selected(u)],
        setCursor: [(u) => shared.hover((u.cursor.left ?? -1) < 0 ? null : u.posToVal(u.cursor.left!, "x"))],
        drawClear: [(u) => this.mark(u)],
        draw: [(u) => this.annotate(u)],
      },
    };
  }

  /** On a logarithmic axis, ticks of our own: uPlot's start at whatever number the view starts at. */
  private ticks(log: boolean, pixels: number): Partial<uPlot.Axis> {
    if (!log) return {};
    return {
      splits: (u, axis, min, max) =>
        logTicks(min, max, (axis === 0 ? u.bbox.width : u.bbox.height) / devicePixelRatio / pixels),
      filter: (_u, ticks) => ticks,
    };
  }

  /** Of the evaluations, those at least 10 pixels apart: touching rings say no more than their line. */
  private apart(u: uPlot, index: number): number[] {
    const values = u.data[index];
    const kept: number[] = [];
    let last = -Infinity;
    for (let k = 0; k < values.length; k++) {
      if (values[k] === null) continue;
      const x = u.valToPos(u.data[0][k], "x");
      if (x - last >= 10) {
        kept.push(k);
        last = x;
      }
    }
    return kept;
  }

  private style(layer: Layer, colour: () => string, count: number): uPlot.Series {
    const base: uPlot.Series = { spanGaps: true, points: { show: false } };
    if (layer === "low" || layer === "high") {
      return { ...base, stroke: () => faint(colour(), 0.45), width: 1 };
    }
    if (layer === "mean") {
      return { ...base, stroke: colour, width: this.metric.fromZero ? 1.5 : 2.25 };
    }
    // one run: validation in a second colour; several: in the run's own, told apart by its dashes and rings
    const stroke = () => (count === 1 ? this.shared.theme.validation : colour());
    const fill = () => this.shared.theme.background;
    const points = {
      show: true,
      size: 7,
      width: 2,
      stroke,
      fill,
      filter: (u: uPlot, index: number) => this.apart(u, index),
    };
    return { ...base, stroke, width: 1.5, dash: [4, 4], points };
  }

  private selected(u: uPlot): void {
    const { left, width } = u.select;
    if (width < 4) return;
    const view = { min: u.posToVal(left, "x"), max: u.posToVal(left + width, "x") };
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.shared.zoom(view);
  }

  private mark(u: uPlot): void {
    const step = this.shared.marked;
    if (step === null || step < this.view.min || step > this.view.max) return;
    const x = Math.round(u.valToPos(step, "x", true)) + 0.5;
    const { top, height } = u.bbox;
    u.ctx.save();
    u.ctx.strokeStyle = this.shared.theme.muted;
    u.ctx.globalAlpha = 0.5;
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(x, top);
    u.ctx.lineTo(x, top + height);
    u.ctx.stroke();
    u.ctx.restore();
  }

  /** Above the curves: the steps of alarms, a limit, and the intervals of the evaluations. */
  private annotate(u: uPlot): void {
    const { alarms, theme } = this.shared;
    const { limit, interval } = this.metric;
    const { left, top, width, height } = u.bbox;
    const line = (x1: number, y1: number, x2: number, y2: number) => {
      u.ctx.beginPath();
      u.ctx.moveTo(x1, y1);
      u.ctx.lineTo(x2, y2);
      u.ctx.stroke();
    };
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(left, top, width, height);
    u.ctx.clip();
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.strokeStyle = theme.alarm;
    for (const step of alarms) {
      const x = Math.round(u.valToPos(step, "x", true)) + 0.5;
      line(x, top, x, top + height);
    }
    if (typeof limit === "number") {
      u.ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      const y = Math.round(u.valToPos(limit, "y", true)) + 0.5;
      line(left, y, left + width, y);
      u.ctx.setLineDash([]);
    }
    if (interval) {
      const [low, high] = interval;
      u.ctx.globalAlpha = 0.5;
      u.ctx.lineWidth = 2 * devicePixelRatio;
      this.runs.forEach((run, i) => {
        if (this.shared.hidden.has(i)) return;
        u.ctx.strokeStyle = this.runs.length === 1 ? theme.validation : theme.runs[i % theme.runs.length];
        for (const each of run.evaluations) {
          const [from, to] = [each[low], each[high]];
          if (typeof from !== "number" || typeof to !== "number") continue;
          const x = u.valToPos(each.step, "x", true);
          line(x, u.valToPos(from, "y", true), x, u.valToPos(to, "y", true));
        }
      });
    }
    u.ctx.restore();
  }
}
