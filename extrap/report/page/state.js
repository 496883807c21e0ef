"use strict";
// What is chosen, and how it stands in the address: only what differs from the defaults, and nothing that is not there.
const DATA = JSON.parse(document.getElementById("data").textContent);
// a setting tells groups apart, unless they are of several objectives or texts
const apart = (of, group) => of.groups.some(one => one !== group && one.setting === group.setting) ? [group.what, group.setting] : [group.setting];
const GROUPS = DATA.experiments.flatMap(of => of.groups.map(group => Object.assign(group, {of, id: [of.name, ...apart(of, group)].filter(Boolean).join(" ")})));
const LISTS = ["s", "e", "r", "show", "seeds", "verdict"];
const SHOW = {bands: "intervals", each: "each seed", blind: "blind beyond L", others: "others in grey"};
let state, group;

const unique = values => [...new Set(values)];
const grouped = (values, key) => values.reduce((found, value) => found.set(key(value), [...(found.get(key(value)) || []), value]), new Map());
const words = n => Number(n).toLocaleString("en-US");
const multiple = n => n === group.L ? "L" : `${+(n / group.L).toPrecision(3)} L`;
const find = (scheme, extension = "none") => group.series.findIndex(one => one.scheme === scheme && one.extension === extension);
const labels = test => unique(group.series.filter(test).map(one => one.scheme));
const schemes = () => labels(one => one.kind === "scheme");
const extensions = () => unique(group.series.map(one => one.extension)).filter(one => one !== "none");

function allowed(of) {
  group = of;
  const lengths = unique(Object.values(of.protocols).flatMap(one => one.lengths)).sort((a, b) => a - b).map(String);
  return {
    x: GROUPS.map(one => one.id), p: Object.keys(of.protocols).filter(one => one !== "position"), as: ["value", "ratio", "scheme"],
    base: of.series.map(one => one.name), s: schemes(), e: extensions(), r: labels(one => one.kind !== "scheme"),
    show: Object.keys(SHOW), seeds: of.seeds.map(String), from: lengths, to: lengths, lengths: ["some", "all"], n: lengths,
    pair: Object.values(of.pairs).flatMap(one => Object.values(one).flat()).map(pairName), verdict: DATA.verdicts || [],
    fig: (DATA.papers || []).map(one => one.name), at: SECTIONS.map(one => one.id),
  };
}

function defaults(of) {
  const can = allowed(of), beyond = of.protocols[of.beyond].lengths;
  return {
    x: of.id, p: of.beyond, as: "value", base: of.yardstick || of.chosen[0], s: of.chosen, e: of.extensions.length ? can.e.filter(one => one === "window") : [], r: can.r,
    show: ["bands", "blind", ...(of.chosen.length < can.s.length ? ["others"] : [])], seeds: can.seeds, from: can.from[0], to: can.to.at(-1),
    lengths: "some", n: String(beyond.at(-1)), pair: "", verdict: can.verdict.filter(one => one !== "out of scope"), fig: can.fig[0] || "", at: "",
  };
}

const pairName = ([a, b]) => `${group.series[a].scheme}|${group.series[b].scheme}`;
const same = (one, other) => String([].concat(one).join("\n")) === String([].concat(other).join("\n"));

// Returns what of an address is not there.
function read(address) {
  const given = new URLSearchParams(address.replace(/^#/, "")), missing = [];
  group = given.getAll("x").map(id => GROUPS.find(one => one.id === id)).find(Boolean) || GROUPS[0];
  const can = allowed(group);
  state = defaults(group);
  for (const key of unique(given.keys())) {
    const values = given.getAll(key), known = values.filter(value => Object.hasOwn(can, key) && can[key].includes(value));
    missing.push(...values.filter(value => value && !known.includes(value)).map(value => `${key}=${value}`));
    if (LISTS.includes(key) && (known.length || values.includes(""))) state[key] = can[key].filter(value => known.includes(value));
    else if (!LISTS.includes(key) && known.length) state[key] = known[0];
  }
  if (Number(state.from) > Number(state.to)) [state.from, state.to] = [state.to, state.from];
  return missing;
}

function address(of = state) {
  const usual = defaults(group), told = new URLSearchParams();
  if (GROUPS[0] !== group) told.append("x", group.id);
  for (const [key, value] of Object.entries(of)) {
    if (key === "x" || same(value, usual[key])) continue;
    for (const one of LISTS.includes(key) && !value.length ? [""] : [].concat(value)) told.append(key, one);
  }
  return `#${told}`;
}

function change(key, value) {
  if (key === "x") {
    const kept = {as: state.as === "ratio" ? "ratio" : "value", fig: state.fig, verdict: state.verdict};
    group = GROUPS.find(one => one.id === value);
    state = {...defaults(group), ...kept};
  } else state[key] = value;
  if (Number(state.from) > Number(state.to)) [state.from, state.to] = [state.to, state.from];
  try { history.replaceState(null, "", address()); } catch { /* some browsers limit how often */ }
  render(key === "x", key);
}
