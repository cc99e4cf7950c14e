// The panel on the page. Rows are kept and only written to where something has changed, so that half a second later the
// focus, the selection and the folded sections are as they were.

import { element, write } from "../dom";
import { compact, count } from "../format";
import type { Situation } from "./client";
import { DELETE, PAUSE, picture, PLAY, SHOW, STOP, UNLOAD } from "./icons";
import {
  bytes,
  isActive,
  isEmpty,
  endsHigh,
  isResumable,
  lineageOf,
  modelLine,
  progress,
  runLine,
  sparkline,
  statusOf,
  taskOf,
  valueOf,
  type Endpoint,
  type Index,
  type Model,
  type Run,
  type State,
  type Words,
} from "./state";
import "./panel.css";

export type Act = "show" | "stop" | "skip" | "pause" | "unpause" | "resume" | "unload" | "delete";
export type Asked = (act: Act, name: string, kind: string) => void;

const CURVE = [100, 24] as const; // its width and height in its own units

export class View {
  private readonly message = element("p", "jp-gpt-message");
  private readonly first = element("div", "jp-gpt-first");
  private readonly note = element("p", "jp-gpt-note");
  private readonly alert = element("p", "jp-gpt-alert");
  private readonly runs: Section<Run>;
  private readonly resident: Section<Model>;
  private readonly onDisk: Section<Model>;
  private readonly cached: Section<Model>;
  private readonly indexes: Section<Index>;
  private readonly endpoints: Section<Endpoint>;
  private readonly older = element("p", "jp-gpt-older");
  private readonly server = element("p", "jp-gpt-server");
  private readonly memory = element("footer", "jp-gpt-memory");
  private readonly meters: HTMLElement[] = [];

  constructor(
    root: HTMLElement,
    private readonly words: Words,
    asked: Asked,
  ) {
    root.classList.add("jp-gpt-panel");
    this.note.setAttribute("role", "status");
    this.alert.setAttribute("role", "alert");
    const run = () => new RunRow(words, asked);
    const model = () => new ModelRow(words, asked);
    this.runs = new Section(words.__("Runs"), run);
    this.resident = new Section(words.__("Models in memory"), model);
    this.onDisk = new Section(words.__("Models on disk"), model);
    this.cached = new Section(words.__("Pulled models"), model, false);
    this.indexes = new Section(words.__("Indexes"), () => new IndexRow(words, asked));
    this.endpoints = new Section(words.__("Endpoints"), () => new EndpointRow());
    this.runs.node.append(this.older);
    const sections = [this.runs, this.resident, this.onDisk, this.cached, this.indexes, this.endpoints];
    const body = element("div", "jp-gpt-body");
    body.append(this.message, this.first, this.note, this.alert, ...sections.map(({ node }) => node), this.server);
    root.append(body, this.memory);
    this.memory.setAttribute("aria-label", words.__("Memory"));
    this.fail("");
  }

  /** What could not be done, until the next thing is. */
  fail(text: string): void {
    write(this.alert, text);
    this.alert.hidden = !text;
  }

  update(situation: Situation): void {
    const { words } = this;
    const state = situation.is === "state" ? situation.state : null;
    const empty = state !== null && isEmpty(state);
    write(this.message, empty ? words.__("No models or runs yet. Train a model in a cell:") : this.sentence(situation));
    this.message.hidden = !this.message.textContent;
    this.example(empty ? ["%%pretrain storyteller"] : situation.is === "not loaded" ? FIRST : []);
    const late = (situation.is === "state" || situation.is === "asking") && situation.late;
    write(this.note, late ? words.__("The kernel is busy. It answers when the cell has ended.") : "");
    this.note.hidden = !late;
    this.sections(state);
  }

  private sentence(situation: Situation): string {
    const { words } = this;
    switch (situation.is) {
      case "no notebook":
        return words.__("Open a notebook to see its models and runs.");
      case "no kernel":
        return words.__("This notebook has no running kernel.");
      case "starting":
        return words.__("The kernel is starting.");
      case "other language":
        return words.__("This notebook's kernel does not run Python.");
      case "not loaded":
        return words.__("This kernel has not loaded jupyter_gpt. Type in a cell:");
      case "other version":
        return words.__(
          "This kernel runs jupyter_gpt %1, this page another version. Restart the kernel and reload the page.",
          situation.version,
        );
      case "asking":
        return situation.late ? "" : words.__("Asking the kernel …");
      default:
        return "";
    }
  }

