// What the commands do.

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { InputDialog } from "@jupyterlab/apputils";
import { PageConfig, URLExt } from "@jupyterlab/coreutils";
import type { IDefaultFileBrowser } from "@jupyterlab/filebrowser";
import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";
import { ServerConnection, type Contents } from "@jupyterlab/services";
import { insertCell } from "../panel/insert";
import { statusOf, type State, type Words } from "../panel/state";
import type { IGPTPanel } from "../panel/token";
import { CELLS, notebookOf, promptable, promptCell, pythonKernel } from "./cells";

export interface Around {
  app: JupyterFrontEnd;
  tracker: INotebookTracker | null;
  panel: IGPTPanel | null;
  browser: IDefaultFileBrowser | null;
  words: Words;
}

/** A new notebook in the folder that is shown. */
export async function newNotebook(around: Around, cwd = folderOf(around)): Promise<unknown> {
  const { contents, kernelspecs } = around.app.serviceManager;
  await kernelspecs.ready;
  const content = notebookOf(CELLS, pythonKernel(kernelspecs.specs));
  const { path } = await contents.newUntitled({ path: cwd, type: "notebook" });
  await contents.save(path, { type: "notebook", format: "json", content });
  return around.app.commands.execute("docmanager:open", { path });
}

/**
 * A notebook of the package: the user's own in notebooks/ or here, else a copy made here, as `python -m jupyter_gpt` has
 * it. The extension's folder holds them too, so that no kernel is needed.
 */
export async function openExample(around: Around, name: string): Promise<unknown> {
  const cwd = folderOf(around);
  const { contents } = around.app.serviceManager;
  const file = `${name}.ipynb`;
  const here = cwd ? `${cwd}/${file}` : file;
  let path = cwd ? `${cwd}/notebooks/${file}` : `notebooks/${file}`;
  if (!(await exists(contents, path))) {
    path = here;
    if (!(await exists(contents, path))) {
      await contents.save(path, { type: "notebook", format: "json", content: await example(file) });
    }
  }
  return around.app.commands.execute("docmanager:open", { path });
}

async function example(file: string): Promise<object> {
  const answer = await fetch(URLExt.join(PageConfig.getOption("fullLabextensionsUrl"), "jupyter-gpt/notebooks", file));
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status} ${answer.statusText}`);
  return (await answer.json()) as object;
}

async function exists(contents: Contents.IManager, path: string): Promise<boolean> {
  try {
    await contents.get(path, { content: false });
    return true;
  } catch (error) {
    if (error instanceof ServerConnection.ResponseError && error.response.status === 404) return false;
    throw error;
  }
}

/** The folder of the file browser; on a page that has none, of the notebook. */
function folderOf({ browser, tracker }: Around): string {
  const path = tracker?.currentWidget?.context.path ?? "";
  return browser?.model.path ?? path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

/** A `%%prompt` cell below the active one, with what is selected in the notebook. */
export async function promptWithSelection(around: Around): Promise<void> {
  const { tracker, words } = around;
  const panel = tracker?.currentWidget;
  if (!panel) return;
  const text = selectionIn(panel);
  const { content } = panel;
  let after = content.activeCell; // another may be active once the kernel has answered
  const state = await stateOf(around);
  const names = state ? promptable(state) : [];
  const model = await choose(words.__("Prompt with Selection"), words.__("Model:"), names);
  if (model === null) return;
  if (!state) after = await insertCell(content, "%load_ext jupyter_gpt", after);
  await insertCell(content, promptCell(text, model), after, true);
}

/** The selected text of an output or a rendered cell, else of the active cell's editor. */
function selectionIn(panel: NotebookPanel): string {
  const selection = window.getSelection();
  const at = selection?.anchorNode;
  const inText = at && panel.content.node.contains(at) && !at.parentElement?.closest(".cm-editor");
  if (inText && !selection.isCollapsed) return selection.toString();
  const { activeCell } = panel.content;
  const editor = activeCell?.editor;
  if (!editor) return "";
  const { start, end } = editor.getSelection();
  const [from, to] = [editor.getOffsetAt(start), editor.getOffsetAt(end)].sort((a, b) => a - b);
  return activeCell.model.sharedModel.getSource().slice(from, to);
}

/** The report of a run of the notebook's folder. Where there is none, the panel says why. */
export async function showRun(around: Around): Promise<void> {
  const { panel, words } = around;
  const state = await stateOf(around);
  const runs = state?.runs.filter((run) => !run.error) ?? [];
  if (!panel || !runs.length) return panel?.open();
  const lines = runs.map((run) => `${run.name} · ${run.kind} · ${statusOf(run, words)}`);
  const line = await choose(words.__("Show Run"), words.__("Run:"), lines);
  if (line) await (await panel.begin()).perform("show", runs[lines.indexOf(line)].name, "run");
}

/** One of several: null where the person wants none, the only one without a question, "" where there is none. */
async function choose(title: string, label: string, items: string[]): Promise<string | null> {
  if (items.length < 2) return items[0] ?? "";
  const { button, value } = await InputDialog.getItem({ title, label, items });
  return button.accept ? value : null;
}

/** What the notebook's kernel has told; null where it has not loaded the package, or does not answer. */
async function stateOf({ panel }: Around): Promise<State | null> {
  const { client } = await panel!.begin();
  return client.settled();
}
