import { describe, expect, it, vi } from "vitest";
import { insertCell, runCell } from "../src/panel/insert";

interface Cell {
  source: string;
  ready: Promise<void>;
  shown(): void;
  editor: { at: number | null };
}

/** A cell whose editor is there once it is `shown`. */
function cell(source: string): Cell {
  let shown = () => {};
  const ready = new Promise<void>((resolve) => (shown = resolve));
  const editor = { at: null, getPositionAt: (at: number) => at, setCursorPosition: (at: number) => (made.editor.at = at) };
  const model = { type: "code", sharedModel: { setSource: (text: string) => (made.source = text) } };
  const made: Cell = Object.assign({ source, ready, shown, editor, model });
  return made;
}

/** As much of a notebook as is used: its cells, and which is active. */
class Notebook {
  mode = "command";
  ran: string[] = [];
  activeCellIndex = 0;

  constructor(readonly widgets: Cell[]) {}

  get activeCell(): Cell {
    return this.widgets[this.activeCellIndex];
  }

  get sources(): string[] {
    return this.widgets.map(({ source }) => source);
  }
}

vi.mock("@jupyterlab/notebook", () => ({
  NotebookActions: {
    insertBelow: (notebook: Notebook) => notebook.widgets.splice(++notebook.activeCellIndex, 0, cell("")),
    run: (notebook: Notebook) => notebook.ran.push(notebook.activeCell.source),
    runCells: (notebook: Notebook, cells: Cell[]) => notebook.ran.push(...cells.map(({ source }) => source)),
  },
}));

describe("a new cell", () => {
  it("stands below the cell that it was asked for from", async () => {
    const notebook = new Notebook(["a", "b", "c"].map(cell));
    const after = notebook.activeCell;
    notebook.activeCellIndex = 2; // while the kernel was asked
    const inserted = insertCell(notebook as never, "%%prompt", after as never, true);
    notebook.activeCell.shown();
    await inserted;
    expect(notebook.sources).toEqual(["a", "%%prompt", "b", "c"]);
    expect([notebook.activeCellIndex, notebook.mode, notebook.activeCell.editor.at]).toEqual([1, "edit", 8]);
  });

  it("stands below the active cell where the other one is gone", async () => {
    const notebook = new Notebook(["a", "b"].map(cell));
    const inserted = insertCell(notebook as never, "%%prompt", cell("gone") as never);
    notebook.activeCell.shown();
    await inserted;
    expect(notebook.sources).toEqual(["a", "%%prompt", "b"]);
  });

  it("does not take the cursor from a cell that has become active", async () => {
    const notebook = new Notebook(["a", "b"].map(cell));
    const inserted = insertCell(notebook as never, "%%prompt", null, true);
    notebook.activeCell.shown();
    notebook.activeCellIndex = 2;
    await inserted;
    expect(notebook.mode).toBe("command");
  });

  it("is run, and not one that has become active", async () => {
    const notebook = new Notebook(["a", "b"].map(cell));
    const ran = runCell(notebook as never, "%gpt resume tale", {} as never);
    notebook.activeCell.shown();
    notebook.activeCellIndex = 2;
    await ran;
    expect(notebook.ran).toEqual(["%gpt resume tale"]);
  });
});
