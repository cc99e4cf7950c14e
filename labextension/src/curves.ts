// The charts of some runs together: loss above, learning rate and throughput under it, one x axis, one cursor.
// Needs only a place in the page and `Series`, so a widget and a MIME renderer can both use it.

import { Chart, type Metric, type Shared } from "./chart";
import { element, toggle } from "./dom";
import { compact, count, fixed, rate } from "./format";
import { lowerBound, type View } from "./reduce";
import type { Series } from "./series";
import { readTheme, watchTheme } from "./theme";

const LOSS: Metric = { column: "loss", title: "loss", evaluation: "val_loss", smoothed: true, fromZero: false, format: fixed };
const SMALL: Metric[] = [
  { column: "lr", title: "learning rate", smoothed: false, fromZero: true, format: rate },
  { column: "tokens_per_second", title: "tokens per second", smoothed: true, fromZero: true, format: compact },
];

let serial = 0;

export class Curves {
  /** Milliseconds the last drawing took. */
  cost = 0;
  private view: View | null = null;
  private readonly shared: Shared;
  private readonly main: Chart;
  private readonly small: Chart[];
  private readonly readings: HTMLElement[];
  private readonly legend = element("div", "gpt-legend");
  private readonly tip = element("div", "gpt-tip");
  private readonly reset: HTMLButtonElement;
  private readonly box: HTMLElement;
  private readonly stop: (() => void)[] = [];
  private legendOf = "";
  private hovered: number | null = null;

