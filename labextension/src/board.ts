// The board of the ranking form: ranked completions, the best on top and those of a tie side by side, and beneath them
// those not ranked yet. A card keeps its number wherever it goes.

import { element, write } from "./dom";
import { draggable, type Drop } from "./drag";
import { appended, inserted, joined, moved, places, unranked, without, type Order } from "./order";

const EDGE = 0.28; // of a place's height: nearer its edge than this, a card comes between, else beside
const GLIDE = 160; // milliseconds
type Target = { order: Order; tier: HTMLElement; mark: string };

export class Board {
  readonly root = element("div", "gpt-board");
  order: Order = [];
  tying = false; // whether the next one ties with the last
  private readonly tiers = element("ol", "gpt-tiers");
  private readonly next = element("div", "gpt-next");
  private readonly pool = element("ul", "gpt-pool");
  private readonly rows: HTMLElement[] = []; // of the groups of `order`
  private cards: HTMLElement[] = [];
  private steps: Order[] = [];
  private target: Target | null = null;
  private last: number | null = null; // the completion that was just ranked last because it alone was left

  constructor(private readonly changed: (spoken: string) => void) {
    this.tiers.setAttribute("aria-label", "Ranked, best first");
    this.pool.setAttribute("aria-label", "To be ranked");
    this.root.append(this.tiers, this.next, this.pool);
  }

  get count(): number {
    return this.cards.length;
  }

  get canStepBack(): boolean {
    return this.steps.length > 0 || this.tying;
  }

  /** Other completions, in the order they may have already. */
  show(texts: string[], copies: number[], order: Order): void {
    this.cards = texts.map((text, i) => this.card(i + 1, text, copies[i]));
    this.pool.replaceChildren();
    this.steps = [];
    this.tying = false;
    this.last = null;
    this.target = null;
    this.order = order;
    this.lay();
  }

  /** The number of the card that holds `node`, or null. */
  cardOf(node: Node): number | null {
    const at = this.cards.findIndex((card) => card === node);
    return at < 0 ? null : at + 1;
  }

  /** Puts a completion next, or takes it out again when it has a place. The last one left takes the last place. */
  put(number: number): void {
    if (this.order.some((group) => group.includes(number))) return this.become(without(this.order, number), number);
    const order = appended(this.order, number, this.tying);
    const rest = unranked(order, this.count);
    this.become(this.ended(order), number);
    this.last = rest.length === 1 ? rest[0] : null;
  }

  /** As `put`; but whoever presses 1 2 3 of three does not mean to take the third out again. */
  press(number: number): void {
    if (number !== this.last) return this.put(number);
    this.last = null;
    this.changed(`Completion ${number} is ${this.placeOf(number)}.`);
  }

  /** The order, with the one completion that may be left put last. */
  private ended(order: Order): Order {
    const rest = unranked(order, this.count);
    return rest.length === 1 ? [...order, rest] : order;
  }

  move(number: number, by: -1 | 1): void {
    if (!this.order.some((group) => group.includes(number))) return this.put(number);
    this.become(moved(this.order, number, by), number);
  }

  tieNext(): void {
    if (!this.order.length || !unranked(this.order, this.count).length) return;
    this.tying = !this.tying;
    this.lay();
    this.changed(this.tying ? "The next completion ties with the last." : "The next completion ranks after the last.");
  }

  tieRest(): void {
    const rest = unranked(this.order, this.count);
    if (!rest.length) return;
    const order = this.tying && this.order.length
      ? [...this.order.slice(0, -1), [...this.order[this.order.length - 1], ...rest]]
      : [...this.order, rest];
    this.become(order, rest[0]);
  }

  stepBack(): void {
    if (this.tying) return this.tieNext();
    const before = this.steps.pop();
    if (!before) return;
    this.order = before;
    this.last = null;
    this.lay();
    this.changed("One step back.");
  }

  private become(order: Order, number: number): void {
    if (JSON.stringify(order) === JSON.stringify(this.order)) return;
    this.steps.push(this.order);
    this.order = order;
    this.tying = false;
    this.last = null;
    this.lay();
    this.changed(`Completion ${number} is ${this.placeOf(number)}.`);
  }

  private placeOf(number: number): string {
    const at = this.order.findIndex((group) => group.includes(number));
    if (at < 0) return "to be ranked";
    const others = this.order[at].filter((each) => each !== number);
    return `rank ${places(this.order)[at]}${others.length ? `, tied with ${others.join(" and ")}` : ""}`;
  }

  /** Puts every card where the order has it; those that move glide, and the focus stays with its card. */
  private lay(): void {
    const before = this.cards.map((card) => (card.isConnected ? card.getBoundingClientRect() : null));
    for (const card of this.cards) card.style.transform = ""; // one may have been dragged
    const focused = document.activeElement as HTMLElement | null;
    const ranks = places(this.order);
    while (this.rows.length < this.order.length) this.rows.push(tier());
    this.rows.length = this.order.length;
    this.order.forEach((group, i) => {
      const [label, cards] = this.rows[i].children;
      write(label.firstElementChild as HTMLElement, String(ranks[i]));
      write(label.lastElementChild as HTMLElement, group.length > 1 ? "tie" : i === 0 ? "best" : "");
      this.rows[i].classList.toggle("gpt-best", i === 0);
      cards.replaceChildren(...group.map((number) => this.cards[number - 1]));
    });
    this.tiers.replaceChildren(...this.rows);
    const rest = unranked(this.order, this.count);
    this.pool.replaceChildren(...rest.map((number) => this.cards[number - 1]));
    this.pool.hidden = this.next.hidden = rest.length === 0;
    this.next.classList.toggle("gpt-tying", this.tying);
    const wanted = this.tying ? `Which ties with rank ${ranks[ranks.length - 1]}?` : "Which is next?";
    write(this.next, this.order.length ? wanted : "Which is the best? Press its number, click it, or drag it here.");
    this.cards.forEach((card, i) => {
      card.classList.toggle("gpt-placed", !rest.includes(i + 1));
      card.setAttribute("aria-label", `Completion ${i + 1}, ${this.placeOf(i + 1)}`);
    });
    if (focused && this.root.contains(focused) && focused !== document.activeElement) {
      focused.focus({ preventScroll: true });
    }
    this.glide(before);
  }

