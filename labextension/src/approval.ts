// The anywidget of an approval (jupyter_gpt/notebook/views/approval.py has the protocol): a tool's call as a person may let it
// act, change it, or forbid it. The kernel waits for the answer.

import { element, toggle, write } from "./dom";
import { Frame } from "./frame";
import { widget, type Link } from "./widget";
import "./approval.css";

interface State {
  call: number;
  tool: string;
  description: string;
  why: string;
  writes: boolean;
  arguments: string;
  problem: string;
  decided: string | null;
}

class Form {
  private readonly panel: Frame;
  private readonly why = element("p", "gpt-why");
  private readonly text = element("textarea", "gpt-arguments");
  private readonly yes: HTMLButtonElement;
  private readonly no: HTMLButtonElement;
  private call = 0;
  private state: State; // the newest: JupyterLab may set one that it had asked for before

  constructor(el: HTMLElement, private readonly link: Link) {
    this.state = link.state<State>();
    this.panel = new Frame(el, "gpt-approval", "Approval of a tool's call");
    // the second click of a double click may meet the next call, which nobody has read
    this.yes = toggle("Allow", (event) => event.detail < 2 && this.approve());
    this.yes.classList.add("gpt-primary");
    this.no = toggle("Deny", () => link.send({ type: "deny", call: this.call }));
    this.no.classList.add("gpt-danger");
    this.panel.actions.append(this.yes, this.no);
    this.text.spellcheck = false;
    this.text.setAttribute("aria-label", "The arguments, as JSON: edit them here");
    this.text.addEventListener("input", () => this.label());
    this.panel.root.append(this.why, this.text, this.panel.note);
    this.draw();
  }

  destroy(): void {
    this.panel.destroy();
  }

  draw(): void {
    const told = this.link.state<State>();
    if (!(told.call < this.state.call)) this.state = told;
    const { call, tool, description, why, writes, problem, decided } = this.state;
    const { name, about, note } = this.panel;
    const gone = this.link.gone ? "The kernel is gone: run the cell again." : null;
    if (call === undefined) return;
    if (call !== this.call) {
      this.call = call;
      this.text.value = this.state.arguments;
      this.text.rows = Math.min(16, this.text.value.split("\n").length + 1);
    }
    name.replaceChildren("Allow ", element("code", "", tool), " to run?");
    write(about, writes ? "It makes changes." : "");
    write(this.why, why);
    this.why.hidden = !why;
    write(note, gone ?? decided ?? (problem ? `That does not fit: ${problem}` : description));
    note.classList.toggle("gpt-error", !decided && problem !== "");
    for (const part of [this.yes, this.no, this.text]) part.disabled = (gone ?? decided) !== null;
    this.label();
  }

  private get changed(): boolean {
    return this.text.value !== this.state.arguments;
  }

  private label(): void {
    write(this.yes, this.changed ? "Allow as edited" : "Allow");
  }

  private approve(): void {
    if (this.changed) this.link.send({ type: "edit", call: this.call, arguments: this.text.value });
    else this.link.send({ type: "approve", call: this.call });
  }
}

export default widget((el, link) => new Form(el, link));