  constructor(
    private readonly host: HTMLElement,
    private readonly runs: Series[],
  ) {
    this.shared = {
      key: `gpt-curves-${serial++}`,
      theme: readTheme(host),
      look: { logX: false, logY: false, window: 32 },
      marked: null,
      zoom: (view) => this.zoom(view),
      hover: (step) => this.hover(step),
    };
    this.reset = toggle("reset zoom", () => this.zoom(null));
    this.reset.hidden = true;
    this.box = element("div", "gpt-main");
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "img");
    this.box.setAttribute("aria-label", "Loss over steps. Arrow keys pan, plus and minus zoom, Escape shows everything.");
    this.main = new Chart(this.box, LOSS, this.shared);
    this.box.append(this.tip);
    const smalls = element("div", "gpt-smalls");
    this.readings = [];
    this.small = SMALL.map((metric) => {
      const panel = element("div", "gpt-small");
      const caption = element("div", "gpt-caption");
      const reading = element("span", "gpt-reading");
      caption.append(element("span", "", metric.title), reading);
      const plot = element("div", "gpt-plot");
      panel.append(caption, plot);
      smalls.append(panel);
      this.readings.push(reading);
      return new Chart(plot, metric, this.shared);
    });
    host.append(this.tools(), this.box, smalls);
    this.listen();
  }

  /** Draws what the runs hold now. */
  update(): void {
    const began = performance.now();
    const view = this.view ?? this.whole();
    const width = Math.floor(this.box.clientWidth);
    this.main.draw(this.runs, view, width, width < 520 ? 210 : 280);
    this.small.forEach((chart) => chart.draw(this.runs, view, Math.floor(chart.host.clientWidth), 104));
    this.name();
    this.read();
    queueMicrotask(() => (this.cost = performance.now() - began));
  }

  /** Marks a step with a thin line; null takes it away. */
  mark(step: number | null): void {
    if (step === this.shared.marked) return;
    this.shared.marked = step;
    this.main.redraw();
  }

  destroy(): void {
    this.stop.forEach((each) => each());
    this.main.destroy();
    this.small.forEach((chart) => chart.destroy());
  }

  private tools(): HTMLElement {
    const { look } = this.shared;
    const smoothing = element("label", "gpt-smoothing", "smoothing");
    const slider = element("input");
    slider.type = "range";
    slider.min = "0";
    slider.max = "1";
    slider.step = "0.01";
    slider.value = String(Math.log10(look.window) / 3);
    slider.setAttribute("aria-label", "Smoothing");
    slider.addEventListener("input", () => {
      look.window = 10 ** (3 * Number(slider.value)); // 1 to 1000 points, evenly on a logarithmic scale
      slider.setAttribute("aria-valuetext", `over ${Math.round(look.window)} steps`);
      this.update();
    });
    smoothing.append(slider);
    const flip = (name: "logX" | "logY", label: string) => {
      const button = toggle(label, () => {
        look[name] = !look[name];
        button.setAttribute("aria-pressed", String(look[name]));
        this.update();
      });
      button.setAttribute("aria-pressed", "false");
      return button;
    };
    const controls = element("div", "gpt-controls");
    controls.append(this.reset, smoothing, flip("logX", "log x"), flip("logY", "log y"));
    const tools = element("div", "gpt-tools");
    tools.append(this.legend, controls);
    return tools;
  }

  private listen(): void {
    this.stop.push(
      watchTheme(() => this.paint()),
    );
    // the first call comes once the page has a place for the charts: only then are colours and fonts known
    const observer = new ResizeObserver(() => this.paint());
    observer.observe(this.host);
    this.stop.push(() => observer.disconnect());
    this.box.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation(); // the notebook has its own use for these keys
      this.zoom(move(this.view ?? this.whole()));
    });
    this.box.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the notebook
        event.preventDefault();
        const bounds = this.box.querySelector(".u-over")!.getBoundingClientRect();
        this.zoom(scale(this.view ?? this.whole(), Math.exp(event.deltaY / 200), (event.clientX - bounds.left) / bounds.width));
      },
      { passive: false },
    );
  }

  private paint(): void {
    this.shared.theme = readTheme(this.host);
    this.legendOf = "";
    this.update();
    [this.main, ...this.small].forEach((chart) => chart.redraw());
  }

  private zoom(view: View | null): void {
    const whole = this.whole();
    if (view) {
      const width = Math.max(2, Math.min(view.max - view.min, whole.max - whole.min));
      const min = Math.max(whole.min, Math.min(view.min, whole.max - width));
      view = width >= whole.max - whole.min ? null : { min, max: min + width };
    }
    this.view = view;
    this.reset.hidden = view === null;
    this.update();
  }

  /** All steps so far. The end moves in strides, so that the curve grows calmly into the room it has. */
  private whole(): View {
    let last = 1;
    let first = Infinity;
    let planned = Infinity;
    for (const run of this.runs) {
      const steps = run.column("step");
      if (!steps.length) continue;
      first = Math.min(first, steps[0]);
      if (steps[steps.length - 1] >= last) {
        last = steps[steps.length - 1];
        planned = run.steps ?? Infinity;
      }
    }
    let end = 20;
    while (end < last) end *= 1.3;
    end = Math.max(last, Math.min(end, planned));
    return { min: this.shared.look.logX ? 1 : first > 2 && first < Infinity ? first - 1 : 0, max: Math.max(end, 2) };
  }

  /** The legend: what the lines mean, and with several runs, whose they are. */
  private name(): void {
    const { theme } = this.shared;
    const many = this.runs.length > 1;
    const names = this.runs.map((run) => run.name).join("\n") + this.runs.some((run) => run.evaluations.length) + theme.dark;
    if (names === this.legendOf) return;
    this.legendOf = names;
    const entry = (label: string, colour: string, kind: string) => {
      const line = element("span", "gpt-entry");
      const swatch = element("span", `gpt-swatch ${kind}`);
      swatch.style.color = colour;
      line.append(swatch, element("span", "", label));
      return line;
    };
    const runs = this.runs.map((run, i) => entry(many ? run.name : "training loss", theme.runs[i % theme.runs.length], "gpt-line"));
    const validation = entry(many ? "validation" : "validation loss", many ? theme.muted : theme.validation, "gpt-dashes");
    const evaluated = this.runs.some((run) => run.evaluations.length);
    this.legend.replaceChildren(...runs, ...(evaluated ? [validation] : []));
  }

  private hover(step: number | null): void {
    this.hovered = step;
    this.read();
    this.tip.hidden = step === null || !this.runs.some((run) => run.column("step").length);
    if (this.tip.hidden || step === null) return;
    const { theme } = this.shared;
    const rows: HTMLElement[] = [];
    let shown = Math.round(step);
    this.runs.forEach((run, i) => {
      const steps = run.column("step");
      if (!steps.length) return;
      const at = nearest(steps, step);
      if (i === 0) shown = steps[at];
      if (step > steps[steps.length - 1] * 1.02 + 1) return;
      const colour = theme.runs[i % theme.runs.length];
      const name = this.runs.length > 1 ? run.name : "training";
      const raw = fixed(run.column("loss")[at]);
      rows.push(row(colour, name, fixed(this.main.strong(this.runs, i)[at]), `raw ${raw}`));
      const evaluation = run.evaluations.filter((each) => each.step <= steps[at]).at(-1);
      if (evaluation) {
        const ring = this.runs.length > 1 ? colour : theme.validation;
        rows.push(row(ring, "validation", fixed(evaluation.val_loss), `step ${count(evaluation.step)}`));
      }
    });
    this.tip.replaceChildren(element("div", "gpt-tip-step", `step ${count(shown)}`), ...rows);
    const over = this.box.querySelector<HTMLElement>(".u-over")!;
    const x = over.offsetLeft + ((): number => {
      const { min, max } = this.view ?? this.whole();
      const log = this.shared.look.logX;
      const t = log ? Math.log(step / min) / Math.log(max / min) : (step - min) / (max - min);
      return t * over.clientWidth;
    })();
    const right = x < this.box.clientWidth / 2;
    this.tip.style.left = right ? `${x + 14}px` : "auto";
    this.tip.style.right = right ? "auto" : `${this.box.clientWidth - x + 14}px`;
  }

  /** The small charts' numbers: at the cursor, or the newest. */
  private read(): void {
    const step = this.hovered;
    this.small.forEach((chart, k) => {
      const steps = this.runs[0].column("step");
      const values = chart.strong(this.runs, 0);
      const at = steps.length ? (step === null ? steps.length - 1 : nearest(steps, step)) : -1;
      this.readings[k].textContent = at < 0 ? "" : SMALL[k].format(values[at]);
    });
  }
}

