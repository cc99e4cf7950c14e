// Asks the kernel of a notebook for its state and for actions, over a comm that the kernel has from `%load_ext` on.
//
// At most one request waits for its answer. Requests go to a subshell of the kernel, which answers while a cell runs; a
// kernel without subshells answers when it is idle. JupyterLab's own comms would do the same, but after a reload they
// wait for the blocked cell: the features of the kernel are asked for on the control channel here.

import type { ISessionContext } from "@jupyterlab/apputils";
import { KernelMessage, type Kernel } from "@jupyterlab/services";
import type { JSONObject } from "@lumino/coreutils";
import { Signal } from "@lumino/signaling";
import type { Command } from "../editor/check";
import { isActive, PROTOCOL, type State } from "./state";

const ID = "jupyter_gpt.panel";
const SOON = 1500; // milliseconds until a running cell may have loaded the package, or begun to train
const LATE = 2000; // without an answer, after which the panel says why
const QUICK = 1000; // within which an idle kernel answers
const LOST = 5000; // a kernel that is not busy and has not answered by then never had the question: it was starting
const SLOWEST = 60_000; // after which that is said of an action
const PATIENCE = 20_000; // that a command waits for the first answer
const STEP = 50; // between two looks at whether it is there
const FOLLOW = 30; // seconds that states follow a request
const EVERY = { seen: 0.25, hidden: 2 }; // seconds between them

/** What there is to show. `late`: the kernel has not answered for a while, as one without subshells in a long cell. */
export type Situation =
  | { is: "no notebook" | "no kernel" | "starting" | "other language" | "not loaded" }
  | { is: "asking"; late: boolean }
  | { is: "other version"; version: string }
  | { is: "state"; state: State; late: boolean };

interface Answer {
  id: string | null;
  type: string;
  error?: string;
  state?: State;
  command?: Command;
  data?: JSONObject;
  metadata?: JSONObject;
}

interface Waiting {
  id: string;
  resolve(answer: Answer): void;
  reject(reason: Error): void;
}

/** Where requests go: to a subshell, or to the main shell; and whether the kernel runs Python. */
interface Line {
  subshell: string | null;
  python: boolean;
}

/** The kernel was restarted or left before it answered, or does not have the comm. */
class NoAnswer extends Error {}

/** The kernel does nothing, and has not answered: it never had the question, as one that was restarted elsewhere. */
class Lost extends NoAnswer {}

export class Client {
  readonly changed = new Signal<this, void>(this);
  situation: Situation = { is: "no notebook" };
  private context: ISessionContext | null = null;
  private watched: Kernel.IKernelConnection | null = null; // that of the notebook
  private kernel: Kernel.IKernelConnection | null = null; // the same, while it can be asked
  private line: Promise<Line> | null = null;
  private seen = false;
  private renewal = 0;
  private waking = 0;
  private started: Kernel.IKernelConnection | null = null; // has answered, though its status is still "starting"
  private looking = false;
  private lookAgain = false;
  private queue: Promise<unknown> = Promise.resolve();
  private waiting: Waiting | null = null;
  private readonly cells = new Set<string>(); // that run, and may load the package or begin to train
  private cell = ""; // the last one that began
  private turn = 0; // of `begin`: what an earlier one finds out counts no more
  private finding = 0; // the turn of one that has not found out yet
  private overdue = 0; // and of one that took long
  private count = 0;
  private readonly page = Math.random().toString(36).slice(2);

  /** Whether the panel is on the screen. */
  set visible(seen: boolean) {
    this.seen = seen;
    if (seen && this.state) this.look();
  }

  get state(): State | null {
    return this.situation.is === "state" ? this.situation.state : null;
  }