  /** What to type first. */
  private example(lines: string[]): void {
    const text = lines.join("\n");
    if (this.first.textContent !== text) this.first.replaceChildren(...(text ? [element("pre", "", text)] : []));
    this.first.hidden = !text;
  }

  private sections(state: State | null): void {
    const { words } = this;
    const models = state?.models ?? [];
    const sum = (sizes: (number | undefined)[]) => {
      const total = sizes.reduce<number>((all, size) => all + (size ?? 0), 0);
      return total ? bytes(total) : "";
    };
    const resident = models.filter((model) => model.resident);
    const onDisk = models.filter((model) => !model.resident && !model.cached);
    const cached = models.filter((model) => !model.resident && model.cached);
    this.runs.update(state, state?.runs ?? [], "");
    this.resident.update(state, resident, sum(resident.map(({ memory }) => memory)));
    this.onDisk.update(state, onDisk, sum(onDisk.map(({ disk }) => disk)));
    this.cached.update(state, cached, sum(cached.map(({ disk }) => disk)));
    this.indexes.update(state, state?.indexes ?? [], sum((state?.indexes ?? []).map(({ disk }) => disk)));
    this.endpoints.update(state, state?.endpoints ?? [], "");
    const more = state?.more_runs ?? 0;
    write(this.older, more ? words._n("and %1 older run", "and %1 older runs", more, count(more)) : "");
    this.older.hidden = !more;
    write(this.server, state?.server ? words.__("Serving at %1", state.server) : "");
    this.server.hidden = !state?.server;
    this.measure(state);
  }

  private measure(state: State | null): void {
    const { words } = this;
    this.memory.hidden = !state;
    if (!state) return;
    const { kernel, machine, gpus } = state.memory;
    const rows: [string, string, number][] = [
      [words.__("Machine"), words.__("%1 of %2", bytes(machine[0]), bytes(machine[1])), machine[0] / machine[1]],
      [words.__("This kernel"), bytes(kernel), kernel / machine[1]],
      ...gpus.map(([name, used, total]): [string, string, number] => [
        name,
        words.__("%1 of %2 by this kernel", bytes(used), bytes(total)),
        used / total,
      ]),
    ];
    while (this.meters.length > rows.length) this.meters.pop()!.remove();
    rows.forEach(([name, text, share], i) => {
      if (!this.meters[i]) {
        const meter = element("div", "jp-gpt-meter");
        const track = element("div", "jp-gpt-track");
        track.append(element("div", "jp-gpt-bar"));
        meter.append(element("span", "jp-gpt-label"), element("span", "jp-gpt-amount"), track);
        this.memory.append(meter);
        this.meters.push(meter);
      }
      const [label, amount, track] = this.meters[i].children as unknown as HTMLElement[];
      write(label, name);
      write(amount, text);
      (track.firstElementChild as HTMLElement).style.width = `${Math.min(100, 100 * share).toFixed(1)}%`;
    });
  }
}

const FIRST = ["%load_ext jupyter_gpt"];

interface Row<T> {
  node: HTMLElement;
  update(item: T, state: State): void;
}

/** A heading with rows, which can be folded; hidden while it has none. */
class Section<T extends { name: string }> {
  readonly node = element("details", "jp-gpt-section");
  private readonly list = element("ul", "jp-gpt-list");
  private readonly note = element("span", "jp-gpt-total");
  private readonly rows = new Map<string, Row<T>>();

  constructor(
    title: string,
    private readonly make: () => Row<T>,
    open = true,
  ) {
    const heading = element("summary", "jp-gpt-heading");
    heading.append(element("span", "jp-gpt-title", title), this.note);
    this.node.open = open;
    this.node.append(heading, this.list);
    this.list.setAttribute("aria-label", title);
  }

