// The card of a run: who it is and how far, its curves, its samples, its buttons.

import { Curves } from "./curves";
import { action, element, write } from "./dom";
import { compact, count, duration, percent } from "./format";
import { layoutOf, mean, type Layout } from "./layout";
import { Frame } from "./frame";
import { Samples } from "./samples";
import type { Series } from "./series";
import type { Link } from "./widget";

const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";
const PLAY = "M4.5 2.5v11l9-5.5z";
const STOP = "M3.5 3.5h9v9h-9z";
const PACE = ["tokens/s", "hardware use", "elapsed", "time left"];
const SAMPLE = "M2.5 3h11v8H8l-3.5 3v-3h-2z";

export class Card {
  private readonly panel: Frame;
  private readonly chip = element("span", "gpt-chip");
  private readonly bar = element("div", "gpt-bar");
  private layout: Layout = layoutOf([]);
  private planned = "";
  private stats: Record<string, { box: HTMLElement; label: HTMLElement; value: HTMLElement }> = {};
  private readonly numbers = element("div", "gpt-stats");
  private readonly stages = element("div", "gpt-stages");
  private readonly body = element("div", "gpt-body");
  private readonly spoken = element("p", "gpt-spoken");
  private readonly alarm = element("p", "gpt-alarm");
  private readonly pause: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly sample: HTMLButtonElement;
  private readonly buttons: HTMLButtonElement[];
  private readonly left = element("div", "gpt-curves");
  private curves: Curves | null = null;
  private readonly samples: Samples;
  private readonly sight: IntersectionObserver;
  private inSight = true;
  private timer = 0;
  private frame = 0;
  private drawn = 0;
  private asked: { what: string; at: number } | null = null;
  private skips = false; // whether the button that stops is seen to skip the evaluation

  constructor(
    el: HTMLElement,
    private readonly runs: Series[],
    private readonly link: Link,
  ) {
    this.panel = new Frame(el, "gpt-card-of-run", `Training run ${this.run.name}`);
    const { root, name, actions, note } = this.panel;
    name.after(this.chip);
    this.pause = action(PAUSE, "Pause", () => this.ask(this.run.status === "paused" ? "unpause" : "pause"));
    this.stop = action(STOP, "Stop", () => this.ask(this.skips ? "skip" : "stop"));
    this.sample = action(SAMPLE, "Sample now", () => this.ask("sample"));
    this.buttons = [this.pause, this.stop, this.sample];
    actions.append(...this.buttons);
    const track = element("div", "gpt-track");
    track.setAttribute("role", "progressbar");
    track.setAttribute("aria-label", "Steps done");
    track.append(this.bar);
    this.spoken.setAttribute("aria-live", "polite");
    this.alarm.setAttribute("role", "alert");
    this.alarm.hidden = true;
    root.append(track, this.numbers, this.alarm, note, this.stages, this.body, this.spoken);
    const right = element("aside", "gpt-samples");
    this.body.append(this.left, right);
    this.samples = new Samples(right, (step) => this.curves?.mark(step), this.run.kind === "pretrain");
    this.sight = new IntersectionObserver((entries) => {
      this.inSight = entries[entries.length - 1].isIntersecting;
      if (this.inSight) this.update();
    });
    this.sight.observe(root);
    this.draw();
  }

  private get run(): Series {
    return this.runs[0];
  }

  /**
   * Says that the runs hold something new. Drawing waits for its turn, 4 times a second at most and 2 once a
   * pixel holds many steps: where there is no GPU, the browser paints with the very cores that train.
   */
  update(): void {
    if (!this.inSight || this.timer || this.frame) return;
    const period = this.run.column("step").length > 1000 ? 480 : 240;
    const wait = this.drawn + Math.max(period, 40 * (this.curves?.cost ?? 0)) - performance.now();
    this.timer = window.setTimeout(
      () => {
        this.timer = 0;
        this.frame = requestAnimationFrame(() => {
          this.frame = 0;
          this.draw();
        });
      },
      Math.max(0, wait),
    );
  }

  destroy(): void {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.sight.disconnect();
    this.curves?.destroy();
    this.panel.destroy();
  }

  private ask(what: string): void {
    this.asked = { what, at: Date.now() };
    this.link.send({ type: what });
    this.update();
    window.setTimeout(() => this.update(), 3100);
  }

  private draw(): void {
    this.drawn = performance.now();
    const training = this.run.column("step").length > 0 || this.run.evaluations.length > 0;
    if (training) this.plan();
    this.body.hidden = this.numbers.hidden = !training;
    this.head();
    this.measure();
    this.prepare(training);
    if (training) {
      this.curves?.update();
      this.samples.update(this.run.samples);
    }
  }

  /** Charts and numbers for what the run declares; anew where it declares something else. */
  private plan(): void {
    const planned = JSON.stringify(this.run.metrics);
    if (planned === this.planned) return;
    this.planned = planned;
    this.layout = layoutOf(this.run.metrics);
    this.curves?.destroy();
    this.left.replaceChildren();
    this.curves = this.layout.panels.length ? new Curves(this.left, this.runs, this.layout.panels) : null;
    this.stats = {};
    this.numbers.replaceChildren();
    for (const name of ["step", ...this.layout.stats.map(({ label }) => label), ...PACE]) {
      const box = element("div");
      const label = element("div", "gpt-label", name);
      const value = element("div", "gpt-value");
      box.append(label, value);
      this.numbers.append(box);
      this.stats[name] = { box, label, value };
    }
  }