  /** The state after the last cell; where a running cell keeps the kernel from answering the one before, or null. */
  async settled(): Promise<State | null> {
    const { context } = this;
    const open = () => {
      if (context !== this.context) return false;
      const { is, late } = { late: this.overdue === this.turn, ...this.situation };
      const asked = is === "asking" || (is === "state" && this.looking) || this.finding === this.turn;
      return is === "starting" || (asked && !(late && this.kernel?.status === "busy"));
    };
    for (const until = Date.now() + PATIENCE; open() && Date.now() < until; ) await pause(STEP);
    return context === this.context ? this.state : null; // and not that of another notebook
  }

  /** Talk to the kernel of this notebook from now on. */
  follow(context: ISessionContext | null): void {
    if (context === this.context) return;
    this.context?.kernelChanged.disconnect(this.attach, this);
    this.context?.statusChanged.disconnect(this.attach, this);
    this.context = context;
    context?.kernelChanged.connect(this.attach, this);
    context?.statusChanged.connect(this.attach, this);
    this.attach();
  }

  /** One more look at the kernel: another one, or the same that has begun, ended or been restarted. */
  private attach(): void {
    const kernel = this.context?.session?.kernel ?? null;
    const status = kernel?.status ?? "unknown";
    if (status !== "starting") this.started = null;
    const down = ["starting", "restarting", "autorestarting", "terminating", "dead"].includes(status);
    const up = kernel !== null && kernel.connectionStatus === "connected" && (!down || kernel === this.started);
    if (kernel !== this.watched) {
      this.watched?.connectionStatusChanged.disconnect(this.attach, this);
      kernel?.connectionStatusChanged.connect(this.attach, this);
      this.watched = kernel;
    }
    if (up && kernel === this.kernel) return;
    this.kernel?.iopubMessage.disconnect(this.overhear, this);
    this.kernel = up ? kernel : null;
    this.line = null;
    this.waiting?.reject(new NoAnswer("The kernel was restarted."));
    this.cells.clear();
    this.cell = "";
    this.turn++;
    clearTimeout(this.renewal);
    if (!this.context) return this.show({ is: "no notebook" });
    if (!kernel || ["dead", "terminating"].includes(status)) return this.show({ is: "no kernel" });
    if (!up) {
      this.show({ is: "starting" });
      return this.wake(kernel);
    }
    kernel.iopubMessage.connect(this.overhear, this);
    this.show({ is: "asking", late: false });
    void this.begin(kernel);
  }

  /** A kernel that another page has restarted tells that it starts. JupyterLab leaves it at that, so it is asked here. */
  private wake(kernel: Kernel.IKernelConnection): void {
    clearTimeout(this.waking);
    const starting = () => kernel === this.watched && kernel.status === "starting" && kernel !== this.started;
    const answered = () => {
      if (!starting()) return;
      this.started = kernel;
      this.attach();
    };
    this.waking = window.setTimeout(() => {
      if (!starting()) return;
      kernel.requestKernelInfo().then(answered, () => undefined); // not connected: asked again below
      this.wake(kernel);
    }, LATE);
  }

  /** Whether the kernel has the comm. */
  private async begin(kernel: Kernel.IKernelConnection): Promise<void> {
    const turn = (this.finding = ++this.turn);
    const overdue = () => {
      if (turn !== this.turn) return;
      this.overdue = turn;
      this.late();
    };
    const late = window.setTimeout(overdue, LATE);
    let loaded: boolean | null = null;
    while (loaded === null) {
      const asked = this.isLoaded(kernel).catch(() => false);
      do loaded = await Promise.race([asked, pause(LOST).then(() => null)]);
      while (loaded === null && turn === this.turn && kernel.status === "busy");
      if (turn !== this.turn) return;
      if (loaded === null) this.line = null; // its questions are lost as well
    }
    clearTimeout(late);
    if (loaded) {
      this.finding = 0;
      if (!this.state) this.show({ is: "asking", late: false });
      this.look();
    } else {
      const { python } = await lineTo(kernel, false);
      if (turn !== this.turn) return;
      this.finding = 0;
      this.show({ is: python ? "not loaded" : "other language" });
    }
  }

