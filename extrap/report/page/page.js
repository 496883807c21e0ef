// The controls, and when what is drawn.
const main = document.getElementById("main"), form = document.getElementById("controls");

function boxes(key, values, name = one => one, look) {
  return values.map(one => { const id = `${key}-${one}`.replace(/\s/g, "_"); return element("label", {class: "box", for: id}, element("input", {type: "checkbox", id, value: one, "data-key": key, checked: state[key].includes(one)}), look ? swatch(look(one)) : "", element("span", {}, name(one))); });
}

function fields() {
  const focused = form.contains(document.activeElement) && document.activeElement.id, can = allowed(group), field = (name, ...inside) => element("fieldset", {}, element("legend", {}, name), ...inside), row = (id, name, control) => element("p", {class: "row"}, element("label", {for: id}, name), control);
  const toggle = (text, key, values, id) => element("button", {type: "button", id, class: "small", onclick: () => change(key, values())}, text);
  const large = group.yardstick != null;
  const experiments = element("select", {"data-key": "x", id: "of-x"}, ...DATA.experiments.flatMap(of => of.groups.length > 1 ? [element("optgroup", {label: of.name}, ...of.groups.map(one => element("option", {value: one.id, selected: one === group}, `${of.name}: ${one.setting || one.what}`)))] : of.groups.map(one => element("option", {value: one.id, selected: one === group}, of.name))));
  const ofFamily = members => () => { const rest = state.s.filter(one => !members.includes(one)); return can.s.filter(one => rest.includes(one) || (members.includes(one) && !members.every(member => state.s.includes(member)))); };
  form.replaceChildren(
    field("What", row("of-x", "experiment", experiments), row("of-p", "protocol", select("p", can.p, one => one)),
      row("of-as", "shown as", select("as", can.as, one => ({value: group.measure, ratio: "ratio to that at L", scheme: "ratio to a scheme"})[one])), row("of-base", "ratio to", select("base", can.base, one => one))),
    field("Schemes", element("p", {class: "buttons"}, toggle("all", "s", () => can.s, "s-all"), toggle("none", "s", () => [], "s-none"), toggle(large ? "the best of each family" : "as at first", "s", () => group.chosen, "s-first")),
      ...(large ? group.families.map(([family, members], k) => element("div", {class: "family", role: "group", "aria-label": family}, toggle(family, "s", ofFamily(members), `family-${k}`), ...boxes("s", members, one => one, one => group.series[find(one)]))) : boxes("s", can.s, one => one, one => group.series[find(one)]))),
    field("Also show", ...boxes("show", can.show.filter(one => one !== "others" || can.s.length > 1), one => SHOW[one]), ...boxes("r", can.r, one => one, one => group.series.find(line => line.scheme === one)),
      can.e.length ? element("details", {id: "extended-too", open: state.e.length > 0}, element("summary", {}, `extensions of the chosen schemes (${can.e.length})`), ...boxes("e", can.e)) : ""),
    field("Seeds", element("div", {class: "seeds"}, ...boxes("seeds", can.seeds))),
    field("Lengths", row("of-from", "from", select("from", can.from)), row("of-to", "to", select("to", can.to)), row("of-lengths", "which", select("lengths", can.lengths, one => ({some: "doublings of L", all: "all that were scored"})[one]))),
    element("p", {class: "buttons"}, element("button", {type: "button", id: "reset", onclick: () => { read(`#x=${encodeURIComponent(group.id)}`); change("at", ""); render(true); }}, "reset"), element("button", {type: "button", id: "link", onclick: event => copy(event.currentTarget, "copy link", location.href.split("#")[0] + address())}, "copy link")));
  if (focused) document.getElementById(focused)?.focus();
  sync();
}

// Controls that are there already say what is chosen.
function sync() {
  for (const control of document.querySelectorAll("[data-key]")) control.type === "checkbox" ? control.checked = state[control.dataset.key].includes(control.value) : control.value = state[control.dataset.key];
  document.getElementById("of-base").disabled = state.as !== "scheme";
  document.getElementById("told").textContent = `${group.id}, ${state.p}, ${measured()}`;
  document.title = `extrap: ${group.id}, ${state.p}, ${measured()}`;
}

