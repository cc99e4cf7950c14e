// The anywidget of an approval (jupyter_gpt/notebook/views/approval.py has the protocol): a tool's call as a person may let it
// act, change it, or forbid it. The kernel waits for the answer.

import type { AnyModel } from "@anywidget/types";
import { element, toggle, write } from "./dom";
import { readTheme, watchTheme } from "./theme";
import "./run.css";
import "./approval.css";

interface State {
  call: number;
  tool: string;
  description: string;
  writes: boolean;
  arguments: string;
  problem: string;
  decided: string | null;
}

type Send = (message: Record<string, unknown>) => void;

class Form {
  private readonly root = element("section", "gpt-run gpt-approval");
  private readonly name = element("span", "gpt-name");
  private readonly about = element("span", "gpt-about");
  private readonly text = element("textarea", "gpt-arguments");
  private readonly note = element("p", "gpt-note");
  private readonly yes: HTMLButtonElement;
  private readonly no: HTMLButtonElement;
  private readonly stopWatching: () => void;
  private call = 0;

  constructor(
    el: HTMLElement,
    private readonly state: () => State,
    private readonly send: Send,
  ) {
    const head = element("header", "gpt-head");
    const who = element("div", "gpt-who");
    who.append(this.name, this.about);
    const tools = element("div", "gpt-actions");
    this.yes = toggle("Approve", () => this.approve());
    this.no = toggle("Deny", () => this.send({ type: "deny", call: this.call }));
    tools.append(this.yes, this.no);
    head.append(who, tools);
    this.text.spellcheck = false;
    this.text.setAttribute("aria-label", "The arguments, as JSON: edit them here");
    this.text.addEventListener("input", () => this.label());
    this.note.setAttribute("aria-live", "polite");
    this.root.addEventListener("keydown", (event) => event.stopPropagation()); // else the notebook takes the keys
    this.root.append(head, this.text, this.note);
    el.append(this.root);
    this.stopWatching = watchTheme(() => this.tint());
    this.draw();
    requestAnimationFrame(() => this.tint()); // no colours before it stands in the page
  }

  destroy(): void {
    this.stopWatching();
    this.root.remove();
  }

  draw(): void {
    const { call, tool, description, writes, problem, decided } = this.state();
    if (call === undefined) return;
    if (call !== this.call) {
      this.call = call;
      this.text.value = this.state().arguments;
      this.text.rows = Math.min(16, this.text.value.split("\n").length + 1);
    }
    write(this.name, `${tool} wants to act`);
    write(this.about, writes ? "it writes" : "");
    write(this.note, decided ?? (problem ? `That does not fit: ${problem}` : description));
    this.note.classList.toggle("gpt-error", !decided && problem !== "");
    for (const part of [this.yes, this.no, this.text]) part.disabled = decided !== null;
    this.label();
  }

  private get changed(): boolean {
    return this.text.value !== this.state().arguments;
  }

  private label(): void {
    write(this.yes, this.changed ? "Approve as edited" : "Approve");
  }

  private approve(): void {
    if (this.changed) this.send({ type: "edit", call: this.call, arguments: this.text.value });
    else this.send({ type: "approve", call: this.call });
  }

  private tint(): void {
    this.root.dataset.ground = readTheme(this.root).dark ? "dark" : "light";
  }
}

export default {
  render({ model, el }: { model: AnyModel; el: HTMLElement }) {
    const send: Send = (message) => model.send(message);
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
