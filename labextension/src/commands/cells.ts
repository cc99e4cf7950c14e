// What the commands write into notebooks. Nothing here touches the page.

import type { Model, State } from "../panel/state";

/** A notebook that works in an empty folder, without a network: it trains a model in a minute and prompts it. */
export const CELLS = [
  "%load_ext jupyter_gpt",
  "%%pretrain storyteller --minutes 1\nstories: 1",
  "%%prompt storyteller\nOnce upon a time",
];

/** The models that `%%prompt` may be given, those in memory first: from disk only where none is in memory. */
export function promptable({ models, endpoints }: State): string[] {
  const speaks = ({ kind, error }: Model) => !error && !["reward", "classifier"].includes(kind);
  const able = models.filter(speaks);
  const resident = able.filter((model) => model.resident);
  return [...(resident.length ? resident : able), ...endpoints.filter(({ error }) => !error)].map(({ name }) => name);
}

/** A cell that prompts a model with a text; without a model's name, the one in memory. */
export function promptCell(text: string, model: string): string {
  return `${["%%prompt", model].filter(Boolean).join(" ")}\n${text.replace(/\s+$/, "").replace(/^(\s*\n)+/, "")}`;
}

/** The kernel that a new notebook names: the default one where it runs Python, else the first that does. */
export function pythonKernel(specs: { default: string; kernelspecs: Record<string, Spec | undefined> } | null) {
  const all = Object.values(specs?.kernelspecs ?? {}).filter((spec) => spec?.language === "python");
  const spec = all.find((spec) => spec!.name === specs!.default) ?? all[0];
  return spec && { name: spec.name, display_name: spec.display_name, language: spec.language };
}

interface Spec {
  name: string;
  display_name: string;
  language: string;
}

/** The file format of a notebook of these cells. */
export function notebookOf(cells: string[], kernelspec: object | undefined): object {
  return {
    nbformat: 4,
    nbformat_minor: 5,
    metadata: kernelspec ? { kernelspec } : {},
    cells: cells.map((source, i) => ({
      cell_type: "code",
      id: `gpt-${i}`,
      metadata: {},
      source,
      outputs: [],
      execution_count: null,
    })),
  };
}
