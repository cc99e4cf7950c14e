// What the parts of a cell of ours are, as the Python side reads them: jupyter_gpt/data/render.py for variables and
// roles, prompting/template.py for the holes of templates, data/mixture.py and data/labelled.py for sources.

import { isOption, type Body, type Line, type Range } from "./lines";

/** The kinds of parts; `language.ts` gives each its colour. */
export const KINDS = [
  "Magic",
  "Name",
  "Option",
  "Value",
  "Number",
  "String",
  "Variable",
  "Operator",
  "Role",
  "Separator",
  "Bracket",
  "Keyword",
  "Hole",
  "Key",
  "Comment",
  "Label",
] as const;

export type Kind = (typeof KINDS)[number];
export type Span = Range & { kind: Kind };

const NUMBER = /^[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?[kmbgt]?$/i;
const STEP = /\.[A-Za-z]\w*|\[-?\d+\]|\['[^'\]]*'\]|\["[^"\]]*"\]/.source;
const VARIABLE = new RegExp(`\\{(?:\\{[A-Za-z]\\w*(?:${STEP})*\\}|[A-Za-z]\\w*(?:${STEP})*)\\}`, "g");
const VALUE = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"'{}]+/.source;
const HOLE = new RegExp(`(\\{\\{)\\s*(gen|select)((?:\\s+(?:\\w+=)?(?:${VALUE}))+)\\s*(\\}\\})`, "g");
const HOLE_WORD = new RegExp(`(?:(\\w+)(=))?(${VALUE})`, "g");
const ROLE = /^(?:system|user|assistant):/gm;
const BEGINS_WITH_ROLE = /^\s*(?:system|user|assistant):/;
const SEPARATOR = /^-{3,}[ \t]*$/gm;
const COMMENT = /(?:^|\s)#.*/;
const JSON_PART = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b|[{}[\],]/g;

/** The parts of a line of ours. */
export function lineSpans(text: string, { head, words }: Line): Span[] {
  const spans: Span[] = head.map(({ from, to }) => ({ from, to, kind: "Magic" }));
  let named = false; // bare words before the first option are names
  for (const word of words) {
    let { from } = word;
    if (isOption(word)) {
      named = true;
      const equals = text.slice(from, word.to).indexOf("=");
      const end = equals < 0 ? word.to : from + equals;
      spans.push({ from, to: end, kind: "Option" });
      if (equals < 0) continue;
      spans.push({ from: end, to: end + 1, kind: "Operator" });
      from = end + 1;
    }
    for (const piece of [...word.pieces, { from: word.to, to: word.to, kind: "quoted" }]) {
      for (const part of text.slice(from, piece.from).matchAll(/[^,]+/g)) {
        const start = from + part.index;
        spans.push({ from: start, to: start + part[0].length, kind: kindOf(part[0], named) });
      }
      if (piece.kind === "quoted") spans.push({ from: piece.from, to: piece.to, kind: "String" });
      else spans.push(...json(text.slice(piece.from, piece.to), piece.from));
      from = piece.to;
    }
  }
  return spans.filter(({ from, to }) => from < to);
}

function kindOf(value: string, named: boolean): Kind {
  if (/^\$[A-Za-z_]\w*$/.test(value)) return "Variable";
  if (NUMBER.test(value)) return "Number";
  return named ? "Value" : "Name";
}

