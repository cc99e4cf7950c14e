import { Signal } from "@lumino/signaling";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Client } from "../src/panel/client";
import { PROTOCOL, type State } from "../src/panel/state";

const STATE = { protocol: PROTOCOL, runs: [], tasks: [] } as unknown as State;
const NEVER = new Promise<never>(() => {});

/** A kernel whose package is loaded, or not; it answers at once, except for what stands in `lost`. */
class Kernel {
  status = "idle";
  connectionStatus = "connected";
  username = "";
  clientId = "page";
  loaded = true;
  error: string | undefined;
  state = STATE;
  readonly lost = new Set<"line" | "loaded" | "state">();
  readonly asked: string[] = [];
  readonly iopubMessage = new Signal<this, unknown>(this);
  readonly connectionStatusChanged = new Signal<this, void>(this);
  readonly info = Promise.resolve({ language_info: { name: "python" }, supported_features: ["kernel subshells"] });

  requestKernelInfo(): Promise<void> {
    this.asked.push("info");
    return Promise.resolve();
  }

  requestCommInfo(): Promise<unknown> {
    this.asked.push("loaded");
    const comms = this.loaded ? { "jupyter_gpt.panel": {} } : {};
    return this.lost.has("loaded") ? NEVER : Promise.resolve({ content: { status: "ok", comms } });
  }

  sendControlMessage(): unknown {
    return { done: this.lost.has("line") ? NEVER : Promise.resolve({ content: { subshell_id: "one" } }) };
  }

  sendShellMessage({ content, header }: any): unknown {
    if (header.msg_type === "comm_info_request") return { done: this.requestCommInfo() };
    this.asked.push(content.data.type);
    if (this.lost.has("state")) return { done: NEVER };
    const answer = this.error ? { error: this.error } : { state: this.state };
    const told = { comm_id: "jupyter_gpt.panel", data: { id: content.data.id, type: content.data.type, ...answer } };
    const done = Promise.resolve().then(() => this.tell("comm_msg", told));
    return { done };
  }

  tell(msg_type: string, content: object, parent = { msg_id: "", msg_type: "" }): void {
    this.iopubMessage.emit({ channel: "iopub", header: { msg_type }, parent_header: parent, content });
  }

  cell(id: string, what: "begins" | "ends", code = ""): void {
    const parent = { msg_id: id, msg_type: "execute_request" };
    if (what === "begins") this.tell("execute_input", { code }, parent);
    else this.tell("status", { execution_state: "idle" }, parent);
  }
}

let kernel: Kernel;
let client: Client;
let statusChanged: Signal<object, void>;

/** The websocket breaks, and is there again. */
function reconnect(): void {
  for (const status of ["connecting", "connected"]) {
    kernel.connectionStatus = status;
    kernel.connectionStatusChanged.emit();
  }
}

function open(): void {
  statusChanged = new Signal({});
  client.follow({ session: { kernel }, kernelChanged: new Signal({}), statusChanged } as never);
}

