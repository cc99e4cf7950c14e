// Bars of the same names, in charts beside or above one another.

import { cell } from "./figure";
import { rate } from "./format";
import type { BarChart, Table } from "./parts";
import { DASHES, range, type Kind, type Picture, type Spot } from "./plot";
import { axes, clipped, margin, scaleOf, svg } from "./svg";
import type { View } from "./view";

export function barChart(plot: BarChart): Kind {
  const { names, panels, stacked } = plot;
  const count = names.length;
  const whole: View = { min: 0.5, max: count + 0.5 };
  const draw: Kind["draw"] = (width, theme, seen) => {
    const view = seen.x ?? whole;
    const each = stacked ? width : Math.max(110, width / Math.min(panels.length, Math.max(1, Math.floor(width / 120))));
    const across = stacked ? 1 : Math.max(1, Math.floor(width / each));
    const down = Math.ceil(panels.length / across);
    const tall = stacked ? Math.max(90, (width * plot.ratio) / panels.length) : 150;
    const longest = Math.max(0, ...names.map((name) => name.length));
    const beneath = stacked ? 8 : Math.min(70, 14 + 5 * longest);
    const height = down * (tall + beneath) + (stacked ? 36 : 12);
    const drawing = svg("svg", { width, height });
    const spots: Spot[] = [];
    const panes: Picture["panes"] = [];
    panels.forEach((bars, k) => {
      const known = bars.values.filter((value) => value !== null);
      const bounds = bars.bounds.flatMap((each) => each ?? []);
      const { min, max } = range([0, ...known, ...bounds]);
      const high = bars.top ?? (max > 0 ? max : 0);
      const low = Math.min(...known, ...bounds, 0) < 0 ? min : 0;
      const [cornerX, cornerY] = [(k % across) * each, Math.floor(k / across) * (tall + beneath)];
      const y = scaleOf(low, high > low ? high : low + 1, cornerY + tall, cornerY + 22);
      const left = cornerX + margin(y, tall - 22) + 6;
      const box = { left, top: cornerY + 22, width: cornerX + each - left - 14, height: tall - 22 };
      const x = scaleOf(view.min, view.max, box.left, box.left + box.width);
      const last = k === panels.length - 1;
      const { clip, name } = clipped({ ...box, top: box.top - 2, height: box.height + 4 });
      const marks = svg("g", { "clip-path": name });
      const labels = { x: stacked && last ? plot.x : "", whole: true };
      drawing.append(axes(box, stacked && last ? x : null, y, theme, labels), clip, marks);
      drawing.append(svg("text", { x: box.left, y: cornerY + 13, "font-size": 11, fill: theme.solid.muted }, bars.title));
      const wide = Math.max(0.5, 0.75 * (x.at(1) - x.at(0)));
      for (let i = Math.max(0, Math.ceil(view.min - 1)); i < Math.min(count, view.max); i++) {
        const value = bars.values[i];
        if (value === null) continue;
        const [zero, end] = [y.at(Math.max(low, 0)), y.at(Math.min(value, high))];
        const place = { x: x.at(i + 1) - wide / 2, y: Math.min(zero, end), width: wide, height: Math.max(1, Math.abs(zero - end)) };
        marks.append(svg("rect", { ...place, fill: bars.colours[i % bars.colours.length] ?? "#3b82c4" }));
        const interval = bars.bounds[i];
        if (interval) marks.append(svg("path", { d: `M${x.at(i + 1)} ${y.at(interval[0])}V${y.at(interval[1])}`, stroke: theme.solid.text, "stroke-width": 1.5 }));
        const told = interval ? ` (${rate(interval[0])} to ${rate(interval[1])})` : "";
        const says = () => [stacked ? `${i + 1}. ${names[i]}` : names[i] || bars.title, `${bars.title}: ${rate(value)}${told}`];
        const column = { ...box, left: x.at(i + 0.5), width: x.at(1) - x.at(0) };
        spots.push({ x: x.at(i + 1), y: end, box: column, says });
        if (stacked || !names[i]) continue;
        const [tx, ty] = [x.at(i + 1) + 3, box.top + box.height + 12];
        drawing.append(svg("text", { x: tx, y: ty, "font-size": 10, "text-anchor": "end", transform: `rotate(-45 ${tx} ${ty})`, fill: theme.solid.muted }, names[i].slice(0, 14)));
      }
      if (bars.limit !== null) {
        const at = y.at(bars.limit);
        marks.append(svg("line", { x1: box.left, x2: box.left + box.width, y1: at, y2: at, stroke: theme.solid.muted, "stroke-dasharray": DASHES }));
      }
      const beyond = bars.values.findIndex((value) => value !== null && bars.top !== null && value > bars.top);
      if (bars.cut && beyond >= 0 && beyond + 1 >= view.min && beyond + 1 <= view.max) {
        const over = { stroke: theme.solid.ground, "stroke-width": 3, "paint-order": "stroke" }; // legible on other bars
        drawing.append(svg("text", { x: x.at(beyond + 1) + 6, y: box.top + 9, "font-size": 10, fill: theme.solid.muted, ...over }, bars.cut));
      }
      if (count > 8) panes.push({ box, x, y: null });
    });
    return { drawing, spots, panes };
  };
  const table = (): Table => {
    const header = [plot.x || "name", ...panels.flatMap(({ title, bounds }) => [title, ...(bounds.length ? [`${title}, low`, `${title}, high`] : [])])];
    const rows = names.map((name, i) => [
      name,
      ...panels.flatMap(({ values, bounds }) => [cell(values[i]), ...(bounds.length ? [cell(bounds[i]?.[0] ?? null), cell(bounds[i]?.[1] ?? null)] : [])]),
    ]);
    return { kind: "table", header, rows, sides: `l${"r".repeat(header.length - 1)}`, wrap: false };
  };
  return { names: [], all: { x: whole, y: null, log: false }, draw, table };
}
