// What stands on the page, in its order: each is drawn again when something is chosen, and hides itself where there is nothing to show.
const SECTIONS = [];
// keys: of what is chosen, where all else leaves a section as it is
const section = (id, title, draw, keys) => SECTIONS.push({id, title, draw, keys});
const note = (host, ...inside) => host.append(element("p", {class: "note"}, ...inside));
const select = (key, values, name = words, id = `of-${key}`, shown = state[key]) => element("select", {"data-key": key, id}, ...values.map(one => element("option", {value: one, selected: one === shown}, name(one))));
const all = () => state.seeds.length === group.seeds.length;
const allSeeds = () => `${group.seeds.length === 1 ? "One seed" : `All ${group.seeds.length} seeds`}${all() ? "" : ", whichever are chosen above"}; `;
const inRange = n => n >= Number(state.from) && n <= Number(state.to);

// Indices of the lines that are chosen: schemes, their chosen extensions, references.
const chosen = protocol => group.series.map((one, i) => i).filter(i => {
  const {kind, scheme, extension} = group.series[i];
  return protocol.values[i]?.some(Boolean) && (kind === "scheme" ? state.s.includes(scheme) && (extension === "none" || state.e.includes(extension)) : state.r.includes(scheme));
});
const lengthsOf = protocol => (state.lengths === "all" ? protocol.lengths : protocol.shown).filter(inRange);

const over = () => state.seeds.length > 1 ? `mean and 95 % t interval over seeds ${state.seeds.join(", ")}` : state.seeds.length ? `seed ${state.seeds[0]} alone, without an interval` : "no seed is chosen";
const caption = () => `${group.of.name}: ${group.what}${group.setting ? `, ${group.setting}` : ""}; ${state.p}; ${measured()}; ${over()}`;

function curve(protocol, i, lengths, as, tokens) {
  return lengths.map(n => [n, shownAt(protocol, i, protocol.lengths.indexOf(n), as)]).filter(([, found]) => found && isFinite(found.value)).map(([n, found]) => ({
    x: n, y: found.value, low: found.low, high: found.high, each: found.each,
    text: [`${words(n)} ${tokens} (${multiple(n)})`, inWords(found, as), found.each.length ? `${seeds(found.n)}: ${found.each.map(([seed, value]) => `${seed}: ${as === "value" || as === "nats" ? number(value) : factor(value)}`).join(", ")}` : "no seeds: a reference"],
  }));
}

function curves(host, protocol, as, how) {
  const picked = chosen(protocol), lengths = lengthsOf(protocol), tokens = how.tokens || "tokens", lines = [];
  if (state.show.includes("others")) group.series.forEach((one, i) => { if (one.kind === "scheme" && one.extension === "none" && !picked.includes(i)) lines.push({look: one, name: one.name, behind: true, points: curve(protocol, i, lengths, as, tokens)}); });
  for (const i of picked) {
    const look = group.series[i], points = curve(protocol, i, lengths, as, tokens);
    lines.push({look, name: look.name, points});
    if (state.show.includes("each")) for (const seed of group.seeds) lines.push({look: {...look, dash: ""}, name: look.name, thin: true, points: points.flatMap(({x, each}) => each.filter(([one]) => one === seed).map(([, y]) => ({x, y})))});
    const blind = protocol.null?.[i];
    if (as === "value" && blind && state.show.includes("blind")) lines.push({look: {...look, dash: "1 3"}, name: look.name, thin: true, points: lengths.map(n => ({x: n, y: blind[protocol.lengths.indexOf(n)]})).filter(({x, y}) => x >= group.L && y)});
  }
  chart(host, lines, {log: as !== "nats" && (as !== "value" || !group.nats), xlog: true, ends: true, mark: inRange(group.L) && lengths.includes(group.L) ? group.L : null, unit: as === "ratio" || as === "scheme" ? 1 : null, xticks: lengths, xname: n => `${words(n)}\n${multiple(n)}`, ...how});
  return {picked, lengths};
}

const reason = (i, n) => {
  const lost = group.missing.filter(([one, protocol, length]) => one === i && (protocol === state.p || !protocol) && (!length || length === n));
  return lost.length ? unique(lost.map(one => one[4])).join("; ") : "";
};

