// The anywidget of the ranking form (jupyter_gpt/notebook/views/rank_form.py has the protocol): one prompt, its completions, and
// the order a person puts them in by keys, buttons or dragging. Only the order in the making is kept here; a ranking
// goes to the kernel, which keeps it and says what comes next.

import type { AnyModel } from "@anywidget/types";
import { Board } from "./board";
import { element, toggle, write } from "./dom";
import { left, type Order } from "./order";
import { readTheme, watchTheme } from "./theme";
import "./run.css";
import "./votes.css";
import "./rank.css";

interface State {
  heard: number;
  row: number;
  rows: number;
  ranked: number;
  prompt: string;
  texts: string[];
  copies: number[];
  order: Order | null;
  reason: string;
  undo: boolean;
  summary: string | null;
  error: string | null;
}

type Send = (message: Record<string, unknown>) => void;

const PAGE = Math.random().toString(36).slice(2); // another after a reload
const SLOW = 600; // milliseconds after which a person wonders where the answer went
const KEYS: [string, string][] = [
  ["1", "…"], ["9", "place next, or take out"], ["r", "a reason"], ["u", "undo the last ranking"], ["s", "skip"],
  ["←", ""], ["→", "go back, go on"], ["↑", ""], ["↓", "move the completion in focus"],
];

class Form {
  private readonly root = element("section", "gpt-run gpt-votes gpt-rank");
  private readonly count = element("span", "gpt-about");
  private readonly bar = element("div", "gpt-bar");
  private readonly track = element("div", "gpt-track");
  private readonly prompt = element("div", "gpt-asked");
  private readonly board: Board;
  private readonly reason = element("input", "gpt-reason");
  private readonly finish = element("div", "gpt-finish");
  private readonly tie: HTMLButtonElement;
  private readonly rest: HTMLButtonElement;
  private readonly step: HTMLButtonElement;
  private readonly keep: HTMLButtonElement;
  private readonly undo: HTMLButtonElement;
  private readonly back: HTMLButtonElement;
  private readonly skip: HTMLButtonElement;
  private readonly note = element("p", "gpt-note");
  private readonly keys = element("p", "gpt-note gpt-keys");
  private readonly spoken = element("p", "gpt-spoken");
  private readonly stopWatching: () => void;
  private row = -1;
  private waiting = 0; // the timer of an answer that the kernel has not yet taken

  constructor(
    el: HTMLElement,
    private readonly state: () => State,
    private readonly send: Send,
  ) {
    this.board = new Board((said) => this.changed(said));
    const head = element("header", "gpt-head");
    const who = element("div", "gpt-who");
    who.append(element("span", "gpt-name", "Which is better?"), this.count);
    const tools = element("div", "gpt-actions");
    this.undo = toggle("undo", () => this.ask({ type: "undo" }));
    this.back = toggle("‹ back", () => this.go(-1));
    this.skip = toggle("skip ›", () => this.go(1));
    const done = toggle("show the answers", () => this.ask({ type: "done" }));
    done.title = "Ends the ranking for now. Run the cell again to go on.";
    tools.append(this.undo, this.back, this.skip, done);
    head.append(who, tools);
    this.track.setAttribute("role", "progressbar");
    this.track.setAttribute("aria-label", "Prompts ranked");
    this.track.append(this.bar);
    this.tie = keyed("=", "tie the next", () => this.board.tieNext());
    this.rest = keyed("0", "tie the rest", () => this.board.tieRest());
    this.step = keyed("⌫", "step back", () => this.board.stepBack());
    this.keep = keyed("⏎", "keep this ranking", () => this.rank());
    this.keep.classList.add("gpt-keep");
    this.reason.type = "text";
    this.reason.placeholder = "why? (if you like)";
    this.reason.setAttribute("aria-label", "A reason for this ranking, if you like");
    this.finish.append(this.tie, this.rest, this.step, this.reason, this.keep);
    for (const [key, means] of KEYS) this.keys.append(element("kbd", "", key), means ? ` ${means}  ` : " ");
    this.spoken.setAttribute("aria-live", "polite");
    this.root.tabIndex = 0;
    this.root.setAttribute("aria-label", "Rank the completions of a prompt");
    this.root.append(head, this.track, this.prompt, this.board.root, this.finish, this.note, this.keys, this.spoken);
    this.root.addEventListener("keydown", (event) => this.key(event));
    el.append(this.root);
    this.stopWatching = watchTheme(() => this.tint());
    this.draw();
    requestAnimationFrame(() => this.tint()); // no colours before it stands in the page
  }

  destroy(): void {
    clearTimeout(this.waiting);
    this.stopWatching();
    this.root.remove();
  }

