// Small helpers. Every text that comes from Python goes through textContent, never through innerHTML.
const LL = {}; // names shared by the files of this module

LL.el = (tag, options = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "text") node.textContent = value;
    else if (key === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

// "what does **SimCLR** see" -> text and <b> nodes
LL.rich = (text) => String(text ?? "").split("**").map((part, i) => (i % 2 ? LL.el("b", { text: part }) : document.createTextNode(part)));

LL.put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// what a value was and what it is, as one chip
LL.chip = (label, old, now) => {
  const cut = (value) => { const text = LL.number(value); return text.length > 40 ? `${text.slice(0, 39)}…` : text; };
  const long = LL.number(old).length > 40 || LL.number(now).length > 40;
  return LL.el("span", { class: "ll-chip", title: long ? `${LL.number(old)} → ${LL.number(now)}` : null }, LL.el("span", { text: `${label} ` }), LL.el("s", { text: cut(old) }), " → ", LL.el("b", { text: cut(now) }));
};

// the step at which numbers were measured, written the same way beside all of them
LL.stamp = () => {
  const node = LL.el("small", { class: "ll-stamp", title: "measured on held-out data at this step; pictures and curves are those of the step beside the state" });
  return { node, set: (step) => { const there = step !== null && step !== undefined; node.hidden = !there; if (there) { LL.put(node, `at step ${LL.number(step)}`); node.dataset.step = String(step); } } };
};

LL.number = (v, digits = 3) => {
  if (v === null || v === undefined || v === "") return "–";
  if (typeof v === "boolean") return v ? "on" : "off";
  if (Array.isArray(v)) return v.map((one) => (Array.isArray(one) ? `(${LL.number(one, digits)})` : LL.number(one, digits))).join(", ") || "none";
  if (typeof v === "object" && "low" in v && "high" in v) return `${LL.number(v.low, digits)} – ${LL.number(v.high, digits)}`;
  if (typeof v === "object" && Array.isArray(v.edges)) return v.edges.map((edge) => edge.join(" → ")).join(", ") || "no arrows";
  if (typeof v === "object") return JSON.stringify(v);
  if (typeof v !== "number") return String(v);
  if (!Number.isFinite(v)) return "–";
  if (Number.isInteger(v) && Math.abs(v) < 1e7) return (v || 0).toLocaleString("en-US"); // core.checks.format_number writes the same; a test compares them
  const size = Math.abs(v);
  if (size < 1e-3 || size >= 1e6) { const [mantissa, power] = v.toExponential(digits - 1).split("e"); return `${mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa}e${Number(power)}`; }
  return Number(v.toPrecision(digits)).toLocaleString("en-US", { maximumSignificantDigits: digits });
};

// a share of a whole: 0.37 -> "37 %"; never 0 % or 100 % for what is not. core.checks.percent writes the same; a test compares them
LL.percent = (share) => { if (!Number.isFinite(share)) return "–"; for (let digits = 2; ; digits++) { const text = LL.number(100 * share, digits); if (text !== "100" || share === 1 || digits === 8) return `${text} %`; } };

// a mask travels in 255 levels: what lies within half of one of nothing or all cannot be told from it
LL.kept = (share) => (share < 1 / 510 ? "< 0.2 %" : share > 1 - 1 / 510 ? "> 99.8 %" : LL.percent(share));

// "samples" beside 1 is "sample"
LL.unit = (value, unit) => (Math.abs(value) === 1 ? String(unit ?? "").replace(/^([a-z]+[a-rt-z])s\b/, "$1") : String(unit ?? ""));

LL.bytes = (view) => (view && view.byteLength ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : null);

LL.floats = (view) => {
  const bytes = LL.bytes(view);
  return bytes ? new Float32Array(bytes.slice().buffer) : new Float32Array(0);
};

// half-precision numbers become single-precision ones through a table of all 65,536
LL.HALF = (() => {
  let table = null;
  return () => {
    if (table) return table;
    table = new Float32Array(65536);
    for (let h = 0; h < 65536; h++) {
      const sign = h & 0x8000 ? -1 : 1, power = (h >> 10) & 31, rest = h & 1023;
      table[h] = power === 31 ? (rest ? NaN : sign * Infinity) : sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : (2 ** -14 * rest) / 1024);
    }
    return table;
  };
})();