  private head(): void {
    const { run } = this;
    const { about, name, note } = this.panel;
    const gone = this.link.gone && !run.end;
    const status = gone ? "interrupted" : (run.end?.status ?? run.status);
    const preparing = status === "running" && !run.start;
    const evaluating = status === "stopping" && run.start !== null;
    const shown = run.diverged ? `${status}, diverged` : status;
    write(name, run.name);
    write(this.chip, preparing ? "preparing" : shown);
    this.chip.dataset.status = run.diverged ? "diverged" : status;
    const { start } = run;
    write(
      about,
      start ? `${compact(start.parameters)} parameters · ${start.device} · ${start.dtype}` : "",
    );
    const paused = status === "paused";
    write(this.pause.querySelector("span")!, paused ? "Resume" : "Pause");
    this.pause.querySelector("path")!.setAttribute("d", paused ? PLAY : PAUSE);
    const over = !["running", "paused", "stopping"].includes(status);
    this.buttons.forEach((button) => {
      button.hidden = over && !gone;
      button.disabled = gone;
    });
    this.pause.hidden = this.stop.hidden || status === "stopping";
    this.sample.hidden = this.pause.hidden || !start;
    this.skips = status === "stopping";
    write(this.stop.querySelector("span")!, evaluating ? "Skip evaluation" : "Stop");
    write(this.spoken, `${run.name} is ${shown}`);
    if (this.asked && (over || this.answered(status))) this.asked = null;
    const late = this.asked !== null && Date.now() - this.asked.at > 3000;
    const waiting =
      "This kernel hears clicks only after the cell has ended; the notebook's ■ button stops the run now.";
    const stopping = "Evaluating the model once before it is kept. A second stop skips this.";
    const ended = `The kernel of this run is gone. %gpt resume ${run.name} continues it from its last checkpoint.`;
    write(note, gone ? ended : (run.end?.error ?? (late ? waiting : evaluating ? stopping : "")));
    note.hidden = !note.textContent;
  }

  private answered(status: string): boolean {
    const { what } = this.asked!;
    if (what === "pause") return status === "paused";
    if (what === "unpause") return status === "running";
    if (what === "stop" || what === "skip") return status === "stopping";
    return true; // nothing tells that a sample was refused, so there is nothing to wait for
  }

  private measure(): void {
    const { run, layout } = this;
    const steps = run.steps || run.start?.steps || null; // 0: a run by minutes, not yet measured
    const step = run.columns.step?.last ?? run.start?.step ?? 0;
    const done = steps ? Math.min(1, step / steps) : 0;
    this.bar.style.width = `${(100 * done).toFixed(2)}%`;
    this.bar.parentElement!.setAttribute("aria-valuenow", String(Math.round(100 * done)));
    const speed = mean(run.column("tokens_per_second"));
    const perStep = run.start?.tokens_per_step ?? NaN;
    const each = perStep > 0 && speed ? perStep / speed : (run.now?.seconds ?? NaN) / step;
    const left = steps ? (steps - step) * each : NaN;
    const mfu = run.now?.mfu ?? null;
    const say: Record<string, string> = {
      step: steps ? `${count(step)} / ${count(steps)}` : count(step),
      ...Object.fromEntries(layout.stats.map(({ label, value }) => [label, value(run)])),
      "tokens/s": compact(speed),
      "hardware use": percent(mfu),
      elapsed: duration(run.now?.seconds),
      "time left": duration(left),
    };
    for (const name in this.stats) write(this.stats[name].value, say[name]);
    for (const { label, note } of layout.stats) {
      const added = note(run);
      if (label in this.stats) write(this.stats[label].label, added ? `${label}, ${added}` : label);
    }
    const causes = new Map(run.warnings.map((warning) => [warning.cause, warning])); // the newest of each
    const alarms = [...causes.values()].map(({ step, text }) => `Step ${count(step)}: ${text}`);
    write(this.alarm, alarms.join("\n"));
    this.alarm.hidden = !alarms.length;
    if ("hardware use" in this.stats) this.stats["hardware use"].box.hidden = mfu === null;
  }

  /** What happens before the first step, stage by stage. */
  private prepare(training: boolean): void {
    const { stages } = this.run;
    this.stages.hidden = training || !stages.length;
    if (this.stages.hidden) return;
    while (this.stages.children.length < stages.length) {
      const item = element("div", "gpt-stage");
      const track = element("div", "gpt-track");
      track.append(element("div", "gpt-bar"));
      item.append(element("span", "gpt-stage-name"), track, element("span", "gpt-count"));
      this.stages.append(item);
    }
    stages.forEach((stage, i) => {
      const item = this.stages.children[i] as HTMLElement;
      const current = i === stages.length - 1;
      const [label, track, number] = item.children as unknown as HTMLElement[];
      item.dataset.state = current ? "now" : "done";
      write(label, stage.stage);
      const part = current ? (stage.total ? stage.done / stage.total : 0.3) : 1;
      track.classList.toggle("gpt-endless", current && !stage.total);
      (track.firstElementChild as HTMLElement).style.width = `${(100 * Math.min(1, part)).toFixed(1)}%`;
      const total = stage.total ? ` / ${count(stage.total)}` : "";
      write(number, stage.done || total ? `${count(stage.done)}${total} ${stage.unit ?? ""}` : "");
    });
  }
}
