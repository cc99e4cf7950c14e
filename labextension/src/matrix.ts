// A confusion matrix: counts, shaded by their share of their row.

import type { Matrix, Table } from "./parts";
import type { Kind, Spot } from "./plot";
import { svg } from "./svg";

export function matrix(plot: Matrix): Kind {
  const { rows, columns, counts } = plot;
  const totals = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
  const short = (name: string) => (name.length > 14 ? `${name.slice(0, 13)}…` : name);
  const draw: Kind["draw"] = (given, theme) => {
    const left = 28 + 6.4 * Math.max(3, ...rows.map((name) => short(name).length));
    const size = Math.max(10, Math.min(columns.length > 10 ? 36 : 64, (given - left - 12) / Math.max(1, columns.length)));
    const crowded = columns.length > 0 && Math.max(...columns.map((name) => short(name).length)) * 6.4 > size;
    const beneath = crowded ? 30 + 4.6 * Math.max(...columns.map((name) => short(name).length)) : 40;
    const labelled = size >= 13;
    const [width, height] = [left + size * columns.length + 12, 8 + size * rows.length + (labelled ? beneath : 26)];
    const drawing = svg("svg", { width, height });
    const words = svg("g", { "font-size": 11, fill: theme.solid.muted });
    const spots: Spot[] = [];
    counts.forEach((row, j) =>
      row.forEach((count, i) => {
        const share = count / (totals[j] || 1);
        const [x, y] = [left + i * size, 8 + j * size];
        const ground = { fill: "#2171b5", "fill-opacity": 0.04 + 0.96 * share, stroke: theme.solid.ground };
        drawing.append(svg("rect", { x, y, width: size, height: size, ...ground }));
        if (size >= 8 + 6.4 * count.toLocaleString("en-US").length) {
          const ink = share > 0.45 ? "#ffffff" : theme.solid.text;
          const place = { x: x + size / 2, y: y + size / 2 + 4, "text-anchor": "middle", "font-size": 12, fill: ink };
          drawing.append(svg("text", place, count.toLocaleString("en-US")));
        }
        const told = `${count.toLocaleString("en-US")} of ${totals[j].toLocaleString("en-US")} (${(100 * share).toFixed(1)}%)`;
        const box = { left: x, top: y, width: size, height: size };
        spots.push({ x: x + size / 2, y: y + size / 2, box, says: () => [told, `${plot.y}: ${rows[j]}`, `${plot.x}: ${columns[i]}`] });
      }),
    );
    rows.forEach((name, j) => {
      if (labelled) words.append(svg("text", { x: left - 6, y: 12 + (j + 0.5) * size, "text-anchor": "end" }, short(name)));
    });
    columns.forEach((name, i) => {
      const [x, y] = [left + (i + 0.5) * size, 24 + rows.length * size];
      const turned: Record<string, string> = crowded ? { "text-anchor": "end", transform: `rotate(-45 ${x + 4} ${y})` } : { "text-anchor": "middle" };
      if (labelled) words.append(svg("text", { x: crowded ? x + 4 : x, y, ...turned }, short(name)));
    });
    const middle = 8 + (rows.length * size) / 2;
    words.append(svg("text", { x: left + (columns.length * size) / 2, y: height - 5, "text-anchor": "middle" }, plot.x));
    words.append(svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, plot.y));
    drawing.append(words);
    return { drawing, spots, panes: [] };
  };
  const table = (): Table => {
    const header = [`${plot.y} (rows) × ${plot.x} (columns)`, ...columns];
    const sides = `l${"r".repeat(columns.length)}`;
    return { kind: "table", header, rows: rows.map((name, j) => [name, ...counts[j]]), sides, wrap: false };
  };
  return { names: [], all: { x: null, y: null, log: false }, draw, table };
}
