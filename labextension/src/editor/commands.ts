// What the kernels say of their magics: each is asked once for each magic that its notebook uses.

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { INotebookTracker } from "@jupyterlab/notebook";
import { Signal } from "@lumino/signaling";
import type { Client } from "../panel/client";
import type { Command } from "./check";

const PAUSE = 100; // milliseconds
const TRIES = 20;
const ENTER = "jupyter-gpt:complete-or-end-line";
export const MAGICS = "jp-gpt-magics"; // the class of an editor while its cursor is in a line of ours

class Commands {
  /** Something is known that was not. */
  readonly changed = new Signal<this, void>(this);
  private app: JupyterFrontEnd | null = null;
  private tracker: INotebookTracker | null = null;
  private client: Client | null = null;
  private readonly known = new Map<string, Command | string>(); // by the kernel's id and the name
  private readonly asked = new Set<string>(); // the same
  private readonly loaded = new Set<string>(); // kernels that have the package
  private ready: string | null = null; // that in front, while it has the package
  private timer = 0;

  /** Asks the kernels that `client` follows, from now on. */
  begin(app: JupyterFrontEnd, tracker: INotebookTracker, client: Client): void {
    Object.assign(this, { app, tracker, client });
    app.commands.addCommand(ENTER, { execute: () => void this.enter() });
    app.commands.addKeyBinding({
      command: ENTER,
      keys: ["Enter"],
      selector: `.jp-Notebook .jp-mod-completer-active .${MAGICS}`,
    });
    client.changed.connect(() => {
      const kernel = tracker.currentWidget?.sessionContext.session?.kernel?.id ?? null;
      const { is } = client.situation;
      if (kernel && (is === "starting" || is === "not loaded")) this.forget(kernel);
      const ready = is === "state" ? kernel : null;
      if (ready === this.ready) return;
      this.ready = ready;
      if (ready) this.loaded.add(ready);
      this.changed.emit();
    });
  }

  /** Asks the kernel anew, which may come back with another version of the package; until then the old one holds. */
  private forget(kernel: string): void {
    this.loaded.delete(kernel);
    for (const key of this.asked) if (key.startsWith(kernel)) this.asked.delete(key);
  }

  /** The magic of this name, for an editor; a text that says why there is none; null where nothing is known. */
  find(editor: HTMLElement, name: string): Command | string | null {
    const kernel = this.kernelOf(editor)?.id;
    if (!kernel) return null;
    const key = `${kernel} ${name}`;
    if (kernel === this.ready && !this.asked.has(key)) {
      this.asked.add(key);
      void this.client!.describe(name).then(
        ({ command, error }) => {
          if (command) this.known.set(key, command);
          else if (error?.startsWith("%gpt")) this.known.set(key, error); // and not of a package without this request
          this.changed.emit();
        },
        () => this.asked.delete(key),
      );
    }
    return this.known.get(key) ?? null;
  }

  /** Opens the completer once the typing pauses; not while a cell runs, as the kernel would answer after it. */
  complete(editor: HTMLElement, isThere: () => boolean, tries = TRIES): void {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      const kernel = this.kernelOf(editor);
      if (!isThere() || !kernel || !this.loaded.has(kernel.id)) return;
      if (kernel.status === "idle") void this.app?.commands.execute("completer:invoke-notebook");
      else if (tries > 1) this.complete(editor, isThere, tries - 1);
    }, PAUSE);
  }

  /** Enter while the completer is open. A word that is whole already needs no completion: then it ends the line too. */
  private async enter(): Promise<void> {
    const editor = this.tracker?.activeCell?.editor;
    const chosen = document.querySelector<HTMLElement>(".jp-Completer-item.jp-mod-active")?.dataset.value;
    const { line, column } = editor!.getCursorPosition();
    const whole = chosen !== undefined && editor!.getLine(line)!.slice(0, column).endsWith(chosen);
    await this.app!.commands.execute("completer:select-notebook");
    if (whole) editor!.replaceSelection?.("\n");
  }

  private kernelOf(editor: HTMLElement) {
    return this.tracker?.find(({ node }) => node.contains(editor))?.sessionContext.session?.kernel;
  }
}

export const commands = new Commands();
