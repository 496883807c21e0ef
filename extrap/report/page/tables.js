// Elements, tables, and how they are copied: Markdown, LaTeX, and CSV with all digits.
function element(tag, how, ...inside) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(how)) if (value != null && value !== false) key.startsWith("on") ? made.addEventListener(key.slice(2), value) : made.setAttribute(key, value === true ? "" : value);
  made.append(...inside.filter(one => one != null && one !== ""));
  return made;
}

const say = text => { document.getElementById("live").textContent = text; };
// **word** is bold, as in the tables that Python writes
const bold = text => String(text).split("**").map((part, k) => k % 2 ? element("b", {}, part) : part);

// rows of cells, each text or {text, class, title, look, bold}; how: {id, caption, csv, label, of}
function table(host, head, rows, how) {
  const cell = (one, k) => {
    const {text, look, title, shade, ...rest} = typeof one === "object" && one !== null ? one : {text: one};
    const made = element(k ? "td" : "th", {scope: k ? null : "row", class: rest.class, title}, look ? swatch(look) : "", ...(text?.nodeType ? [text] : bold(text ?? "")));
    if (shade != null) made.style.setProperty("--shade", `${shade}%`);
    return made;
  };
  const made = element("table", {id: how.id}, element("caption", {}, element("span", {}, how.caption)), element("thead", {}, element("tr", {}, ...head.map(one => element("th", {scope: "col"}, one)))),
    element("tbody", {}, ...rows.map(row => element("tr", {}, ...row.map(cell)))));
  const plain = rows.map(row => row.map(one => String(one?.copy ?? one?.text?.textContent ?? one?.text ?? one ?? "")));
  host.append(element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": `table: ${how.label}`}, made),
    element("p", {class: "copy"}, "Copy as ", ...[["Markdown", () => markdown(head, plain)], ["LaTeX", () => latex(head, plain, how)], ["CSV", () => how.csv || csv([head, ...plain])]].map(
      ([name, text]) => element("button", {type: "button", id: `${how.id}-${name}`, "aria-label": `copy ${how.label} as ${name}`, onclick: event => copy(event.currentTarget, name, text())}, name))));
}

// A table that Python has made, of the schemes that are chosen.
function written(host, told, how) {
  const known = new Set(schemes()), rows = told.cells.filter(row => !row.some((text, k) => k < 3 && known.has(text) && !state.s.includes(text)));
  table(host, told.head, rows.map(row => row.map((text, k) => k === 0 && known.has(text) ? {text, look: group.series[find(text)]} : text)), {...how, csv: told.csv});
  if (rows.length < told.cells.length) host.append(element("p", {class: "note"}, `${rows.length} of ${told.cells.length} lines: of the chosen schemes.${told.csv ? " CSV holds all." : ""}`));
}

const markdown = (head, rows) => [head, head.map((_, k) => k ? "---:" : ":---"), ...rows].map(row => `| ${row.map((text, k) => rows.length && row === head ? text : escapeMarkdown(text, row)).join(" | ")} |`).join("\n");
const escapeMarkdown = (text, row) => row.every(one => /^:?-+:?$/.test(one)) ? text : text.replace(/[\\`*_[\]<>|~$&]/g, "\\$&").replace(/\\\*\\\*/g, "**");
const TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "–": "--", "−": "$-$", "±": "$\\pm$", "▼": "$\\downarrow$", "▲": "$\\uparrow$", "×": "$\\times$", "†": "$\\dagger$", "[": "{[}", "]": "{]}", "‡": "$\\ddagger$"};
const tex = text => text.split("**").map((part, k) => (k % 2 ? "\\textbf{" : "") + part.replace(/[\\~^<>|–−±▼▲×†‡]|[&%$#_{}[\]]/g, one => TEX[one] || `\\${one}`) + (k % 2 ? "}" : "")).join("");
const latex = (head, rows, {label, caption, of = `${group.of.name}: ${group.what}`}) => [`% ${of}; ${label}; ${caption}`, `\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule", `${head.map(tex).join(" & ")} \\\\`, "\\midrule", ...rows.map(row => `${row.map(tex).join(" & ")} \\\\`), "\\bottomrule", "\\end{tabular}"].join("\n");
const csv = rows => rows.map(row => row.map(one => /[",\n\r]/.test(String(one)) ? `"${String(one).replace(/"/g, '""')}"` : String(one ?? "")).join(",")).join("\n") + "\n";

async function copy(button, name, text) {
  let done = true;
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.body.appendChild(element("textarea", {"aria-hidden": "true", tabindex: -1}));
    area.value = text;
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "copied" : "refused";
  say(done ? `copied as ${name}` : "the browser has refused to copy");
  setTimeout(() => { button.textContent = name; }, 1500);
}
