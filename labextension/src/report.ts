// A report as a notebook holds it, drawn from the file alone: no kernel, no trust. What a model wrote goes in as text; the
// only HTML is that of the same output, sanitized by JupyterLab, where the parts are missing or not fit to be drawn.

import { element, toggle } from "./dom";
import { copyButton, downloadText } from "./export";
import { styled, write } from "./inline";
import { plain, type Boxes, type ChartPart, type Paragraph, type Part, type Samples, type Tree } from "./parts";
import { drawPlot } from "./plot";
import { readReport } from "./read_report";
import { drawCurves } from "./saved_curves";
import { Search } from "./search";
import { drawTable } from "./table";
import { readTheme, watchTheme } from "./theme";
import "./run.css";
import "./trace.css";
import "./report.css";

const LARGE = 6; // nodes with something in them, from which on the tools of a trace are always seen

type Fields = Readonly<Record<string, unknown>>;

/** Draws the report of an output into `host`; returns how to end it. `sanitize` makes HTML safe to stand in the page. */
export function show(host: HTMLElement, data: Fields, metadata: unknown, sanitize: (html: string) => string): () => void {
  const html = joined(data["text/html"]);
  const folded = changes(host);
  host.replaceChildren();
  try {
    const report = readReport(metadata);
    if (report) {
      const page = new DOMParser().parseFromString(html, "text/html"); // it runs nothing
      const pictures = [...page.querySelectorAll("img")].map((image) => image.getAttribute("src") ?? "");
      const end = new View(host, metadata as Fields, pictures).draw(report.title, report.parts);
      host.append(...mark(page));
      restore(host, folded);
      return end;
    }
  } catch (error) {
    host.append(element("p", "gpt-unread", error instanceof Error ? `${error.message}.` : String(error)));
  }
  const simple = element("div", "jp-RenderedHTMLCommon jp-RenderedHTML");
  if (html) simple.innerHTML = sanitize(html);
  else simple.append(element("pre", "", joined(data["text/plain"])));
  host.append(simple);
  return () => undefined;
}

const opened = new WeakMap<HTMLDetailsElement, boolean>(); // whether a fold was drawn so

/** The folds by their names and, of those of one name, by their number. */
function* folds(host: HTMLElement): Generator<[string, HTMLDetailsElement]> {
  const seen = new Map<string, number>();
  for (const fold of host.querySelectorAll("details")) {
    const name = fold.querySelector("summary")?.textContent ?? "";
    seen.set(name, (seen.get(name) ?? 0) + 1);
    yield [`${seen.get(name)} ${name}`, fold];
  }
}

/** The folds that a person has opened or closed: they stay so when the report is drawn anew. */
function changes(host: HTMLElement): Map<string, boolean> {
  const changed = [...folds(host)].filter(([, fold]) => opened.has(fold) && opened.get(fold) !== fold.open);
  return new Map(changed.map(([name, fold]) => [name, fold.open]));
}

function restore(host: HTMLElement, changed: Map<string, boolean>): void {
  for (const [name, fold] of folds(host)) {
    opened.set(fold, fold.open);
    fold.open = changed.get(name) ?? fold.open;
  }
}

/** Text as a notebook holds it: whole, or in lines. */
function joined(text: unknown): string {
  return Array.isArray(text) ? text.join("") : typeof text === "string" ? text : "";
}

/** The mark over or beside which a live view is drawn (widget.ts), if the HTML has one. */
function mark(page: Document): HTMLElement[] {
  const found = [...page.querySelectorAll("span")].find(({ className }) => /^gpt-[0-9a-f]{32}( gpt-beside)?$/.test(className));
  return found ? [element("span", found.className)] : [];
}

class View {
  private readonly root = element("section", "gpt-report");
  private readonly stop: (() => void)[] = [];

  constructor(
    private readonly host: HTMLElement,
    private readonly metadata: Fields,
    private readonly pictures: string[],
  ) {}

  draw(title: Parameters<typeof plain>[0], parts: Part[]): () => void {
    const named = plain(title);
    this.root.setAttribute("aria-label", named ? `Report: ${named}` : "Report");
    if (named) this.root.append(write(element("div", "gpt-title"), title));
    this.root.append(...this.blocks(parts));
    this.root.addEventListener("keydown", keep);
    this.host.append(this.root);
    const tint = () => (this.root.dataset.ground = readTheme(this.root).dark ? "dark" : "light");
    this.stop.push(watchTheme(tint));
    requestAnimationFrame(tint); // no colours before it stands in the page
    return () => this.stop.forEach((each) => each());
  }

  private blocks(parts: Part[]): HTMLElement[] {
    return parts.map((part) => this.block(part));
  }

  private block(part: Part): HTMLElement {
    switch (part.kind) {
      case "paragraph":
        return paragraph(part);
      case "figures":
        return drawTable({ kind: "table", header: [], rows: part.rows.map((row) => [row.name, row.value]), sides: "ll", wrap: true });
      case "table":
        return drawTable(part);
      case "samples":
        return drawSamples(part);
      case "boxes":
        return boxes(part);
      case "chart":
        return part.plot ? this.kept(drawPlot({ ...part, plot: part.plot })) : this.picture(part);
      case "curves":
        return this.kept(drawCurves(part));
      case "alarm":
        return write(element("p", "gpt-alarm"), part.content);
      case "folded": {
        const fold = element("details", "gpt-fold");
        fold.append(write(element("summary"), part.title), ...this.blocks(part.parts));
        return fold;
      }
      case "tree":
        return this.trace(part);
    }
  }

