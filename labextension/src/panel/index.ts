// What JupyterLab loads when it starts: the place of the panel. The panel itself comes with the first notebook.

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import { INotebookTracker } from "@jupyterlab/notebook";
import { IStatusBar } from "@jupyterlab/statusbar";
import { ITranslator, nullTranslator } from "@jupyterlab/translation";
import { Widget } from "@lumino/widgets";
import { gptIcon } from "./icons";
import { IGPTPanel, type Started } from "./token";

const ID = "jupyter-gpt-panel";
const OPEN = "jupyter-gpt:open-panel";

const plugin: JupyterFrontEndPlugin<IGPTPanel | null> = {
  id: "jupyter-gpt:panel",
  description: "The GPT panel: models, runs and indexes of the notebook's kernel.",
  autoStart: true,
  provides: IGPTPanel,
  optional: [INotebookTracker, ICommandPalette, ILayoutRestorer, IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    statusBar: IStatusBar | null,
    translator: ITranslator | null,
  ) => {
    if (!tracker) return null; // a page without notebooks, such as Notebook's list of files
    const words = (translator ?? nullTranslator).load("jupyter-gpt");
    const place = new Place();
    place.id = ID;
    place.title.icon = gptIcon;
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

    let started: Promise<Started> | null = null;
    const begin = () => {
      const load = async () => (await import("./start")).start({ app, tracker, statusBar, words, place, open: OPEN });
      return (started ??= load());
    };
    const look = () => void ((tracker.currentWidget || place.isVisible) && begin());
    tracker.currentChanged.connect(look);
    place.seen = look;
    look();
    return { begin, open: () => app.commands.execute(OPEN) };
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

export default plugin;