  /** An idle kernel is asked as it is; one that a cell blocks over a subshell. */
  private async isLoaded(kernel: Kernel.IKernelConnection): Promise<boolean> {
    const content = { target_name: ID };
    const has = ({ content }: KernelMessage.ICommInfoReplyMsg) => content.status === "ok" && ID in content.comms;
    const asked = kernel.requestCommInfo(content).then(has);
    const quick = await Promise.race([asked, pause(QUICK).then(() => null)]);
    if (quick !== null) return quick;
    const { subshell } = await this.lineOf(kernel);
    if (subshell === null) return asked;
    const { username, clientId: session } = kernel;
    const message = { msgType: "comm_info_request", channel: "shell", username, session, content } as const;
    const sent = kernel.sendShellMessage(
      KernelMessage.createMessage<KernelMessage.ICommInfoRequestMsg>({ ...message, subshellId: subshell }),
      true,
    );
    return has((await sent.done) as unknown as KernelMessage.ICommInfoReplyMsg);
  }

  private lineOf(kernel: Kernel.IKernelConnection): Promise<Line> {
    return (this.line ??= lineTo(kernel, true));
  }

  /** What the kernel tells: an answer; that a cell runs, which may load the package; that it has ended. */
  private overhear(_: unknown, message: KernelMessage.IIOPubMessage): void {
    const cell = (message.parent_header as KernelMessage.IHeader).msg_id;
    if (KernelMessage.isCommMsgMsg(message)) {
      if (message.content.comm_id === ID) this.hear(message.content.data as unknown as Answer);
    } else if (KernelMessage.isExecuteInputMsg(message)) {
      this.cell = cell;
      if (!this.state && !message.content.code.includes("jupyter_gpt")) return;
      this.cells.add(cell);
      window.setTimeout(() => this.cells.has(cell) && this.lookUp(), SOON); // it may train for hours
    } else if (KernelMessage.isStatusMsg(message) && message.content.execution_state === "idle") {
      if ((message.parent_header as KernelMessage.IHeader).msg_type !== "execute_request") return;
      const unheard = cell !== this.cell; // it began before this page listened
      if (this.cells.delete(cell) || unheard || this.state || this.looking) this.lookUp();
    }
  }

  private lookUp(): void {
    if (this.state || this.looking) this.look();
    else if (this.kernel) void this.begin(this.kernel);
  }

  private hear(answer: Answer): void {
    if (this.waiting && answer.id === this.waiting.id) this.waiting.resolve(answer);
    // a state that nobody asked for, or that another page asked for, is as good
    const state = answer.state ?? (answer.type === "command" ? this.state : null);
    if (state) this.turn++;
    if (state && state.protocol !== PROTOCOL) this.show({ is: "other version", version: String(state.version) });
    else if (state) this.show({ is: "state", state, late: false });
    else if (answer.type === "state" && answer.error) console.warn(`jupyter_gpt: ${answer.error}`);
  }

  /** Ask for the state, and for those that follow it while there is something to follow. */
  private look(): void {
    clearTimeout(this.renewal);
    const { kernel } = this;
    if (!kernel) return;
    if (this.looking) {
      this.lookAgain = true;
      return;
    }
    this.looking = true;
    const every = this.seen && !document.hidden ? EVERY.seen : EVERY.hidden;
    let failed = false;
    void this.ask({ type: "state", follow: FOLLOW, every })
      .then(({ error }) => (failed = error !== undefined))
      .catch((reason: Error) => {
        if (kernel !== this.kernel) return;
        if (reason instanceof Lost) {
          this.line = null;
          void this.begin(kernel);
        } else if (!this.state) this.show({ is: "not loaded" });
      })
      .finally(() => {
        this.looking = false;
        if (this.lookAgain) {
          this.lookAgain = false;
          return this.look();
        }
        const renew = () => {
          const { state } = this;
          const active = state?.runs.some(isActive) || state?.tasks.some((task) => !task.error);
          if (failed || this.cells.size || active) this.look();
        };
        this.renewal = window.setTimeout(renew, failed ? LOST : 800 * FOLLOW);
      });
  }

