// The language of notebook cells: Python, but for the lines and cells of our magics.
//
// A cell that begins with a cell magic of ours has a tree of its own. In any other cell the lines `%gpt VERB …` are left
// out of what the Python parser sees, and are an overlay of its tree. Any other cell is parsed as if this were not here.

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
import { cellMagic, lineMagics, type Line } from "./lines";
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
const set = new NodeSet([top, ...KINDS.map((kind, i) => NodeType.define({ id: i + 1, name: `GPT${kind}` }))]).extend(
  styleTags(Object.fromEntries(KINDS.map((kind) => [`GPT${kind}`, COLOURS[kind]]))),
);
const ids = Object.fromEntries(KINDS.map((kind, i) => [kind, i + 1])) as Record<Kind, number>;

/** The lines of ours that a tree was made of. */
export const lines = new NodeProp<Line[]>({ perNode: true });

function treeOf(spans: Span[], from: number, to: number): Tree {
  const buffer = spans.flatMap((span) => [ids[span.kind], span.from - from, span.to - from, 4]);
  return Tree.build({ buffer, nodeSet: set, topID: 0, length: to - from });
}

const having = (tree: Tree, length: number, ...props: [NodeProp<any>, unknown][]): Tree =>
  new Tree(tree.type, tree.children, tree.positions, length, props);

/** Parses cells: those of ours itself, all others with `python`. */
class CellParser extends Parser {
  constructor(private readonly python: Parser) {
    super();
  }

  createParse(input: Input, fragments: readonly TreeFragment[], ranges: readonly { from: number; to: number }[]) {
    const python = (fragments: readonly TreeFragment[], ranges: readonly { from: number; to: number }[]) =>
      this.python.startParse(input, fragments, ranges);
    const [{ from, to }] = ranges;
    if (ranges.length > 1 || from > 0 || to < input.length) return python(fragments, ranges);
    const text = input.read(0, input.length);
    const cell = cellMagic(text);
    if (cell) return new Done(cellTree(text, cell));
    const found = lineMagics(text);
    if (found.length) return new WithLines(python([], between(found, to)), text, found);
    return python(fragments.some(({ tree }) => tree.prop(lines)) ? [] : fragments, ranges);
  }
}

function cellTree(text: string, { line, body }: NonNullable<ReturnType<typeof cellMagic>>): Tree {
  const spans = [...lineSpans(text, line), ...bodySpans(text, line.to, body)];
  return having(treeOf(spans, 0, text.length), text.length, [lines, [line]]);
}

/** What lies between the lines, and what is before and after them. */
function between(found: Line[], end: number): { from: number; to: number }[] {
  const starts = [0, ...found.map(({ to }) => to)];
  const ends = [...found.map(({ from }) => from), end];
  const ranges = starts.map((from, i) => ({ from, to: ends[i] })).filter(({ from, to }) => from < to);
  return ranges.length ? ranges : [{ from: end, to: end }];
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

/** A parse of Python that left out the lines of ours: they are added to its tree. */
class WithLines implements PartialParse {
  constructor(
    private readonly parse: PartialParse,
    private readonly text: string,
    private readonly found: Line[],
  ) {}

  advance(): Tree | null {
    const tree = this.parse.advance();
    if (!tree) return null;
    const length = this.stoppedAt === null ? this.text.length : tree.length; // the last line may be ours
    const there = this.found.filter(({ to }) => to <= length);
    if (!there.length) return having(tree, length, [lines, this.found]);
    const spans = there.flatMap((line) => lineSpans(this.text, line));
    const inner = treeOf(spans, there[0].from, there[there.length - 1].to);
    const overlay = there.map(({ from, to }) => ({ from, to }));
    const mounted = new MountedTree(inner, overlay, parserOfLines);
    return having(tree, length, [NodeProp.mounted, mounted], [lines, this.found]);
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
  return new LanguageSupport(new Language(data, new CellParser(parser), [], name), python.support);
}
