// Colours as the page has them now: canvas strokes cannot use CSS variables, so they are read and re-read.

export interface Theme {
  dark: boolean;
  text: string;
  muted: string;
  grid: string;
  background: string;
  /** Plain colours, for drawings that are saved as files of their own. */
  solid: { text: string; muted: string; grid: string; ground: string };
  font: string;
  /** Distinct for the common kinds of colour blindness (after Okabe and Ito, 2008), fitted to the ground. */
  runs: string[];
  validation: string;
  alarm: string;
}

const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b5508f", "#8a6d00", "#3a9bd9"];
const DARK = ["#56b4e9", "#f0a030", "#2bc59a", "#e39ac0", "#f0e442", "#a9b8ff"];
const SOLID_LIGHT = { text: "#212121", muted: "#666666", grid: "#e8e8e8", ground: "#ffffff" };
const SOLID_DARK = { text: "#e0e0e0", muted: "#a6a6a6", grid: "#333333", ground: "#111111" };

export function readTheme(element: HTMLElement): Theme {
  const style = getComputedStyle(element);
  const dark = luminance(style.color) > 0.5;
  const read = (name: string, otherwise: string) => style.getPropertyValue(name).trim() || otherwise;
  const runs = dark ? DARK : LIGHT;
  return {
    dark,
    text: style.color,
    muted: read("--gpt-muted", "#888"),
    grid: dark ? "rgba(255,255,255,0.09)" : "rgba(0,0,0,0.08)",
    background: read("--gpt-ground", dark ? "#111" : "#fff"),
    solid: dark ? SOLID_DARK : SOLID_LIGHT,
    font: style.fontFamily,
    runs,
    validation: runs[1],
    alarm: "#d04545",
  };
}

/** Calls back after the page's theme has changed; returns how to stop watching. */
export function watchTheme(changed: () => void): () => void {
  let timers: number[] = [];
  // JupyterLab names the new theme before its stylesheet has arrived, so look again a little later
  const soon = () => {
    timers.forEach(clearTimeout);
    timers = [0, 150, 800].map((wait) => window.setTimeout(changed, wait));
  };
  const observer = new MutationObserver(soon);
  const attributes = {
    attributes: true,
    attributeFilter: ["class", "style", "theme", "data-jp-theme-name", "data-jp-theme-light"],
  };
  observer.observe(document.documentElement, attributes);
  observer.observe(document.body, attributes);
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", soon);
  return () => {
    observer.disconnect();
    scheme.removeEventListener("change", soon);
    timers.forEach(clearTimeout);
  };
}

/** `color` with an alpha; #rrggbb only. */
export function faint(color: string, alpha: number): string {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

function luminance(color: string): number {
  const [r, g, b] = (color.match(/[\d.]+/g) ?? ["0", "0", "0"]).map(Number);
  return (0.299 * r + 0.587 * g + 0.114 * b) / 255;
}
