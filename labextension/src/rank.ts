// The anywidget of the ranking form (jupyter_gpt/notebook/views/rank_form.py has the protocol): one prompt with its
// completions, to be put in order on a board, or, where only the best is asked for, side by side with one key or click
// each. Only the order in the making is kept here; the kernel saves a ranking and sends the next prompt.

import { Board } from "./board";
import { element, toggle, write } from "./dom";
import { unranked, type Order } from "./order";
import { Frame } from "./frame";
import { widget, type Link } from "./widget";
import "./rank.css";

type Piece = [text: string, differs: boolean];

interface State {
  heard: number;
  answers: number | null;
  row: number;
  rows: number;
  ranked: number;
  best_only: boolean;
  prompt: string;
  texts: Piece[][];
  mostly: boolean[];
  copies: number[];
  order: Order | null;
  reason: string;
  undo: boolean;
  error: string | null;
}

const SLOW = 600; // milliseconds after which a person wonders where the answer went
const LOST = 5000; // and after which it is sent again: the kernel takes it once
const MOVE: [string, string][] = [["u", "undo the last ranking"], ["←", ""], ["→", "back, skip"]];
const BOARD_KEYS: [string, string][] = [
  ["1", "…"], ["9", "rank or remove"], ["r", "reason"], ["s", "skip"], ["↑", ""], ["↓", "move the focused completion"],
];
const name = (i: number) => String.fromCharCode(65 + i); // A, B, … of completions side by side

class Form {
  private readonly panel: Frame;
  private readonly bar = element("div", "gpt-bar");
  private readonly track = element("div", "gpt-track");
  private readonly prompt = element("div", "gpt-asked");
  private readonly board: Board | null;
  private readonly columns = element("div", "gpt-columns");
  private readonly actions = element("div", "gpt-finish");
  private readonly reason = element("input", "gpt-reason");
  private readonly tie = keyed("=", "Tie next", () => this.board!.tieNext());
  private readonly rest = keyed("0", "Tie the rest", () => this.board!.tieRest());
  private readonly step = keyed("⌫", "Step back", () => this.board!.stepBack());
  private readonly save = keyed("⏎", "Save ranking", () => this.saveRanking());
  private readonly undo = toggle("Undo", () => this.ask({ type: "undo" }));
  private readonly back = toggle("‹ Back", () => this.go(-1));
  private readonly skip = toggle("Skip ›", () => this.go(1));
  private readonly keys = element("p", "gpt-note gpt-keys");
  private readonly spoken = element("p", "gpt-spoken");
  private state: State; // the newest: after a reload JupyterLab may set one that it had asked for before
  private row = -1;
  private waiting = 0; // the timer of a message that the kernel has not answered yet
  private asked: Record<string, unknown> = {}; // that message

  constructor(el: HTMLElement, private readonly link: Link) {
    this.state = link.state<State>();
    this.panel = new Frame(el, "gpt-rank", "Rank the completions of a prompt");
    const { root, name, note, actions } = this.panel;
    this.board = this.state.best_only ? null : new Board((spoken) => this.changed(spoken));
    write(name, "Which is better?");
    const done = toggle("Show results", () => this.ask({ type: "done" }));
    done.title = "Ends the ranking for now. Run the cell again to continue.";
    actions.append(this.undo, this.back, this.skip, done);
    this.track.setAttribute("role", "progressbar");
    this.track.setAttribute("aria-label", "Prompts ranked");
    this.track.append(this.bar);
    this.save.classList.add("gpt-save");
    this.reason.type = "text";
    this.reason.placeholder = "Reason (optional)";
    this.reason.setAttribute("aria-label", "Reason for this ranking, optional");
    if (this.board) this.actions.append(this.tie, this.rest, this.step, this.reason, this.save);
    for (const [key, means] of this.board ? [...BOARD_KEYS, ...MOVE] : MOVE) {
      this.keys.append(element("kbd", "", key), means ? ` ${means}  ` : " ");
    }
    this.spoken.setAttribute("aria-live", "polite");
    root.tabIndex = 0;
    const body = this.board?.root ?? this.columns;
    root.append(this.track, this.prompt, body, this.actions, note, this.keys, this.spoken);
    root.addEventListener("keydown", (event) => this.key(event));
    this.draw();
  }