  /** An action; its answer, then a new state. Rejects with the kernel's reason. */
  async act(type: string, name: string, kind = ""): Promise<Answer> {
    try {
      const answer = await this.ask({ type, name, kind });
      if (answer.error) throw new Error(answer.error);
      return answer;
    } finally {
      this.look();
    }
  }

  /** What a magic accepts: `%%sft`, `%gpt show`. Rejects where the kernel gives no answer. */
  describe(name: string): Promise<Answer> {
    return this.ask({ type: "command", name });
  }

  /** Sends a request once the one before has its answer. */
  private ask(request: JSONObject): Promise<Answer> {
    const { kernel } = this;
    const asked = this.queue.then(() => {
      if (!kernel || kernel !== this.kernel) throw new NoAnswer("The kernel was restarted.");
      return this.send(kernel, request);
    });
    this.queue = asked.catch(() => undefined);
    return asked;
  }

  private async send(kernel: Kernel.IKernelConnection, request: JSONObject): Promise<Answer> {
    const id = `${this.page}-${++this.count}`;
    const late = window.setTimeout(() => this.late(), LATE);
    let lost = 0;
    try {
      return await new Promise<Answer>((resolve, reject) => {
        this.waiting = { id, resolve, reject }; // before there is a line: the kernel may be left before it has one
        const patience = request.type === "state" || request.type === "command" ? LOST : SLOWEST;
        const isLost = () => kernel.status !== "busy" && reject(new Lost("The kernel did not answer."));
        lost = window.setInterval(isLost, patience);
        const ask = ({ subshell }: Line) => {
          if (this.waiting?.id !== id) return;
          const { username, clientId: session } = kernel;
          const content = { comm_id: ID, data: { ...request, id } };
          const head = { msgType: "comm_msg", channel: "shell", username, session, content } as const;
          const message = KernelMessage.createMessage<KernelMessage.ICommMsgMsg<"shell">>({
            ...head,
            subshellId: subshell ?? undefined,
          });
          const sent = kernel.sendShellMessage(message, false, true);
          // the kernel is done with it, and its answer would have come before
          const over = () => reject(new NoAnswer("The kernel did not answer."));
          sent.done.then(over, over);
        };
        this.lineOf(kernel).then(ask).catch(reject);
      });
    } finally {
      clearTimeout(late);
      clearInterval(lost);
      this.waiting = null;
    }
  }

  private late(): void {
    const { situation } = this;
    if (situation.is === "asking" || situation.is === "state") this.show({ ...situation, late: true });
  }

  private show(situation: Situation): void {
    this.situation = situation;
    this.changed.emit();
  }
}

const pause = (milliseconds: number) => new Promise<void>((done) => window.setTimeout(done, milliseconds));

/** What the kernel is, told by its control channel, or by its shell where that does not tell; with a new subshell. */
async function lineTo(kernel: Kernel.IKernelConnection, withSubshell: boolean): Promise<Line> {
  const { username, clientId: session } = kernel;
  const control = { channel: "control", username, session, content: {} } as const;
  const asked = kernel.sendControlMessage(
    KernelMessage.createMessage({ ...control, msgType: "kernel_info_request" } as never) as never,
    true,
    true,
  );
  const info = await Promise.race([asked.done.then(({ content }) => content as Info), kernel.info as Promise<Info>]);
  const python = info.language_info?.name === "python";
  const able = info.supported_features?.includes("kernel subshells") ?? false;
  if (!withSubshell || !able) return { python, subshell: null };
  const made = kernel.sendControlMessage(
    KernelMessage.createMessage<KernelMessage.ICreateSubshellRequestMsg>({
      ...control,
      msgType: "create_subshell_request",
    }),
    true,
    true,
  );
  const { content } = (await made.done) as KernelMessage.ICreateSubshellReplyMsg;
  return { python, subshell: content.subshell_id ?? null };
}

interface Info {
  language_info?: { name: string };
  supported_features?: string[];
}