  update(state: State | null, items: T[], note: string): void {
    this.node.hidden = !items.length;
    write(this.note, note);
    const names = new Set(items.map(({ name }) => name));
    for (const [name, row] of this.rows) {
      if (names.has(name)) continue;
      row.node.remove();
      this.rows.delete(name);
    }
    items.forEach((item, i) => {
      let row = this.rows.get(item.name);
      if (!row) this.rows.set(item.name, (row = this.make()));
      row.update(item, state!);
      const there = this.list.children[i] ?? null;
      if (there !== row.node) this.list.insertBefore(row.node, there);
    });
  }
}

/** Name, a word beside it, lines below, buttons. */
class Basic {
  readonly node = element("li", "jp-gpt-row");
  protected readonly name = element("span", "jp-gpt-name");
  protected readonly chip = element("span", "jp-gpt-chip");
  protected readonly line = element("span", "jp-gpt-line");
  protected readonly small = element("span", "jp-gpt-small");
  protected readonly problem = element("div", "jp-gpt-problem");
  protected readonly buttons = element("span", "jp-gpt-buttons");
  protected readonly below = element("div", "jp-gpt-below");

  constructor() {
    const head = element("div", "jp-gpt-head");
    head.append(this.name, this.chip);
    this.below.append(this.line, this.small, this.buttons);
    this.node.append(head, this.below, this.problem);
  }

  protected say(name: string, chip: string, line: string, small: string, problem: string): void {
    write(this.name, name);
    this.name.title = name;
    write(this.chip, chip);
    write(this.line, line);
    this.line.title = line;
    write(this.small, small);
    this.small.hidden = !small;
    this.below.classList.toggle("jp-gpt-two", !!small);
    write(this.problem, problem);
    this.problem.hidden = !problem;
  }

  protected button(path: string, clicked: () => void, tone = ""): Button {
    const made = new Button(path, clicked, tone);
    this.buttons.append(made.node);
    return made;
  }
}

class Button {
  readonly node = element("button", "jp-gpt-button");

  constructor(path: string, clicked: () => void, tone: string) {
    this.node.type = "button";
    if (tone) this.node.dataset.tone = tone;
    this.node.append(picture(path));
    // a double click is one, and so is a held key: the button may mean something else by the second
    this.node.addEventListener("click", ({ detail }) => detail < 2 && clicked());
    this.node.addEventListener("keydown", (event) => event.repeat && event.preventDefault());
  }

  /** `label` says what it does, and to what. */
  show(shown: boolean, label: string, disabled = false): void {
    if (this.node.title !== label) {
      this.node.title = label;
      this.node.setAttribute("aria-label", label);
    }
    this.node.hidden = !shown;
    this.node.disabled = disabled;
  }
}

class RunRow extends Basic implements Row<Run> {
  private run!: Run;
  private readonly value = element("span", "jp-gpt-value");
  private readonly path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  private readonly picture = element("div", "jp-gpt-curve");
  private readonly track = element("div", "jp-gpt-track");
  private readonly bar = element("div", "jp-gpt-bar");
  private drawn = "";
  private readonly show: Button;
  private readonly pause: Button;
  private readonly unpause: Button;
  private readonly stop: Button;
  private readonly resume: Button;
  private readonly remove: Button;

  constructor(
    private readonly words: Words,
    asked: Asked,
  ) {
    super();
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 -2 ${CURVE[0]} ${CURVE[1] + 4}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    svg.append(this.path);
    this.picture.append(svg, this.value);
    this.track.append(this.bar);
    this.track.setAttribute("role", "progressbar");
    this.below.before(this.picture, this.track);
    const ask = (act: Act) => () => asked(act, this.run.name, "run");
    this.show = this.button(SHOW, ask("show"));
    this.unpause = this.button(PLAY, ask("unpause"));
    this.pause = this.button(PAUSE, ask("pause"));
    this.resume = this.button(PLAY, ask("resume"));
    // as it is seen: of a run that stops it skips the evaluation
    this.stop = this.button(STOP, () => ask(this.run.status === "stopping" ? "skip" : "stop")());
    this.remove = this.button(DELETE, ask("delete"), "danger");
  }

