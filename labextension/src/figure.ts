// The frame of every chart of a saved report: what it shows in words, its numbers as a table, and its downloads.

import { element, toggle } from "./dom";
import { csv, download, downloadText } from "./export";
import type { Table } from "./parts";
import { toPNG } from "./svg";
import { drawTable, values } from "./table";

export interface Drawing {
  node: HTMLElement;
  /** The numbers behind what is drawn. */
  table: () => Table;
  /** What is seen now, as the text of an SVG file. */
  svg: () => string;
}

/** `name` is that of the downloaded files, `alt` says what is seen. */
export function framed({ node, table, svg }: Drawing, name: string, alt: string): HTMLElement {
  const frame = element("div", "gpt-part gpt-figure");
  let numbers: HTMLElement | null = null;
  const show = toggle("Show as table", () => {
    if (!numbers) {
      numbers = drawTable(table());
      node.after(numbers);
    } else {
      numbers.remove();
      numbers = null;
    }
    node.hidden = numbers !== null;
    show.setAttribute("aria-pressed", String(node.hidden));
  });
  show.setAttribute("aria-pressed", "false");
  const rows = () => {
    const { header, rows } = table();
    return csv([header, ...rows].map(values));
  };
  const tools = element("div", "gpt-part-tools");
  tools.setAttribute("role", "group");
  tools.setAttribute("aria-label", "Tools of the chart");
  tools.append(
    show,
    toggle("CSV", () => downloadText(`${name}.csv`, "text/csv", rows())),
    toggle("SVG", () => downloadText(`${name}.svg`, "image/svg+xml", svg())),
    toggle("PNG", async () => download(`${name}.png`, await toPNG(svg()))),
  );
  for (const button of [...tools.children].slice(1)) button.setAttribute("aria-label", `Download ${button.textContent}`);
  frame.append(element("p", "gpt-spoken", alt), node, tools);
  return frame;
}

/** A number in a cell of such a table. */
export function cell(value: number | null): Table["rows"][number][number] {
  return value === null ? null : { kind: "value", value, text: String(Number(value.toPrecision(6))) };
}
