// What the model wrote at each step that was sampled, under a slider; follows the newest until it is moved.

import { element, write } from "./dom";
import { count } from "./format";
import type { Sample } from "./series";

export class Samples {
  private readonly step = element("span", "gpt-sample-step");
  private readonly slider = element("input", "gpt-slider");
  private readonly list = element("div", "gpt-texts");
  private readonly newest: HTMLButtonElement;
  private steps: number[] = [];
  private samples: Sample[] = [];
  private following = true;
  private shown = "";

  constructor(
    private readonly host: HTMLElement,
    private readonly mark: (step: number | null) => void,
    /** Whether the model goes on from the prompt, or answers it. */
    private readonly continues: boolean,
  ) {
    const head = element("div", "gpt-caption");
    this.slider.type = "range";
    this.slider.min = "0";
    this.slider.setAttribute("aria-label", "Step of the samples shown");
    this.slider.addEventListener("input", () => {
      this.following = Number(this.slider.value) === this.steps.length - 1;
      this.show();
    });
    this.newest = element("button", "gpt-toggle", "newest");
    this.newest.type = "button";
    this.newest.addEventListener("click", () => {
      this.following = true;
      this.show();
    });
    head.append(element("span", "", "samples"), this.newest, this.step);
    this.list.tabIndex = 0;
    host.append(head, this.slider, this.list);
    host.setAttribute("aria-label", "Samples");
  }

  update(samples: Sample[]): void {
    const same = samples.length === this.samples.length && samples.at(-1) === this.samples.at(-1);
    if (same && this.shown) return;
    this.samples = [...samples];
    this.steps = [...new Set(samples.map((sample) => sample.step))].sort((a, b) => a - b);
    this.show();
  }

  private show(): void {
    const last = this.steps.length - 1;
    this.host.classList.toggle("gpt-none", last < 0);
    this.slider.max = String(Math.max(0, last));
    this.slider.disabled = last < 1;
    if (this.following) this.slider.value = String(Math.max(0, last));
    this.newest.style.visibility = this.following ? "hidden" : "visible";
    if (last < 0) {
      write(this.step, "");
      if (!this.shown)
        this.list.replaceChildren(element("p", "gpt-empty", "The first samples are on their way."));
      return;
    }
    const step = this.steps[Number(this.slider.value)];
    write(this.step, `step ${count(step)}`);
    this.slider.setAttribute("aria-valuetext", `step ${count(step)}`);
    this.mark(this.following ? null : step);
    const now = this.samples.filter((sample) => sample.step === step);
    const shown = JSON.stringify(now);
    if (shown === this.shown) return;
    this.shown = shown;
    this.list.replaceChildren(
      ...now.map((sample) => {
        const paragraph = element("p");
        const asked = this.continues ? "gpt-prompt" : "gpt-prompt gpt-own-line";
        paragraph.append(element("span", asked, sample.prompt), ...told(sample));
        return paragraph;
      }),
    );
  }
}

/** The text; of RL each token coloured by its advantage, green for better than expected, and the reward behind it. */
function told({ text, pieces, advantages, reward }: Sample): HTMLElement[] {
  if (!pieces || !advantages) {
    const worth = reward === undefined ? [] : [element("i", "gpt-prompt", `  ${reward.toFixed(2)}`)];
    return [element("span", "", text), ...worth];
  }
  const most = Math.max(1e-9, ...advantages.map(Math.abs));
  const tokens = pieces.map((piece, k) => {
    const token = element("span", "", piece);
    const colour = advantages[k] > 0 ? "60,159,80" : "208,69,69";
    token.style.background = `rgba(${colour},${((0.45 * Math.abs(advantages[k])) / most).toFixed(2)})`;
    return token;
  });
  return [...tokens, element("i", "gpt-prompt", `  reward ${(reward ?? 0).toFixed(2)}`)];
}
