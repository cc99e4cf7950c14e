// What JupyterLab loads when it starts: that the language of notebook cells knows our magics. What it knows of them
// comes when the first cell of Python is shown.

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { IEditorLanguageRegistry } from "@jupyterlab/codemirror";
import type { LanguageSupport } from "@codemirror/language";

const plugin: JupyterFrontEndPlugin<void> = {
  id: "jupyter-gpt:editor",
  description: "The cell magics of jupyter_gpt in the editor: their colours, and help for their options.",
  autoStart: true,
  requires: [IEditorLanguageRegistry],
  activate: (_: JupyterFrontEnd, languages: IEditorLanguageRegistry) => {
    const ipython = languages.findByName("ipython");
    if (!ipython?.load) return;
    // on a copy, because it keeps what it has loaded: no cell is to get Python without the magics meanwhile
    const python = ipython.load.bind(Object.create(ipython));
    const unchanged = (support: LanguageSupport) => support;
    const magics = () => import("./language").then(({ withMagics }) => withMagics, () => unchanged);
    let loaded: Promise<LanguageSupport> | null = null;
    const load = () => (loaded ??= Promise.all([python(), magics()]).then(([support, extend]) => extend(support)));
    Object.assign(ipython, { load });
  },
};

export default plugin;
