// Bundles the page to try the REST API into dist/: docs.html, and assets whose names hold a hash of what is in them.
// Runs in page/, after build.mjs, which empties dist/.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename } from "node:path";

const result = await build({
  entryPoints: { api: "api/main.js" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox113", "safari16.4"],
  charset: "utf8",
  legalComments: "none",
  entryNames: "[name]-[hash]",
  outdir: "dist/assets",
  metafile: true,
});

const made = Object.keys(result.metafile.outputs);
const name = (extension) => {
  const found = made.find((output) => output.endsWith(extension));
  if (!found) throw new Error(`api/main.js made no ${extension}`);
  return `/assets/${basename(found)}`;
};

const page = await readFile("api/index.html", "utf8");
await mkdir("dist", { recursive: true });
await writeFile("dist/docs.html", page.replaceAll("%script%", name(".js")).replaceAll("%style%", name(".css")));
