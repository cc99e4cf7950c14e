// The anywidget of a technique at work (jupyter_gpt/notebook/views/trace_live.py has the protocol): the tree of all that was
// asked, growing. Folds are native <details>, so that what a person opened stays open while the rest grows.

import { element, toggle, write } from "./dom";
import { Frame } from "./frame";
import { Search } from "./search";
import { widget, type Link } from "./widget";
import "./trace.css";

interface Fields {
  kind: string;
  label: string;
  facts: string[];
  text: string;
  prompt: string;
  result: string;
  note: string;
  pruned: boolean;
}

interface Update {
  type: "nodes";
  whole: boolean; // all that there is
  nodes: Record<string, Partial<Fields>>;
  gone: string[];
}

const SHORT = 100; // characters of what was said, on a folded line

/** One node: its line, and behind the fold what was said, the exact prompt, and its children. */
class Row {
  readonly fold = element("details", "gpt-node");
  readonly children = element("div", "gpt-children");
  private readonly head = element("summary", "gpt-line");
  private readonly name = element("b");
  private readonly facts = element("span", "gpt-facts");
  private readonly glance = element("span", "gpt-glance");
  private readonly note = element("p", "gpt-note");
  private readonly text = element("pre", "gpt-exact");
  private readonly result = element("pre", "gpt-exact");
  private readonly prompt = element("pre", "gpt-exact");
  private readonly sent = element("details", "gpt-sent");
  private readonly fields: Fields = {
    kind: "", label: "", facts: [], text: "", prompt: "", result: "", note: "", pruned: false,
  };

  constructor() {
    this.head.append(this.name, this.facts, this.glance);
    this.sent.append(element("summary", "gpt-facts", "exact prompt"), this.prompt);
    this.fold.append(this.head, this.note, this.text, this.result, this.sent, this.children);
  }

  take(changed: Partial<Fields>): void {
    const now = Object.assign(this.fields, changed);
    write(this.name, now.label || now.kind);
    if (changed.facts) this.facts.replaceChildren(...now.facts.flatMap((fact) => [" · ", tagged(fact)]));
    const line = now.text.replace(/\s+/g, " ").trim();
    write(this.glance, line.length > SHORT ? `${line.slice(0, SHORT)}…` : line);
    for (const part of ["note", "text", "result", "prompt"] as const) {
      write(this[part], now[part]);
      this[part].hidden = !now[part];
    }
    this.sent.hidden = !now.prompt;
    this.fold.dataset.kind = now.kind;
    this.fold.classList.toggle("gpt-pruned", now.pruned);
  }
}

/** What a node says about itself; what decided its fate stands out. */
function tagged(fact: string): HTMLElement {
  const tag = /^score |votes?$/.test(fact) ? "gpt-tag" : fact === "pruned" ? "gpt-tag gpt-cut" : "";
  return element("span", tag, fact);
}

class Tree {
  private readonly panel: Frame;
  private readonly top = element("div", "gpt-tree");
  private readonly search = new Search(this.top);
  private readonly rows = new Map<string, Row>();
  private asked = Date.now(); // for everything

  constructor(el: HTMLElement, private readonly link: Link) {
    this.panel = new Frame(el, "gpt-trace", "Trace of a technique");
    const { root, actions } = this.panel;
    const folds = [toggle("unfold", () => this.foldAll(true)), toggle("fold", () => this.foldAll(false))];
    actions.append(this.search.found, this.search.field, ...folds);
    root.append(this.top);
    this.draw();
  }

  destroy(): void {
    this.search.destroy();
    this.panel.destroy();
  }

  draw(): void {
    const { title, line } = this.link.state<{ title: string; line: string }>();
    write(this.panel.name, title);
    write(this.panel.about, this.link.gone ? "The kernel is gone: run the cell again." : line);
  }

  take(update: Update): void {
    if (!update.whole && !this.rows.size) return this.ask(); // nodes without their parents
    const gone = update.whole ? [...this.rows.keys()].filter((path) => !(path in update.nodes)) : update.gone;
    for (const path of gone) {
      this.rows.get(path)?.fold.remove();
      this.rows.delete(path);
    }
    for (const [path, fields] of Object.entries(update.nodes)) this.row(path).take(fields);
    if (this.search.field.value) this.search.run();
    if (update.whole) this.link.send({ type: "heard" });
  }

  private ask(): void {
    if (Date.now() - this.asked < 500) return;
    this.asked = Date.now();
    this.link.send({ type: "ready" });
  }

  /** The row of a path such as "0.2.1"; parents come before their children. */
  private row(path: string): Row {
    const known = this.rows.get(path);
    if (known) return known;
    const made = new Row();
    const parent = this.rows.get(path.slice(0, Math.max(0, path.lastIndexOf("."))));
    made.fold.open = path.split(".").length <= 2;
    (parent?.children ?? this.top).append(made.fold);
    this.rows.set(path, made);
    return made;
  }

  private foldAll(open: boolean): void {
    for (const [path, row] of this.rows) row.fold.open = open || !path.includes(".");
  }
}

export default widget((el, link) => new Tree(el, link));
