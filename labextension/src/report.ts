// A report as a notebook holds it, drawn from the file alone: no kernel, no trust.

type Bundle = Readonly<Record<string, unknown>>;

/** Draws the report into `host`; `sanitize` makes HTML safe to stand in the page. */
export function show(host: HTMLElement, data: Bundle, sanitize: (html: string) => string): void {
  const html = data["text/html"];
  host.innerHTML = sanitize(Array.isArray(html) ? html.join("") : String(html ?? ""));
}
