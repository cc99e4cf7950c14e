// Values of a report read with distrust: each is what it should be, or an error says what is not.

export const FAR = 1e30; // what lies beyond is on no axis
const COLOUR = /^#[0-9a-f]{3,8}$/i;

export type Fields = Record<string, unknown>;

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function malformed(what: string): Error {
  return new Error(`This report cannot be drawn: ${what} is not as it should be`);
}

export function text(value: unknown): string {
  if (typeof value !== "string") throw malformed("a text");
  return value;
}

export function texts(value: unknown, count: number): string[] {
  if (!Array.isArray(value) || value.length !== count) throw malformed("a text");
  return value.map(text);
}

export function number(value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw malformed("a number");
  return value;
}

/** `int(True)` is what earlier versions saved. */
export function flag(value: unknown): boolean {
  return value === true || value === 1;
}

export function near(value: number | null): number | null {
  return value === null || Math.abs(value) > FAR ? null : value;
}

/** A colour that an attribute of SVG may have; no other paint. */
export function colour(value: unknown): string {
  return COLOUR.test(text(value)) ? text(value) : "#666666";
}

export function words(value: unknown): string[] {
  return text(value ?? "").split(" ").filter(Boolean);
}

export function pair(value: unknown): unknown[] {
  if (!Array.isArray(value) || value.length !== 2) throw malformed("a pair");
  return value;
}
