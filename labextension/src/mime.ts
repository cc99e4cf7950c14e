// What JupyterLab loads when it starts: that there is a renderer of reports. The renderer itself comes with the first report.

import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import { Widget } from "@lumino/widgets";

const MIME = "application/vnd.jupyter-gpt+json";

class Report extends Widget implements IRenderMime.IRenderer {
  private end = () => {};
  private released = Promise.resolve();
  private turn = 0;

  constructor(private readonly sanitizer: IRenderMime.ISanitizer) {
    super();
    // what is being clicked stays until it is let go, though an answer that is written is drawn anew all the time
    this.node.addEventListener("pointerdown", () => {
      const released = new AbortController();
      this.released = new Promise((resolve) => released.signal.addEventListener("abort", () => setTimeout(resolve)));
      for (const end of ["pointerup", "pointercancel", "blur"]) // a finger may scroll, or another window come between
        window.addEventListener(end, () => released.abort(), { signal: released.signal });
    });
  }

  async renderModel({ data, metadata }: IRenderMime.IMimeModel): Promise<void> {
    const turn = ++this.turn;
    const { show } = await import("./report");
    for (let waited; waited !== this.released; ) await (waited = this.released); // it may be clicked again meanwhile
    if (this.isDisposed || turn !== this.turn) return;
    this.end();
    this.end = show(this.node, data, metadata[MIME], (html) => this.sanitizer.sanitize(html));
  }

  override dispose(): void {
    this.end();
    super.dispose();
  }
}

const extension: IRenderMime.IExtension = {
  id: "jupyter-gpt:report",
  rendererFactory: {
    safe: true, // an untrusted notebook's reports too: what they hold goes in as text
    mimeTypes: [MIME],
    createRenderer: ({ sanitizer }) => new Report(sanitizer),
  },
  rank: 40, // before text/html
  dataType: "json",
};

export default extension;
