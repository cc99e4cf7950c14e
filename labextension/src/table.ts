// A table of a report: sorted by a click on a column's name, copied as CSV.

import { element, toggle } from "./dom";
import { copyButton, csv } from "./export";
import { write } from "./inline";
import { plain, type Inline, type Table } from "./parts";

const LONGEST_NAME = 40; // characters; what is longer in the first column is a sentence
const SHOWN = 300; // rows, before one asks for the others
type Direction = "ascending" | "descending" | "none";

export function drawTable(table: Table): HTMLElement {
  const frame = element("div", "gpt-part");
  const scroll = element("div", "gpt-scroll");
  const names = table.rows.every((row) => !row.length || plain(row[0]).length <= LONGEST_NAME);
  const wrap = table.wrap ? ` gpt-wrap${names ? " gpt-names" : ""}` : "";
  const made = element("table", `gpt-table${wrap}`);
  const body = element("tbody");
  const more = toggle(`Show all ${table.rows.length.toLocaleString("en-US")} rows`, () => fill(Infinity));
  let rows = table.rows;
  let shown = SHOWN;

  const fill = (most: number) => {
    shown = most;
    body.replaceChildren(...rows.slice(0, most).map((row) => line(row, table.sides)));
    more.hidden = rows.length <= most;
  };
  const sort = (column: number, direction: Direction) => {
    rows = direction === "none" ? table.rows : sorted(table.rows, column, direction);
    fill(shown);
  };
  if (table.header.length) {
    const head = element("thead");
    head.append(heading(table, sort));
    made.append(head);
  }
  made.append(body);
  fill(SHOWN);
  scroll.append(made);
  scroll.tabIndex = 0; // a wide table scrolls by the arrow keys
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", table.header.length ? `Table: ${table.header.map(plain).join(", ")}` : "Table");
  const tools = element("div", "gpt-part-tools");
  tools.append(copyButton("Copy CSV", () => csv([...(table.header.length ? [table.header] : []), ...rows].map(values))));
  frame.append(scroll, more, tools);
  return frame;
}

function heading(table: Table, sort: (column: number, direction: Direction) => void): HTMLElement {
  const row = element("tr");
  const cells = table.header.map((name, column) => {
    const cell = element("th", side(table.sides, column));
    cell.scope = "col";
    if (table.rows.length < 2) return write(cell, name);
    const button = write(element("button", "gpt-sort"), name);
    button.type = "button";
    button.title = "Sort";
    button.addEventListener("click", () => {
      const was = cell.getAttribute("aria-sort") ?? "none";
      const first = numeric(table.rows, column) ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const next: Direction = was === "none" ? first : was === first ? second : "none";
      for (const each of cells) each.removeAttribute("aria-sort");
      if (next !== "none") cell.setAttribute("aria-sort", next);
      sort(column, next);
    });
    if (!plain(name).trim()) button.setAttribute("aria-label", `Sort by column ${column + 1}`);
    cell.append(button);
    return cell;
  });
  row.append(...cells);
  return row;
}

function line(row: Inline[], sides: string): HTMLElement {
  const made = element("tr");
  const gap = row.every((cell) => cell === "");
  if (gap) made.className = "gpt-gap";
  made.append(...row.map((cell, column) => write(element("td", side(sides, column)), cell)));
  return made;
}

function side(sides: string, column: number): string {
  return sides[column] === "r" ? "gpt-right" : "";
}

/** What a row is copied as: numbers with all their digits and without commas. */
export function values(row: readonly Inline[]): string[] {
  return row.map((cell) => {
    if (typeof cell === "number") return String(cell);
    return cell !== null && typeof cell === "object" && !Array.isArray(cell) && cell.kind === "value"
      ? String(cell.value)
      : cell === null ? "" : plain(cell);
  });
}

/** The number that a cell begins with, "1,234 MB" and "12.5%" too; null where it begins with none. */
export function leading(cell: Inline): number | null {
  if (typeof cell === "number") return cell;
  if (cell === null) return null;
  if (typeof cell === "object" && !Array.isArray(cell) && cell.kind === "value") return cell.value;
  if (Array.isArray(cell)) {
    const first = cell.find((each) => plain(each).trim() !== "");
    return first === undefined ? null : leading(first);
  }
  if (typeof cell === "object" && cell.kind === "span") return leading(cell.content);
  const found = /^\s*[<≈]?\s*([-−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?)([kMGTB](?![a-z]))?/i.exec(plain(cell));
  if (!found) return null;
  const scale = { k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12 }[found[4]?.toLowerCase() ?? ""] ?? 1;
  return Number(found[1].replaceAll(",", "").replace("−", "-")) * scale;
}

function numeric(rows: Inline[][], column: number): boolean {
  return rows.every((row) => row[column] === null || plain(row[column]).trim() === "" || leading(row[column]) !== null);
}

/** The rows in the order of a column, what is unknown last; gaps between rows are left out. */
export function sorted(rows: Inline[][], column: number, direction: Direction): Inline[][] {
  const sign = direction === "descending" ? -1 : 1;
  const kept = rows.filter((row) => row.some((cell) => cell !== ""));
  const numbers = numeric(kept, column);
  const unknown = (row: Inline[]) => (numbers ? leading(row[column]) === null : plain(row[column]) === "");
  return [...kept].sort((one, other) => {
    if (unknown(one) || unknown(other)) return Number(unknown(one)) - Number(unknown(other));
    if (numbers) return sign * (leading(one[column])! - leading(other[column])!);
    return sign * plain(one[column]).localeCompare(plain(other[column]), "en", { numeric: true });
  });
}