section("short", "In short", host => {
  host.append(element("p", {class: "question"}, "Which scheme for short training and long use, and how sure is that?"), element("div", {class: "take"}, ...group.take.map((text, k) => element("p", {}, k ? text : element("strong", {}, text)))));
  written(host, group.overview, {id: "overview", caption: group.title.join("; "), label: "summary"});
  note(host, group.overview.note);
  host.append(element("details", {id: "more"}, element("summary", {}, "All that is found, in sentences, and what the words mean"), element("dl", {}, ...group.sentences.flatMap(([label, text]) => [element("dt", {}, label), element("dd", {}, text)])), element("p", {class: "note"}, group.legend)));
  if (GROUPS.length === 1) return;
  const all = element("details", {id: "all"}, element("summary", {}, `The same question in all ${GROUPS.length} experiments and settings of this page`));
  const show = (one, k) => element("button", {type: "button", id: `to-${k}`, class: "small", disabled: one === group, onclick: () => { change("x", one.id); goTo("short", true); }}, one.id);
  host.append(all);
  table(all, ["experiment", ...Object.keys(group.outcome)], GROUPS.map((one, k) => [{text: show(one, k)}, ...Object.values(one.outcome)]), {id: "outcomes", caption: "the lowest as trained in the longest inputs that were scored; levels of different models, texts and lengths are not compared", label: "the same question", of: "all experiments"});
});

section("length", "By length", host => {
  const protocol = group.protocols[state.p], inAll = protocol.lengths.filter(inRange).length, some = lengthsOf(protocol).length;
  note(host, `${caption()}. ${words(protocol.tokens)} tokens scored per seed${state.p === "same_targets" ? ", the same at every length" : ""}.${some < inAll ? ` ${some} of ${inAll} lengths: doublings of L and the longest.` : ""}`);
  const {picked, lengths} = curves(host, protocol, state.as, {id: "length", label: `${measured()} by evaluation length, ${state.p}`, y: measured(), x: "evaluation length: tokens, and multiples of the training length L", table: true});
  if (state.as === "value" && protocol.null && state.show.includes("blind")) note(host, `Dotted: the same weights, if they made no use of context beyond L (over ${seeds(group.seeds.length)}).`);
  const best = state.as === "value" && all() ? protocol.best : [], points = [["scheme", "extension", "eval_len", "n_seeds", "value", "low", "high"]];
  const rows = picked.map(i => [{text: group.series[i].name, look: group.series[i]}, ...lengths.map(n => {
    const j = protocol.lengths.indexOf(n), found = shownAt(protocol, i, j), reached = Math.max(...protocol.lengths.filter((_, k) => protocol.values[i][k]));
    if (!found && state.as === "scheme" && bySeed(protocol, i, j).size) return {text: "–", class: "none", title: `${state.base} has no number here`};
    if (!found) return {text: reason(i, n) || (n > reached && group.series[i].extension === "none" && group.series[i].kind === "scheme" ? "ends" : "–"), class: "none", title: n > reached ? `not scored beyond ${words(reached)}` : "not scored"};
    points.push([group.series[i].scheme, group.series[i].extension, n, found.n, found.value, isFinite(found.low) ? found.low : "", isFinite(found.high) ? found.high : ""]);
    const first = best.some(([one, at]) => one === i && at === j) ? "**" : "", fewer = group.series[i].kind === "scheme" && found.n < state.seeds.length ? ` ${found.n} of ${state.seeds.length} seeds` : "";
    return {text: `${first}${state.as === "value" ? number(found.value) : factor(found.value)}${first}${plusMinus(found)}${fewer}`, title: `${seeds(found.n)}${fewer && reason(i, n) ? `; ${reason(i, n)}` : ""}`};
  })]);
  table(host, ["scheme", ...lengths.map(n => `${words(n)} (${multiple(n)})`)], rows, {id: "by-length", caption: `${measured()}, ${state.p}; ${over()}`, csv: csv(points), label: `${measured()} by length`});
  note(host, best.length ? "Bold: as trained, better than every other scheme at that length, each pair decided (pairs.csv)." : "Nothing is bold: no scheme is decided to be better than every other one at any of these lengths, or that is not asked of what is shown. Pairs stand below.");
});

