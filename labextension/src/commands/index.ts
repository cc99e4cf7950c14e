// What JupyterLab loads when it starts: the names of the commands and their places in the palette, the launcher and, by
// schema/commands.json, the menus and the keyboard. What they do is loaded with the first that is used.

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, showErrorMessage } from "@jupyterlab/apputils";
import { IDefaultFileBrowser } from "@jupyterlab/filebrowser";
import { ILauncher } from "@jupyterlab/launcher";
import { INotebookTracker } from "@jupyterlab/notebook";
import { ITranslator, nullTranslator } from "@jupyterlab/translation";
import { gptIcon, iconUrl } from "../panel/icons";
import { IGPTPanel } from "../panel/token";
import type { Around } from "./actions";
import { EXAMPLES } from "./examples";

const NEW = "jupyter-gpt:new-notebook";
const EXAMPLE = "jupyter-gpt:open-example";
const PROMPT = "jupyter-gpt:prompt-with-selection";
const SHOW = "jupyter-gpt:show-run";
const NOTIFY = "jupyter-gpt:allow-notifications";

const plugin: JupyterFrontEndPlugin<void> = {
  id: "jupyter-gpt:commands",
  description: "Commands for GPT notebooks: new ones, the examples, prompts, runs.",
  autoStart: true,
  optional: [INotebookTracker, IGPTPanel, IDefaultFileBrowser, ICommandPalette, ILauncher, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker | null,
    panel: IGPTPanel | null,
    browser: IDefaultFileBrowser | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    translator: ITranslator | null,
  ) => {
    const words = (translator ?? nullTranslator).load("jupyter-gpt");
    const lab = (translator ?? nullTranslator).load("jupyterlab");
    const category = words.__("GPT");
    const around: Around = { app, tracker, panel, browser, words };
    /** What goes wrong is shown: JupyterLab would only log it. */
    const act = async (work: (actions: typeof import("./actions")) => Promise<unknown>) => {
      try {
        await work(await import("./actions"));
      } catch (reason) {
        await showErrorMessage(category, reason as Error);
      }
    };
    const inNotebook = () => panel !== null && !!tracker?.currentWidget;
    const { commands } = app;

    commands.addCommand(NEW, {
      label: ({ isPalette }) => (isPalette ? words.__("New GPT Notebook") : words.__("GPT Notebook")),
      caption: words.__("Create a notebook that trains and prompts a GPT"),
      icon: gptIcon,
      execute: ({ cwd }) => act((actions) => actions.newNotebook(around, cwd as string | undefined)),
    });
    commands.addCommand(EXAMPLE, {
      label: ({ name }) => words.__("Open Example: %1", EXAMPLES[name as string] ?? name),
      caption: words.__("Copy a notebook of the package here, unless it is here, and open it"),
      execute: ({ name }) => act((actions) => actions.openExample(around, name as string)),
    });
    commands.addCommand(PROMPT, {
      label: words.__("Prompt with Selection…"),
      caption: words.__("Insert a %1 cell with the selected text below", "%%prompt"),
      isEnabled: inNotebook,
      execute: () => act((actions) => actions.promptWithSelection(around)),
    });
    commands.addCommand(SHOW, {
      label: words.__("Show Run…"),
      caption: words.__("Choose a training run and show its report"),
      isEnabled: inNotebook,
      execute: () => act((actions) => actions.showRun(around)),
    });
    const told = () => ("Notification" in window ? Notification.permission : "denied");
    commands.addCommand(NOTIFY, {
      label: words.__("Allow Notifications of Ended Runs"),
      caption: words.__("Let the browser tell when a run of over a minute ends while this page is hidden"),
      isEnabled: () => told() === "default",
      isToggleable: true,
      isToggled: () => told() === "granted",
      execute: async () => {
        await Notification.requestPermission();
        commands.notifyCommandChanged(NOTIFY);
      },
    });

    palette?.addItem({ command: NEW, category, args: { isPalette: true } });
    for (const command of [PROMPT, SHOW, NOTIFY]) palette?.addItem({ command, category });
    for (const name in EXAMPLES) palette?.addItem({ command: EXAMPLE, category, args: { name } });
    // a card in a category of JupyterLab's own
    launcher?.add({ command: NEW, category: lab.__("Notebook"), kernelIconUrl: iconUrl, rank: 10 });
  },
};

export default plugin;
