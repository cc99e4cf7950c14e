// A run as the charts see it: growing columns of numbers, and the sparse events between them.

import type { Declared } from "./layout";

/** A column of numbers that grows; `view()` is a window on its buffer, valid until the next append. */
export class Column {
  private buffer = new Float32Array(1024);
  length = 0;

  append(values: ArrayLike<number>): void {
    const needed = this.length + values.length;
    if (needed > this.buffer.length) {
      const larger = new Float32Array(Math.max(needed, this.buffer.length * 2));
      larger.set(this.view());
      this.buffer = larger;
    }
    this.buffer.set(values, this.length);
    this.length = needed;
  }

  view(): Float32Array {
    return this.buffer.subarray(0, this.length);
  }

  get last(): number | undefined {
    return this.length ? this.buffer[this.length - 1] : undefined;
  }
}

/** The step of an evaluation, and its figures by name. */
export interface Evaluation {
  step: number;
  [figure: string]: number | null;
}

export interface Sample {
  step: number;
  prompt: string;
  text: string;
  /** Of RL: what it was worth, its tokens, and the advantage of each. */
  reward?: number;
  pieces?: string[];
  advantages?: number[];
}

/** What goes wrong, and what to do about it. */
export interface Warning {
  step: number;
  cause: string;
  text: string;
}

export interface Stage {
  stage: string;
  done: number;
  total: number | null;
  unit: string;
}

export interface Start {
  parameters: number;
  device: string;
  dtype: string;
  tokens_per_step: number;
  steps: number;
  step: number;
}

export interface Now {
  step: number;
  tokens: number | null;
  seconds: number | null;
  tokens_per_second: number | null;
  mfu: number | null;
}

/** How a run ended; `alarms` are the causes of those that were not over. */
export interface End {
  status: string;
  error: string | null;
  alarms?: string[];
}

export class Series {
  name = "";
  kind = "pretrain";
  status = "running";
  metrics: Declared[] = [];
  steps: number | null = null;
  columns: Record<string, Column> = {};
  evaluations: Evaluation[] = [];
  samples: Sample[] = [];
  warnings: Warning[] = [];
  stages: Stage[] = [];
  start: Start | null = null;
  now: Now | null = null;
  end: End | null = null;

  column(name: string): Float32Array {
    return this.columns[name]?.view() ?? EMPTY;
  }

  /** Whether the loss left its range and did not come back. */
  get diverged(): boolean {
    const causes = this.end?.alarms ?? this.warnings.map((warning) => warning.cause);
    return causes.includes("diverged");
  }

  /** Forgets all that was received; name, status and steps stay. */
  clear(): void {
    this.columns = {};
    this.evaluations = [];
    this.samples = [];
    this.warnings = [];
    this.stages = [];
    this.start = this.now = this.end = null;
  }

  append(name: string, values: ArrayLike<number>): void {
    (this.columns[name] ??= new Column()).append(values);
  }

  /** Takes one event of events.jsonl that is not a step. */
  event(event: Record<string, unknown>): void {
    switch (event.event) {
      case "progress":
        this.progress(event as unknown as Stage);
        break;
      case "start":
        this.start = event as unknown as Start;
        break;
      case "evaluation":
        this.evaluations.push(event as unknown as Evaluation);
        break;
      case "sample":
        this.samples.push(event as unknown as Sample);
        break;
      case "warning":
        this.warnings.push(event as unknown as Warning);
        break;
      case "end":
        this.end = event as unknown as End;
        break;
    }
  }

  private progress(stage: Stage): void {
    const known = this.stages.findIndex((each) => each.stage === stage.stage);
    if (known < 0) this.stages.push(stage);
    else this.stages[known] = stage;
  }
}

const EMPTY = new Float32Array(0);
