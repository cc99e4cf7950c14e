// The icons of the panel. Those of buttons are paths on a 16 by 16 grid.

import { LabIcon } from "@jupyterlab/ui-components";

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
<g class="jp-icon3" fill="#616161">
<circle cx="5" cy="6" r="2.6"/><circle cx="5" cy="18" r="2.6"/><circle cx="19" cy="12" r="2.6"/><circle cx="12" cy="12" r="2.6"/>
<path d="M6.6 6.1 12.8 11.4 11.6 12.7 5.4 7.3zM6.6 17.9 12.8 12.6 11.6 11.3 5.4 16.7zM12 11.1h7v1.8h-7z"/>
</g></svg>`;

export const gptIcon = new LabIcon({ name: "jupyter-gpt:panel", svgstr: ICON });

/** The same as a picture with a colour of its own, for the launcher, whose cards of notebooks take no other. */
export const iconUrl = `data:image/svg+xml,${encodeURIComponent(ICON.replace("#616161", "#1976d2"))}`;

export const SHOW = "M2 13.5h12V15H2zM2.5 9.5 6 6l3 2.5L13 3l1.2.9L9.3 10.7 6.1 8.1 3.6 10.6z";
export const PAUSE = "M4 3h3v10H4zM9 3h3v10H9z";
export const PLAY = "M4.5 2.5v11l9-5.5z";
export const STOP = "M3.5 3.5h9v9h-9z";
export const UNLOAD = "M8 2.5 13.5 9h-11zM2.5 11h11v2h-11z";
export const DELETE = "M6 1.5h4l.6 1H14V4H2V2.5h3.4zM3.2 5h9.6l-.7 9.5H3.9zM6 6.5v6.5h1.2V6.5zm2.8 0v6.5H10V6.5z";

export function picture(path: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", path);
  shape.setAttribute("fill-rule", "evenodd");
  svg.append(shape);
  return svg;
}
