// Writes plot.min.js, what entry.js names of Observable Plot with all that this needs, and LICENSES.txt, the licences of it.
import {existsSync, readFileSync, readdirSync, writeFileSync} from "node:fs";
import {build} from "esbuild";

const {metafile} = await build({
  entryPoints: ["entry.js"], outfile: "plot.min.js", bundle: true, minify: true, format: "iife", globalName: "Plot",
  legalComments: "none", metafile: true,
});
const packages = new Set(Object.keys(metafile.inputs).map(path => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]).filter(Boolean));
// d3-array and d3-delaunay hold these within their own files
for (const within of ["internmap", "delaunator", "robust-predicates"]) packages.add(within);
const told = [...packages].sort().map(name => {
  const folder = `node_modules/${name}`, {version, license} = JSON.parse(readFileSync(`${folder}/package.json`));
  const file = readdirSync(folder).find(one => /^(un)?licen[sc]e/i.test(one));
  const text = file && existsSync(`${folder}/${file}`) ? readFileSync(`${folder}/${file}`, "utf8").trim() : "(its package holds no text of it)";
  return `${name} ${version}: ${license}\n\n${text}`;
});
writeFileSync("LICENSES.txt", `What plot.min.js is made of, each under its own licence.\n\n${told.join(`\n\n${"-".repeat(80)}\n\n`)}\n`);
