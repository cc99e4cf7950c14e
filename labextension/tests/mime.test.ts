import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const shown: string[] = [];
vi.mock("../src/report", () => ({ show: (_: unknown, { text }: { text: string }) => (shown.push(text), () => {}) }));
vi.mock("@lumino/widgets", () => ({
  Widget: class {
    node = new EventTarget();
    isDisposed = false;
    dispose(): void {
      this.isDisposed = true;
    }
  },
}));
const { default: extension } = await import("../src/mime");

let renderer: { renderModel(model: object): Promise<void>; node: EventTarget; dispose(): void };
const model = (text: string) => ({ data: { text }, metadata: {} });
const press = () => renderer.node.dispatchEvent(new Event("pointerdown"));
const release = () => window.dispatchEvent(new Event("pointerup"));
const pass = () => vi.advanceTimersByTimeAsync(100);

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("window", new EventTarget());
  shown.length = 0;
  renderer = (extension as any).rendererFactory.createRenderer({ sanitizer: {} });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("a report that is drawn anew", () => {
  it("waits until what is clicked is let go, and then shows the newest alone", async () => {
    press();
    for (const text of ["one", "two"]) void renderer.renderModel(model(text));
    await pass();
    expect(shown).toEqual([]);
    release();
    await pass();
    expect(shown).toEqual(["two"]);
  });

  it("waits again where it is clicked again at once, and shows no older one after a newer", async () => {
    press();
    void renderer.renderModel(model("one"));
    await pass();
    release();
    press(); // before the click is over
    void renderer.renderModel(model("two"));
    await pass();
    expect(shown).toEqual([]);
    release();
    await pass();
    expect(shown).toEqual(["two"]);
  });

  it("shows nothing once it is gone", async () => {
    void renderer.renderModel(model("one"));
    renderer.dispose();
    await pass();
    expect(shown).toEqual([]);
  });
});
