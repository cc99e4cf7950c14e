import { describe, expect, it } from "vitest";
import { read, type Command, type Option } from "../src/editor/check";
import { cellMagic } from "../src/editor/lines";

const option = (name: string, more: Partial<Option> = {}): Option => ({
  name,
  help: `what ${name} does`,
  value: "VALUE",
  number: null,
  choices: [],
  many: false,
  optional: false,
  parted: false,
  ...more,
});

const command: Command = {
  name: "%%prompt",
  summary: "asks",
  usage: "%%prompt [MODEL] [options]",
  options: [
    option("MODEL"),
    option("--samples", { number: "whole" }),
    option("--temperature", { number: "any" }),
    option("--search", { choices: ["bfs", "dfs"] }),
    option("--tools", { many: true, parted: true, choices: ["calculator", "search"] }),
    option("--cot", { value: "" }),
    option("--reflect", { number: "whole", optional: true }),
    option("--system"),
  ],
};

const line = (text: string) => cellMagic(`%%prompt ${text}`)!.line;
const problems = (text: string) =>
  read(line(text), command).problems.map(({ from, to, message }) => `${`%%prompt ${text}`.slice(from, to)}: ${message}`);

describe("what the kernel would not accept", () => {
  it.each([
    ["m --samples 1e3 --temperature .5 --search=dfs --cot --system 'a b' --tools search,$f", []],
    ["--smaples 3", ["--smaples: %%prompt has no option --smaples (did you mean --samples?)"]],
    ["--qqq=3", ["--qqq: %%prompt has no option --qqq (--help lists them)"]],
    ["--search bsf", ["bsf: %%prompt --search: expected bfs or dfs, got 'bsf'"]],
    ["--search=bsf", ["bsf: %%prompt --search: expected bfs or dfs, got 'bsf'"]],
    ["--search $how", []],
    ["--tools search,hammer", ["search,hammer: %%prompt --tools: expected calculator or search, got 'hammer'"]],
    ["--samples 1.5M --samples 2", ["--samples: %%prompt --samples is given twice"]],
    ["--samples 0.5", ["0.5: %%prompt --samples: expected a whole number (such as 1000, 1_000_000, 50k, 1e6), got '0.5'"]],
    ["--temperature warm", ["warm: %%prompt --temperature: expected a number (such as 0.02, 3e-4, 1.5), got 'warm'"]],
    ["--cot=yes", ["--cot=yes: %%prompt --cot takes no value"]],
    ["--system --cot", ["--system: %%prompt --system requires a value: --system VALUE"]],
    ['--system "Be', ['"Be: never closed: add a "']],
    ["--smaples 3 --help", []],
    ["--reflect --cot", []],
  ])("%s", (text, expected) => expect(problems(text)).toEqual(expected));
});

it("tells what each word belongs to", () => {
  const uses = (text: string) => read(line(text), command).uses.map(([word, { name }]) => `${word.text} ${name}`);
  expect(uses("m --samples 3 --reflect 2 --tools search calculator --cot")).toEqual([
    ...["m MODEL", "--samples --samples", "3 --samples", "--reflect --reflect", "2 --reflect"],
    ...["--tools --tools", "search --tools", "calculator --tools", "--cot --cot"],
  ]);
  expect(uses("--reflect m")).toEqual(["--reflect --reflect", "m MODEL"]);
});