section("pairs", "Who beats whom", host => {
  const by = group.pairs[state.p], at = by && Object.keys(by).map(Number);
  if (!at?.length) return note(host, Object.keys(group.pairs).length ? `No pair was compared under ${state.p}.` : "There is no other scheme to compare it with.");
  const n = at.includes(Number(state.n)) ? Number(state.n) : at.at(-1);
  host.append(element("p", {}, element("label", {for: "of-n"}, "at length "), select("n", at.map(String)), n === Number(state.n) ? "" : ` (${words(state.n)} was not compared; shown: ${words(n)})`));
  note(host, `${allSeeds()}${group.loss} paired by seed and on the same tokens, Holm over ${by[n][0][11]} pairs, from pairs.csv. ▼: the row is better than the column, ▲: worse, ·: undecided, which is not “no difference”. ${group.about}`);
  const lines = by[n].flatMap(([a, b, ...rest]) => { const [d, low, high, p, textLow, textHigh, ...more] = rest, turned = {a: "b", b: "a"}[more[4]] || more[4], minus = v => v == null ? v : -v; return [{a, b, d, low, high, p, textLow, textHigh, more, verdict: more[4]}, {a: b, b: a, d: minus(d), low: minus(high), high: minus(low), p, textLow: minus(textHigh), textHigh: minus(textLow), more, verdict: turned}]; });
  const word = {a: "better", b: "worse"}, sign = {a: "▼", b: "▲"}, told = one => group.nats ? signed(one.d) : factor(Math.exp(one.d));
  const open = one => { state.pair = pairName([one.a, one.b]); change("pair", allowed(group).pair.includes(state.pair) ? state.pair : pairName([one.b, one.a])); };
  const button = one => ({text: element("button", {type: "button", id: `pair-${one.a}-${one.b}`, class: `pair ${one.verdict}`, "aria-label": `${group.series[one.a].name} against ${group.series[one.b].name}: ${word[one.verdict] || "undecided"}, ${told(one)}`, onclick: () => open(one)}, `${sign[one.verdict] || "·"} ${told(one)}`), copy: `${word[one.verdict] || "undecided"} ${told(one)}`});
  const known = unique(lines.map(one => one.a)).filter(i => state.s.includes(group.series[i].scheme)), wins = i => lines.filter(one => one.a === i && one.verdict === "a").length, mean = i => lines.filter(one => one.a === i).reduce((sum, one, _, own) => sum + one.d / own.length, 0);
  const order = known.sort((a, b) => wins(b) - wins(a) || mean(a) - mean(b)), cell = (a, b) => lines.find(one => one.a === a && one.b === b), name = i => ({text: group.series[i].name, look: group.series[i]});
  const what = group.nats ? "difference in nats per token" : `${group.measure} over the other's`;
  if (group.yardstick) {
    const base = find(group.yardstick);
    table(host, ["scheme", `to ${group.yardstick}`, "over seeds", "over text", "p (Holm)", "verdict", "seeds needed"], order.filter(i => i !== base && cell(i, base)).map(i => { const one = cell(i, base); return [name(i), button(one), difference(one.low, one.high), difference(one.textLow, one.textHigh), one.p ?? "–", word[one.verdict] || "undecided", one.more[5] ?? "–"]; }), {id: "matrix", caption: `each against ${group.yardstick} alone at ${words(n)}, ${state.p}: ${what}, intervals of differences in nats per token`, label: "pairs"});
  } else table(host, ["row against column", ...order.map(i => group.series[i].name)], order.map(a => [name(a), ...order.map(b => a === b ? "" : cell(a, b) ? button(cell(a, b)) : "–")]), {id: "matrix", caption: `at ${words(n)}, ${state.p}: ${what}; most wins first`, label: "pairs"});
  const one = lines.find(line => pairName([line.a, line.b]) === state.pair), told2 = one && [`${group.series[one.a].name} less ${group.series[one.b].name} at ${words(n)} (${state.p}): ${signed(one.d)} nats per token`, `over ${one.more[0]} seeds ${difference(one.low, one.high)}`, `over text (${one.more[2] === "none" ? "too little for an interval" : `${one.more[1]} ${one.more[2]}`}) ${difference(one.textLow, one.textHigh)}`, `p ${one.p ?? "not known"} after Holm over ${one.more[3]} pairs`, one.verdict === "undecided" ? "undecided" : `decided: ${group.series[one.verdict === "a" ? one.a : one.b].name} is better`, one.more[5] == null ? "" : `${one.more[5]} seeds would show such a difference in 80 % of all tries`];
  host.append(element("p", {class: "detail", id: "pair"}, told2 ? told2.filter(Boolean).join("; ") + "." : state.pair ? "This pair was not compared at this length." : "Choose a pair to see its two intervals."));
});

section("window", "Does context beyond L help?", host => {
  if (!group.extrapolates) return false;
  note(host, `${allSeeds()}same_targets. Each scheme beside its own weights with attention cut off at the last L tokens, and beside itself at L: differences of ${group.loss}, negative: better (extrapolates.csv). Yes: better than both, decided.`);
  written(host, group.extrapolates, {id: "uses", caption: "which schemes extrapolate", label: "which schemes extrapolate"});
});

