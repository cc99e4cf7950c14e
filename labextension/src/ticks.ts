// Where the axes are labelled, and how.

/** 1, 2 and 5 of each decade between `min` and `max`; every digit, or even steps, where those are too few. */
export function logTicks(min: number, max: number, room: number): number[] {
  const most = Math.max(2, room);
  for (const leads of [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1]]) {
    const ticks = decades(min, max, leads);
    if (ticks.length <= most) return ticks.length >= 3 || leads.length === 1 ? ticks : linearTicks(min, max, most);
  }
  const ticks = decades(min, max, [1]);
  return ticks.filter((_tick, k) => k % Math.ceil(ticks.length / most) === 0);
}

function decades(min: number, max: number, leads: number[]): number[] {
  const ticks: number[] = [];
  if (!(min > 0) || !Number.isFinite(max)) return ticks;
  for (let k = Math.floor(Math.log10(min)); 10 ** k <= max; k++) {
    for (const lead of leads) {
      const tick = Number((lead * 10 ** k).toPrecision(12));
      if (tick >= min && tick <= max) ticks.push(tick);
    }
  }
  return ticks;
}

/** At most `most` even steps of 1, 2 or 5 between `min` and `max`. */
export function linearTicks(min: number, max: number, most: number): number[] {
  const stride = [1, 2, 5, 10].map((lead) => lead * 10 ** Math.floor(Math.log10((max - min) / most)));
  const by = stride.find((each) => (max - min) / each <= most) ?? max - min;
  const ticks: number[] = [];
  if (!(by > 0) || by < 1e-12 * Math.max(Math.abs(min), Math.abs(max))) return ticks; // nothing to step over
  for (let k = Math.ceil(min / by); k * by <= max; k++) ticks.push(Number((k * by).toPrecision(12)));
  return ticks;
}

/** Distances between the labels of a linear axis of steps, which are whole. */
export const STRIDES = Array.from({ length: 9 }, (_, k) => [1, 2, 5].map((lead) => lead * 10 ** k)).flat();

/** 12000 → "12k" */
export function stepLabel(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  return value >= 10000 ? `${Number((value / 1000).toPrecision(4))}k` : String(Number(value.toPrecision(4)));
}

/** Labels of a value axis, with just the digits that tell them apart: 2.0, 2.5; 250k, 500k; 1e-3, 2e-3. */
export function valueLabels(ticks: number[]): string[] {
  const gap = Math.min(...ticks.slice(1).map((tick, k) => tick - ticks[k]));
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest >= 1000) return ticks.map(large);
  if (largest < 0.01) return ticks.map((tick) => (tick ? Number(tick.toPrecision(2)).toExponential() : "0"));
  let digits = 0;
  while (digits < 6 && Math.abs(gap * 10 ** digits - Math.round(gap * 10 ** digits)) > 1e-6) digits++;
  return ticks.map((tick) => (tick ? tick.toFixed(digits) : "0"));
}

function large(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  return value >= 1000 ? `${Number((value / 1000).toPrecision(4))}k` : String(value);
}