  private glide(before: (DOMRect | null)[]): void {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    this.cards.forEach((card, i) => {
      const [from, to] = [before[i], card.getBoundingClientRect()];
      if (!from || (Math.abs(from.left - to.left) < 1 && Math.abs(from.top - to.top) < 1)) return;
      const start = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
      card.animate([{ transform: start }, { transform: "none" }], { duration: GLIDE, easing: "ease-out" });
    });
  }

  private card(number: number, text: string, copies: number): HTMLElement {
    const card = element("li", "gpt-card");
    card.tabIndex = 0;
    const grip = element("span", "gpt-grip", "⠿");
    grip.setAttribute("aria-hidden", "true");
    const written = element("div", "gpt-written", text.trim());
    written.id = `gpt-written-${Math.random().toString(36).slice(2)}`;
    card.setAttribute("aria-describedby", written.id); // who comes by Tab hears the text too, not its number alone
    if (!text.trim()) written.append(element("em", "gpt-empty", "empty completion"));
    if (copies > 1) written.append(element("span", "gpt-copies", ` ×${copies}`));
    const tools = element("span", "gpt-card-tools");
    tools.append(
      small("↑", `Move completion ${number} up`, () => this.move(number, -1), "gpt-when-placed"),
      small("↓", `Move completion ${number} down`, () => this.move(number, 1), "gpt-when-placed"),
      small("×", `Remove completion ${number} from the ranking`, () => this.put(number), "gpt-when-placed"),
      small("Rank next", `Rank completion ${number} next`, () => this.put(number), "gpt-when-open"),
    );
    card.append(grip, element("kbd", "", String(number)), written, tools);
    card.addEventListener("click", (event) => {
      const chosen = (event.target as HTMLElement).closest("button") || window.getSelection()?.toString();
      if (!chosen && !card.classList.contains("gpt-placed")) this.put(number);
    });
    draggable(card, () => this.drag(number));
    return card;
  }

  private drag(number: number): Drop {
    const clear = () => this.root.querySelectorAll("[data-drop]").forEach((each) => each.removeAttribute("data-drop"));
    this.root.classList.add("gpt-dragging");
    const { cards } = this; // a drag may end on the board of the next prompt
    return {
      over: (x, y) => {
        clear();
        this.target = cards === this.cards ? this.targetAt(number, x, y) : null;
        this.target?.tier.setAttribute("data-drop", this.target.mark);
      },
      end: (dropped) => {
        clear();
        this.root.classList.remove("gpt-dragging");
        const { order } = this.target ?? {};
        const out = order && unranked(order, this.count).includes(number);
        if (dropped && order) this.become(out ? order : this.ended(order), number);
        this.target = null;
      },
    };
  }

  /** What letting go of `number` here would do: between two places, beside those of one, next, or out. */
  private targetAt(number: number, x: number, y: number): Target | null {
    const outer = this.root.getBoundingClientRect();
    if (x < outer.left || x > outer.right) return null;
    for (const [i, group] of this.order.entries()) {
      const box = this.rows[i].getBoundingClientRect();
      if (y < box.top || y > box.bottom) continue;
      const others = group.filter((each) => each !== number);
      if (!others.length) return null; // its own place
      const at = without(this.order, number).findIndex((each) => each.includes(others[0]));
      const depth = (y - box.top) / box.height;
      const tier = this.rows[i];
      if (depth < EDGE) return { order: inserted(this.order, number, at), tier, mark: "before" };
      if (depth > 1 - EDGE) return { order: inserted(this.order, number, at + 1), tier, mark: "after" };
      return { order: joined(this.order, number, others[0]), tier, mark: "in" };
    }
    const pool = this.pool.getBoundingClientRect();
    const inPool = !this.pool.hidden && y >= pool.top;
    if (inPool) return { order: without(this.order, number), tier: this.pool, mark: "in" };
    const last = this.rows[this.rows.length - 1];
    const end = inserted(this.order, number, without(this.order, number).length);
    if (this.next.hidden) return last ? { order: end, tier: last, mark: "after" } : null;
    return { order: end, tier: this.next, mark: "in" };
  }
}

function tier(): HTMLElement {
  const row = element("li", "gpt-tier");
  const label = element("div", "gpt-place");
  label.append(element("b"), element("span"));
  row.append(label, element("ul", "gpt-cards"));
  return row;
}

function small(sign: string, label: string, clicked: () => void, when: string): HTMLButtonElement {
  const button = element("button", `gpt-toggle ${when}`, sign);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", clicked);
  return button;
}