// arrays by name out of one run of bytes: [{key, dtype, shape, offset}] as `panels.view` lays them out
LL.blocks = (list, view) => {
  const bytes = LL.bytes(view), found = {};
  if (!bytes) return found;
  for (const { key, dtype, shape, offset } of list ?? []) {
    const n = shape.reduce((a, b) => a * b, 1), size = { uint8: 1, float16: 2, float32: 4 }[dtype];
    let data = bytes.slice(offset, offset + n * size);
    if (dtype === "float32") data = new Float32Array(data.buffer);
    if (dtype === "float16") { const table = LL.HALF(); data = Float32Array.from(new Uint16Array(data.buffer), (h) => table[h]); }
    found[key] = { data, shape };
  }
  return found;
};

LL.rgb = (colour) => {
  const hex = /^#([0-9a-f]{6})$/i.exec(colour ?? "");
  const n = parseInt(hex ? hex[1] : "E69F00", 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
};

LL.same = (a, b) => a === b || (a && b && typeof a === "object" && typeof b === "object" && Object.keys(a).length === Object.keys(b).length && Object.keys(a).every((key) => LL.same(a[key], b[key]))) || (typeof a === "number" && typeof b === "number" && Math.abs(a - b) <= 1e-6 * Math.max(Math.abs(a), Math.abs(b), 1e-12));

// Is the page dark? JupyterLab says so on the body, VS Code, Colab and marimo by a word; else the system.
LL.dark = () => {
  const { body, documentElement: page } = document, mark = body.dataset.jpThemeLight;
  const said = mark ? [0, mark === "true" ? "light" : "dark"] : /\b(light|dark)\b/.exec([body.className, page.className, page.getAttribute("theme")]);
  return said ? said[1] === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

// Okabe-Ito colours, made lighter on a dark page and never equal to the page
LL.themed = (colour) => {
  const [r, g, b] = LL.rgb(colour);
  const mix = LL.dark() ? (r + g + b < 60 ? 0.9 : 0.22) : 0;
  const one = (c) => Math.round(c + (255 - c) * mix);
  return `rgb(${one(r)},${one(g)},${one(b)})`;
};

LL.OKABE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000"];

// magma from nine of its colours: perceptually even, dark to light, safe for colour blindness
LL.MAGMA = (() => {
  const stops = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]];
  const table = new Uint8Array(768);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * 8, k = Math.min(7, Math.floor(at)), t = at - k;
    for (let c = 0; c < 3; c++) table[3 * i + c] = Math.round(stops[k][c] * (1 - t) + stops[k + 1][c] * t);
  }
  return table;
})();

// classes are told apart by colour and, in print, by the order of the legend: Okabe-Ito, and three more for ten classes
LL.CLASSES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#7A4FB0", "#8C564B", "#000000"];

// blue below zero, grey of the page at zero, red above: equal distances look equally strong
LL.SIGNED = (dark) => {
  const ends = [[5, 48, 97], [67, 147, 195], dark ? [38, 42, 48] : [247, 247, 247], [214, 96, 77], [103, 0, 31]].map((c, i) => (dark && (i === 0 || i === 4) ? [[146, 197, 222], 0, 0, 0, [253, 190, 165]][i] : c));
  const table = new Uint8Array(768);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * 4, k = Math.min(3, Math.floor(at)), t = at - k;
    for (let c = 0; c < 3; c++) table[3 * i + c] = Math.round(ends[k][c] * (1 - t) + ends[k + 1][c] * t);
  }
  return table;
};
