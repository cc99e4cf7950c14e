import type { ISessionContext } from "@jupyterlab/apputils";
import type { Cell } from "@jupyterlab/cells";
import { NotebookActions, type Notebook } from "@jupyterlab/notebook";

/**
 * A new code cell below a cell, or below the active one where that is gone. The cursor goes to its end where a person is
 * to `edit` it.
 */
export async function insertCell(notebook: Notebook, source: string, after: Cell | null, edit = false): Promise<Cell> {
  const place = after ? notebook.widgets.indexOf(after) : -1;
  if (place >= 0) notebook.activeCellIndex = place;
  NotebookActions.insertBelow(notebook);
  if (notebook.activeCell!.model.type !== "code") NotebookActions.changeCellType(notebook, "code");
  const cell = notebook.activeCell!;
  cell.model.sharedModel.setSource(source);
  await cell.ready;
  if (!edit || cell !== notebook.activeCell || !cell.editor) return cell;
  notebook.mode = "edit";
  cell.editor.setCursorPosition(cell.editor.getPositionAt(source.length)!);
  return cell;
}

/** Runs a new cell below the active one, also where another one has become active meanwhile. */
export async function runCell(notebook: Notebook, source: string, context: ISessionContext): Promise<void> {
  const cell = await insertCell(notebook, source, notebook.activeCell);
  await NotebookActions.runCells(notebook, [cell], context);
}
