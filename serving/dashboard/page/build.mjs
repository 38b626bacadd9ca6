// Bundles the page into dist/: index.html, and assets whose names hold a hash of what is in them.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";

await rm("dist", { recursive: true, force: true });
const result = await build({
  entryPoints: ["src/main.js", "src/theme.js", "src/icon.svg"],
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox113", "safari16.4"],
  charset: "utf8",
  legalComments: "none",
  loader: { ".svg": "copy" },
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  outdir: "dist/assets",
  metafile: true,
});

const name = (source, extension) => {
  const found = Object.entries(result.metafile.outputs).find(
    ([output, { entryPoint, inputs }]) =>
      output.endsWith(extension) && (entryPoint === source || source in inputs),
  );
  if (!found) throw new Error(`${source} made no ${extension}`);
  return `/assets/${basename(found[0])}`;
};

let page = await readFile("index.html", "utf8");
page = page
  .replaceAll("%script%", name("src/main.js", ".js"))
  .replaceAll("%theme%", name("src/theme.js", ".js"))
  .replaceAll("%style%", name("src/style.css", ".css"))
  .replaceAll("%icon%", name("src/icon.svg", ".svg"));
if (/%\w+%/.test(page)) throw new Error("index.html names a file that was not made");
await mkdir("dist", { recursive: true });
await writeFile("dist/index.html", page);