  destroy(): void {
    clearTimeout(this.waiting);
    this.panel.destroy();
  }

  draw(): void {
    const told = this.link.state<State>();
    const answered = this.waiting !== 0 && told.answers === this.asked.id;
    if (told.heard >= this.state.heard) this.state = told;
    const { row, rows, ranked, prompt, texts, order, undo, error } = this.state;
    const { root, about, note } = this.panel;
    if (answered || this.link.gone) {
      clearTimeout(this.waiting);
      this.waiting = 0;
      root.classList.remove("gpt-slow");
    }
    write(about, `${row + 1} of ${rows}, ${ranked} ranked`);
    this.bar.style.width = `${(100 * ranked) / rows}%`;
    this.track.setAttribute("aria-valuemax", String(rows));
    this.track.setAttribute("aria-valuenow", String(ranked));
    write(this.prompt, prompt);
    if (row !== this.row || (answered && error === null)) {
      const inside = root.contains(document.activeElement);
      const before = this.row < 0 ? "" : `${ranked} of ${rows} ranked. `;
      const known = order ? " It has a ranking already." : "";
      this.row = row;
      this.show();
      if (inside) root.focus({ preventScroll: true });
      write(this.spoken, `${before}Prompt ${row + 1}: ${prompt} ${texts.length} completions.${known}`);
    }
    this.undo.disabled = !undo;
    this.back.disabled = row === 0;
    this.skip.disabled = row === rows - 1;
    const gone = this.link.gone ? "The kernel is gone. Run the cell again to continue." : "";
    write(note, error !== null ? `The ranking was not saved: ${error}` : gone);
    note.hidden = !note.textContent;
    note.classList.toggle("gpt-error", error !== null);
    if (this.board) this.changed("");
    if (gone) root.querySelectorAll("button").forEach((button) => (button.disabled = true));
  }

  /** Other completions: on the board, or side by side with a button each. */
  private show(): void {
    const { texts, mostly, copies, order, reason } = this.state;
    this.reason.value = reason;
    const plain = texts.map((pieces) => pieces.map(([text]) => text).join(""));
    if (this.board) return this.board.show(plain, copies, order ?? []);
    const written = texts.map((pieces, i) => {
      const text = element("div", "gpt-written");
      text.id = `gpt-written-${Math.random().toString(36).slice(2)}`;
      text.classList.toggle("gpt-mostly", mostly[i]);
      text.append(...pieces.map(([piece, differs]) => element(differs ? "mark" : "span", "", piece)));
      if (!pieces.length) text.append(element("em", "gpt-empty", "empty completion"));
      return text;
    });
    const chosen = order === null ? null : order.length > 1 ? order[0][0] : 0;
    this.columns.replaceChildren(...written.map((text, i) => {
      const column = element("div", "gpt-column");
      column.classList.toggle("gpt-best", chosen === i + 1);
      column.append(element("b", "gpt-letter", name(i)), text);
      column.addEventListener("click", (event) => window.getSelection()?.toString() || this.clicked(event, i + 1));
      return column;
    }));
    const buttons = written.map((text, i) => {
      const button = keyed(String(i + 1), `${name(i)} is better`, (event) => this.clicked(event, i + 1));
      button.setAttribute("aria-describedby", text.id); // who comes by Tab hears the text too
      return button;
    });
    const tie = keyed("0", "Tie", (event) => this.clicked(event, 0));
    buttons.splice(buttons.length === 2 ? 1 : buttons.length, 0, tie); // A, tie, B
    const pressed = chosen === null ? null : chosen === 0 ? tie : buttons.filter((each) => each !== tie)[chosen - 1];
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
    this.actions.replaceChildren(...buttons);
  }

