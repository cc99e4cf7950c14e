// Points in groups, each with a name and a colour.

import { cell } from "./figure";
import { rate } from "./format";
import type { Group, Scatter, Table } from "./parts";
import { DASHES, range, type Kind, type Spot } from "./plot";
import { axes, clipped, margin, scaleOf, svg } from "./svg";

const LABELLED = 40; // labels at most that are written beside their points
const FONT = { "font-size": 11 };
const LETTER = 6; // pixels of a letter in that font, about
const LINE = 13;

export function scatter(plot: Scatter): Kind {
  const { groups } = plot;
  const named = plot.x !== "" || plot.y !== "";
  const points = groups.flatMap(({ points }) => points);
  const all = {
    log: plot.log,
    x: range([...points.map(({ x }) => x), ...(plot.diagonal ? [1] : [])], plot.log, groups.some(({ written }) => written) && named ? 0.12 : 0.05),
    y: range(points.flatMap(({ y, bounds }) => [y, ...(bounds ?? [])])),
  };
  const most = Math.max(1, ...points.map(({ size }) => size ?? 1));
  const small = Math.max(1.6, Math.min(4, 60 / Math.sqrt(points.length || 1)));

  const draw: Kind["draw"] = (width, theme, seen, hidden) => {
    const height = Math.max(180, width * plot.ratio);
    const view = { x: seen.x ?? all.x, y: seen.y ?? all.y };
    const top = 8;
    const bottom = named ? 40 : 8;
    const y = scaleOf(view.y.min, view.y.max, height - bottom, top);
    const left = named ? margin(y, height) + 16 : 8;
    const box = { left, top, width: width - left - 12, height: height - top - bottom };
    const x = scaleOf(view.x.min, view.x.max, left, left + box.width, plot.log);
    const drawing = svg("svg", { width, height });
    const { clip, name } = clipped(box);
    const marks = svg("g", { "clip-path": name });
    const { left: bx, top: by, width: bw, height: bh } = box;
    drawing.append(svg("rect", { x: bx, y: by, width: bw, height: bh, fill: "none", stroke: theme.solid.grid }));
    drawing.append(axes(box, named ? x : null, named ? y : null, theme, plot), clip, marks);
    if (plot.diagonal) {
      const [low, high] = [Math.max(view.x.min, view.y.min), Math.min(view.x.max, view.y.max)];
      marks.append(svg("line", { x1: x.at(low), y1: y.at(low), x2: x.at(high), y2: y.at(high), stroke: theme.solid.muted, "stroke-dasharray": DASHES }));
    }
    const spots: Spot[] = [];
    const labels: Rectangle[] = [];
    groups.forEach((group, k) => {
      if (hidden.has(k)) return;
      const { colour, shape } = group;
      const shown = group.points.map((point) => ({ ...point, px: x.at(point.x), py: y.at(point.y) }));
      if (group.joined) {
        const line = shown.map(({ px, py }, i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
        marks.append(svg("path", { d: line, fill: "none", stroke: colour, "stroke-width": 1.5, opacity: 0.7 }));
      }
      let [lines, dots] = ["", ""];
      for (const { px, py, size, bounds } of shown) {
        if (bounds) lines += `M${px.toFixed(1)} ${y.at(bounds[0]).toFixed(1)}V${y.at(bounds[1]).toFixed(1)}`;
        const r = shape === "ring" ? 6 : size !== null ? 2 + 5 * Math.sqrt(size / most) : named ? 4.5 : small;
        dots += shape === "star" ? star(px, py) : circle(px, py, r);
      }
      if (lines) marks.append(svg("path", { d: lines, stroke: colour, "stroke-width": 1.5 }));
      const ring = shape === "ring";
      const look: Record<string, string | number> = ring ? { fill: "none", stroke: colour, "stroke-width": 1.8 } : { fill: colour, opacity: named || shape === "star" ? 0.9 : 0.6 };
      marks.append(svg("path", { d: dots, ...look }));
      for (const { px, py, label } of shown) {
        const within = px >= box.left && px <= box.left + box.width && py >= top && py <= top + box.height;
        if (!group.written || !label || !within || labels.length >= LABELLED) continue;
        const place = free(px, py + (named ? 14 : -6), LETTER * label.length, box, labels);
        labels.push(place);
        drawing.append(svg("text", { x: place.left, y: place.bottom, ...FONT, fill: ring ? colour : theme.solid.muted }, label));
      }
      for (const each of shown) spots.push({ x: each.px, y: each.py, says: () => says(plot, group.name, each) });
    });
    return { drawing, spots: spots.reverse(), panes: [{ box, x, y }] };
  };
  const table = (): Table => {
    const labelled = points.some(({ label }) => label);
    const bounded = points.some(({ bounds }) => bounds);
    const sized = points.some(({ size }) => size !== null);
    const header = [
      "group", ...(labelled ? ["point"] : []), plot.x || "x", plot.y || "y",
      ...(bounded ? ["low", "high"] : []), ...(sized ? ["size"] : []),
    ];
    const rows = groups.flatMap((group) =>
      group.points.map(({ x, y, label, bounds, size }) => [
        group.name, ...(labelled ? [label] : []), cell(x), cell(y),
        ...(bounded ? [cell(bounds?.[0] ?? null), cell(bounds?.[1] ?? null)] : []), ...(sized ? [cell(size)] : []),
      ]),
    );
    return { kind: "table", header, rows, sides: `l${labelled ? "l" : ""}${"r".repeat(5)}`, wrap: false };
  };
  const many = groups.filter(({ points }) => points.length).length > 1;
  return { names: many ? groups : [], all, draw, table };
}

export interface Rectangle {
  left: number;
  right: number;
  bottom: number;
}

// Where a label of this width fits beside a point: right or left of it, as high or low as is needed to be within the box
// and on no other label.
export function free(x: number, y: number, width: number, box: { left: number; width: number }, taken: Rectangle[]): Rectangle {
  const end = box.left + box.width;
  for (let k = 0; k < 10; k++) {
    const bottom = y + LINE * (k % 2 ? -(k + 1) / 2 : k / 2);
    for (const left of [x + 7, x - 7 - width]) {
      const overlaps = taken.some((other) => left < other.right && other.left < left + width && Math.abs(other.bottom - bottom) < LINE);
      if (left >= box.left && left + width <= end && !overlaps) return { left, right: left + width, bottom };
    }
  }
  const left = Math.max(box.left, Math.min(x + 7, end - width));
  return { left, right: left + width, bottom: y };
}

function says(plot: Scatter, group: string, { label, x, y, bounds, size }: Group["points"][number]): string[] {
  const interval = bounds ? ` (${rate(bounds[0])} to ${rate(bounds[1])})` : "";
  const named = plot.x || plot.y ? [`${plot.x}: ${rate(x)}`, `${plot.y}: ${rate(y)}${interval}`] : [];
  return [...[label, group].filter(Boolean), ...named, ...(size === null ? [] : [`size: ${rate(size)}`])].filter(Boolean);
}

function circle(x: number, y: number, r: number): string {
  return `M${(x - r).toFixed(1)} ${y.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
}

function star(x: number, y: number): string {
  const corners = Array.from({ length: 10 }, (_, k) => {
    const [r, turn] = [k % 2 ? 4 : 9, (Math.PI * k) / 5];
    return `${(x + r * Math.sin(turn)).toFixed(1)} ${(y - r * Math.cos(turn)).toFixed(1)}`;
  });
  return `M${corners.join("L")}Z`;
}