section("position", "By position", host => {
  const protocol = group.protocols.position;
  if (!protocol) return false;
  const where = group.causal ? "tokens read (up to)" : "tokens to the nearer end (up to)";
  note(host, "One pass over the whole text: every place has tokens of its own, the same for all schemes; a curve also shows which of them are harder. Always in nats per token.", lengthsOf(protocol).length < protocol.lengths.filter(inRange).length ? ` ${lengthsOf(protocol).length} of ${protocol.lengths.filter(inRange).length} places.` : "");
  const {picked, lengths} = curves(host, protocol, "nats", {id: "position", label: `nats per token by ${where}`, y: "nats per token", x: where, tokens: where, table: true});
  table(host, ["scheme", ...lengths.map(words)], picked.map(i => [{text: group.series[i].name, look: group.series[i]}, ...lengths.map(n => { const found = shownAt(protocol, i, protocol.lengths.indexOf(n), "nats"); return found ? `${found.value.toFixed(group.decimals)}${plusMinus(found)}` : "–"; })]), {id: "by-position", caption: `nats per token by ${where}, ± 95 % t interval over seeds`, label: "loss by position"});
});

section("documents", "By document", host => {
  const told = group.documents[state.p], protocol = group.protocols[state.p];
  if (!told || told.names.length < 2) return false;
  const lengths = told.lengths, n = lengths.includes(Number(state.n)) ? Number(state.n) : lengths.at(-1), j = lengths.indexOf(n);
  const picked = chosen(protocol).filter(i => told.values[i]?.[j]), show = nats => group.nats ? nats : Math.exp(nats);
  host.append(element("p", {}, element("label", {for: "of-n-documents"}, "at length "), select("n", lengths.map(String), words, "of-n-documents", String(n)), String(n) === state.n ? "" : ` (${words(state.n)} is not told by document; shown: ${words(n)})`));
  note(host, `${allSeeds()}as trained, ${state.p}. Shaded by how far from the lowest of its row; one document decides nothing, and nothing is bold.`);
  table(host, ["document", ...picked.map(i => group.series[i].name)], told.names.map((document, d) => {
    const line = picked.map(i => told.values[i][j][d]), least = Math.min(...line.filter(one => one != null));
    return [document, ...line.map(one => one == null ? {text: "–", class: "none"} : {text: number(show(one)), class: "shaded", shade: Math.min(45, Math.round(60 * (one - least))), title: `${(one - least).toFixed(3)} nats above the lowest`})];
  }), {id: "by-document", caption: `${group.measure} by document at ${words(n)}, ${state.p}`, label: `${group.measure} by document`});
});

section("extensions", "Extensions of finished weights", host => {
  const at = group.extensions.filter(one => one.protocol === state.p);
  if (!group.extensions.length) return false;
  if (!at.length) return note(host, `No extension was scored under ${state.p}.`);
  const one = at.find(line => String(line.length) === state.n) || at.at(-1);
  host.append(element("p", {}, element("label", {for: "of-n-extensions"}, "at length "), select("n", at.map(line => String(line.length)), words, "of-n-extensions", String(one.length)), String(one.length) === state.n ? "" : ` (${words(state.n)} was not scored; shown: ${words(one.length)})`));
  note(host, `${allSeeds()}differences of ${group.loss} in nats per token, negative: the extension is better; bold: decided, after Holm. Who is not better than the window is not found to gain anything by seeing more than L. Curves: choose extensions at the top.`);
  written(host, one, {id: "extended", caption: `extensions at ${words(one.length)}, ${one.protocol}`, label: "extensions"});
});

section("probes", "Why: probes of the trained models", host => {
  group.probes.forEach((one, k) => { note(host, one.note); written(host, one, {id: `probe-${k}`, caption: one.note.split(":")[0], label: one.note.split(" (")[0]}); });
  return group.probes.length > 0;
});

