// A chart: lines with bands, names at their ends, a tooltip, arrow keys from point to point. Only this file knows Plot.
const SVG = "http://www.w3.org/2000/svg";
const DECADES = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5].map(k => 10 ** k);
const STEPS = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]].map(steps => DECADES.flatMap(decade => steps.map(step => step * decade)));

const symbols = {};
function symbol(marker) {
  return symbols[marker] ||= {draw(context, size) {
    const scale = 2 * Math.sqrt(size / Math.PI);
    for (const [, code, numbers] of DATA.markers[marker].matchAll(/([MLQCZ])([^MLQCZ]*)/g)) {
      const at = numbers.split(",").map(one => one * scale);
      context[{M: "moveTo", L: "lineTo", Q: "quadraticCurveTo", C: "bezierCurveTo", Z: "closePath"}[code]](...(code === "Z" ? [] : at));
    }
  }};
}

function swatch(look) {
  const svg = document.createElementNS(SVG, "svg"), add = (tag, how) => Object.entries(how).reduce((one, [key, value]) => (one.setAttribute(key, value), one), svg.appendChild(document.createElementNS(SVG, tag)));
  Object.entries({viewBox: "-14 -6 28 12", width: 28, height: 12, "aria-hidden": "true", class: "swatch"}).forEach(pair => svg.setAttribute(...pair));
  const stroke = `var(--l-${look.color})`;
  add("path", {d: "M-14,0H14", stroke, "stroke-width": 1.6, "stroke-dasharray": look.dash || "none"});
  if (look.marker) add("path", {d: DATA.markers[look.marker], transform: "scale(8)", fill: look.hollow ? "var(--paper)" : stroke, stroke, "stroke-width": 0.15});
  return svg;
}

function ticks(low, high, log, most) {
  if (log && high / low > 1.6) {
    const found = STEPS.map(steps => steps.filter(one => one >= low * 0.999 && one <= high * 1.001));
    return found.find(one => one.length >= 3) || found.at(-1);
  }
  const rough = (high - low) / most, decade = 10 ** Math.floor(Math.log10(rough)), step = decade * ([1, 2, 5, 10].find(one => one * decade >= rough));
  return Array.from({length: Math.floor(high / step) - Math.ceil(low / step) + 1}, (_, k) => +((Math.ceil(low / step) + k) * step).toPrecision(10));
}

// Places nearest to the wanted ones, in their order, at least a gap apart.
function spread(wanted, gap, top, bottom) {
  const places = wanted.map((y, k) => ({y, k})).sort((a, b) => a.y - b.y);
  for (let pass = 0; pass < 200; pass++)
    for (let k = 1; k < places.length; k++) {
      const over = gap - (places[k].y - places[k - 1].y);
      if (over > 0.01) { places[k].y += over / 2; places[k - 1].y -= over / 2; }
    }
  const shift = Math.max(0, top - places[0].y) - Math.max(0, places.at(-1).y - bottom);
  return places.sort((a, b) => a.k - b.k).map(one => one.y + shift);
}

// The elements of a mark know of which line they are.
const tagged = k => (index, scales, values, dimensions, context, next) => { const made = next(index, scales, values, dimensions, context); made.setAttribute("data-line", k); return made; };

