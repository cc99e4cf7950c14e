// Numbers as people read them. Everything answers "–" to what is unknown.

type Maybe = number | null | undefined;

const known = (value: Maybe): value is number =>
  value !== null && value !== undefined && Number.isFinite(value);

/** 12345 → "12,345" */
export function count(value: Maybe): string {
  return known(value) ? Math.round(value).toLocaleString("en-US") : "–";
}

/** 21437 → "21.4k" */
export function compact(value: Maybe): string {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  for (const [unit, letter] of [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (size >= unit) return trim((value / unit).toPrecision(3)) + letter;
  }
  return trim(value.toPrecision(3));
}

/** 3.14159 → "3.142" */
export function fixed(value: Maybe, digits = 3): string {
  return known(value) ? value.toFixed(digits) : "–";
}

/** 0.0031 → "3.10e-3", 0.02 → "0.02" */
export function rate(value: Maybe): string {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  return Math.abs(value) < 0.01 ? value.toExponential(2) : trim(value.toPrecision(3));
}

/** 0.4321 → "43.2%" */
export function percent(value: Maybe): string {
  return known(value) ? `${(100 * value).toFixed(1)}%` : "–";
}

/** As a metric declares it, in Python's format language: ".3f", ".1%", ",.0f" (here 21.4k), ".3g". */
export function formatted(value: Maybe, format: string): string {
  if (format.endsWith("%")) return percent(value);
  if (format.endsWith("g")) return rate(value);
  return format.startsWith(",") ? compact(value) : fixed(value, Number(/\.(\d)/.exec(format)?.[1] ?? 3));
}

/** 3725 seconds → "1:02:05" */
export function duration(seconds: Maybe): string {
  if (!known(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const two = (n: number) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function trim(digits: string): string {
  return digits.includes(".") && !digits.includes("e") ? digits.replace(/\.?0+$/, "") : digits;
}