section("training", "Training", host => {
  if (!group.training) return false;
  const lines = [], every = group.training.loss.every, heldOut = group.training.held_out.steps.length > 0;
  for (const [what, thin] of [["loss", heldOut], ["held_out", false]]) {
    const {steps, values} = group.training[what];
    for (const [i, line] of Object.entries(values)) {
      if (!state.s.includes(group.series[i].scheme)) continue;
      const points = steps.flatMap((x, at) => {
        const each = group.seeds.map((seed, s) => [seed, line[at][s]]).filter(([seed, loss]) => state.seeds.includes(String(seed)) && loss != null);
        if (!each.length) return [];
        const found = overSeeds(each.map(([, loss]) => loss));
        return [{x, y: found.mean, low: found.low, high: found.high, text: [`step ${words(x)}, ${what === "loss" ? "loss of batches" : "held-out text"}`, `${found.mean.toFixed(3)} nats${isFinite(found.high) ? ` ±${(found.high - found.mean).toFixed(3)}` : ""}`, `${seeds(each.length)}: ${each.map(([seed, loss]) => `${seed}: ${loss.toFixed(3)}`).join(", ")}`]}];
      });
      lines.push({look: group.series[i], name: group.series[i].name, thin, points});
    }
  }
  const steps = group.training.loss.steps, step = ticks(0, steps.at(-1), false, 6);
  chart(host, lines, {id: "training", label: "training loss by step", y: "nats per token", x: "training steps", xticks: step.filter(one => one >= steps[0])});
  note(host, heldOut ? "Marks: on held-out text, scored as later. Thin: loss of batches" : "Loss of batches; held-out text was not scored while these runs were trained", every > 1 ? `, means of up to ${every} logged steps.` : ", every logged step.");
});

section("budget", "By training budget", host => {
  const told = group.of.budget;
  if (!told) return false;
  const points = told.points, mine = points.steps.map((_, k) => k).filter(k => points.what[k] === group.but_for_budget), at = unique(mine.map(k => points.eval_len[k]));
  if (!mine.length) return false;
  note(host, `${allSeeds()}${at.map(n => `at ${words(n)} under ${points.protocol[mine.find(k => points.eval_len[k] === n)]}`).join(", ")}.`);
  for (const n of at) {
    const lines = state.s.map(scheme => ({look: group.series[find(scheme)], name: scheme, points: mine.filter(k => points.scheme[k] === scheme && points.eval_len[k] === n).sort((a, b) => points.steps[a] - points.steps[b]).map(k => {
      const found = {value: points.ppl[k], low: points.ppl_low[k] ?? NaN, high: points.ppl_high[k] ?? NaN};
      return {x: points.steps[k], y: found.value, low: found.low, high: found.high, text: [`${words(points.steps[k])} steps, at ${words(n)} (${points.protocol[k]})`, number(found.value) + plusMinus(found), seeds(points.n_seeds[k])]};
    })}));
    chart(host, lines, {id: `budget-${n}`, label: `${group.measure} at ${words(n)} by training steps`, log: !group.nats, xlog: true, y: `${group.measure} at ${words(n)} (${multiple(n)})`, x: "training steps, each budget with its whole schedule", xticks: unique(mine.map(k => points.steps[k])).sort((a, b) => a - b)});
  }
  for (const one of told.tables.filter(line => line.protocol === state.p && line.what === group.but_for_budget)) {
    note(host, `${one.protocol} at ${words(one.length)}: ${one.summary}. Bold: decided at this budget. All seeds.`);
    written(host, one, {id: `stability-${one.length}`, caption: `verdicts by training steps at ${words(one.length)}, ${one.protocol}: nats per token by which the first is better`, label: `verdicts by budget at ${one.length}`});
  }
});

section("chosen", "What was chosen", host => {
  for (const one of group.of.choice) written(host, one, {id: `choice-${one.option}`, caption: `loss on held-back text (nats per token) by ${one.option}, ${one.what}; bold: chosen`, label: `choice of ${one.option}`});
  return group.of.choice.length > 0;
});

section("costs", "Costs", host => {
  if (!group.costs) return false;
  note(host, "Means over all seeds, in parentheses the lowest and the highest. Seconds and memory are of the machine that ran, and of all that it did meanwhile.");
  written(host, group.costs, {id: "cost", caption: "costs of training and scoring", label: "costs"});
});

section("missing", "What is missing", host => {
  const name = one => typeof one === "string" ? one : group.series[one].name;
  if (group.missing.length) table(host, ["scheme", "protocol", "length", "seed", "why"], group.missing.map(([one, protocol, n, seed, why]) => [name(one), protocol || "all", n ? words(n) : "all", seed, why]), {id: "lost", caption: "what was not measured, and why (missing.csv)", label: "what is missing"});
  else note(host, "Nothing that was asked for is missing (missing.csv is empty). A scheme that ends has no number beyond the longest input that it is defined for.");
}, []);

section("made", "Provenance", host => {
  host.append(element("dl", {}, ...[...(group.of.made_by || []), ["SHA-256 of rows.csv", group.of.digest], ["scored", group.scored]].flatMap(([what, told]) => [element("dt", {}, what), element("dd", {}, told)])));
  if (group.of.provenance) host.append(element("details", {id: "config"}, element("summary", {}, "the whole of provenance.yaml"), element("pre", {tabindex: 0, role: "region", "aria-label": "provenance.yaml"}, group.of.provenance)));
}, []);
