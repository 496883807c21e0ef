// Published claims and figures of papers beside what the rows of this project say.
const WIDEST = Math.log(100), NARROW = Math.log(1.01);
// where a distance from a threshold lies: linear up to 1 %, then logarithmic, cut at a factor of 100
const placed = value => 80 + 74 * Math.sign(value) * Math.log1p(Math.min(Math.abs(value), WIDEST) / NARROW) / Math.log1p(WIDEST / NARROW);

function against(line) {
  const made = document.createElementNS(SVG, "svg");
  const path = (d, how) => { const one = made.appendChild(document.createElementNS(SVG, "path")); Object.entries({d, fill: "none", ...how}).forEach(([key, value]) => one.setAttribute(key, value)); };
  Object.entries({viewBox: "0 0 160 16", width: 160, height: 16, "aria-hidden": "true"}).forEach(([key, value]) => made.setAttribute(key, value));
  path("M80,0V16", {stroke: "var(--soft)"});
  const stroke = {confirmed: "var(--accent)", refuted: "var(--warm)"}[line.verdict] || "var(--soft)";
  if (line.near != null) path(`M${placed(line.near)},8H${placed(line.far)}`, {stroke, "stroke-width": 2});
  if (line.at.effect != null) path(`M${placed(line.at.effect)},4a4,4 0 1,0 .01,0`, {fill: stroke});
  if (line.at.published != null) path(`M${placed(line.at.published)},2l6,6l-6,6l-6,-6z`, {stroke: "var(--ink)", fill: "var(--paper)", "fill-opacity": 0.6});
  return made;
}

section("claims", "Published claims", host => {
  const {lines, csv: whole} = DATA.claims;
  if (!lines.length) return false;
  note(host, "Every claim that was made a test, on every text. Of all experiments, whichever is chosen above. A claim is confirmed or refuted where the whole interval of its effect lies on one side of its threshold; a row shows the part that decides. Drawn: the effect (dot) and its interval against the threshold (upright line), to the right is for the claim; hollow: published. Linear up to 1 %, then logarithmic, cut at a factor of 100.");
  host.append(element("p", {class: "buttons"}, ...boxes("verdict", DATA.verdicts)));
  const shown = lines.filter(line => state.verdict.includes(line.verdict)), counts = DATA.verdicts.map(verdict => `${verdict} ${lines.filter(line => line.verdict === verdict).length}`).join(", ");
  note(host, `${shown.length} of ${lines.length} verdicts: ${counts}.`);
  table(host, ["claim", "on", "verdict", "effect", "claimed", "against the threshold", "published", "quantity", "source"], shown.map(line => [{text: `${line.id} ${line.title}`, class: "wide", title: line.statement}, `${line.place}${line.experiment ? ` (${line.experiment}, ${seeds(line.n_seeds)})` : ""}`, {text: line.verdict, class: line.verdict.split(" ")[0]}, line.effect || line.reason, line.bound || "", line.at ? {text: against(line), copy: ""} : "", line.published || "", line.quantity || "", {text: line.source, class: "wide"}]), {id: "claim", caption: `published claims: ${state.verdict.join(", ") || "none"}`, label: "claims", of: "all experiments", csv: whole});
}, ["verdict"]);

section("papers", "Figures of papers", host => {
  const of = DATA.papers.find(one => one.name === state.fig);
  if (!of) return false;
  host.append(element("p", {}, element("label", {for: "of-fig"}, "figure "), select("fig", DATA.papers.map(one => one.name), id => DATA.papers.find(one => one.name === id).title)));
  note(host, [of.expected, of.drawn, new Set(of.lines.map(line => line.panel)).size > 1 ? "What the text calls left and right stands here one below the other." : "", of.lines.some(line => line.points.some(point => point[4] > 1)) ? "Intervals: 95 % t intervals over seeds." : "", of.lines.some(line => line.dash) ? "Dashed: published." : "", "Of all experiments, whichever is chosen above."].filter(Boolean).join(" "));
  const inRow = point => ({x: point[0], y: point[1], low: point[2] ?? NaN, high: point[3] ?? NaN, text: [`${of.across || "at"} ${point[0]}`, `${number(point[1])}${point[3] == null ? "" : ` (${number(point[2])} to ${number(point[3])})`}`, point[4] == null ? "" : point[4] === 1 ? "1 run" : seeds(point[4])].filter(Boolean)});
  const drawn = of.least == null ? of.lines : of.lines.map(line => ({...line, points: line.points.filter(([x, y]) => x > 0 && y >= of.least)})).filter(line => line.points.length);
  if (of.across) for (const [panel, lines] of grouped(drawn, line => line.panel)) {
    const xs = unique(lines.flatMap(line => line.points.map(point => point[0]))).sort((a, b) => a - b), doubling = of.across !== "step" && xs[0] > 0 && xs.at(-1) / xs[0] > 3;
    const ticksAt = doubling ? Array.from({length: 40}, (_, k) => 2 ** (k - 20)).filter(x => x >= xs[0] * 0.99 && x <= xs.at(-1) * 1.01) : ticks(xs[0], xs.at(-1), false, 6);
    if (panel) host.append(element("h3", {}, panel));
    chart(host, lines.map(line => ({look: line, name: line.name, points: line.points.map(inRow)})), {id: `paper-${panel}`.replace(/\W+/g, "-"), label: `${of.title}${panel ? `, ${panel}` : ""}`, log: of.log, xlog: doubling, y: {value: "what is drawn: see above", loss: "loss, nats per token", bias: "added to scores"}[of.up], x: of.least == null ? {x: "length / training length", step: "training steps", n: "tokens"}[of.across] : "distance / training length", xticks: ticksAt, xname: x => String(+x.toPrecision(3)), ends: false, table: "all numbers"});
  }
  const rows = of.lines.flatMap(line => line.points.map(point => [line.name, line.panel, of.across ? String(point[0]) : "", number(Math.abs(point[1])).replace(/^/, point[1] < 0 ? "−" : "") + (point[3] == null ? "" : ` (${number(point[2])} to ${number(point[3])})`), point[4] ?? ""]));
  host.append(element("details", {id: "paper-numbers"}, element("summary", {}, `all ${rows.length} numbers`)));
  table(host.lastElementChild, ["line", "panel", of.across || "", of.up, "seeds"], rows, {id: "paper-table", caption: of.title, label: of.name, of: "figures of papers", csv: csv([["line", "panel", of.across || "", of.up, "low", "high", "n_seeds"], ...of.lines.flatMap(line => line.points.map(([x, ...rest]) => [line.name, line.panel, of.across ? x : "", ...rest]))])});
}, ["fig", "show"]);
