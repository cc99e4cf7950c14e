// The anywidget: receives a run's deltas (jupyter_gpt/notebook/views/live.py says how), shows them in a card.

import { Card } from "./card";
import type { Declared } from "./layout";
import { Series } from "./series";
import { widget, type Link } from "./widget";

interface State {
  runs: { name: string; kind: string; status: string; steps: number | null; metrics: Declared[] }[];
}

interface Update {
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

  read(link: Link): void {
    link.state<State>().runs.forEach((run, i) => Object.assign((this.runs[i] ??= new Series()), run));
  }

  receive(message: Update, buffers: DataView[], link: Link): void {
    this.read(link);
    const run = this.runs[message.run];
    if (message.from === 0) {
      run.clear();
      link.send({ type: "heard" });
    } else if (message.from !== this.cursors[message.run]) {
      if (Date.now() - this.asked < 500) return;
      this.asked = Date.now();
      return link.send({ type: "ready" });
    }
    this.cursors[message.run] = message.to;
    message.columns.forEach((name, i) => run.append(name, floats(buffers[i])));
    for (const event of message.events) run.event(event);
    if (message.now) run.now = message.now;
  }
}

function floats(view: DataView): Float32Array {
  // copied, because a message's buffers need not start on a multiple of four
  return new Float32Array(
    view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer,
  );
}

export default () => {
  const feed = new Feed();
  const view = (el: HTMLElement, link: Link) => {
    feed.read(link);
    const card = new Card(el, feed.runs, link);
    return {
      draw: () => (feed.read(link), card.update()),
      take: () => card.update(),
      destroy: () => card.destroy(),
    };
  };
  return widget(view, (message, buffers, link) => feed.receive(message, buffers, link))();
};
