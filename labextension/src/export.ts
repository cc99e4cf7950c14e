// Copying and downloading what a report shows.

import { element, toggle } from "./dom";

/** A button that copies a text, and says so. */
export function copyButton(label: string, of: () => string): HTMLButtonElement {
  const button = toggle(label, async () => {
    button.textContent = (await copied(of())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  button.setAttribute("aria-live", "polite");
  return button;
}

async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // no clipboard: the page is not served over HTTPS, or the browser forbids it
    const field = element("textarea");
    field.value = text;
    field.style.position = "fixed";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

export function download(name: string, href: string): void {
  const link = element("a");
  link.download = name;
  link.href = href;
  link.click();
}

export function downloadText(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  download(name, url);
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Rows as comma-separated values (RFC 4180). */
export function csv(rows: string[][]): string {
  const quoted = (cell: string) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return rows.map((row) => row.map(quoted).join(",")).join("\r\n");
}
