// The charts of some runs together: a large one above, small ones below, one x axis, one cursor.
// Needs only a place in the page and `Series`, so a widget and a MIME renderer can both use it.

import { Chart, type Shared } from "./chart";
import { element, toggle, write } from "./dom";
import type { Panel } from "./layout";
import type { Series } from "./series";
import { readTheme, watchTheme } from "./theme";
import { KEYS, scaled, whole, within, type View } from "./view";
import { legendOf, standalone, svg } from "./svg";
import { entry, legend, nearest, reading } from "./words";
import "uplot/dist/uPlot.min.css";
import "./curves.css";

let serial = 0;

export class Curves {
  /** Milliseconds the last drawing took. */
  cost = 0;
  private view: View | null = null;
  private readonly shared: Shared;
  private readonly box = element("div", "gpt-main");
  private readonly main: Chart;
  private readonly small: { chart: Chart; reading: HTMLElement }[];
  private readonly legend = element("div", "gpt-legend");
  private readonly tip = element("div", "gpt-tip");
  private readonly reset = toggle("reset zoom", () => this.zoom(null));
  private readonly stop: (() => void)[] = [];
  private widths: number[] = [];
  private legendOf = "";
  private hovered: number | null = null;

  constructor(
    private readonly host: HTMLElement,
    private readonly runs: Series[],
    private readonly panels: Panel[],
    alarms: number[] = [],
  ) {
    this.shared = {
      key: `gpt-curves-${serial++}`,
      theme: readTheme(host),
      look: { logX: false, logY: false, window: 32 },
      marked: null,
      alarms,
      hidden: new Set(),
      zoom: (view) => this.zoom(view),
      hover: (step) => this.hover(step),
    };
    this.reset.hidden = true;
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", `${panels[0].title} over steps. Arrow keys pan, plus and minus zoom, Escape shows everything.`);
    this.main = new Chart(this.box, panels[0], this.shared, panels[0].title);
    this.box.append(this.tip);
    const below = element("div", "gpt-smalls");
    this.small = panels.slice(1).map((metric) => {
      const panel = element("div", "gpt-small");
      const caption = element("div", "gpt-caption");
      const reading = element("span", "gpt-reading");
      caption.append(element("span", "", metric.title), reading);
      const plot = element("div");
      panel.append(caption, plot);
      below.append(panel);
      return { chart: new Chart(plot, metric, this.shared), reading };
    });
    host.append(this.tools(), this.box, below);
    this.listen();
  }

  /** Draws what the runs hold now; nothing before the page has given the charts a width. */
  update(): void {
    if (!this.widths.length) return;
    const began = performance.now();
    const view = this.view ?? whole(this.runs, this.shared.look.logX);
    const [width, ...rest] = this.widths;
    this.main.draw(this.runs, view, width, width < 520 ? 224 : 294);
    this.small.forEach(({ chart }, k) => chart.draw(this.runs, view, rest[k], 122));
    this.describe();
    this.read();
    queueMicrotask(() => (this.cost = performance.now() - began));
  }

  /** Marks a step with a thin line; null takes it away. */
  mark(step: number | null): void {
    if (step === this.shared.marked) return;
    this.shared.marked = step;
    this.main.redraw();
  }

  /** What is seen now, with its names, as SVG. */
  drawing(): string {
    this.shared.theme = readTheme(this.host);
    const { theme } = this.shared;
    const [width, ...rest] = this.widths.length ? this.widths : [680];
    const names = legend(this.runs, theme, this.panels[0], this.shared.hidden).map(({ colour, name }): [string, string] => [colour, name]);
    const head = legendOf(names, width, 0, theme);
    const main = this.main.drawing(width, 300);
    main.setAttribute("transform", `translate(0 ${head.height + 6})`);
    const drawing = svg("svg", { width }, head.drawing, main);
    const each = Math.min(width / 2, rest[0] ?? width) || width;
    const below = head.height + 316;
    this.small.forEach(({ chart }, k) => {
      const [x, y] = [(k % 2) * (width - each), below + Math.floor(k / 2) * 150];
      const small = chart.drawing(each, 126);
      small.setAttribute("transform", `translate(${x} ${y + 18})`);
      drawing.append(svg("text", { x: x + 4, y: y + 12, "font-size": 12, fill: theme.solid.muted }, this.panels[k + 1].title), small);
    });
    drawing.setAttribute("height", String(below + 150 * Math.ceil(this.small.length / 2)));
    return standalone(drawing, theme);
  }

