import { describe, expect, it } from "vitest";
import { CELLS, notebookOf, promptable, promptCell, pythonKernel } from "../src/commands/cells";
import type { Endpoint, Model, State } from "../src/panel/state";

describe("a new notebook", () => {
  const spec = (name: string, language: string) => ({ name, display_name: name, language });

  it("is of code cells, and names a kernel that runs Python", () => {
    const kernel = pythonKernel({ default: "r", kernelspecs: { r: spec("r", "R"), python3: spec("python3", "python") } });
    expect(kernel).toEqual(spec("python3", "python"));
    const { cells, metadata } = notebookOf(CELLS, kernel) as { cells: { source: string; id: string }[]; metadata: object };
    expect(cells.map(({ source }) => source)).toEqual(CELLS);
    expect(new Set(cells.map(({ id }) => id)).size).toBe(CELLS.length);
    expect(metadata).toEqual({ kernelspec: kernel });
  });

  it("names the default kernel where there are several, and none where none runs Python", () => {
    const both = { a: spec("a", "python"), b: spec("b", "python") };
    expect(pythonKernel({ default: "b", kernelspecs: both })?.name).toBe("b");
    expect(pythonKernel({ default: "r", kernelspecs: { r: spec("r", "R") } })).toBeUndefined();
    expect(pythonKernel(null)).toBeUndefined();
    expect(notebookOf([], undefined)).toMatchObject({ metadata: {} });
  });
});

describe("a prompt with a selection", () => {
  const model = (name: string, resident: boolean, more: Partial<Model> = {}) =>
    ({ name, resident, kind: "assistant", ...more }) as Model;
  const state = (models: Model[], endpoints: Endpoint[] = []) => ({ models, endpoints }) as unknown as State;

  it("is for the models in memory that write, and for endpoints", () => {
    const [tale, chat] = [model("tale", true, { kind: "base" }), model("chat", false)];
    const others = [model("judge", true, { kind: "reward" }), model("torn", true, { error: "damaged" })];
    const endpoints = [{ name: "cloud", model: "m", url: "u" }, { name: "endpoints.json", error: "torn" } as Endpoint];
    expect(promptable(state([tale, chat, ...others], endpoints))).toEqual(["tale", "cloud"]);
    expect(promptable(state([chat, ...others]))).toEqual(["chat"]); // else those on disk
    expect(promptable(state([]))).toEqual([]);
  });

  it("is a cell with the text as it was, but for empty lines around it", () => {
    expect(promptCell("\n \n  def f():\n    pass\n\n", "tale")).toBe("%%prompt tale\n  def f():\n    pass");
    expect(promptCell("", "")).toBe("%%prompt\n");
  });
});