let stale = [], waiting;
function drawNext() {
  const one = stale.shift();
  if (!one) return document.documentElement.setAttribute("data-ready", "");
  const body = element("div", {}), open = [...one.host.querySelectorAll("details[open]")].map(each => each.id), scrolled = new Map([...one.host.querySelectorAll(".scroll")].map((each, k) => [k, each.scrollLeft]));
  const focused = one.host.contains(document.activeElement) && document.activeElement.id;
  one.host.hidden = false;
  one.host.lastElementChild.replaceWith(body);
  one.host.hidden = one.draw(body) === false;
  one.link.parentElement.hidden = one.host.hidden;
  open.forEach(id => document.getElementById(id)?.setAttribute("open", ""));
  one.host.querySelectorAll(".scroll").forEach((each, k) => { each.scrollLeft = scrolled.get(k) || 0; });
  if (focused) document.getElementById(focused)?.focus({preventScroll: true});
}

// What can be seen is drawn at once, the rest right after.
function render(anew = false, key = null) {
  document.documentElement.removeAttribute("data-ready");
  document.getElementById("tip").hidden = true;
  clearTimeout(waiting);
  anew ? fields() : sync();
  const waits = SECTIONS.filter(one => anew || !key || !one.keys || one.keys.includes(key) || stale.includes(one)), seen = one => { const {top, bottom} = one.host.getBoundingClientRect(); return bottom > 0 && top < innerHeight; };
  stale = [...waits.filter(seen), ...waits.filter(one => !seen(one))];
  let n = waits.filter(seen).length;
  while (n-- > 0) drawNext();
  const rest = () => { drawNext(); if (stale.length || !document.documentElement.hasAttribute("data-ready")) waiting = setTimeout(rest); };
  rest();
}

function goTo(id, focus) {
  const host = document.getElementById(id);
  if (!host || host.hidden) return;
  host.scrollIntoView();
  if (focus) host.querySelector("h2").focus({preventScroll: true});
}

document.getElementById("skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
const nav = document.getElementById("sections");
for (const one of SECTIONS) {
  one.link = element("a", {href: `#at=${one.id}`, onclick: event => { event.preventDefault(); state.at = one.id; try { history.replaceState(null, "", address()); } catch { /* as above */ } goTo(one.id, true); }}, one.title);
  nav.append(element("li", {}, one.link));
  one.host = main.appendChild(element("section", {id: one.id, "aria-labelledby": `head-${one.id}`}, element("h2", {id: `head-${one.id}`, tabindex: -1}, one.title), element("div", {})));
}

document.addEventListener("change", event => {
  const key = event.target.dataset?.key;
  if (!key) return;
  const boxesOf = [...document.querySelectorAll(`input[data-key="${key}"]`)];
  change(key, boxesOf.length ? boxesOf.filter(one => one.checked).map(one => one.value) : event.target.value);
});

function open() {
  const missing = read(location.hash);
  document.getElementById("refused").textContent = missing.length ? `Not on this page, and left out: ${missing.join(", ").slice(0, 200)}` : "";
  render(true);
  if (state.at) goTo(state.at);
}
const drawAll = () => { clearTimeout(waiting); while (stale.length) drawNext(); };
const small = matchMedia("(max-width: 800px)"), fold = () => { document.getElementById("choice").open = !small.matches; };
let width = 0;
new ResizeObserver(([{contentRect}]) => { if (width && Math.abs(contentRect.width - width) > 8) render(); width = contentRect.width; }).observe(main);
small.addEventListener("change", fold);
addEventListener("hashchange", open);
addEventListener("beforeprint", drawAll);
addEventListener("scroll", () => { document.getElementById("tip").hidden = true; }, {passive: true});
fold();
open();