// lines: {look, name, points: [{x, y, low, high, text}], behind, thin}; how: {id, label, x, y, xticks, mark, log, xlog, unit}
function chart(host, lines, how) {
  lines = lines.filter(one => one.points.length);
  const shown = lines.filter(one => !one.behind), values = shown.flatMap(one => one.points.map(point => point.y)).concat(how.unit ? [how.unit] : []);
  const box = element("div", {class: "chart", id: `chart-${how.id}`, tabindex: 0, role: "application", "aria-roledescription": "chart", "aria-label": `${how.label}. Arrow keys move from point to point${how.table ? "; the table below holds the same numbers" : ""}.`});
  host.append(box);
  if (!shown.length) return void box.replaceChildren("Nothing that is chosen has a number here.");
  const width = Math.max(280, box.clientWidth || 700), narrow = width < 560, log = how.log && Math.min(...values) > 0;
  const nameOf = one => one.name + (how.ends && one.points.at(-1).x < Math.max(...shown.flatMap(other => other.points.map(point => point.x))) ? ` (to ${words(one.points.at(-1).x)})` : "");
  const longest = Math.max(...shown.filter(one => !one.thin).map(one => nameOf(one).length)) * 6.9 + 14, named = !narrow && shown.filter(one => !one.thin).length <= 12 && longest < 0.4 * width;
  const size = {width, height: narrow ? 300 : 400, marginLeft: 56, marginRight: named ? longest : 22, marginTop: 26, marginBottom: 52};
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const room = log ? Math.max((high / low) ** 0.06, 1.01) : Math.max(0.06 * (high - low), 0.01 * Math.abs(high));
  [low, high] = log ? [low / room, high * room] : [low - room, high + room];
  const down = y => size.marginTop + (size.height - size.marginTop - size.marginBottom) * (log ? Math.log(high / y) / Math.log(high / low) : (high - y) / (high - low));
  const up = place => { const share = (place - size.marginTop) / (size.height - size.marginTop - size.marginBottom); return log ? high * (low / high) ** share : high - share * (high - low); };
  const xs = unique(lines.flatMap(one => one.points.map(point => point.x))), xlow = Math.min(...xs), xhigh = Math.max(...xs), alone = xlow === xhigh;
  const across = {type: how.xlog ? "log" : "linear", domain: alone ? [xlow / 1.5, xlow * 1.5] : how.xlog ? [xlow / 1.03, xhigh * 1.03] : [xlow, xhigh]};
  const every = Math.max(1, Math.ceil(how.xticks.length / (width / (narrow ? 62 : 78)))), at = how.xticks.filter((_, k) => (how.xticks.length - 1 - k) % every === 0), ys = ticks(low, high, log, 5);
  const cut = state.show.includes("bands") && shown.some(one => !one.thin && one.points.some(point => point.high > high * 1.001 || point.low < low * 0.999));
  const marks = [Plot.gridY(ys, {stroke: "var(--grid)", strokeOpacity: 1}), Plot.axisY(ys, {text: y => y.toLocaleString("en-US", {maximumSignificantDigits: 4}), tickSize: 0, anchor: "left"}), Plot.axisX(at, {text: how.xname || words, tickSize: 4, textAnchor: "middle"})];
  if (how.mark) marks.push(Plot.ruleX([how.mark], {stroke: "var(--soft)", strokeDasharray: "4 3"}), Plot.text([[how.mark, high]], {text: [`training length L = ${words(how.mark)}`], frameAnchor: "top", x: how.mark, dy: -14, dx: 2, textAnchor: how.mark > xlow ? "middle" : "start", fill: "var(--soft)"}));
  if (how.unit) marks.push(Plot.ruleY([how.unit], {stroke: "var(--soft)", strokeWidth: 1}));
  for (const one of lines.filter(line => line.behind)) marks.push(Plot.line(one.points, {x: "x", y: "y", stroke: "var(--behind)", strokeWidth: 0.8, clip: true}));
  shown.forEach((one, k) => {
    const stroke = `var(--l-${one.look.color})`, render = tagged(k);
    if (state.show.includes("bands") && !one.thin && one.points.some(point => isFinite(point.high)))
      marks.push(Plot.areaY(one.points.filter(point => isFinite(point.high)), {x: "x", y1: point => Math.max(point.low, log ? low * 1e-3 : -Infinity), y2: "high", fill: stroke, fillOpacity: 0.16, clip: true, render}),
        Plot.ruleX(one.points.filter(point => isFinite(point.high)), {x: "x", y1: point => Math.max(point.low, log ? low * 1e-3 : -Infinity), y2: "high", stroke, strokeOpacity: 0.55, clip: true, render}));
    marks.push(Plot.line(one.points, {x: "x", y: "y", stroke, strokeWidth: one.thin ? 0.8 : 1.7, strokeOpacity: one.thin ? 0.7 : 1, strokeDasharray: one.look.dash || null, clip: one.thin, render}));
    if (one.look.marker && !one.thin) marks.push(Plot.dot(one.points, {x: "x", y: "y", symbol: symbol(one.look.marker), r: narrow ? 3 : 3.8, fill: one.look.hollow ? "var(--paper)" : stroke, stroke, strokeWidth: 1, render}));
  });
  if (named) {
    const ends = shown.filter(one => !one.thin).map(one => ({one, end: one.points.at(-1)})), places = spread(ends.map(({end}) => down(end.y)), 13, size.marginTop, size.height - size.marginBottom);
    ends.forEach(({one, end}, k) => marks.push(Plot.text([end], {x: () => xhigh, y: () => up(places[k]), text: () => nameOf(one), dx: 8, textAnchor: "start", fill: `var(--t-${one.look.color})`, fontWeight: 600, render: tagged(shown.indexOf(one))})));
  }
  const svg = Plot.plot({...size, className: "plot", x: {...across, label: null}, y: {type: log ? "log" : "linear", domain: [low, high], label: null}, marks});
  svg.querySelector("style")?.remove();
  svg.setAttribute("aria-hidden", "true");
  svg.querySelectorAll("[aria-label]").forEach(one => one.removeAttribute("aria-label"));
  box.append(element("p", {class: "axis", "aria-hidden": "true"}, how.y), svg, element("p", {class: "axis across", "aria-hidden": "true"}, how.x));
  if (!named) box.append(element("p", {class: "legend", "aria-hidden": "true"}, ...shown.filter(one => !one.thin).map(one => element("span", {}, swatch(one.look), nameOf(one)))));
  if (cut) host.append(element("p", {class: "note"}, `Some intervals are wider than the drawing and are cut at its edge; ${how.table ? "the table has all of each" : "point at a point to read them"}.`));
  explore(box, svg, shown.map((one, at) => ({...one, at})).filter(one => !one.thin), {down, size, log: how.xlog, domain: across.domain});
}

