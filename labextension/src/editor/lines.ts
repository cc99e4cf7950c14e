// The lines of our magics in a cell, split into words as jupyter_gpt/notebook/lexer.py splits them.

import { NodeProp } from "@lezer/common";

/** A piece of text in the cell; `from` and `to` are places in it. */
export interface Range {
  from: number;
  to: number;
}

/** One word. `text`: without its quotes. `quoted`: it begins with a quote, so it is no option and no variable.
 * `pieces`: its quoted and its bracketed parts, which are JSON. `open`: the quote or bracket that is never closed. */
export interface Word extends Range {
  text: string;
  quoted: boolean;
  pieces: (Range & { kind: "quoted" | "bracketed" })[];
  open: string;
}

/** One line of ours. `name`: the magic, for `%gpt` with its verb; `head`: where that stands; `words`: what follows. */
export interface Line extends Range {
  name: string;
  head: Range[];
  words: Word[];
}

/** Of the tree of a cell: its lines of ours. */
export const LINES = new NodeProp<Line[]>({ perNode: true });

/** What the body of a cell holds, by the name of its magic. */
export const BODIES = {
  agent: "text",
  classify: "labelled",
  compare: "text",
  corpus: "mixture",
  pretrain: "mixture",
  prompt: "chat",
  rag: "text",
  rank: "text",
  rlhf: "text",
  sft: "conversations",
} as const;

export type Body = (typeof BODIES)[keyof typeof BODIES];

const QUOTES: Record<string, string> = { '"': '"', "'": "'", "“": "”", "‘": "’" };
const CELL = new RegExp(`^(?:[ \\t]*\\n)*%%(${Object.keys(BODIES).join("|")})(?!\\S)`);
const JSON_STRING = /"(?:[^"\\]|\\.)*"/y;
// a line of ours, or what such a line may not stand in: a string or a comment
const OURS_OR_TEXT = new RegExp(
  [
    /^([ \t]*(?:[A-Za-z_][\w, \t]*=[ \t]*)?)(%gpt(?!\S))((?:\\\n|[^\n])*)/,
    /"""[^]*?(?:"""|(?![^]))|'''[^]*?(?:'''|(?![^]))/,
    /"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|#[^\n]*/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "gm",
);

/** The first line of a cell that begins with a cell magic of ours, and what its body holds; null for any other. */
export function cellMagic(text: string): { line: Line; body: Body } | null {
  const found = CELL.exec(text);
  if (!found) return null;
  const to = found[0].length;
  const from = to - found[1].length - 2;
  const end = text.indexOf("\n", to);
  const line = { from, to: end < 0 ? text.length : end };
  return {
    line: { ...line, name: `%%${found[1]}`, head: [{ from, to }], words: split(text, to, line.to) },
    body: BODIES[found[1] as keyof typeof BODIES],
  };
}

/** The lines `%gpt VERB …` of a cell of Python. A backslash at the end of a line continues it. */
export function lineMagics(text: string): Line[] {
  const lines: Line[] = [];
  if (!text.includes("%gpt")) return lines;
  for (const found of text.matchAll(OURS_OR_TEXT)) {
    if (found[2] === undefined) continue;
    const from = found.index + found[1].length;
    const to = found.index + found[0].length;
    const head: Range[] = [{ from, to: from + found[2].length }];
    const words = split(text, head[0].to, to);
    let verb = words.shift();
    if (verb?.text === "help") {
      head.push(verb);
      verb = words.shift();
    }
    if (verb) head.push(verb);
    lines.push({ from, to, name: verb ? `%gpt ${verb.text.replace(/\?+$/, "")}` : "%gpt", head, words });
  }
  return lines;
}

/** The words between two places of a text. */
export function split(text: string, from: number, to: number): Word[] {
  const words: Word[] = [];
  let at = from;
  while (at < to) {
    if (isSpace(text, at)) {
      at++;
      continue;
    }
    const word: Word = { from: at, to: at, text: "", quoted: text[at] in QUOTES, pieces: [], open: "" };
    while (at < to && !isSpace(text, at)) {
      const opens = at === word.from || text[at - 1] === "=";
      if (opens && text[at] in QUOTES) {
        const [value, end] = quoted(text, at, to);
        if (end > to) word.open = QUOTES[text[at]];
        word.pieces.push({ from: at, to: Math.min(end, to), kind: "quoted" });
        word.text += value;
        at = Math.min(end, to);
      } else if (opens && "{[".includes(text[at])) {
        const end = bracketed(text, at, to);
        if (end > to) word.open = text[at] === "{" ? "}" : "]";
        word.pieces.push({ from: at, to: Math.min(end, to), kind: "bracketed" });
        word.text += text.slice(at, Math.min(end, to));
        at = Math.min(end, to);
      } else word.text += text[at++];
    }
    word.to = at;
    words.push(word);
  }
  return words;
}

const isSpace = (text: string, at: number) => /\s/.test(text[at]) || (text[at] === "\\" && text[at + 1] === "\n");

/** The text between a quote and its partner, and where the line goes on: behind `to` if there is no partner. */
function quoted(text: string, at: number, to: number): [string, number] {
  const close = QUOTES[text[at]];
  let value = "";
  for (let here = at + 1; here < to; here++) {
    if (text[here] === "\\" && text[here + 1] === close && here + 1 < to) value += text[++here];
    else if (text[here] === close) return [value, here + 1];
    else value += text[here];
  }
  return [value, to + 1];
}

function bracketed(text: string, at: number, to: number): number {
  let depth = 0;
  for (let here = at; here < to; here++) {
    JSON_STRING.lastIndex = here;
    const string = JSON_STRING.exec(text);
    if (string) {
      here = JSON_STRING.lastIndex - 1;
      continue;
    }
    if ("{[".includes(text[here])) depth++;
    if ("}]".includes(text[here])) depth--;
    if (depth === 0) return here + 1;
  }
  return to + 1;
}

/** Whether a word stands for an option: `-1` is a number and `-` a dash. */
export const isOption = ({ quoted, text }: Word): boolean => !quoted && /^(--|-[A-Za-z])/.test(text);
