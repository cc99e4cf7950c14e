// What the words of a line of ours stand for, and which of them `parse` of jupyter_gpt/notebook/magics/options.py would
// not accept. The options are the kernel's: nothing about one is written here.

import { isOption, type Line, type Range, type Word } from "./lines";

/** An option, or a bare word (its name is in capitals). `value`: what it takes, empty for a switch. */
export interface Option {
  name: string;
  help: string;
  value: string;
  number: "whole" | "any" | null;
  choices: string[];
  many: boolean;
  optional: boolean;
  parted: boolean;
}

export interface Command {
  name: string;
  summary: string;
  usage: string;
  options: Option[];
}

/** `waits`: its value may be about to be typed. */
export interface Problem extends Range {
  message: string;
  waits?: boolean;
}

const NUMBER = /^([+-]?(?:\d[\d_]*\.?\d*|\.\d+))(?:e([+-]?\d{1,3}))?([kmbgt]?)$/i;
const SCALES: Record<string, number> = { "": 0, k: 3, m: 6, b: 9, g: 9, t: 12 };
const EXPECTED = {
  whole: "a whole number (such as 1000, 1_000_000, 50k, 1e6)",
  any: "a number (such as 0.02, 3e-4, 1.5)",
};

/** The option that each word belongs to, and the problems. */
export function read({ words, name }: Line, command: Command): { uses: [Word, Option][]; problems: Problem[] } {
  const uses: [Word, Option][] = [];
  const problems: Problem[] = [];
  const flags = new Map(command.options.filter((option) => option.name.startsWith("--")).map((it) => [it.name, it]));
  const places = command.options.filter((option) => !flags.has(option.name));
  const given = new Set<Option>();
  const rest = [...words];
  const untilOption = () => {
    const end = rest.findIndex(isOption);
    return rest.splice(0, end < 0 ? rest.length : end);
  };
  while (rest.length) {
    const word = rest.shift()!;
    if (!isOption(word)) {
      const place = places.shift();
      if (!place) continue;
      for (const each of [word, ...(place.many ? untilOption() : [])]) {
        uses.push([each, place]);
        check(place, each);
      }
      continue;
    }
    const [flag] = word.text.split("=", 1);
    const equals = flag.length < word.text.length;
    const range = { from: word.from, to: equals ? word.from + flag.length : word.to };
    if (flag === "--help" || flag === "-h") return { uses, problems: [] }; // then it is all that the line does
    const option = flags.get(flag);
    if (!option) {
      const likely = nearest(flag, flags.keys());
      const tail = likely ? `did you mean ${likely}?` : "--help lists them";
      problems.push({ ...range, message: `${name} has no option ${flag} (${tail})` });
      continue;
    }
    if (given.has(option) && !option.many) problems.push({ ...range, message: `${name} ${flag} is given twice` });
    given.add(option);
    uses.push([word, option]);
    const next = rest[0] && !isOption(rest[0]) ? rest[0] : null;
    if (!option.value) {
      if (equals) problems.push({ from: word.from, to: word.to, message: `${name} ${flag} takes no value` });
    } else if (equals) {
      check(option, { ...word, from: range.to + 1, text: word.text.slice(flag.length + 1) });
    } else if (option.optional) {
      if (next && (/^[\d.]/.test(next.text) || !places.length)) uses.push([rest.shift()!, option]);
    } else if (!next) {
      problems.push({ ...range, message: `${name} ${flag} requires a value: ${flag} ${option.value}`, waits: true });
    } else {
      for (const each of option.many ? untilOption() : [rest.shift()!]) {
        uses.push([each, option]);
        check(option, each);
      }
    }
  }
  for (const { from, to, open } of words)
    if (open) problems.push({ from, to, message: `never closed: add a ${open}`, waits: true });
  return { uses, problems };

  function check(option: Option, { from, to, text, quoted }: Word): void {
    const { choices, number } = option;
    const isRight = (value: string) => {
      if (!value || (value.startsWith("$") && !quoted)) return true;
      return choices.length ? choices.includes(value) : !number || isNumber(value, number);
    };
    const wrong = (option.parted && !quoted ? text.split(",") : [text]).find((value) => !isRight(value));
    if (wrong === undefined) return;
    const expected = choices.length ? choices.join(" or ") : EXPECTED[number!];
    problems.push({ from, to, message: `${name} ${option.name}: expected ${expected}, got '${wrong}'` });
  }
}

function isNumber(text: string, kind: "whole" | "any"): boolean {
  const found = NUMBER.exec(text);
  if (!found || kind === "any") return found !== null;
  const [, digits, power = "0", scale] = found;
  const value = Number(`${digits.replaceAll("_", "")}e${Number(power) + SCALES[scale.toLowerCase()]}`);
  return Number.isInteger(value) && value >= 0;
}

/** The name that shares most letters, in their order, with a word; null if it is fewer than half of them. */
function nearest(word: string, names: Iterable<string>): string | null {
  let best: [number, string | null] = [0.6, null]; // the dashes are shared by all
  for (const name of names) {
    const score = (2 * common(word, name)) / (word.length + name.length);
    if (score > best[0]) best = [score, name];
  }
  return best[1];
}

/** The length of the longest common subsequence. */
function common(one: string, other: string): number {
  let row = new Array<number>(other.length + 1).fill(0);
  for (const letter of one) {
    const next = [0];
    for (let i = 0; i < other.length; i++)
      next.push(letter === other[i] ? row[i] + 1 : Math.max(row[i + 1], next[i]));
    row = next;
  }
  return row[other.length];
}