// The pointer and the arrow keys bring a point forward: its line, its numbers, spoken too.
function explore(box, svg, lines, {down, size, log, domain}) {
  const right = x => size.marginLeft + (size.width - size.marginLeft - size.marginRight) * (log ? Math.log(x / domain[0]) / Math.log(domain[1] / domain[0]) : (x - domain[0]) / (domain[1] - domain[0]));
  const tip = document.getElementById("tip");
  let k = 0, j = -1;
  function bring(speaks) {
    const one = lines[k], point = one.points[j], frame = svg.getBoundingClientRect(), scale = frame.width / size.width;
    svg.classList.add("lit");
    svg.querySelectorAll("[data-line]").forEach(mark => mark.classList.toggle("on", mark.dataset.line === String(one.at)));
    tip.replaceChildren(element("b", {}, one.name), ...point.text.map(line => element("span", {}, line)));
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(frame.left + scale * right(point.x) + 12, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(frame.top + scale * down(point.y) + 12, innerHeight - tip.offsetHeight - 8))}px`;
    if (speaks) say(`${one.name}: ${point.text.join("; ")}`);
  }
  const leave = () => { svg.classList.remove("lit"); tip.hidden = true; };
  svg.addEventListener("pointermove", event => {
    const frame = svg.getBoundingClientRect(), scale = size.width / frame.width, x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    let nearest = 50;
    lines.forEach((one, a) => one.points.forEach((point, b) => { const away = Math.hypot(right(point.x) - x, down(point.y) - y); if (away < nearest) [nearest, k, j] = [away, a, b]; }));
    nearest < 50 ? bring(false) : leave();
  });
  svg.addEventListener("pointerleave", leave);
  box.addEventListener("blur", leave);
  box.addEventListener("keydown", event => {
    const step = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    const x = lines[k].points[j]?.x;
    k = (k + step[0] + lines.length) % lines.length;
    if (step[0] && j >= 0) j = Math.max(0, lines[k].points.findLastIndex(point => point.x <= x));
    else j = Math.min(Math.max(j + (step[1] || 1), 0), lines[k].points.length - 1);
    bring(true);
  });
}