/** The parts of a body that begins at `from`. */
export function bodySpans(text: string, from: number, body: Body): Span[] {
  const content = text.slice(from);
  if (body === "text") return variables(content, from);
  if (body === "chat") {
    const holes = template(content, from);
    const inHole = ({ from, to }: Span) => holes.some((hole) => hole.from < to && hole.to > from);
    const others = [...roles(content, from), ...variables(content, from)].filter((span) => !inHole(span));
    return [...holes, ...others].sort((a, b) => a.from - b.from);
  }
  if (body === "conversations" && BEGINS_WITH_ROLE.test(content)) {
    const separators = matches(SEPARATOR, content, from, "Separator");
    return [...roles(content, from), ...separators].sort((a, b) => a.from - b.from);
  }
  const lineOf = body === "labelled" ? labelled : source;
  if (body !== "labelled" && /^\s*\{/.test(content)) return flow(content, from);
  const spans: Span[] = [];
  let at = from;
  for (const line of content.split("\n")) {
    spans.push(...lineOf(line, at));
    at += line.length + 1;
  }
  return spans;
}

function matches(pattern: RegExp, text: string, at: number, kind: Kind): Span[] {
  return [...text.matchAll(pattern)].map((found) => {
    const from = at + found.index;
    return { from, to: from + found[0].length, kind };
  });
}

const variables = (text: string, at: number): Span[] => matches(VARIABLE, text, at, "Variable");

/** The roles of a chat, which begins with one; white space before the first does not count. */
function roles(text: string, at: number): Span[] {
  if (!BEGINS_WITH_ROLE.test(text)) return [];
  const begin = text.length - text.trimStart().length;
  return matches(ROLE, text.slice(begin), at + begin, "Role");
}

/** `{{gen name max_tokens=5}}` and `{{select name from="a|b"}}`. */
function template(text: string, at: number): Span[] {
  const spans: Span[] = [];
  for (const found of text.matchAll(HOLE)) {
    const [whole, open, kind, rest, close] = found;
    const from = at + found.index;
    const verb = from + whole.indexOf(kind);
    const end = from + whole.length;
    spans.push({ from, to: from + open.length, kind: "Bracket" });
    spans.push({ from: verb, to: verb + kind.length, kind: "Keyword" });
    for (const word of rest.matchAll(HOLE_WORD)) {
      const [all, key, equals, value] = word;
      let here = verb + kind.length + word.index;
      if (key !== undefined) {
        spans.push({ from: here, to: here + key.length, kind: "Key" });
        here += key.length;
        spans.push({ from: here, to: here + 1, kind: "Operator" });
      }
      const start = verb + kind.length + word.index + all.length - value.length;
      const plain = equals === undefined ? "Hole" : /^["']/.test(value) ? "String" : kindOf(value, true);
      spans.push({ from: start, to: start + value.length, kind: plain });
    }
    spans.push({ from: end - close.length, to: end, kind: "Bracket" });
  }
  return spans;
}

/** A line `source: weight  # comment` of a mixture. */
function source(line: string, at: number): Span[] {
  const comment = COMMENT.exec(line);
  const rest = comment ? line.slice(0, comment.index) : line;
  const spans: Span[] = [];
  const pair = /^(\s*)(\S.*):(?:(\s+)(.*?))?\s*$/.exec(rest);
  if (pair) {
    const [, indent, name, gap = "", weight = ""] = pair;
    const from = at + indent.length;
    const to = from + name.length;
    const path = /^["']|^(?!hf:|\$).*[/.*]/.test(name);
    spans.push({ from, to, kind: name.startsWith("$") ? "Variable" : path ? "String" : "Key" });
    spans.push({ from: to, to: to + 1, kind: "Operator" });
    const start = to + 1 + gap.length;
    const kind = /^[\d.]/.test(weight) ? "Number" : "Value";
    if (weight) spans.push({ from: start, to: start + weight.length, kind });
  } else if (/^\s*-{3}\s*$/.test(rest)) spans.push({ from: at, to: at + rest.length, kind: "Separator" });
  if (comment) {
    const from = at + comment.index + comment[0].indexOf("#");
    spans.push({ from, to: at + line.length, kind: "Comment" });
  }
  return spans;
}

/** A mixture on one line: `{source: weight, …}`. */
function flow(text: string, at: number): Span[] {
  const spans: Span[] = [];
  for (const part of text.matchAll(/[{}]|[^{},]+/g)) {
    const from = at + part.index;
    if ("{}".includes(part[0])) spans.push({ from, to: from + 1, kind: "Bracket" });
    else spans.push(...source(part[0], from));
  }
  return spans;
}

/** A line of labelled texts: `text<tab>label`, a row as JSON, or a source. */
function labelled(line: string, at: number): Span[] {
  const start = line.length - line.trimStart().length;
  const trimmed = line.trim();
  if (trimmed.startsWith("{")) return json(trimmed, at + start);
  const tab = line.lastIndexOf("\t");
  if (tab >= 0) return [{ from: at + tab + 1, to: at + line.length, kind: "Label" }];
  const found = /^(\S+?)(?:\s*(:)\s*(1(?:\.0*)?))?$/.exec(trimmed);
  if (!found || !/^\$|\/|\.\w+$/.test(found[1])) return [];
  const from = at + start;
  const end = from + trimmed.length;
  const [, name, colon, weight] = found;
  const spans: Span[] = [{ from, to: from + name.length, kind: name.startsWith("$") ? "Variable" : "String" }];
  if (colon) spans.push({ from: end - weight.length, to: end, kind: "Number" });
  return spans;
}

function json(text: string, at: number): Span[] {
  const spans: Span[] = [];
  for (const { 0: all, 1: string, 2: colon, index } of text.matchAll(JSON_PART)) {
    const kind = string ? (colon ? "Key" : "String") : "{}[],".includes(all) ? "Bracket" : "Number";
    spans.push({ from: at + index, to: at + index + (string ?? all).length, kind });
  }
  return spans;
}
