// The anywidget: receives a run's deltas (jupyter_gpt/notebook/views/live.py says how), shows them in a card.

import type { AnyModel } from "@anywidget/types";
import { Card } from "./card";
import type { Declared } from "./layout";
import { Series } from "./series";
import "./run.css";

interface State {
  runs: { name: string; kind: string; status: string; steps: number | null; metrics: Declared[] }[];
}

interface Update {
  type: "update";
  run: number;
  from: number;
  to: number;
  columns: string[];
  rows: number;
  events: Record<string, unknown>[];
  now: Series["now"];
}

/** What the kernel has told about the runs; one for all views of a widget. */
class Feed {
  readonly runs: Series[] = [];
  private cursors: number[] = [];
  private asked = 0;
  private readonly page = Math.random().toString(36).slice(2); // another after a reload
  private readonly listeners = new Set<() => void>();

  constructor(private readonly model: AnyModel) {
    this.readState();
    model.on("change:state", () => {
      this.readState();
      this.tell();
    });
    model.on("msg:custom", (message: Update, buffers: DataView[]) => {
      if (message.type === "update") this.receive(message, buffers);
    });
    this.ask();
  }

  send(type: string): void {
    this.model.send({ type, page: this.page });
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }

  private readState(): void {
    const state = this.model.get("state") as State;
    state.runs.forEach((run, i) => {
      this.runs[i] ??= new Series();
      this.cursors[i] ??= -1;
      Object.assign(this.runs[i], run);
    });
  }

  private ask(): void {
    if (Date.now() - this.asked < 500) return;
    this.asked = Date.now();
    this.send("ready");
  }

  private receive(message: Update, buffers: DataView[]): void {
    const run = this.runs[message.run];
    if (message.from === 0) {
      run.clear();
      this.send("heard");
    } else if (message.from !== this.cursors[message.run]) return this.ask();
    this.cursors[message.run] = message.to;
    message.columns.forEach((name, i) => run.append(name, floats(buffers[i])));
    for (const event of message.events) run.event(event);
    if (message.now) run.now = message.now;
    this.tell();
  }
}

function floats(view: DataView): Float32Array {
  // copied, because a message's buffers need not start on a multiple of four
  return new Float32Array(
    view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer,
  );
}

export default () => {
  let feed: Feed;
  return {
    initialize({ model }: { model: AnyModel }) {
      feed = new Feed(model);
    },
    render({ el }: { el: HTMLElement }) {
      const card = new Card(el, feed.runs, (type) => feed.send(type));
      const silence = feed.listen(() => card.update());
      return () => {
        silence();
        card.destroy();
      };
    },
  };
};
