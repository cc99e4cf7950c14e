import { python } from "@codemirror/lang-python";
import { EditorState } from "@codemirror/state";
import { ensureSyntaxTree } from "@codemirror/language";
import { classHighlighter, highlightTree } from "@lezer/highlight";
import { describe, expect, it } from "vitest";
import { withMagics } from "../src/editor/language";
import { LINES, cellMagic, lineMagics } from "../src/editor/lines";
import { bodySpans, lineSpans, type Span } from "../src/editor/spans";

/** The parts of a cell as `Kind:text`. */
function parts(cell: string): string[] {
  const magic = cellMagic(cell);
  const spans = magic
    ? [...lineSpans(cell, magic.line), ...bodySpans(cell, magic.line.to, magic.body)]
    : lineMagics(cell).flatMap((line) => lineSpans(cell, line));
  return spans.map(({ from, to, kind }: Span) => `${kind}:${cell.slice(from, to)}`);
}

const CELLS: [string, string, string[]][] = [
  [
    "a question with variables",
    "%%prompt smollm2 --samples 3 --system \"Be brief.\"\nExplain {topic} and {paper.title[0]} like {'this'}.",
    [
      "Magic:%%prompt",
      "Name:smollm2",
      "Option:--samples",
      "Number:3",
      "Option:--system",
      'String:"Be brief."',
      "Variable:{topic}",
      "Variable:{paper.title[0]}",
    ],
  ],
  [
    "a chat",
    "%%prompt\nsystem: You know {x}.\nuser: What is a user: role?\n user: no role\nassistant:",
    ["Magic:%%prompt", "Role:system:", "Variable:{x}", "Role:user:", "Role:assistant:"],
  ],
  ["no chat, as it does not begin with a role", "%%prompt\nHello\nuser: hi", ["Magic:%%prompt"]],
  [
    "a template",
    '%%prompt m\nName: {{gen name max_tokens=5 stop="."}} {{select kind from="mage|thief"}} {other} {{kept}}',
    [
      "Magic:%%prompt",
      "Name:m",
      ...["Bracket:{{", "Keyword:gen", "Hole:name", "Key:max_tokens", "Operator:=", "Number:5"],
      ...["Key:stop", "Operator:=", 'String:"."', "Bracket:}}"],
      ...["Bracket:{{", "Keyword:select", "Hole:kind", "Key:from", "Operator:=", 'String:"mage|thief"', "Bracket:}}"],
      "Variable:{other}",
      "Variable:{{kept}}",
    ],
  ],
  [
    "JSON, an equals sign and a variable",
    '%%prompt --json={"type": "object"} --check $f --top-p .5',
    [
      ...["Magic:%%prompt", "Option:--json", "Operator:=", "Bracket:{", 'Key:"type"', 'String:"object"', "Bracket:}"],
      ...["Option:--check", "Variable:$f", "Option:--top-p", "Number:.5"],
    ],
  ],
  ["roles elsewhere are text", "%%rag m --index docs\nuser: {q}", [
    ...["Magic:%%rag", "Name:m", "Option:--index", "Value:docs", "Variable:{q}"],
  ]],
  [
    "one prompt a line",
    "%%rlhf aligned --policy assistant --algo ppo\nTell me about {animal}.\nWhy?",
    ["Magic:%%rlhf", "Name:aligned", "Option:--policy", "Value:assistant", "Option:--algo", "Value:ppo", "Variable:{animal}"],
  ],
  [
    "a mixture",
    "\n%%pretrain storyteller --steps 50k\n# comment\nstories: 3\n./books/*.txt: 1.5  # more\nhf:owner/name[config]: 20 %\n$docs: 1\n",
    [
      ...["Magic:%%pretrain", "Name:storyteller", "Option:--steps", "Number:50k", "Comment:# comment"],
      ...["Key:stories", "Operator::", "Number:3", "String:./books/*.txt", "Operator::", "Number:1.5", "Comment:# more"],
      ...["Key:hf:owner/name[config]", "Operator::", "Number:20 %", "Variable:$docs", "Operator::", "Number:1"],
    ],
  ],
  [
    "a mixture on one line",
    "%%corpus c\n{stories: 3, sums: 1}",
    [
      ...["Magic:%%corpus", "Name:c", "Bracket:{", "Key:stories", "Operator::", "Number:3"],
      ...["Key:sums", "Operator::", "Number:1", "Bracket:}"],
    ],
  ],
  [
    "conversations",
    "%%sft polite --base tiny\nuser: Who sang?\nassistant: The hen.\n---\nsystem: Be kind.\nuser: {x}",
    [
      ...["Magic:%%sft", "Name:polite", "Option:--base", "Value:tiny"],
      ...["Role:user:", "Role:assistant:", "Separator:---", "Role:system:", "Role:user:"],
    ],
  ],
  ["sources of conversations", "%%sft a --base b\nstories-qa: 2", [
    ...["Magic:%%sft", "Name:a", "Option:--base", "Value:b", "Key:stories-qa", "Operator::", "Number:2"],
  ]],
  [
    "labelled texts",
    '%%classify mood --base m\nA joy.\tgood\n{"text": "Dull.", "label": 0}\n./reviews.jsonl: 1\n$more\nno label',
    [
      ...["Magic:%%classify", "Name:mood", "Option:--base", "Value:m", "Label:good"],
      ...["Bracket:{", 'Key:"text"', 'String:"Dull."', "Bracket:,", 'Key:"label"', "Number:0", "Bracket:}"],
      ...["String:./reviews.jsonl", "Number:1", "Variable:$more"],
    ],
  ],
  [
    "lines in a cell of Python",
    'x = 1\n%gpt show tale --tokens\nif x:\n    run = %gpt resume tale \\\n        --background\n"""\n%gpt models\n"""\n# \'\n%gpt help sft\n%gpt\n%gptx',
    [
      ...["Magic:%gpt", "Magic:show", "Name:tale", "Option:--tokens"],
      ...["Magic:%gpt", "Magic:resume", "Name:tale", "Option:--background"],
      ...["Magic:%gpt", "Magic:help", "Magic:sft", "Magic:%gpt"],
    ],
  ],
  ["other magics and Python", "%%time\n%%prompt\nx = '%gpt'", []],
  ["no magic of ours", "%%prompts\nHello {x}", []],
  ["apostrophes are letters", "%%agent m --tools a,$b don't", [
    ...["Magic:%%agent", "Name:m", "Option:--tools", "Value:a", "Variable:$b", "Value:don't"],
  ]],
];

