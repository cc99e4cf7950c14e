// What the commands ask the panel for.

import { Token } from "@lumino/coreutils";
import type { Client } from "./client";
import type { Act } from "./view";

export interface Started {
  client: Client;
  /** What a click on a button of the panel does. Rejects with the kernel's reason. */
  perform(act: Act, name: string, kind: string): Promise<void>;
}

export interface IGPTPanel {
  /** Loads the panel, unless that is done, and follows the notebook in front. */
  begin(): Promise<Started>;
  /** Shows it. */
  open(): Promise<void>;
}

export const IGPTPanel = new Token<IGPTPanel>("jupyter-gpt:IGPTPanel", "The GPT panel and its line to the kernel.");
