// The panel at work: the kernel of the notebook in front, the panel, the status bar, and what a click does.

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { Dialog, MainAreaWidget, Notification, showDialog } from "@jupyterlab/apputils";
import type { INotebookTracker } from "@jupyterlab/notebook";
import type { IStatusBar } from "@jupyterlab/statusbar";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { element, write } from "../dom";
import { commands } from "../editor/commands";
import { Client } from "./client";
import type { Place } from "./index";
import { runCell } from "./insert";
import { ended, statusLine, statusOf, valueOf, type Run, type State, type Words } from "./state";
import type { Started } from "./token";
import { View, type Act } from "./view";

interface Around {
  app: JupyterFrontEnd;
  tracker: INotebookTracker;
  statusBar: IStatusBar | null;
  words: Words;
  place: Place;
  /** The command that opens the panel. */
  open: string;
}

export function start({ app, tracker, statusBar, words, place, open }: Around): Started {
  const client = new Client();
  commands.begin(app, tracker, client);
  const view = new View(place.node, words, (act, name, kind) => {
    view.fail("");
    void perform(act, name, kind).catch((reason: Error) => view.fail(reason.message));
  });
  const status = new Status(words, () => void app.commands.execute(open));
  statusBar?.registerStatusItem("jupyter-gpt:run", {
    item: status,
    align: "left",
    rank: 90,
    isActive: () => status.active,
    activeStateChanged: status.changed,
  });

  let before: { state: State | null; path: string } = { state: null, path: "" };
  client.changed.connect(() => {
    const path = tracker.currentWidget?.context.path ?? "";
    const { state } = client;
    if (state) {
      if (path === before.path) for (const run of ended(before.state, state)) tell(run);
      before = { state, path };
    }
    view.update(client.situation);
    status.tell(state);
  });
  const follow = () => client.follow(tracker.currentWidget?.sessionContext ?? null);
  tracker.currentChanged.connect(follow);
  place.seen = (visible) => (client.visible = visible);
  client.visible = place.isVisible;
  // another kernel may have begun to train since somebody last looked
  for (const [target, event] of [[window, "focus"], [document, "visibilitychange"]] as const)
    target.addEventListener(event, () => (client.visible = place.isVisible && !document.hidden));
  follow();
  view.update(client.situation);
  return { client, perform };

  async function perform(act: Act, name: string, kind: string): Promise<void> {
    if (act === "resume") return resume(name);
    if (act === "delete" && !(await agreed(name, kind))) return;
    const answer = await client.act(act, name, kind);
    if (act === "show") await showReport(name, answer.data!, answer.metadata ?? {});
  }

  /** Whether the person agrees that it is deleted. */
  async function agreed(name: string, kind: string): Promise<boolean> {
    const what: Record<string, [string, string]> = {
      run: [
        words.__("Delete the run %1?", name),
        words.__("Its recipe, curves, samples and checkpoints are deleted. The model that it trained stays."),
      ],
      model: [
        words.__("Delete the model %1?", name),
        words.__("Its files are deleted, and its memory is freed. A run of the same name stays."),
      ],
      index: [words.__("Delete the index %1?", name), words.__("The documents that it was made from stay.")],
    };
    const [title, body] = what[kind];
    const { button } = await showDialog({
      title,
      body: `${body} ${words.__("This cannot be undone.")}`,
      buttons: [
        Dialog.cancelButton({ label: words.__("Cancel") }),
        Dialog.warnButton({ label: words.__("Delete") }),
      ],
      defaultButton: 0,
    });
    return button.accept;
  }

  /** Runs `%gpt resume NAME` in a new cell, whose output shows the run. */
  async function resume(name: string): Promise<void> {
    const panel = tracker.currentWidget;
    if (!panel) return;
    const { content, sessionContext } = panel;
    app.shell.activateById(panel.id);
    await runCell(content, `%gpt resume ${name}`, sessionContext);
  }

  /** A report in a tab of its own, drawn as the notebook would draw it. */
  async function showReport(name: string, data: object, metadata: object): Promise<void> {
    const panel = tracker.currentWidget;
    if (!panel) return;
    const { rendermime } = panel.content;
    const model = rendermime.createModel({ data: data as never, metadata: metadata as never, trusted: true });
    const type = rendermime.preferredMimeType(model.data, "any");
    if (!type) return;
    const renderer = rendermime.createRenderer(type);
    await renderer.renderModel(model);
    renderer.addClass("jp-OutputArea-output"); // tables on the left, as below a cell
    const content = new Widget();
    content.addClass("jp-gpt-report");
    const tab = new MainAreaWidget({ content });
    tab.toolbar.hide();
    tab.title.label = name;
    tab.title.icon = place.title.icon;
    tab.title.caption = words.__("The report of run %1", name);
    reports.get(name)?.dispose();
    reports.set(name, tab);
    tab.disposed.connect(() => {
      renderer.dispose();
      if (reports.get(name) === tab) reports.delete(name);
    });
    app.shell.add(tab, "main", { mode: "tab-after" });
    Widget.attach(renderer, content.node);
    app.shell.activateById(tab.id);
  }

  function tell(run: Run): void {
    const types: Record<string, Notification.TypeOptions> = { finished: "success", failed: "error", stopped: "info" };
    const type = run.diverged ? "warning" : (types[run.status] ?? "warning");
    const result = run.failure ?? valueOf(run);
    const message = [words.__("%1 is %2", run.name, statusOf(run, words)), result].filter(Boolean).join(": ");
    const show = { label: words.__("Show"), callback: () => void perform("show", run.name, "run") };
    Notification.emit(message, type, { autoClose: 8000, actions: [show] });
    if (document.hidden && "Notification" in window && window.Notification.permission === "granted") {
      new window.Notification(message, { tag: `jupyter-gpt-${run.name}` }); // one a run, of however many pages
    }
  }
}

const reports = new Map<string, MainAreaWidget>();

/** The item of the status bar: the run that trains. */
class Status extends Widget {
  active = false;
  readonly changed = new Signal<this, void>(this);
  private readonly button = element("button", "jp-gpt-status");

  constructor(
    private readonly words: Words,
    clicked: () => void,
  ) {
    super();
    this.button.type = "button";
    this.button.title = words.__("Open the GPT panel");
    this.button.addEventListener("click", clicked);
    this.node.append(this.button);
  }

  tell(state: State | null): void {
    const line = statusLine(state, this.words);
    write(this.button, line);
    if (this.active === (line !== "")) return;
    this.active = line !== "";
    this.changed.emit();
  }
}
