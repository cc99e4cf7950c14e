// What the anywidgets share. A widget is drawn over the snapshot that its cell is saved with: the snapshot's HTML holds a
// mark (jupyter_gpt/notebook/views/widget.py), and while the kernel lives the view stands in the place of that output.

import type { AnyModel } from "@anywidget/types";

/** What a view knows of the kernel. */
export interface Link {
  state<State>(): State;
  send(message: Record<string, unknown>): void;
  /** Whether the kernel that made the widget is gone: nobody hears what is sent. */
  gone: boolean;
}

export interface View {
  draw(): void;
  take?(message: any, buffers: DataView[]): void;
  destroy(): void;
}

const PAGE = Math.random().toString(36).slice(2); // another after a reload

/**
 * An anywidget of views that `make` draws into an element. They are drawn anew after each change of the state, and given
 * each message, which `receive` has seen before, once for all of them.
 */
export const widget = (
  make: (el: HTMLElement, link: Link) => View,
  receive: (message: any, buffers: DataView[], link: Link) => void = () => {},
) => () => {
  const views = new Set<View>();
  let link: Link;
  let held = false; // whether this page has shown the output
  const show = (el: HTMLElement) => {
    const view = make(el, link);
    held = true;
    views.add(view);
    link.send({ type: "ready" });
    return () => {
      views.delete(view);
      view.destroy();
    };
  };
  const draw = () => views.forEach((view) => view.draw());
  return {
    initialize({ model }: { model: AnyModel }) {
      const name = model.get("mark") as string;
      const manager = model.widget_manager as any;
      link = {
        state: <State>() => model.get("state") as State,
        send: (message) => link.gone || model.send({ ...message, page: PAGE }),
        gone: false,
      };
      model.on("change:state", draw);
      model.on("msg:custom", (message: any, buffers: DataView[]) => {
        if (message.type === "output") {
          const kept = keep(manager.context?.model?.cells ?? [], name, message.data, message.metadata);
          if (message.last && (kept || held)) link.send({ type: "kept" }); // else it is that of another notebook
          return;
        }
        receive(message, buffers, link);
        views.forEach((view) => view.take?.(message, buffers));
      });
      model.on("comm_live_update", async () => {
        link.gone = !(await manager.get_model(name)).comm_live;
        draw();
      });
      return overMarks(`.gpt-${name}`, show);
    },
    render: ({ el }: { el: HTMLElement }) => show(el),
  };
};

/** Shows a view over each output of the page that holds the mark, for as long as it does. Returns how to end that. */
function overMarks(mark: string, show: (el: HTMLElement) => () => void): () => void {
  const shown = new Map<Element, () => void>();
  let timer = 0;
  const look = () => {
    timer = 0;
    for (const [output, hide] of shown) if (output.isConnected && !output.querySelector(mark)) hide();
    for (const found of document.querySelectorAll(mark)) {
      const output = found.closest(".jp-OutputArea-child");
      if (!output || shown.has(output)) continue;
      const el = document.createElement("div");
      el.className = "jp-OutputArea-output gpt-over";
      output.append(el); // beside what JupyterLab draws anew with each snapshot
      const way = found.classList.contains("gpt-beside") ? "gpt-shown" : "gpt-under";
      output.classList.add(way);
      const end = show(el);
      shown.set(output, () => {
        shown.delete(output);
        end();
        el.remove();
        output.classList.remove(way);
      });
    }
  };
  const observer = new MutationObserver(() => (timer ||= window.setTimeout(look, 20)));
  observer.observe(document.body, { childList: true, subtree: true });
  look();
  return () => {
    observer.disconnect();
    clearTimeout(timer);
    shown.forEach((hide) => hide());
  };
}

/** Puts an output in the place of the snapshot with that mark in the notebook: a page that was loaded since the cell was
 *  run does not know which output the kernel renews. Returns whether there is one. */
function keep(cells: Iterable<any>, mark: string, data: object, metadata: object): boolean {
  let found = false;
  for (const { outputs } of cells) {
    for (let i = 0; i < (outputs?.length ?? 0); i++) {
      const html = outputs.get(i).data["text/html"];
      if (!String(html).includes(mark)) continue;
      outputs.set(i, { output_type: "display_data", data, metadata });
      found = true;
    }
  }
  return found;
}