  destroy(): void {
    this.stop.forEach((each) => each());
    this.main.destroy();
    this.small.forEach(({ chart }) => chart.destroy());
  }

  private tools(): HTMLElement {
    const { look } = this.shared;
    const smoothing = element("label", "gpt-smoothing", "smoothing");
    const slider = element("input");
    Object.assign(slider, { type: "range", min: "0", max: "1", step: "0.01" });
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
        this.zoom(this.view);
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
    this.stop.push(watchTheme(() => this.paint()));
    // its first call comes once the page has a place for the charts: only then are colours and fonts known
    const observer = new ResizeObserver(() => {
      const hosts = [this.main, ...this.small.map(({ chart }) => chart)].map((chart) => chart.host);
      this.widths = this.host.clientWidth ? hosts.map((host) => Math.floor(host.clientWidth)) : [];
      this.paint();
    });
    observer.observe(this.host);
    this.stop.push(() => observer.disconnect());
    this.box.addEventListener("keydown", (event) => {
      const move = KEYS[event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.zoom(move(this.view ?? whole(this.runs, this.shared.look.logX)));
    });
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the notebook
      event.preventDefault();
      const { left, width } = this.box.querySelector(".u-over")!.getBoundingClientRect();
      const view = this.view ?? whole(this.runs, this.shared.look.logX);
      this.zoom(scaled(view, Math.exp(event.deltaY / 200), (event.clientX - left) / width));
    };
    this.box.addEventListener("wheel", wheel, { passive: false });
  }

  private paint(): void {
    this.shared.theme = readTheme(this.host);
    this.legendOf = "";
    this.update();
    [this.main, ...this.small.map(({ chart }) => chart)].forEach((chart) => chart.redraw());
  }

  private zoom(view: View | null): void {
    this.view = view && within(view, whole(this.runs, this.shared.look.logX));
    this.reset.hidden = this.view === null;
    this.update();
  }

  private describe(): void {
    const shown = this.runs.map((run) => `${run.name} ${run.evaluations.length > 0}`).join("\n");
    if (shown === this.legendOf) return;
    this.legendOf = shown;
    const { theme, hidden } = this.shared;
    const entries = legend(this.runs, theme, this.panels[0], hidden);
    const focused = [...this.legend.children].indexOf(document.activeElement!);
    this.legend.replaceChildren(
      ...entries.map((each) => {
        const { run } = each;
        if (run === null) return entry(each);
        const switched = toggle("", () => {
          if (!hidden.delete(run)) hidden.add(run);
          this.legendOf = "";
          this.update();
        });
        switched.className = "gpt-switch";
        switched.setAttribute("aria-pressed", String(!hidden.has(run)));
        switched.append(entry(each));
        return switched;
      }),
    );
    (this.legend.children[focused] as HTMLElement | undefined)?.focus();
  }

  private hover(step: number | null): void {
    this.hovered = step;
    this.read();
    this.tip.hidden = step === null || !this.runs.some((run) => run.column("step").length);
    if (this.tip.hidden || step === null) return;
    const strong = this.runs.map((_run, i) => this.main.strong(this.runs, i));
    this.tip.replaceChildren(...reading(this.runs, strong, step, this.shared.theme, this.panels[0], this.shared.hidden));
    const x = this.main.pixel(step);
    const right = x < this.widths[0] / 2;
    this.tip.style.left = right ? `${x + 14}px` : "auto";
    this.tip.style.right = right ? "auto" : `${this.widths[0] - x + 14}px`;
  }

  /** The small charts' numbers: at the cursor, or the newest; of what only evaluations tell, the last before it. */
  private read(): void {
    const [run] = this.runs;
    const steps = run.column("step");
    const at = this.hovered === null ? steps.length - 1 : nearest(steps, this.hovered);
    this.small.forEach(({ chart, reading }, k) => {
      const { format, evaluation = "" } = this.panels[k + 1];
      const value = steps.length ? chart.strong(this.runs, 0)[at] : NaN;
      const before = run.evaluations.filter((each) => typeof each[evaluation] === "number" && each.step <= steps[at]);
      const shown = value === value ? value : before.at(-1)?.[evaluation];
      write(reading, steps.length ? format(shown) : "");
    });
  }
}
