// Bundles src/ into an ES module and a stylesheet for each widget: node build.mjs OUTFOLDER "first line of each module"
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const [folder, banner] = process.argv.slice(2);
const license = readFileSync("node_modules/uplot/LICENSE", "utf8"); // it asks to travel with every copy

await build({
  entryPoints: ["src/run.ts", "src/rank.ts", "src/approval.ts", "src/trace.ts"],
  outdir: folder,
  banner: { js: banner },
  footer: { js: `/* Contains uPlot.\n\n${license}*/` },
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  logLevel: "warning",
});
