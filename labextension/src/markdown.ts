// An answer in Markdown, drawn from the elements that the kernel read it into (jupyter_gpt/report/markdown.py): there is no
// HTML on the way, so none has to be made safe.

import { element } from "./dom";
import { copyButton } from "./export";
import type { Element, Markdown } from "./parts";

const HTML = { p: "p", ul: "ul", ol: "ol", quote: "blockquote", hr: "hr", tr: "tr", b: "b", i: "i", br: "br", code: "code" } as const;

/** The answer, with a button that copies it as it was written. */
export function drawMarkdown({ text, blocks }: Markdown): HTMLElement {
  const frame = element("div", "gpt-part gpt-markdown");
  const tools = element("div", "gpt-part-tools");
  tools.append(copyButton("Copy", () => text));
  frame.append(...blocks.map(drawn), tools);
  return frame;
}

function drawn(node: Element): Node {
  if (typeof node === "string") return document.createTextNode(node);
  const { tag, value, inside } = node;
  switch (tag) {
    case "pre":
      return code(inside.join(""), value);
    case "h": {
      const heading = filled(element("div", "gpt-heading"), inside);
      heading.setAttribute("role", "heading");
      heading.setAttribute("aria-level", value);
      return heading;
    }
    case "a": {
      const link = filled(element("a"), inside);
      Object.assign(link, { href: value, title: value, target: "_blank", rel: "noopener noreferrer" });
      return link;
    }
    case "li": {
      const item = filled(element("li"), inside);
      if (value) item.value = Number(value);
      return item;
    }
    case "th":
    case "td":
      return filled(element(tag, value === "r" ? "gpt-right" : ""), inside);
    case "table":
      return filled(element("table", "gpt-table"), inside);
  }
  return filled(element(HTML[tag]), inside);
}

function filled<T extends HTMLElement>(host: T, inside: Element[]): T {
  host.append(...inside.map(drawn));
  return host;
}

function code(text: string, language: string): HTMLElement {
  const frame = element("div", "gpt-part gpt-code-block");
  const block = element("pre");
  block.append(element("code", "", text));
  block.tabIndex = 0; // a long line scrolls by the arrow keys
  block.setAttribute("role", "region");
  block.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const tools = element("div", "gpt-part-tools");
  tools.append(copyButton("Copy code", () => text));
  frame.append(block, tools);
  return frame;
}