const MOVES: Record<string, (view: View) => View | null> = {
  ArrowLeft: ({ min, max }) => ({ min: min - (max - min) / 8, max: max - (max - min) / 8 }),
  ArrowRight: ({ min, max }) => ({ min: min + (max - min) / 8, max: max + (max - min) / 8 }),
  "+": (view) => scale(view, 0.7, 0.5),
  "=": (view) => scale(view, 0.7, 0.5),
  "-": (view) => scale(view, 1 / 0.7, 0.5),
  Escape: () => null,
  "0": () => null,
};

/** `view` made `factor` times as wide around the point at fraction `at` of it. */
function scale({ min, max }: View, factor: number, at: number): View {
  const fixedPoint = min + (max - min) * at;
  return { min: fixedPoint - (fixedPoint - min) * factor, max: fixedPoint + (max - fixedPoint) * factor };
}

function nearest(steps: Float32Array, step: number): number {
  const at = Math.min(steps.length - 1, lowerBound(steps, step));
  return at > 0 && step - steps[at - 1] < steps[at] - step ? at - 1 : at;
}

function row(colour: string, name: string, value: string, note: string): HTMLElement {
  const line = element("div", "gpt-tip-row");
  const dot = element("span", "gpt-dot");
  dot.style.background = colour;
  line.append(dot, element("span", "gpt-tip-name", name), element("b", "", value), element("span", "gpt-tip-note", note));
  return line;
}
