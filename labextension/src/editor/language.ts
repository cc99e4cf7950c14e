// The language of notebook cells: Python, but for the lines and cells of our magics.
//
// A cell that begins with a cell magic of ours has a tree of its own. In any other cell the Python parser sees a name
// in place of each line `%gpt VERB …`, whose own tree lies over that. A cell without either is parsed as if this were
// not here.

import { Language, LanguageSupport, defineLanguageFacet, indentNodeProp, languageDataProp } from "@codemirror/language";
import {
  MountedTree,
  NodeProp,
  NodeSet,
  NodeType,
  Parser,
  Tree,
  type Input,
  type PartialParse,
  type TreeFragment,
} from "@lezer/common";
import { styleTags, tags as t } from "@lezer/highlight";
import { helpInLines } from "./hints";
import { LINES, cellMagic, lineMagics, type Line } from "./lines";
import { KINDS, bodySpans, lineSpans, type Kind, type Span } from "./spans";

const COLOURS: Record<Kind, Parameters<typeof styleTags>[0][string]> = {
  Magic: t.keyword,
  Name: t.strong,
  Option: t.attributeName,
  Value: t.special(t.string),
  Number: t.number,
  String: t.string,
  Variable: t.special(t.variableName),
  Operator: t.operator,
  Role: t.keyword,
  Separator: t.punctuation,
  Bracket: t.bracket,
  Keyword: t.keyword,
  Hole: t.definition(t.name),
  Key: t.propertyName,
  Comment: t.comment,
  Label: t.special(t.string),
};

const prose = defineLanguageFacet({ closeBrackets: { brackets: ["(", "[", "{", '"'] } });
const top = NodeType.define({
  id: 0,
  name: "GPTCell",
  top: true,
  // a new line is indented as the one before
  props: [[languageDataProp, prose], indentNodeProp.add({ GPTCell: () => null })],
});
const TEXT = KINDS.length + 1;
const kinds = [...KINDS, "Text"].map((kind, i) => NodeType.define({ id: i + 1, name: `GPT${kind}` }));
const set = new NodeSet([top, ...kinds]).extend(
  styleTags(Object.fromEntries(KINDS.map((kind) => [`GPT${kind}`, COLOURS[kind]]))),
);
const ids = Object.fromEntries(KINDS.map((kind, i) => [kind, i + 1])) as Record<Kind, number>;

/** What no span covers is one part too: JupyterLab would complete a place without any with all parts of the cell. */
function treeOf(spans: Span[], from: number, to: number): Tree {
  const buffer: number[] = [];
  let end = from;
  const add = (id: number, start: number, stop: number) => buffer.push(id, start - from, (end = stop) - from, 4);
  for (const span of spans) {
    if (span.from < end) continue;
    if (span.from > end) add(TEXT, end, span.from);
    add(ids[span.kind], span.from, span.to);
  }
  if (to > end) add(TEXT, end, to);
  return Tree.build({ buffer, nodeSet: set, topID: 0, length: to - from });
}

const having = (tree: Tree, ...props: [NodeProp<any>, unknown][]): Tree =>
  new Tree(tree.type, tree.children, tree.positions, tree.length, props);

/** Parses cells: those of ours itself, all others with `python`. */
class CellParser extends Parser {
  constructor(private readonly python: Parser) {
    super();
  }

  createParse(input: Input, fragments: readonly TreeFragment[], ranges: readonly { from: number; to: number }[]) {
    const [{ from, to }] = ranges;
    const whole = ranges.length === 1 && from === 0 && to === input.length;
    const text = whole ? input.read(0, to) : ""; // parts of another document are none of our cells
    const cell = cellMagic(text);
    if (cell) return new Done(cellTree(text, cell));
    const found = lineMagics(text);
    if (found.length) return new WithLines(this.python.startParse(masked(text, found)), text, found);
    return this.python.startParse(input, fragments.some(({ tree }) => tree.prop(LINES)) ? [] : fragments, ranges);
  }
}

function cellTree(text: string, { line, body }: NonNullable<ReturnType<typeof cellMagic>>): Tree {
  const spans = [...lineSpans(text, line), ...bodySpans(text, line.to, body)];
  return having(treeOf(spans, 0, text.length), [LINES, [line]]);
}

/** The text with a name in place of each line. */
function masked(text: string, found: Line[]): string {
  let made = "";
  for (const { from, to } of found) made += text.slice(made.length, from) + "_".repeat(to - from);
  return made + text.slice(made.length);
}

/** A parse that was made at once. */
class Done implements PartialParse {
  readonly stoppedAt = null;
  readonly parsedPos: number;

  constructor(private readonly tree: Tree) {
    this.parsedPos = tree.length;
  }

  advance(): Tree {
    return this.tree;
  }

  stopAt(): void {}
}

/** A parse of Python, to whose tree the lines of ours are added. */
class WithLines implements PartialParse {
  constructor(
    private readonly parse: PartialParse,
    private readonly text: string,
    private readonly found: Line[],
  ) {}

  advance(): Tree | null {
    const tree = this.parse.advance();
    if (!tree) return null;
    const there = this.found.filter(({ to }) => to <= tree.length);
    if (!there.length) return having(tree, [LINES, this.found]);
    const spans = there.flatMap((line) => lineSpans(this.text, line));
    const inner = treeOf(spans, there[0].from, there[there.length - 1].to);
    const overlay = there.map(({ from, to }) => ({ from, to }));
    return having(tree, [NodeProp.mounted, new MountedTree(inner, overlay, parserOfLines)], [LINES, this.found]);
  }

  get parsedPos(): number {
    return this.parse.parsedPos;
  }

  get stoppedAt(): number | null {
    return this.parse.stoppedAt;
  }

  stopAt(place: number): void {
    this.parse.stopAt(place);
  }
}

/** Of the overlay; its trees are made with those of their cells. */
const parserOfLines = new (class extends Parser {
  createParse(input: Input): PartialParse {
    return new Done(treeOf([], 0, input.length));
  }
})();

/** `python` with our magics. */
export function withMagics(python: LanguageSupport): LanguageSupport {
  const { data, parser, name } = python.language;
  return new LanguageSupport(new Language(data, new CellParser(parser), [], name), [python.support, helpInLines]);
}
