// Builds src/ twice: the JupyterLab extension into prebuilt/, and for each anywidget an ES module with its stylesheet
// into the folder that is given: node build.mjs OUTFOLDER
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const require = createRequire(import.meta.url);
const builder = require.resolve("@jupyter/builder/lib/build-labextension.js");
const ofBuilder = createRequire(builder);
const { rspack } = ofBuilder("@rspack/core");
const typescript = require("./typescript.cjs");
const license = readFileSync("node_modules/uplot/LICENSE", "utf8"); // it asks to travel with every copy

const widgets = {
  ...typescript,
  mode: "production",
  context: import.meta.dirname,
  entry: Object.fromEntries(["run", "rank", "approval", "trace"].map((name) => [name, `./src/${name}.ts`])),
  output: {
    path: resolve(process.argv[2]),
    filename: "[name].js",
    cssFilename: "[name].css",
    library: { type: "module" },
    module: true,
    chunkLoading: false,
    clean: true,
  },
  module: { rules: [...typescript.module.rules, { test: /\.css$/, type: "css/global" }] },
  plugins: [
    new rspack.BannerPlugin({ banner: `/* Contains uPlot.\n\n${license}*/`, raw: true, footer: true, include: /run\.js/ }),
  ],
  performance: { hints: false },
};
const stats = await new Promise((done, failed) => {
  rspack(widgets, (error, stats) => (error ? failed(error) : done(stats)));
});
if (stats.hasErrors()) throw new Error(stats.toString({ preset: "errors-only" }));

// what `jupyter-builder build .` runs
const core = ofBuilder.resolve("@jupyterlab/core-meta/core.package.json");
execFileSync(process.execPath, [builder, "--core-package-file", core, import.meta.dirname], { stdio: "inherit" });