  update(run: Run, state: State): void {
    const { words } = this;
    const { name } = run;
    this.run = run;
    const active = isActive(run);
    const task = taskOf(state, "run", name);
    const pending = task !== undefined && !task.error;
    const chip = pending ? words.__("deleting …") : statusOf(run, words);
    const kind = active && !run.here ? words.__("%1, by another kernel", run.kind) : run.kind;
    this.say(name, chip, run.error ? "" : runLine(run, words), kind, task?.error ?? run.error ?? run.failure ?? "");
    this.chip.dataset.status = run.error ? "failed" : run.diverged ? "diverged" : run.status;
    const drawn = sparkline(run.curve, ...CURVE);
    if (drawn !== this.drawn) this.path.setAttribute("d", (this.drawn = drawn));
    this.picture.hidden = !drawn;
    this.picture.dataset.end = endsHigh(run.curve) ? "high" : "low"; // where the value leaves the line alone
    write(this.value, valueOf(run));
    const done = progress(run);
    this.track.hidden = !active;
    this.track.setAttribute("aria-label", words.__("Steps of %1", name));
    this.track.classList.toggle("jp-gpt-endless", done === null || !run.step);
    this.track.setAttribute("aria-valuenow", String(Math.round(100 * (done ?? 0))));
    this.bar.style.width = `${(100 * (done ?? 0)).toFixed(1)}%`;
    const ours = active && run.here;
    const over = !active && !pending;
    this.show.show(!run.error, words.__("Show %1", name), pending);
    this.pause.show(ours && run.status === "running", words.__("Pause %1", name));
    this.unpause.show(ours && run.status === "paused", words.__("Continue %1", name));
    const stopping = run.status === "stopping";
    this.stop.show(ours, stopping ? words.__("Skip the last evaluation of %1", name) : words.__("Stop %1", name));
    this.resume.show(over && isResumable(run), words.__("Resume %1 in a new cell", name));
    this.remove.show(over, words.__("Delete run %1", name));
  }
}

class ModelRow extends Basic implements Row<Model> {
  private model!: Model;
  private readonly unload: Button;
  private readonly remove: Button;

  constructor(
    private readonly words: Words,
    asked: Asked,
  ) {
    super();
    this.unload = this.button(UNLOAD, () => asked("unload", this.model.name, "model"));
    this.remove = this.button(DELETE, () => asked("delete", this.model.name, "model"), "danger");
  }

  update(model: Model, state: State): void {
    const { words } = this;
    const { name } = model;
    this.model = model;
    const task = taskOf(state, "model", name);
    const pending = task !== undefined && !task.error;
    const doing = task?.type === "unload" ? words.__("unloading …") : words.__("deleting …");
    const size = model.error ? words.__("damaged") : bytes(model.resident ? (model.memory ?? 0) : model.disk);
    const line = model.error ? "" : modelLine(model, words);
    this.say(name, pending ? doing : size, line, lineageOf(model), task?.error ?? model.error ?? "");
    if (model.error) this.chip.dataset.status = "failed";
    else delete this.chip.dataset.status;
    this.unload.show(model.resident, words.__("Take %1 out of memory", name), pending);
    this.remove.show(true, words.__("Delete model %1", name), pending);
  }
}

class IndexRow extends Basic implements Row<Index> {
  private index!: Index;
  private readonly remove: Button;

  constructor(
    private readonly words: Words,
    asked: Asked,
  ) {
    super();
    this.remove = this.button(DELETE, () => asked("delete", this.index.name, "index"), "danger");
  }

  update(index: Index, state: State): void {
    const { words } = this;
    this.index = index;
    const task = taskOf(state, "index", index.name);
    const pending = task !== undefined && !task.error;
    const documents = words._n("%1 document", "%1 documents", index.documents, compact(index.documents));
    const chunks = words._n("%1 chunk", "%1 chunks", index.chunks, compact(index.chunks));
    const line = index.error ? "" : [documents, chunks, index.embedder].join(" · ");
    const chip = pending ? words.__("deleting …") : index.error ? words.__("damaged") : bytes(index.disk);
    this.say(index.name, chip, line, "", task?.error ?? index.error ?? "");
    this.remove.show(true, words.__("Delete index %1", index.name), pending);
  }
}

class EndpointRow extends Basic implements Row<Endpoint> {
  update({ name, model, url, error }: Endpoint): void {
    this.say(name, "", error ? "" : model, error ? "" : url, error ?? "");
  }
}
