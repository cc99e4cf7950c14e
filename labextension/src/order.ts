// A ranking in the making: groups of completion numbers, the best first, those of a group tied. Every function returns
// a new order, so that a step back is the one before.

export type Order = number[][];

/** Takes `number` out of the order, wherever it stands. */
export function without(order: Order, number: number): Order {
  return order.map((group) => group.filter((each) => each !== number)).filter((group) => group.length);
}

/** Puts `number` behind all others, or with `tied` beside the last. */
export function appended(order: Order, number: number, tied: boolean): Order {
  const rest = without(order, number);
  if (!tied || !rest.length) return [...rest, [number]];
  return [...rest.slice(0, -1), [...rest[rest.length - 1], number]];
}

/** Puts `number` on a place of its own before group `at` of the order without it. */
export function inserted(order: Order, number: number, at: number): Order {
  const rest = without(order, number);
  return [...rest.slice(0, at), [number], ...rest.slice(at)];
}

/** Puts `number` beside `other`. */
export function joined(order: Order, number: number, other: number): Order {
  return without(order, number).map((group) => (group.includes(other) ? [...group, number] : group));
}

/** Moves `number` half a place: out of its group, or into the neighbour's. `by` is -1 towards the best, 1 away. */
export function moved(order: Order, number: number, by: -1 | 1): Order {
  const at = order.findIndex((group) => group.includes(number));
  if (at < 0) return order;
  if (order[at].length > 1) {
    const rest = order.map((group) => group.filter((each) => each !== number));
    rest.splice(by < 0 ? at : at + 1, 0, [number]);
    return rest;
  }
  const neighbour = order[at + by];
  return neighbour ? joined(order, number, neighbour[0]) : order;
}

/** The numbers 1 to `count` that are not in the order. */
export function unranked(order: Order, count: number): number[] {
  const placed = new Set(order.flat());
  return Array.from({ length: count }, (_, i) => i + 1).filter((number) => !placed.has(number));
}

/** The rank of each group: 1, 2, then 4 after a group of two. */
export function places(order: Order): number[] {
  let next = 1;
  return order.map((group) => (next += group.length) - group.length);
}