  private kept({ node, destroy }: { node: HTMLElement; destroy: () => void }): HTMLElement {
    this.stop.push(destroy);
    return node;
  }

  private picture({ alt, width, place }: ChartPart): HTMLElement {
    const frame = element("div", "gpt-part");
    const source = this.pictures[place] ?? "";
    if (!source.startsWith("data:image/png;base64,")) {
      frame.append(element("p", "gpt-quiet", alt));
      return frame;
    }
    const image = element("img", "gpt-picture");
    image.src = source;
    image.alt = alt;
    image.width = width;
    const link = element("a", "gpt-toggle gpt-link", "Download PNG");
    link.href = source;
    link.download = "chart.png";
    const tools = element("div", "gpt-part-tools");
    tools.append(link);
    frame.append(image, tools);
    return frame;
  }

  private trace(part: Tree): HTMLElement {
    const frame = element("div", "gpt-part gpt-saved-trace");
    const top = this.node(part);
    frame.append(top);
    const folds = [...frame.querySelectorAll("details")];
    const tools = element("div", "gpt-part-tools");
    const nodes = folds.filter((fold) => fold.classList.contains("gpt-node"));
    frame.classList.toggle("gpt-large-trace", nodes.length >= LARGE);
    if (nodes.length > 1) {
      const search = new Search(frame);
      this.stop.push(() => search.destroy());
      tools.append(search.found, search.field);
      const all = (open: boolean) => nodes.forEach((fold) => (fold.open = open || fold === top));
      tools.append(toggle("Unfold", () => all(true)), toggle("Fold", () => all(false)));
    }
    const { trace } = this.metadata;
    if (trace) {
      const save = () => downloadText("trace.json", "application/json", JSON.stringify(trace, null, 1));
      tools.append(toggle("Download JSON", save));
    }
    if (tools.childElementCount) frame.prepend(tools);
    return frame;
  }

  private node({ head, parts, children, opened, quiet }: Tree): HTMLElement {
    const grey = quiet ? " gpt-pruned" : "";
    if (!parts.length && !children.length) return write(element("div", `gpt-node gpt-leaf${grey}`), head);
    const fold = element("details", `gpt-node${grey}`);
    fold.open = opened;
    const inside = element("div", "gpt-children");
    inside.append(...this.blocks(parts), ...children.map((child) => this.node(child)));
    fold.append(write(element("summary", "gpt-line"), head), inside);
    return fold;
  }
}

/** Keys that a button, a slider or a fold uses are not the notebook's; those with a modifier are. */
function keep(event: KeyboardEvent): void {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
}

/** What a model wrote and what it was sent can be copied; an answer in Markdown has a button of its own. */
function paragraph({ content, style }: Paragraph): HTMLElement {
  const shown = write(element("div", `gpt-paragraph ${styled(style)}`), content);
  if ((!style.includes("block") && !style.includes("code")) || shown.querySelector(".gpt-markdown")) return shown;
  const frame = element("div", "gpt-part");
  const tools = element("div", "gpt-part-tools");
  tools.append(copyButton("Copy", () => plain(content)));
  frame.append(shown, tools);
  return frame;
}

function boxes({ boxes }: Boxes): HTMLElement {
  const made = element("div", "gpt-boxes");
  for (const box of boxes) {
    if (!box) {
      made.append(element("br"));
      continue;
    }
    const cell = element("span", "gpt-box");
    cell.append(element("span", "", box.text || "\u00a0"), element("span", "gpt-quiet", box.note));
    cell.style.backgroundColor = box.tint;
    if (box.tooltip) cell.title = box.tooltip;
    made.append(cell);
  }
  return made;
}

/** Each prompt across all columns, beneath it what was written to it; more than three columns under a slider, one at a time. */
function drawSamples({ columns, rows }: Samples): HTMLElement {
  const made = element("div");
  const table = element("table", "gpt-samples-table");
  const lay = (which: number[]) => {
    const head = element("tr");
    head.append(...which.map((k) => write(element("th"), columns[k])));
    const lines = rows.flatMap(({ prompt, texts }) => {
      const [asked, said] = [element("tr"), element("tr")];
      const cell = write(element("td", "gpt-given"), prompt);
      cell.colSpan = which.length;
      asked.append(cell);
      said.append(...which.map((k) => write(element("td"), texts[k])));
      return plain(prompt) ? [asked, said] : [said];
    });
    table.replaceChildren(...(head.textContent ? [head] : []), ...lines);
  };
  if (columns.length <= 3) {
    lay(columns.map((_, k) => k));
    made.append(table);
    return made;
  }
  const [head, slider, name] = [element("label", "gpt-slide"), element("input"), element("span")];
  const last = String(columns.length - 1);
  Object.assign(slider, { type: "range", min: "0", max: last, value: last });
  slider.setAttribute("aria-label", "Which samples are shown");
  const move = () => {
    const at = Number(slider.value);
    name.textContent = `${at + 1} of ${columns.length}`;
    slider.setAttribute("aria-valuetext", plain(columns[at]));
    lay([at]);
  };
  slider.addEventListener("input", move);
  move();
  head.append(slider, name);
  made.append(head, table);
  return made;
}
