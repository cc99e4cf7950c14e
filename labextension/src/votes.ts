// The anywidget of the voting form (jupyter_gpt/notebook/views/votes.py has the protocol): completions side by side, one key or
// one click a row. The kernel keeps the votes and says what comes next; here nothing is remembered.

import type { AnyModel } from "@anywidget/types";
import { element, toggle, write } from "./dom";
import { readTheme, watchTheme } from "./theme";
import "./run.css";
import "./votes.css";

interface State {
  row: number;
  rows: number;
  voted: number;
  prompt: string;
  texts: [string, boolean][][];
  mostly: boolean[];
  chosen: number | null;
  undo: boolean;
  summary: string | null;
  error: string | null;
}

type Send = (message: Record<string, unknown>) => void;

const PAGE = Math.random().toString(36).slice(2); // another after a reload
const SLOW = 600; // milliseconds after which a person wonders where the answer went

class Form {
  private readonly root = element("section", "gpt-run gpt-votes");
  private readonly count = element("span", "gpt-about");
  private readonly bar = element("div", "gpt-bar");
  private readonly track = element("div", "gpt-track");
  private readonly prompt = element("div", "gpt-asked");
  private readonly columns = element("div", "gpt-columns");
  private readonly tie: HTMLButtonElement;
  private readonly back: HTMLButtonElement;
  private readonly skip: HTMLButtonElement;
  private readonly undo: HTMLButtonElement;
  private readonly note = element("p", "gpt-note");
  private readonly spoken = element("p", "gpt-spoken");
  private readonly stopWatching: () => void;
  private buttons: HTMLButtonElement[] = [];
  private waiting = 0; // the timer of an answer that the kernel has not yet taken

  constructor(
    el: HTMLElement,
    private readonly state: () => State,
    private readonly send: Send,
  ) {
    const head = element("header", "gpt-head");
    const who = element("div", "gpt-who");
    who.append(element("span", "gpt-name", "Which is better?"), this.count);
    const tools = element("div", "gpt-actions");
    this.undo = toggle("undo", () => this.ask({ type: "undo" }));
    this.back = toggle("‹ back", () => this.go(-1));
    this.skip = toggle("skip ›", () => this.go(1));
    const done = toggle("show the table", () => this.ask({ type: "done" }));
    done.title = "Ends the voting for now: the table says who wrote what. Run the cell again to go on.";
    tools.append(this.undo, this.back, this.skip, done);
    head.append(who, tools);
    this.track.setAttribute("role", "progressbar");
    this.track.setAttribute("aria-label", "Rows voted on");
    this.track.append(this.bar);
    this.tie = element("button", "gpt-choice gpt-tie");
    this.tie.type = "button";
    this.tie.append(element("kbd", "", "0"), element("span", "", "a tie"));
    this.tie.addEventListener("click", () => this.vote(0));
    this.note.append(
      "Keys: ", element("kbd", "", "1"), " … for a column, ", element("kbd", "", "0"), " tie, ",
      element("kbd", "", "u"), " undo, ", element("kbd", "", "←"), " ", element("kbd", "", "→"), " move.",
    );
    this.spoken.setAttribute("aria-live", "polite");
    this.root.tabIndex = 0;
    this.root.setAttribute("aria-label", "Vote: which completion is better?");
    this.root.append(head, this.track, this.prompt, this.columns, this.tie, this.note, this.spoken);
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
    clearTimeout(this.waiting);
    this.waiting = 0;
    this.root.classList.remove("gpt-slow");
    const { row, rows, voted, prompt, texts, mostly, chosen, undo, summary, error } = this.state();
    write(this.count, `${row + 1} of ${rows}, ${voted} voted`);
    this.bar.style.width = `${(100 * voted) / rows}%`;
    this.track.setAttribute("aria-valuemax", String(rows));
    this.track.setAttribute("aria-valuenow", String(voted));
    write(this.prompt, prompt);
    if (this.buttons.length !== texts.length) {
      this.buttons = texts.map((_, i) => this.column(i + 1));
      this.columns.replaceChildren(...this.buttons);
    }
    this.buttons.forEach((button, i) => {
      button.lastElementChild!.replaceChildren(...pieces(texts[i]));
      button.lastElementChild!.scrollTop = 0;
      button.classList.toggle("gpt-mostly", mostly[i]);
      button.setAttribute("aria-pressed", String(chosen === i + 1));
    });
    this.tie.setAttribute("aria-pressed", String(chosen === 0));
    this.undo.disabled = !undo;
    this.back.disabled = row === 0;
    this.skip.disabled = row === rows - 1;
    if (error ?? summary) {
      this.note.textContent = error ? `The vote was not kept: ${error}` : `Done: ${summary}`;
      this.note.classList.toggle("gpt-error", error !== null);
    }
    for (const part of [this.prompt, this.columns, this.tie]) part.hidden = summary !== null;
    write(this.spoken, summary ?? `Row ${row + 1} of ${rows}. ${prompt}`);
  }

  private column(choice: number): HTMLButtonElement {
    const button = element("button", "gpt-choice");
    button.type = "button";
    button.setAttribute("aria-label", `Completion ${choice} is better`);
    button.append(element("kbd", "", String(choice)), element("span", "gpt-written"));
    button.addEventListener("click", () => this.vote(choice));
    return button;
  }

  private vote(choice: number): void {
    this.ask({ type: "vote", row: this.state().row, choice });
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
    event.stopPropagation(); // else the notebook makes a heading of "1" and restarts its kernel at "0" "0"
    const choice = /^\d$/.test(event.key) ? Number(event.key) : -1;
    if (choice >= 0 && choice <= this.buttons.length) this.vote(choice);
    else if (event.key === "u" || event.key === "Backspace") this.ask({ type: "undo" });
    else if (event.key === "ArrowLeft" && !this.back.disabled) this.go(-1);
    else if (event.key === "ArrowRight" && !this.skip.disabled) this.go(1);
    else return;
    event.preventDefault();
  }

  private tint(): void {
    this.root.dataset.ground = readTheme(this.root).dark ? "dark" : "light";
  }
}

function pieces(text: [string, boolean][]): HTMLElement[] {
  if (!text.length) return [element("em", "gpt-empty", "nothing: it ended at once")];
  return text.map(([piece, differs]) => element(differs ? "mark" : "span", "", piece));
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
