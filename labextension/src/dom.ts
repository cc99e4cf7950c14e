// Small helpers to build the page. Text goes in as text, never as HTML: some of it was written by a model.

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** A quiet button of the chart's controls. */
export function toggle(label: string, clicked: (event: MouseEvent) => void): HTMLButtonElement {
  const button = element("button", "gpt-toggle", label);
  button.type = "button";
  button.addEventListener("click", clicked);
  return button;
}

/** A button with a small picture (an SVG path on a 16 by 16 grid) before its label. A double click is one: the button may
 *  mean something else by the second. */
export function action(path: string, label: string, clicked: () => void): HTMLButtonElement {
  const button = element("button", "gpt-action");
  button.type = "button";
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", "0 0 16 16");
  picture.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", path);
  picture.append(shape);
  button.append(picture, element("span", "", label));
  button.addEventListener("click", ({ detail }) => detail < 2 && clicked());
  return button;
}

/** Writes only when the text is another: what did not change is not laid out again. */
export function write(node: HTMLElement, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}