const pass = (seconds: number) => vi.advanceTimersByTimeAsync(1000 * seconds);

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("window", globalThis);
  vi.stubGlobal("document", { hidden: false });
  kernel = new Kernel();
  client = new Client();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the panel's client", () => {
  it("shows the state of a kernel", async () => {
    open();
    await pass(0.1);
    expect(client.situation).toEqual({ is: "state", state: STATE, late: false });
  });

  it("asks again after the connection broke while it was getting its line", async () => {
    kernel.lost.add("line");
    open();
    await pass(0.1);
    kernel.lost.clear();
    reconnect();
    await pass(0.1);
    expect(client.situation.is).toBe("state");
  });

  it("asks again where an idle kernel never had the question", async () => {
    kernel.lost.add("state");
    open();
    await pass(3);
    expect(client.situation).toEqual({ is: "asking", late: true });
    kernel.lost.clear();
    await pass(3);
    expect(client.situation.is).toBe("state");
  });

  it("asks a kernel that another page has restarted whether it has started", async () => {
    open();
    await pass(0.1);
    kernel.status = "starting";
    statusChanged.emit();
    expect(client.situation).toEqual({ is: "starting" });
    kernel.loaded = false;
    await pass(3);
    expect(client.situation).toEqual({ is: "not loaded" }); // though JupyterLab leaves the status at "starting"
    statusChanged.emit();
    kernel.status = "idle";
    statusChanged.emit();
    await pass(10);
    expect(client.situation).toEqual({ is: "not loaded" });
    expect(kernel.asked.filter((type) => type === "info")).toHaveLength(1);
  });

  it("waits for a kernel that a cell blocks", async () => {
    kernel.lost.add("state");
    kernel.status = "busy";
    open();
    await pass(60);
    expect(kernel.asked.filter((type) => type === "state")).toHaveLength(1);
    expect(client.situation).toEqual({ is: "asking", late: true });
  });

  it("says that a kernel is late to tell whether it has the package", async () => {
    kernel.lost.add("loaded").add("line");
    kernel.status = "busy";
    open();
    await pass(3);
    expect(client.situation).toEqual({ is: "asking", late: true });
    await expect(client.settled()).resolves.toBeNull();
  });

  it("sees that a kernel was restarted elsewhere", async () => {
    open();
    await pass(0.1);
    kernel.loaded = false;
    kernel.lost.add("state");
    client.visible = true; // as with the focus of the window
    await pass(6);
    expect(client.situation.is).toBe("not loaded");
  });

  it("looks after a cell whose beginning it did not hear, and after no other", async () => {
    kernel.loaded = false;
    open();
    await pass(0.1);
    kernel.cell("1", "begins", "6 * 7");
    kernel.cell("1", "ends");
    await pass(0.1);
    expect(kernel.asked).toEqual(["loaded"]);
    kernel.loaded = true;
    kernel.cell("0", "ends");
    await pass(0.1);
    expect(client.situation.is).toBe("state");
  });

  it("asks again where the state could not be read", async () => {
    vi.stubGlobal("console", { ...console, warn: () => {} });
    kernel.error = "FileNotFoundError";
    open();
    await pass(1);
    expect(client.state).toBeNull();
    kernel.error = undefined;
    await pass(6);
    expect(client.situation.is).toBe("state");
  });

  it("gives a command the first answer, however late it is", async () => {
    kernel.lost.add("state");
    open();
    const settled = client.settled();
    await pass(4);
    kernel.lost.clear();
    await pass(3);
    await expect(settled).resolves.toEqual(STATE);
  });

  it("gives a command the state after the cell that has ended", async () => {
    open();
    await pass(0.1);
    kernel.cell("1", "begins");
    kernel.lost.add("state");
    kernel.cell("1", "ends");
    const told = { ...STATE, models: [{ name: "short" }] } as unknown as State;
    const settled = client.settled();
    await pass(1);
    kernel.state = told;
    kernel.lost.clear();
    await pass(9);
    await expect(settled).resolves.toEqual(told);
  });

  it("looks after a cell that began before there was a state", async () => {
    let answer = (_: unknown): void => {};
    kernel.requestCommInfo = () => new Promise((resolve) => (answer = resolve)); // not until it is told to
    open();
    kernel.cell("1", "begins");
    answer({ content: { status: "ok", comms: { "jupyter_gpt.panel": {} } } });
    await pass(0.1);
    expect(client.state).toEqual(STATE);
    kernel.state = { ...STATE, models: [{ name: "short" }] } as unknown as State;
    kernel.cell("1", "ends");
    const settled = client.settled();
    await pass(0.1);
    await expect(settled).resolves.toEqual(kernel.state);
  });

  it("gives a command the state after the cell, though the question for it was lost", async () => {
    open();
    await pass(0.1);
    kernel.cell("1", "begins");
    kernel.lost.add("state");
    kernel.cell("1", "ends");
    const settled = client.settled();
    kernel.lost.add("loaded"); // which is asked first then
    await pass(5.5);
    kernel.state = { ...STATE, models: [{ name: "short" }] } as unknown as State;
    kernel.lost.clear();
    await pass(9);
    await expect(settled).resolves.toEqual(kernel.state);
  });

  it("gives a command the state of a package that the last cell has loaded", async () => {
    kernel.loaded = false;
    open();
    await pass(0.1);
    let answer = (_: unknown): void => {};
    kernel.requestCommInfo = () => new Promise((resolve) => (answer = resolve));
    kernel.cell("1", "begins", "%load_ext jupyter_gpt");
    kernel.cell("1", "ends");
    const settled = client.settled();
    await pass(0.5);
    answer({ content: { status: "ok", comms: { "jupyter_gpt.panel": {} } } });
    await pass(0.1);
    await expect(settled).resolves.toEqual(STATE);
  });

  it("does not keep a command waiting for a kernel that a cell without the package blocks", async () => {
    kernel.loaded = false;
    open();
    await pass(0.1);
    kernel.lost.add("loaded").add("line");
    kernel.status = "busy";
    kernel.cell("1", "begins", "import jupyter_gpt");
    await pass(1.6);
    const settled = client.settled();
    await pass(3);
    await expect(settled).resolves.toBeNull();
  });

  it("gives a command no state of another notebook", async () => {
    kernel.lost.add("state");
    open();
    const settled = client.settled();
    kernel = new Kernel();
    open(); // another is in front before the first has answered
    await pass(1);
    expect(client.state).toEqual(STATE);
    await expect(settled).resolves.toBeNull();
  });

  it("does not take an old answer for a new one", async () => {
    kernel.loaded = false;
    let answer = (_: unknown): void => {};
    kernel.requestCommInfo = () => new Promise((resolve) => (answer = resolve)); // not until it is told to
    open();
    await pass(0.1);
    kernel.tell("comm_msg", { comm_id: "jupyter_gpt.panel", data: { id: null, type: "state", state: STATE } });
    answer({ content: { status: "ok", comms: {} } });
    await pass(0.1);
    expect(client.situation.is).toBe("state");
  });
});
