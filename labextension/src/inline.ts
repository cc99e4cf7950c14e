// Inline content of a report in the page: text nodes, never HTML.

import { element } from "./dom";
import { drawMarkdown } from "./markdown";
import type { Bar, Inline, Span } from "./parts";
import { plain } from "./parts";

const STYLES = new Set(["bold", "italic", "code", "quiet", "large", "alarm", "block", "glance"]);

/** Adds the content to `host`, which is returned. */
export function write<T extends HTMLElement>(host: T, content: Inline): T {
  if (Array.isArray(content)) for (const each of content) write(host, each);
  else if (content !== null && typeof content === "object" && content.kind === "span") host.append(span(content));
  else if (content !== null && typeof content === "object" && content.kind === "bar") host.append(bar(content));
  else if (content !== null && typeof content === "object" && content.kind === "markdown") host.append(drawMarkdown(content));
  else host.append(plain(content));
  return host;
}

/** The classes of the words of a style that are known. */
export function styled(style: string[]): string {
  return style.filter((word) => STYLES.has(word)).map((word) => `gpt-${word}`).join(" ");
}

function span({ content, style, tint, tooltip }: Span): HTMLElement {
  const tag = style.includes("bold") ? "b" : style.includes("italic") ? "i" : "span";
  const made = write(element(tag, styled(style)), content);
  if (tint) {
    made.classList.add("gpt-tinted");
    made.style.backgroundColor = tint; // the browser takes nothing but a colour
  }
  if (tooltip) made.title = tooltip;
  return made;
}

function bar({ segments, width, rest }: Bar): HTMLElement {
  const made = element("span", rest ? "gpt-meter gpt-rest" : "gpt-meter");
  made.style.width = `${Math.min(width, 800)}px`;
  made.setAttribute("role", "img");
  const said = segments.map(({ share, name }) => `${name} ${(100 * share).toFixed(0)}%`.trim());
  made.setAttribute("aria-label", said.join(", "));
  for (const { share, colour, name } of segments) {
    const piece = element("span");
    piece.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    piece.style.backgroundColor = colour;
    piece.title = name;
    made.append(piece);
  }
  return made;
}
