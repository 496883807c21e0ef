// The only statistics made here: means and t intervals over the chosen seeds, with the quantiles that Python has put in.
function overSeeds(values) {
  const n = values.length, mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return {n, mean, low: NaN, high: NaN};
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  const half = DATA.t[n - 2] * deviation / Math.sqrt(n);
  return {n, mean, low: mean - half, high: mean + half};
}

// Nats per token by seed, of the seeds that are chosen and have a number; a reference has one number, for all seeds.
function bySeed(protocol, i, j) {
  const cell = protocol.values[i]?.[j] || [], chosen = group.seeds.filter(seed => state.seeds.includes(String(seed)));
  if (group.series[i].kind !== "scheme") return new Map(cell.length ? chosen.map(seed => [seed, cell[0]]) : []);
  return new Map(chosen.map(seed => [seed, cell[group.seeds.indexOf(seed)]]).filter(([, nats]) => nats != null));
}

// What is shown of series i at the j-th length: its value, interval and that of every seed. as: value, nats, ratio or scheme.
function shownAt(protocol, i, j, as = state.as) {
  const own = bySeed(protocol, i, j), log = as !== "nats" && (as !== "value" || !group.nats), scale = nats => as === "value" || as === "nats" ? nats : group.nats ? Math.log(nats) : nats;
  const base = as === "ratio" ? bySeed(protocol, i, protocol.lengths.indexOf(group.L)) : as === "scheme" ? bySeed(protocol, group.series.findIndex(one => one.name === state.base), j) : null;
  const paired = [...own].filter(([seed]) => !base || base.has(seed)).map(([seed, nats]) => [seed, scale(nats) - (base ? scale(base.get(seed)) : 0)]);
  if (!paired.length) return null;
  const show = log ? Math.exp : value => value, alone = group.series[i].kind !== "scheme" && (!base || as === "ratio" || group.series.find(one => one.name === state.base).kind !== "scheme");
  const found = overSeeds(alone ? [paired[0][1]] : paired.map(([, value]) => value));
  return {n: found.n, value: show(found.mean), low: show(found.low), high: show(found.high), each: alone ? [] : paired.map(([seed, value]) => [seed, show(value)])};
}

// Numbers in words, as extrap/report/typesetting.py has them.
const seeds = n => `${n} ${n === 1 ? "seed" : "seeds"}`;
const thousands = text => text.replace(/^\d+/, digits => digits.replace(/\B(?=(\d{3})+$)/g, ","));
function number(value) {
  if (!value || !isFinite(value)) return String(value);
  if (value >= 1e6) return value.toExponential(2).replace(/e\+(\d)$/, "e+0$1");
  return thousands(value.toFixed(Math.max(0, 2 - Number(value.toExponential(2).split("e")[1]))));
}
const factor = ratio => ratio < 10 ? ratio.toFixed(group.decimals - 1) : number(ratio);
function plusMinus({value, low, high}) {
  if (!isFinite(high)) return "";
  const share = 100 * (high / value - 1);
  return share > 100 ? ` (${number(low)} to ${number(high)})` : ` ±${share < 10 ? share.toFixed(1) : share.toFixed(0)}%`;
}
const inWords = (found, as = state.as) => (as === "value" || as === "nats" ? number(found.value) : factor(found.value)) + plusMinus(found);
const signed = value => value == null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(group.decimals);
const difference = (low, high) => low == null ? "not known" : `${signed(low)} to ${signed(high)}`;
const measured = () => state.as === "value" ? group.measure : state.as === "ratio" ? `${group.measure} / that at L` : `${group.measure} / that of ${state.base}`;
