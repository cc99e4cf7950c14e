// Search in a tree of folds: what has the words is opened, marked and stays; what has not, and leads to none that has, goes.

import { element, write } from "./dom";

const FOUND = "gpt-found"; // the name of the highlight in trace.css
const marks = new Map<Search, Range[]>(); // of all trees of the page

export class Search {
  readonly field = element("input", "gpt-search");
  readonly found = element("span", "gpt-about");
  private opened: Map<HTMLDetailsElement, boolean> | null = null;
  private words = "";
  private readonly unfolded = new Set<Element>(); // for these words; what a person folds after that stays folded

  /** `top` holds the nodes: elements of class `gpt-node`, within one another. */
  constructor(private readonly top: HTMLElement) {
    this.field.type = "search";
    this.field.placeholder = "search the trace";
    this.field.setAttribute("aria-label", "Search the trace");
    this.found.setAttribute("aria-live", "polite");
    this.field.addEventListener("input", () => this.run());
  }

  /** Looks for the words again, as after the tree has grown. */
  run(): void {
    const words = this.field.value.trim().toLowerCase();
    const folds = [...this.top.querySelectorAll("details")];
    if (words !== this.words) this.unfolded.clear();
    this.words = words;
    if (words) this.opened ??= new Map(folds.map((fold) => [fold, fold.open]));
    const nodes = [...this.top.querySelectorAll<HTMLElement>(".gpt-node")];
    const ranges: Range[] = [];
    const shown = new Set<Element>();
    let hits = 0;
    for (const [node, texts] of words ? textsOf(this.top) : []) {
      const own = rangesOf(texts, words);
      node.classList.toggle("gpt-hit", own.length > 0);
      if (!own.length) continue;
      hits++;
      ranges.push(...own);
      for (const { startContainer } of own) this.open(startContainer, node);
      for (let at: Element | null = node; at && this.top.contains(at); at = at.parentElement) shown.add(at);
    }
    for (const node of nodes) {
      node.hidden = words !== "" && !shown.has(node);
      if (!words) node.classList.remove("gpt-hit");
      else if (shown.has(node) && node instanceof HTMLDetailsElement) this.unfold(node);
    }
    if (!words && this.opened) {
      for (const [fold, was] of this.opened) fold.open = was;
      this.opened = null;
    }
    write(this.found, words ? `${hits} found` : "");
    this.mark(ranges);
  }

  destroy(): void {
    this.mark([]);
  }

  /** Unfolds what stands between a text and its node. */
  private open(text: Node, node: Element): void {
    for (let at = text.parentElement; at && at !== node; at = at.parentElement) {
      if (at instanceof HTMLDetailsElement) this.unfold(at);
    }
  }

  private unfold(fold: HTMLDetailsElement): void {
    if (!this.unfolded.has(fold)) fold.open = true;
    this.unfolded.add(fold);
  }

  private mark(ranges: Range[]): void {
    if (typeof Highlight === "undefined") return; // an older browser: the lines of the hits are marked
    if (ranges.length) marks.set(this, ranges);
    else marks.delete(this);
    CSS.highlights.set(FOUND, new Highlight(...[...marks.values()].flat()));
  }
}

/** The texts of each node but not of those within it, nor of buttons. */
function textsOf(top: HTMLElement): Map<HTMLElement, Text[]> {
  const found = new Map<HTMLElement, Text[]>();
  const walker = document.createTreeWalker(top, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode as Text;
    const node = text.parentElement?.closest<HTMLElement>(".gpt-node");
    if (!node || text.parentElement!.closest("button")) continue;
    const own = found.get(node);
    if (own) own.push(text);
    else found.set(node, [text]);
  }
  return found;
}

/** Where the words stand in the texts, which follow one another. */
function rangesOf(texts: Text[], words: string): Range[] {
  const found: Range[] = [];
  const whole = texts.map(({ data }) => data.toLowerCase());
  const all = whole.join("");
  let [k, start] = [0, 0]; // the text that holds the place, and where that text begins
  const place = (at: number): [Text, number] => {
    while (k < texts.length - 1 && at >= start + whole[k].length) start += whole[k++].length;
    return [texts[k], Math.min(at - start, texts[k].data.length)];
  };
  for (let at = all.indexOf(words); at >= 0; at = all.indexOf(words, at + words.length)) {
    const range = document.createRange();
    range.setStart(...place(at));
    const [last, offset] = place(at + words.length - 1);
    range.setEnd(last, Math.min(offset + 1, last.data.length));
    found.push(range);
  }
  return found;
}
