// What JupyterLab loads when it starts: the place of the panel. The panel itself comes with the first notebook.

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import { INotebookTracker } from "@jupyterlab/notebook";
import { IStatusBar } from "@jupyterlab/statusbar";
import { ITranslator, nullTranslator } from "@jupyterlab/translation";
import { LabIcon } from "@jupyterlab/ui-components";
import { Widget } from "@lumino/widgets";
import editor from "../editor";
import { ICON } from "./icons";

const ID = "jupyter-gpt-panel";
const OPEN = "jupyter-gpt:open-panel";

const plugin: JupyterFrontEndPlugin<void> = {
  id: "jupyter-gpt:panel",
  description: "The GPT panel: models, runs and indexes of the notebook's kernel.",
  autoStart: true,
  optional: [INotebookTracker, ICommandPalette, ILayoutRestorer, IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    statusBar: IStatusBar | null,
    translator: ITranslator | null,
  ) => {
    if (!tracker) return; // a page without notebooks, such as Notebook's list of files
    const words = (translator ?? nullTranslator).load("jupyter-gpt");
    const place = new Place();
    place.id = ID;
    place.title.icon = new LabIcon({ name: "jupyter-gpt:panel", svgstr: ICON });
    place.title.caption = words.__("GPT: models, runs and indexes");
    place.node.setAttribute("role", "region");
    place.node.setAttribute("aria-label", words.__("GPT panel"));
    app.shell.add(place, "left", { rank: 450, type: "GPT" });
    restorer?.add(place, ID);
    app.commands.addCommand(OPEN, {
      label: words.__("Open the GPT Panel"),
      execute: () => app.shell.activateById(ID),
    });
    palette?.addItem({ command: OPEN, category: "GPT" });

    let begun = false;
    const begin = () => {
      if (begun || !(tracker.currentWidget || place.isVisible)) return;
      begun = true;
      void import("./start").then(({ start }) => start({ app, tracker, statusBar, words, place, open: OPEN }));
    };
    tracker.currentChanged.connect(begin);
    place.seen = begin;
    begin();
  },
};

/** Empty until it is first seen. */
export class Place extends Widget {
  seen: (visible: boolean) => void = () => {};

  protected override onAfterShow(): void {
    this.seen(true);
  }

  protected override onAfterHide(): void {
    this.seen(false);
  }
}

export default [plugin, editor];
