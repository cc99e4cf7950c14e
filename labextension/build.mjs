// Bundles src/ into one ES module and one stylesheet: node build.mjs OUTFOLDER "first line of run.js"
import { build } from "esbuild";

const [folder, banner] = process.argv.slice(2);

await build({
  entryPoints: ["src/run.ts"],
  outdir: folder,
  banner: { js: banner },
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "eof",
  logLevel: "warning",
});
