import { NotebookActions, type Notebook } from "@jupyterlab/notebook";

/** A new code cell below the active one; the cursor goes to its end where a person is to `edit` it. */
export async function insertCell(notebook: Notebook, source: string, edit = false): Promise<void> {
  NotebookActions.insertBelow(notebook);
  if (notebook.activeCell!.model.type !== "code") NotebookActions.changeCellType(notebook, "code");
  const cell = notebook.activeCell!;
  cell.model.sharedModel.setSource(source);
  await cell.ready;
  if (!edit || cell !== notebook.activeCell || !cell.editor) return;
  notebook.mode = "edit";
  cell.editor.setCursorPosition(cell.editor.getPositionAt(source.length)!);
}