describe("the parts of a cell", () => {
  it.each(CELLS)("%s", (_, cell, expected) => expect(parts(cell)).toEqual(expected));
});

const treeOf = (state: EditorState) => ensureSyntaxTree(state, state.doc.length, 10_000)!;
const state = (doc: string) => EditorState.create({ doc, extensions: withMagics(python()) });

/** The coloured texts of a cell. */
function coloured(state: EditorState): string[] {
  const found: string[] = [];
  highlightTree(treeOf(state), classHighlighter, (from, to, style) => {
    found.push(`${style.replaceAll("tok-", "")}:${state.sliceDoc(from, to)}`);
  });
  return found;
}

describe("the language of cells", () => {
  it("changes with the first line, and back", () => {
    const before = state("for x in y: pass\nstories: 1");
    const inserted = before.update({ changes: { from: 0, insert: "%%pretrain t\n" } });
    expect(coloured(before)).toContain("keyword:for");
    expect(coloured(inserted.state)).toContain("keyword:%%pretrain");
    expect(coloured(inserted.state)).not.toContain("keyword:for");
    const after = inserted.state.update({ changes: inserted.changes.invert(before.doc) });
    expect(coloured(after.state)).toEqual(coloured(before));
  });

  it("keeps Python around a line of ours", () => {
    const cell = state('def f():\n    %gpt show don\'t --tokens\n    return "a"\n%gpt runs\nf()\n%gpt models');
    const found = coloured(cell);
    for (const part of ["keyword:def", "propertyName:--tokens", "keyword:return", 'string:"a"', "keyword:runs", "keyword:models"])
      expect(found).toContain(part);
    expect(treeOf(cell).prop(LINES)?.map(({ name }) => name)).toEqual(["%gpt show", "%gpt runs", "%gpt models"]);
    const lines = treeOf(state("if x:\n    %gpt runs\nelse:\n    y = %gpt show x\n")).toString();
    expect(lines).toBe(treeOf(state("if x:\n    _\nelse:\n    y = _\n")).toString());
    const without = cell.update({ changes: { from: 0, to: cell.doc.length, insert: "f()" } }).state;
    expect(treeOf(without).prop(LINES)).toBeUndefined();
  });

  it("is Python itself for any other cell", () => {
    const plain = EditorState.create({ doc: "x = [1, 2]\nprint(x % y)", extensions: python() });
    expect(treeOf(state(plain.doc.toString())).toString()).toBe(treeOf(plain).toString());
  });
});