  /** The order in the making is another: what can be pressed now, and what a screen reader is told. */
  private changed(spoken: string): void {
    const board = this.board!;
    const open = unranked(board.order, board.count).length;
    this.save.disabled = open > 0;
    this.tie.disabled = !board.order.length || !open;
    this.tie.setAttribute("aria-pressed", String(board.tying));
    this.rest.disabled = !open;
    this.step.disabled = !board.canStepBack;
    if (spoken) write(this.spoken, spoken + (open ? ` ${open} left.` : " All are ranked: Enter saves the ranking."));
  }

  private saveRanking(): void {
    const { order, count } = this.board!;
    const open = unranked(order, count).length;
    if (open) return write(this.spoken, `${open} completions are not ranked yet.`);
    this.ask({ type: "rank", row: this.state.row, order, reason: this.reason.value });
  }

  /** The second click of a double click may meet the next prompt, which nobody has read. */
  private clicked({ detail }: MouseEvent, best: number): void {
    if (detail < 2) this.choose(best);
  }

  /** The completion shown as number `best` above the others, which are tied; 0 ties all. */
  private choose(best: number): void {
    const others = this.state.texts.map((_, i) => i + 1).filter((number) => number !== best);
    this.ask({ type: "rank", row: this.state.row, order: best ? [[best], others] : [others] });
  }

  private go(by: number): void {
    this.ask({ type: "go", row: this.state.row + by });
  }

  /** One message at a time: what is pressed before the kernel has answered would meet a prompt not yet seen. */
  private ask(message: Record<string, unknown>): void {
    if (this.waiting || this.link.gone) return;
    this.asked = { ...message, id: Math.random() };
    this.link.send(this.asked);
    this.waiting = window.setTimeout(() => this.slow(), SLOW);
  }

  /** While nothing is answered: what was sent, or its answer, may be lost. */
  private slow(): void {
    this.panel.root.classList.add("gpt-slow");
    this.waiting = window.setTimeout(() => {
      this.link.send(this.asked);
      this.slow();
    }, LOST);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter")) return;
    if (event.key === "Tab") return;
    event.stopPropagation(); // else the notebook makes a heading of "1" and restarts its kernel at "0" "0"
    const on = event.target as HTMLElement;
    if (on === this.reason) {
      if (event.key === "Enter" && !event.repeat) this.saveRanking();
      else if (event.key === "Escape") this.panel.root.focus();
      return;
    }
    if (on instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) return; // its own click
    if (this.waiting) return;
    if (event.repeat && !event.key.startsWith("Arrow")) return event.preventDefault(); // of a prompt not yet read
    if (this.moved(event.key) || this.ranked(event.key, on)) event.preventDefault();
  }

  private moved(key: string): boolean {
    if (key === "u" || (key === "Backspace" && !this.board)) this.ask({ type: "undo" });
    else if (key === "ArrowLeft" && !this.back.disabled) this.go(-1);
    else if ((key === "ArrowRight" || key === "s") && !this.skip.disabled) this.go(1);
    else return false;
    return true;
  }

  private ranked(key: string, on: HTMLElement): boolean {
    const { board } = this;
    const number = /^\d$/.test(key) ? Number(key) : -1;
    if (!board) {
      if (number < 0 || number > this.state.texts.length) return false;
      this.choose(number);
      return true;
    }
    const focused = board.cardOf(on);
    if (number > 0 && number <= board.count) board.press(number);
    else if (key === "=") board.tieNext();
    else if (key === "0") board.tieRest();
    else if (key === "Enter") this.saveRanking();
    else if (key === "Backspace") board.stepBack();
    else if (key === "r") this.reason.focus();
    else if (focused !== null && key === " ") board.put(focused);
    else if (focused !== null && key === "ArrowUp") board.move(focused, -1);
    else if (focused !== null && key === "ArrowDown") board.move(focused, 1);
    else return false;
    return true;
  }
}

function keyed(key: string, label: string, clicked: (event: MouseEvent) => void): HTMLButtonElement {
  const button = element("button", "gpt-choice");
  button.type = "button";
  const shown = element("kbd", "", key);
  shown.setAttribute("aria-hidden", "true"); // the label alone is its name
  button.append(shown, element("span", "", label));
  button.addEventListener("click", clicked);
  return button;
}

export default widget((el, link) => new Form(el, link));
