// The plugins of the extension. What JupyterLab loads when it starts is their index.ts; the rest comes when it is needed.

import commands from "./commands";
import editor from "./editor";
import panel from "./panel";

export default [panel, commands, editor];
