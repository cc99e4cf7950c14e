// The box that each widget stands in: its head with a name and buttons, its colours, and the keys that stay its own.

import { element } from "./dom";
import { readTheme, watchTheme } from "./theme";
import "./run.css";

export class Frame {
  readonly root = element("section", "gpt-run");
  readonly name = element("span", "gpt-name");
  readonly about = element("span", "gpt-about");
  readonly who = element("div", "gpt-who");
  readonly actions = element("div", "gpt-actions");
  readonly note = element("p", "gpt-note");
  private readonly stopWatching: () => void;

  constructor(el: HTMLElement, kind: string, label: string) {
    this.root.classList.add(kind);
    this.root.setAttribute("aria-label", label);
    this.note.setAttribute("aria-live", "polite");
    const head = element("header", "gpt-head");
    this.who.append(this.name, this.about);
    head.append(this.who, this.actions);
    this.root.append(head);
    this.root.addEventListener("keydown", (event) => {
      // a key that is held down presses a button once: it may mean something else by then
      if (event.repeat && event.key === "Enter" && event.target instanceof HTMLButtonElement) event.preventDefault();
      // else the notebook takes the keys; Shift+Enter and what goes with Ctrl stay its own
      const runs = event.shiftKey && event.key === "Enter";
      if (!event.ctrlKey && !event.metaKey && !event.altKey && !runs) event.stopPropagation();
    });
    el.append(this.root);
    this.stopWatching = watchTheme(() => this.tint());
    requestAnimationFrame(() => this.tint()); // no colours before it stands in the page
  }

  destroy(): void {
    this.stopWatching();
    this.root.remove();
  }

  private tint(): void {
    this.root.dataset.ground = readTheme(this.root).dark ? "dark" : "light";
  }
}
