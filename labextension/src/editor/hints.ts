// Help in the lines of our magics: problems are underlined, the mouse over a word shows what it means, and the
// completer opens while one types.

import { syntaxTree } from "@codemirror/language";
import { StateEffect, type EditorState, type Extension } from "@codemirror/state";
import {
  Decoration,
  EditorView,
  ViewPlugin,
  hoverTooltip,
  type DecorationSet,
  type Tooltip,
  type ViewUpdate,
} from "@codemirror/view";
import { element } from "../dom";
import { read, type Problem } from "./check";
import { MAGICS, commands } from "./commands";
import { BODIES, LINES, isOption, type Line } from "./lines";

const renewed = StateEffect.define<null>();
const wrong = Decoration.mark({ class: "jp-gpt-wrong" });

const linesOf = (state: EditorState): Line[] | undefined => syntaxTree(state).prop(LINES);

/** What is known of a line: its problems and its words' options. */
function look(view: EditorView, line: Line) {
  const command = line.name === "%gpt" ? null : commands.find(view.dom, line.name);
  if (command === null) return null;
  if (typeof command !== "string") return { command, ...read(line, command) };
  const { from, to } = line.head[line.head.length - 1];
  return { command: null, uses: [], problems: [{ from, to, message: command }] };
}

class Hints {
  decorations: DecorationSet = Decoration.none;
  problems: Problem[] = [];
  private typed: number | null = null; // where, since the cursor was last moved

  constructor(private readonly view: EditorView) {
    commands.changed.connect(this.renew, this);
    this.look();
  }

  destroy(): void {
    commands.changed.disconnect(this.renew, this);
  }

  private renew(): void {
    if (linesOf(this.view.state)) this.view.dispatch({ effects: renewed.of(null) });
  }

  update(update: ViewUpdate): void {
    const found = linesOf(update.state);
    if (!found && !linesOf(update.startState)) return; // a cell of Python
    if (update.docChanged) this.typed = update.state.selection.main.head;
    else if (update.selectionSet || update.focusChanged) this.typed = null;
    this.look();
    if (found && update.transactions.some((each) => each.isUserEvent("input.type"))) this.complete(found);
  }

  private look(): void {
    const { state, hasFocus } = this.view;
    const isTyped = (from: number, to: number) =>
      hasFocus && this.typed !== null && from <= this.typed && this.typed <= to;
    this.problems = [];
    for (const line of linesOf(state) ?? []) {
      if (isTyped(line.from, line.head[line.head.length - 1].to)) continue;
      const problems: Problem[] = look(this.view, line)?.problems ?? [];
      this.problems.push(...problems.filter(({ from, to, waits }) => !isTyped(from, waits ? line.to : to)));
    }
    this.decorations = Decoration.set(
      this.problems.filter(({ from, to }) => from < to).map(({ from, to }) => wrong.range(from, to)),
      true,
    );
  }

  /** Opens the completer where a word of ours is being typed, or a value is due. */
  private complete(found: Line[]): void {
    const { state, dom } = this.view;
    const { head } = state.selection.main;
    const line = found.find(({ from, to }) => from <= head && head <= to);
    const isThere = () => this.view.hasFocus && this.typed === head;
    if (line ? isDue(this.view, line, head) : isSource(state, found[0], head)) commands.complete(dom, isThere);
  }
}

/** Whether there may be something to complete at a place of a line. */
function isDue(view: EditorView, line: Line, head: number): boolean {
  const before = view.state.sliceDoc(line.from, head);
  const [fragment] = /[^\s=]*$/.exec(before)!;
  if (fragment) return before.length > fragment.length && /^(--|\$|[A-Za-z./])/.test(fragment);
  if (/^%gpt\s+$/.test(before)) return true;
  const last = line.words.filter(({ to }) => to <= head).pop();
  if (!last || !isOption(last)) return false;
  const option = look(view, line)?.uses.find(([word]) => word === last)?.[1];
  return option !== undefined && option.value !== "" && !option.optional && option.number === null;
}

/** Whether a source is being typed in the body of a mixture. */
function isSource(state: EditorState, { name, to }: Line, head: number): boolean {
  if (head <= to || BODIES[name.slice(2) as keyof typeof BODIES] !== "mixture") return false;
  const line = state.doc.lineAt(head);
  return /^[\w./$]+$/.test(state.sliceDoc(line.from, head));
}

const hints = ViewPlugin.fromClass(Hints, { decorations: ({ decorations }) => decorations });

/** What the word at a place means, and what is wrong with it. */
function help(view: EditorView, place: number): Tooltip | null {
  const line = linesOf(view.state)?.find(({ from, to }) => from <= place && place <= to);
  const found = line && look(view, line);
  if (!line || !found) return null;
  const at = ({ from, to }: { from: number; to: number }) => from <= place && place <= to;
  const problems = view.plugin(hints)?.problems.filter(at) ?? [];
  const [word, option] = found.uses.find(([word]) => at(word)) ?? [];
  const head = line.head.find(at);
  const { command } = found;
  if (!problems.length && !word && !(head && command)) return null;
  const { from, to } = problems[0] ?? word ?? head!;
  const dom = element("div", "jp-gpt-help");
  for (const { message } of problems) dom.append(element("div", "jp-gpt-problem", message));
  const value = option?.name.startsWith("--") ? option.value : "";
  if (option) dom.append(element("code", "", `${option.name} ${value}`.trim()), element("div", "", option.help));
  else if (head && command) dom.append(element("code", "", command.usage), element("div", "", command.summary));
  return { pos: from, end: to, above: true, create: () => ({ dom }) };
}

const theme = EditorView.baseTheme({
  ".jp-gpt-wrong": {
    textDecoration: "underline wavy var(--jp-error-color1)",
    textUnderlineOffset: "3px",
    textDecorationSkipInk: "none",
  },
  ".cm-tooltip.cm-tooltip-hover:has(.jp-gpt-help)": {
    border: "var(--jp-border-width) solid var(--jp-border-color1)",
    borderRadius: "var(--jp-border-radius)",
    boxShadow: "var(--jp-elevation-z6)",
    background: "var(--jp-layout-color1)",
  },
  ".jp-gpt-help": {
    maxWidth: "440px",
    padding: "6px 10px",
    color: "var(--jp-ui-font-color1)",
    font: "var(--jp-ui-font-size1)/1.45 var(--jp-ui-font-family)",
    "& code": { fontFamily: "var(--jp-code-font-family)", fontSize: "var(--jp-code-font-size)", fontWeight: "bold" },
    "& .jp-gpt-problem": { color: "var(--jp-error-color1)", marginBottom: "4px" },
    "& .jp-gpt-problem:last-child": { marginBottom: "0" },
  },
});

const marked = EditorView.editorAttributes.of(({ state }) => {
  const { head } = state.selection.main;
  return linesOf(state)?.some(({ from, to }) => from <= head && head <= to) ? { class: MAGICS } : null;
});

export const helpInLines: Extension = [hints, marked, hoverTooltip(help), theme];