  draw(): void {
    const { row, rows, ranked, prompt, texts, copies, order, reason, undo, summary, error } = this.state();
    const answered = this.waiting !== 0;
    const before = this.row;
    clearTimeout(this.waiting);
    this.waiting = 0;
    this.root.classList.remove("gpt-slow");
    write(this.count, `${row + 1} of ${rows}, ${ranked} ranked`);
    this.bar.style.width = `${(100 * ranked) / rows}%`;
    this.track.setAttribute("aria-valuemax", String(rows));
    this.track.setAttribute("aria-valuenow", String(ranked));
    write(this.prompt, prompt);
    if (row !== before || (answered && error === null)) {
      const inside = this.root.contains(document.activeElement);
      this.row = row;
      this.board.show(texts, copies, order ?? []);
      this.reason.value = reason;
      if (inside) this.root.focus({ preventScroll: true });
      const known = order ? " It has a ranking already." : "";
      const kept = before < 0 ? "" : `${ranked} of ${rows} ranked. `;
      write(this.spoken, summary ?? `${kept}Prompt ${row + 1}: ${prompt} ${texts.length} completions.${known}`);
    }
    this.undo.disabled = !undo;
    this.back.disabled = row === 0;
    this.skip.disabled = row === rows - 1;
    this.note.hidden = error === null && summary === null;
    this.note.classList.toggle("gpt-error", error !== null);
    write(this.note, error !== null ? `The ranking was not kept: ${error}` : summary !== null ? `Done: ${summary}` : "");
    for (const part of [this.prompt, this.board.root, this.finish, this.keys]) part.hidden = summary !== null;
    this.changed("");
  }

  /** The order in the making is another: what can be pressed now, and what a screen reader is told. */
  private changed(said: string): void {
    const { board } = this;
    const open = left(board.order, board.count).length;
    this.keep.disabled = open > 0;
    this.tie.disabled = !board.order.length || !open;
    this.tie.setAttribute("aria-pressed", String(board.tying));
    this.rest.disabled = !open;
    this.step.disabled = !board.canStepBack;
    if (said) write(this.spoken, said + (open ? ` ${open} left.` : " All are placed: Enter keeps the ranking."));
  }

  private rank(): void {
    const order = this.board.order;
    if (left(order, this.board.count).length) {
      write(this.spoken, `${left(order, this.board.count).length} completions have no place yet.`);
      return;
    }
    this.ask({ type: "rank", row: this.state().row, order, reason: this.reason.value });
  }

  private go(by: number): void {
    this.ask({ type: "go", row: this.state().row + by });
  }

  /** One question at a time: what is pressed before the kernel has answered would meet a row not yet seen. */
  private ask(message: Record<string, unknown>): void {
    if (this.waiting || this.state().summary !== null) return;
    this.send(message);
    this.waiting = window.setTimeout(() => this.root.classList.add("gpt-slow"), SLOW);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter")) return;
    if (event.key === "Tab") return;
    event.stopPropagation(); // else the notebook makes a heading of "1" and restarts its kernel at "0" "0"
    const on = event.target as HTMLElement;
    if (on === this.reason) {
      if (event.key === "Enter") this.rank();
      else if (event.key === "Escape") this.root.focus();
      return;
    }
    if (on instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) return; // its own click
    if (this.waiting || this.state().summary !== null) return;
    if (this.pressed(event.key, this.board.cardOf(on))) event.preventDefault();
  }

  private pressed(key: string, focused: number | null): boolean {
    const number = /^[1-9]$/.test(key) ? Number(key) : 0;
    if (number && number <= this.board.count) this.board.press(number);
    else if (key === "=") this.board.tieNext();
    else if (key === "0") this.board.tieRest();
    else if (key === "Enter") this.rank();
    else if (key === "Backspace") this.board.stepBack();
    else if (key === "u") this.ask({ type: "undo" });
    else if (key === "r") this.reason.focus();
    else if (key === "ArrowLeft" && !this.back.disabled) this.go(-1);
    else if ((key === "ArrowRight" || key === "s") && !this.skip.disabled) this.go(1);
    else if (focused !== null && key === " ") this.board.put(focused);
    else if (focused !== null && key === "ArrowUp") this.board.move(focused, -1);
    else if (focused !== null && key === "ArrowDown") this.board.move(focused, 1);
    else return false;
    return true;
  }

  private tint(): void {
    this.root.dataset.ground = readTheme(this.root).dark ? "dark" : "light";
  }
}

function keyed(key: string, label: string, clicked: () => void): HTMLButtonElement {
  const button = element("button", "gpt-choice");
  button.type = "button";
  button.append(element("kbd", "", key), element("span", "", label));
  button.addEventListener("click", clicked);
  return button;
}

export default {
  render({ model, el }: { model: AnyModel; el: HTMLElement }) {
    const send: Send = (message) => model.send({ ...message, page: PAGE });
    const form = new Form(el, () => model.get("state") as State, send);
    const draw = () => form.draw();
    model.on("change:state", draw);
    send({ type: "ready" });
    return () => {
      model.off("change:state", draw);
      form.destroy();
    };
  },
};
