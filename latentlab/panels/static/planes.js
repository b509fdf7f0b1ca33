// Planes with axes of equal scale: a field as heat map with contours and points above it, and scatters side by side.
// A picture has a node, takes the frame's arrays by `frame`, and paints itself; what its own tabs and buttons show never asks the kernel.
LL.paper = (node) => ({ ...LL.ink(node), page: getComputedStyle(node).getPropertyValue("--ll-bg").trim() || "#fff", accent: getComputedStyle(node).getPropertyValue("--ll-accent").trim() || "#1769c7" });

// a canvas of device pixels behind a drawing in CSS pixels
LL.sheet = (label, kind = "") => {
  const canvas = LL.el("canvas", { class: `ll-sheet ${kind}`, role: "img", "aria-label": label });
  const begin = () => {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return null;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    ctx.font = LL.FONT; ctx.lineJoin = "round";
    return { ctx, width, height, ink: LL.paper(canvas) };
  };
  return { canvas, begin };
};

LL.segments = (label, items, chosen) => {
  const group = LL.el("div", { class: "ll-segments", role: "radiogroup", "aria-label": label });
  const buttons = items.map((item, i) => {
    const button = LL.el("button", { type: "button", role: "radio", text: item.label, title: item.help ?? "", "data-tab": item.key ?? item.label });
    button.addEventListener("click", () => { pick(i); chosen(i); });
    button.addEventListener("keydown", (event) => { const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; if (move) { event.preventDefault(); const next = buttons[(buttons.indexOf(button) + move + buttons.length) % buttons.length]; next.click(); next.focus(); } });
    group.append(button);
    return button;
  });
  const pick = (k) => buttons.forEach((b, i) => { b.setAttribute("aria-checked", String(i === k)); b.tabIndex = i === k ? 0 : -1; });
  pick(0);
  return group;
};

// round numbers inside [low, high], some `room` pixels apart
LL.steps = (low, high, length, room = 46) => {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [];
  const raw = span / Math.max(1, Math.floor(length / room)), base = 10 ** Math.floor(Math.log10(raw)), step = base * [1, 2, 5, 10].find((m) => m * base >= raw * 0.999), found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * span; v += step) found.push(Math.abs(v) < 1e-9 * step ? 0 : Number(v.toPrecision(12)));
  return found;
};

// frame, ticks and names of a box; `at` maps numbers to pixels
LL.box = (ctx, ink, { left, top, width, height }, [x0, x1], [y0, y1], { x = "", y = "", grid = false, xs = null, ys = null, room = 46 } = {}) => {
  const at = { x: (v) => left + ((v - x0) / (x1 - x0)) * width, y: (v) => top + height - ((v - y0) / (y1 - y0)) * height };
  ctx.fillStyle = ink.text; ctx.lineWidth = 1; ctx.textAlign = "center"; ctx.textBaseline = "top";
  ctx.strokeStyle = ink.grid;
  const across = xs ?? LL.steps(x0, x1, width, room), up = ys ?? LL.steps(y0, y1, height, Math.min(room, 34));
  for (const v of across) { const p = Math.round(at.x(v)) + 0.5; if (grid) { ctx.beginPath(); ctx.moveTo(p, top); ctx.lineTo(p, top + height); ctx.stroke(); } const text = LL.number(v), half = ctx.measureText(text).width / 2; ctx.fillText(text, Math.min(Math.max(p, left + 6, half + 1), (ctx.canvas.clientWidth || Infinity) - half - 1), top + height + 4); }
  ctx.textAlign = "right"; ctx.textBaseline = "middle";
  for (const v of up) { const p = Math.round(at.y(v)) + 0.5; if (grid) { ctx.beginPath(); ctx.moveTo(left, p); ctx.lineTo(left + width, p); ctx.stroke(); } ctx.fillText(LL.number(v), left - 5, Math.min(Math.max(p, top + 5), top + height - 4)); }
  ctx.textAlign = "center"; ctx.textBaseline = "top";
  if (x) ctx.fillText(x, left + width / 2, top + height + 18);
  if (y) { ctx.save(); ctx.translate(left - 32, top + height / 2); ctx.rotate(-Math.PI / 2); ctx.textBaseline = "middle"; ctx.fillText(y, 0, 0); ctx.restore(); }
  return at;
};

// line segments of one level through a field of numbers on the nodes of a grid; a cell with a hole in it has none
LL.contour = (data, rows, columns, level, segment) => {
  let count = 0;
  for (let r = 0; r + 1 < rows; r++) for (let c = 0; c + 1 < columns; c++) {
    const k = r * columns + c, a = data[k] - level, b = data[k + 1] - level, d = data[k + columns] - level, e = data[k + columns + 1] - level;
    if (!Number.isFinite(a + b + d + e)) continue;
    const found = [];
    if (a < 0 !== b < 0) found.push([c + a / (a - b), r]);
    if (b < 0 !== e < 0) found.push([c + 1, r + b / (b - e)]);
    if (d < 0 !== e < 0) found.push([c + d / (d - e), r + 1]);
    if (a < 0 !== d < 0) found.push([c, r + a / (a - d)]);
    if (found.length === 2) { segment(found[0], found[1]); count += 1; }
    if (found.length === 4) { // a saddle: the middle decides which two corners belong together
      const joined = (a + b + d + e < 0) === a < 0;
      segment(found[0], found[joined ? 1 : 3]); segment(found[2], found[joined ? 3 : 1]); count += 2;
    }
  }
  return count;
};

// mean over a few nodes around each, cut to a range first; holes stay holes and spoil no neighbour
LL.smooth = (data, rows, columns, radius, [low, high]) => {
  let from = Float32Array.from(data, (v) => Math.max(low, Math.min(high, v)));
  for (const [step, length, lines, jump] of [[1, columns, rows, columns], [columns, rows, columns, 1], [1, columns, rows, columns], [columns, rows, columns, 1]]) {
    const to = new Float32Array(from.length);
    for (let line = 0; line < lines; line++) for (let i = 0; i < length; i++) {
      let sum = 0, count = 0;
      for (let k = Math.max(0, i - radius); k <= Math.min(length - 1, i + radius); k++) { const v = from[line * jump + k * step]; if (v === v) { sum += v; count += 1; } }
      const at = line * jump + i * step;
      to[at] = from[at] === from[at] ? sum / count : NaN;
    }
    from = to;
  }
  return from;
};

// dots of one class in one path; a ring in the colour of the page keeps them readable on any ground
LL.dots = (ctx, at, block, labels, wanted, radius, ring) => {
  const { data, shape } = block, two = shape[1] > 1;
  const colours = labels ? LL.CLASSES.length : 1;
  for (const edge of ring ? [true, false] : [false]) for (let k = 0; k < colours; k++) {
    ctx.beginPath();
    for (let i = 0; i < shape[0]; i++) {
      if (labels && Math.round(labels[i]) % colours !== k) continue;
      const x = at.x(data[i * shape[1]]), y = at.y(two ? data[i * shape[1] + 1] : ((i * 0.618034) % 1) - 0.5); // one dimension: spread, so that dots do not cover one another
      if (!Number.isFinite(x + y)) continue;
      const r = radius + (edge ? 0.9 : 0);
      ctx.moveTo(x + r, y); ctx.arc(x, y, r, 0, 6.3);
    }
    ctx.fillStyle = edge ? ring : labels ? LL.themed(LL.CLASSES[k]) : wanted;
    ctx.fill();
  }
};

LL.swatch = (item) => LL.el("i", { class: item.ring ? "ll-ring" : "ll-dot", style: `--c:${item.ink ?? LL.themed(item.colour ?? "#888888")}` });

LL.field = (spec) => {
  const frame = LL.plotFrame(spec.title ?? "", spec.note ?? "", "field"), sheet = LL.sheet(spec.title ?? "field", "field");
  const points = (spec.points ?? []).map((p) => ({ on: true, ...p })), image = document.createElement("canvas");
  const readout = LL.el("span", { class: "ll-legend-item ll-readout" });
  let blocks = {}, tab = 0, view = null, tabs = null;
  frame.area.replaceWith(sheet.canvas);
  for (const item of points) {
    const mark = () => LL.swatch({ colour: item.colour, ink: item.labels ? `conic-gradient(${LL.themed(LL.CLASSES[1])} 50%, ${LL.themed(LL.CLASSES[0])} 0)` : undefined });
    const button = LL.el("button", { class: `ll-legend-item${item.on ? "" : " off"}`, type: "button", "data-points": item.key, "aria-pressed": String(item.on), title: "show or hide" }, mark(), LL.el("span", { text: item.label }));
    button.addEventListener("click", () => { item.on = !item.on; button.classList.toggle("off", !item.on); button.setAttribute("aria-pressed", String(item.on)); paint(); });
    item.redraw = () => button.replaceChild(mark(), button.firstChild);
    frame.legend.append(button);
  }
  frame.legend.append(readout);
  const here = () => spec.tabs.filter((t) => blocks[t.key]);
  const choose = () => { // a field that does not exist for these settings has no tab
    const list = here(), text = list.map((t) => t.key).join();
    if (tabs === text) return;
    tabs = text; tab = Math.min(tab, Math.max(0, list.length - 1));
    const group = LL.segments(`field of ${spec.title}`, list, (i) => { tab = i; paint(); });
    frame.tools.replaceChildren(...(list.length > 1 ? [group] : []));
  };
  const bounds = (item, data) => {
    let low = Infinity, high = -Infinity;
    for (const v of data) if (Number.isFinite(v)) { if (v < low) low = v; if (v > high) high = v; }
    if (low > high) return [0, 1];
    if (item.signed) { const most = Math.min(item.span ?? Infinity, Math.max(high, -low)) || 1; return [-most, most]; }
    if (item.span) low = Math.max(low, high - item.span);
    return low < high ? [low, high] : [low - 0.5, low + 0.5];
  };
  const heat = (data, rows, columns, [low, high], colours) => {
    image.width = columns; image.height = rows;
    const ctx = image.getContext("2d"), pixels = ctx.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) {
      const v = data[i], k = 3 * Math.max(0, Math.min(255, Math.round((255 * (v - low)) / (high - low))));
      if (Number.isNaN(v)) continue; // a hole shows the page
      pixels.data[4 * i] = colours[k]; pixels.data[4 * i + 1] = colours[k + 1]; pixels.data[4 * i + 2] = colours[k + 2]; pixels.data[4 * i + 3] = 255;
    }
    ctx.putImageData(pixels, 0, 0);
  };
  const bar = (ctx, ink, x, top, height, item, [low, high], colours, [below, above]) => {
    for (let i = 0; i < height; i++) { const k = 3 * Math.round((255 * (height - 1 - i)) / (height - 1)); ctx.fillStyle = `rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`; ctx.fillRect(x, top + i, 11, 1.5); }
    ctx.fillStyle = ink.text; ctx.textAlign = "left"; ctx.textBaseline = "middle";
    const ticks = LL.steps(low, high, height, 30).filter((v) => (!below || v - low > 0.09 * (high - low)) && (!above || high - v > 0.09 * (high - low))), place = (v) => top + height - ((v - low) / (high - low)) * height;
    for (const v of ticks) ctx.fillText(LL.number(v), x + 15, Math.min(Math.max(place(v), top + 5), top + height - 5));
    if (below) ctx.fillText(`≤ ${LL.number(low, 2)}`, x + 15, top + height - 5); // colours end here, the numbers do not
    if (above) ctx.fillText(`≥ ${LL.number(high, 2)}`, x + 15, top + 5);
    ctx.save(); ctx.translate(x + 54, top + height / 2); ctx.rotate(-Math.PI / 2); ctx.textAlign = "center"; ctx.fillText(`${item.axis ?? item.label}, ${item.unit}`, 0, 0); ctx.restore();
  };
  const paint = () => {
    choose();
    const item = here()[tab], field = item && blocks[item.key], extent = blocks[spec.extent]?.data, left = 36, top = 6, right = 70, below = 20;
    view = null;
    if (!field || !extent) return;
    const wanted = `${Math.round(Math.min(480, ((sheet.canvas.clientWidth - left - right) * (extent[3] - extent[2])) / (extent[1] - extent[0]) + top + below))}px`;
    if (sheet.canvas.style.height !== wanted) sheet.canvas.style.height = wanted; // as high as the plane is, at this width
    const place = sheet.begin();
    if (!place) return;
    const { ctx, ink } = place, [rows, columns] = field.shape, [x0, x1, y0, y1] = extent, dark = LL.dark();
    const range = bounds(item, field.data), colours = item.signed ? LL.SIGNED(dark) : LL.MAGMA;
    const unit = Math.min((place.width - left - right) / (x1 - x0), (place.height - top - below) / (y1 - y0));
    const width = unit * (x1 - x0), height = unit * (y1 - y0), shift = Math.max(0, (place.width - left - right - width) / 2), box = { left: left + shift, top, width, height };
    heat(field.data, rows, columns, range, colours);
    ctx.save(); ctx.beginPath(); ctx.rect(box.left, top, width, height); ctx.clip();
    const dx = width / (columns - 1), dy = height / (rows - 1); // numbers stand on the nodes: a pixel reaches half a step beyond
    ctx.imageSmoothingEnabled = true; ctx.imageSmoothingQuality = "high";
    ctx.drawImage(image, box.left - dx / 2, top - dy / 2, width + dx, height + dy);
    let segments = 0;
    const levels = item.signed ? [0] : [...(blocks[item.levels]?.data ?? [])];
    const lines = item.smooth ? LL.smooth(field.data, rows, columns, item.smooth, range) : field.data;
    levels.forEach((level, i) => {
      ctx.beginPath();
      segments += LL.contour(lines, rows, columns, level, (p, q) => { ctx.moveTo(box.left + p[0] * dx, top + p[1] * dy); ctx.lineTo(box.left + q[0] * dx, top + q[1] * dy); });
      ctx.strokeStyle = item.signed ? ink.strong : "rgba(0,0,0,.55)"; ctx.lineWidth = 2.6; if (!item.signed) ctx.stroke();
      ctx.strokeStyle = item.signed ? ink.strong : `rgba(255,255,255,${0.95 - (0.4 * i) / Math.max(1, levels.length - 1)})`; ctx.lineWidth = 1.1; ctx.setLineDash(item.signed ? [] : i ? [4, 2] : []); ctx.stroke(); ctx.setLineDash([]);
    });
    const at = { x: (v) => box.left + ((v - x0) / (x1 - x0)) * width, y: (v) => top + height - ((v - y0) / (y1 - y0)) * height };
    let drawn = 0;
    for (const p of points) if (p.on && blocks[p.key]) { LL.dots(ctx, at, blocks[p.key], p.labels && blocks[p.labels]?.data, LL.themed(p.colour ?? "#56B4E9"), p.radius ?? 1.7, p.ring === false ? null : dark ? "rgba(0,0,0,.75)" : "rgba(255,255,255,.85)"); drawn += blocks[p.key].shape[0]; }
    ctx.restore();
    ctx.strokeStyle = ink.grid; ctx.strokeRect(box.left + 0.5, top + 0.5, width - 1, height - 1);
    LL.box(ctx, ink, box, [x0, x1], [y0, y1]);
    let least = Infinity, most = -Infinity; for (const v of field.data) { if (v < least) least = v; if (v > most) most = v; }
    const ends = [least < range[0] - 1e-6, most > range[1] + 1e-6];
    bar(ctx, ink, box.left + width + 8, top, height, item, range, colours, ends);
    Object.assign(frame.node.dataset, { tab: item.key, range: range.map((v) => v.toFixed(3)).join(), points: String(drawn), contours: String(segments), levels: String(levels.length), clipped: ends.map(Number).join() });
    LL.put(frame.note, item.note ?? spec.note ?? "");
    view = { box, field, item, extent, rows, columns };
  };
  sheet.canvas.addEventListener("pointermove", (event) => {
    if (!view) return;
    const { box, field, item, extent, rows, columns } = view, home = sheet.canvas.getBoundingClientRect(), u = (event.clientX - home.left - box.left) / box.width, v = (event.clientY - home.top - box.top) / box.height;
    if (u < 0 || u > 1 || v < 0 || v > 1) { LL.put(readout, ""); return; }
    const x = extent[0] + u * (extent[1] - extent[0]), y = extent[3] - v * (extent[3] - extent[2]);
    LL.put(readout, `${x.toFixed(2)}, ${y.toFixed(2)}: ${LL.number(field.data[Math.round(v * (rows - 1)) * columns + Math.round(u * (columns - 1))])} ${item.unit}`);
  });
  sheet.canvas.addEventListener("pointerleave", () => LL.put(readout, ""));
  return { node: frame.node, frame: (next) => { blocks = next; }, paint, theme: () => { points.forEach((p) => p.redraw()); paint(); }, destroy: () => {} };
};

LL.scatter = (spec, tell) => {
  const frame = LL.plotFrame(spec.title ?? "", spec.note ?? "", "scatter"), host = LL.el("div", { class: "ll-scatters" }), answer = LL.answer();
  frame.area.replaceWith(host, answer.node);
  const panels = spec.panels.map((panel) => {
    const sheet = LL.sheet(`${panel.label}: ${panel.note ?? ""}`, "scatter");
    const node = LL.el("div", { class: "ll-scatter", "data-panel": panel.key }, LL.el("div", { class: "ll-scatter-head" }, LL.el("b", { text: panel.label }), LL.el("span", { class: "ll-note", text: panel.note ?? "", title: panel.note ?? "" })), sheet.canvas);
    host.append(node);
    const one = { ...panel, sheet, node, range: null, chosen: null, place: null };
    if (spec.clicks) { // the nearest point within 14 pixels; with the keyboard, one point after the other
      const pick = (i) => { one.chosen = i; node.dataset.chosen = String(i); answer.clear(); onePanel(one); };
      const say = () => tell(panel.key, "click", one.chosen);
      sheet.canvas.tabIndex = 0; sheet.canvas.style.cursor = "pointer"; sheet.canvas.setAttribute("role", "application"); sheet.canvas.setAttribute("aria-label", `${panel.label}: click a point; arrow keys choose one, Enter picks it`); node.dataset.source = panel.key;
      sheet.canvas.addEventListener("click", (event) => {
        const block = blocks[panel.key], home = sheet.canvas.getBoundingClientRect();
        if (!block || !one.place) return;
        let best = -1, least = 14;
        for (let i = 0; i < block.shape[0]; i++) { const [x, y] = one.place(i), far = Math.hypot(x - event.clientX + home.left, y - event.clientY + home.top); if (far < least) { least = far; best = i; } }
        if (best >= 0) { pick(best); say(); }
      });
      sheet.canvas.addEventListener("keydown", (event) => {
        const n = blocks[panel.key]?.shape[0] ?? 0, move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
        if (!n || (!move && event.key !== "Enter")) return;
        event.preventDefault();
        if (move) pick(one.chosen === null ? 0 : (((one.chosen + move) % n) + n) % n); else if (one.chosen !== null) say();
      });
    }
    return one;
  });
  let blocks = {}, keyed = "";
  const quantile = (values, q) => values[Math.min(values.length - 1, Math.max(0, Math.round(q * (values.length - 1))))];
  const span = (panel) => { // a square around nearly everything; it grows at once and shrinks only when half of it is empty
    const ends = [0, 1].map((axis) => {
      let low = Infinity, high = -Infinity;
      for (const key of [panel.key, panel.prior]) {
        const block = blocks[key];
        if (!block || block.shape[1] <= axis) continue;
        const values = []; for (let i = axis; i < block.data.length; i += block.shape[1]) if (Number.isFinite(block.data[i])) values.push(block.data[i]);
        if (!values.length) continue;
        values.sort((a, b) => a - b); low = Math.min(low, quantile(values, 0.005)); high = Math.max(high, quantile(values, 0.995));
      }
      if (panel.prior === "normal") { low = Math.min(low, -2.7); high = Math.max(high, 2.7); }
      return low > high ? [-1, 1] : [low, high];
    });
    const half = 0.53 * Math.max(ends[0][1] - ends[0][0], ends[1][1] - ends[1][0], 1e-3), middle = ends.map(([low, high]) => (low + high) / 2), was = panel.range;
    const inside = was && [0, 1].every((axis) => ends[axis][0] >= was.middle[axis] - was.half && ends[axis][1] <= was.middle[axis] + was.half);
    if (!inside || half < 0.6 * was.half) panel.range = { half: half * 1.06, middle };
    return panel.range;
  };
  const legend = () => {
    const labels = blocks[spec.labels]?.data, most = labels ? Math.max(-1, ...labels) : -1, text = JSON.stringify([most, LL.dark()]);
    if (text === keyed) return;
    keyed = text;
    const names = Array.from({ length: Math.round(most) + 1 }, (_, k) => spec.classes?.[k] ?? `class ${k}`), items = names.map((name, k) => LL.el("span", { class: "ll-legend-item" }, LL.swatch({ colour: LL.CLASSES[k % LL.CLASSES.length] }), name));
    if (panels.some((p) => p.prior === "normal")) items.push(LL.el("span", { class: "ll-legend-item", title: "circles that hold half and 95 % of the standard normal" }, LL.swatch({ ring: true, ink: "var(--ll-fg2)" }), "prior: 50 %, 95 %"));
    if (panels.some((p) => p.prior && p.prior !== "normal" && p.prior !== undefined)) items.push(LL.el("span", { class: "ll-legend-item", title: "what the layer above makes of its own samples" }, LL.swatch({ colour: "#9AA3AE" }), "z of generated data"));
    if (panels.some((p) => p.regions && blocks[p.regions])) items.push(LL.el("span", { class: "ll-legend-item", title: "places where the prior puts mass and no datum lands" }, LL.el("i", { class: "ll-pocket" }), "pocket"));
    frame.legend.replaceChildren(...items);
  };
  const pockets = (ctx, at, panel, ink) => { // a grid of 0 and 1 over a square about the origin: outlined, and hatched inside
    const region = blocks[panel.regions], half = panel.reach ?? 3;
    if (!region) return 0;
    const [rows, columns] = region.shape, x = (c) => at.x(-half + (2 * half * c) / (columns - 1)), y = (r) => at.y(half - (2 * half * r) / (rows - 1));
    ctx.fillStyle = "rgba(213,94,0,.16)"; ctx.strokeStyle = LL.themed("#D55E00"); ctx.lineWidth = 1.6; ctx.beginPath();
    const wide = x(1) - x(0), high = y(1) - y(0);
    for (let i = 0; i < rows * columns; i++) if (region.data[i] > 0.5) ctx.fillRect(x(i % columns) - wide / 2, y(Math.floor(i / columns)) - high / 2, wide + 0.4, high + 0.4);
    const count = LL.contour(region.data, rows, columns, 0.5, (p, q) => { ctx.moveTo(x(p[0]), y(p[1])); ctx.lineTo(x(q[0]), y(q[1])); });
    ctx.stroke();
    return count;
  };
  const onePanel = (panel) => {
    const block = blocks[panel.key], place = panel.sheet.begin();
    if (!block || !place) return;
    const { ctx, ink, width, height } = place, { half, middle } = span(panel), below = 18, two = block.shape[1] > 1;
    const wide = two ? Math.max(...LL.steps(middle[1] - half, middle[1] + half, height - below - 4, height < 200 ? 26 : 34).map((v) => ctx.measureText(LL.number(v)).width), 0) : 0, left = Math.max(22, Math.ceil(wide) + 8), side = Math.min(width - left - 4, height - below - 4);
    const box = { left: left + Math.max(0, (width - left - 4 - side) / 2), top: 4, width: side, height: side }, xr = [middle[0] - half, middle[0] + half], yr = block.shape[1] > 1 ? [middle[1] - half, middle[1] + half] : [-1, 1];
    const at = LL.box(ctx, ink, box, xr, yr, { grid: true, room: side < 180 ? 26 : 46, ys: block.shape[1] > 1 ? null : [] });
    ctx.save(); ctx.beginPath(); ctx.rect(box.left, box.top, side, side); ctx.clip();
    if (panel.prior && panel.prior !== "normal" && blocks[panel.prior]) { ctx.globalAlpha = 0.5; LL.dots(ctx, at, blocks[panel.prior], null, LL.themed("#9AA3AE"), 1.5, null); ctx.globalAlpha = 1; }
    if (panel.prior === "normal") for (const radius of [1.1774, 2.4477]) { ctx.beginPath(); ctx.ellipse(at.x(0), at.y(0), at.x(radius) - at.x(0), Math.abs(at.y(radius) - at.y(0)), 0, 0, 6.3); ctx.strokeStyle = ink.text; ctx.setLineDash(radius > 2 ? [5, 3] : []); ctx.lineWidth = 1.1; ctx.stroke(); ctx.setLineDash([]); }
    const outlined = pockets(ctx, at, panel, ink);
    const labels = blocks[spec.labels]?.data;
    LL.dots(ctx, at, block, labels && labels.length === block.shape[0] ? labels : null, ink.accent, side > 230 ? 2 : 1.6, null);
    panel.place = (i) => [at.x(block.data[i * block.shape[1]]), at.y(two ? block.data[i * block.shape[1] + 1] : ((i * 0.618034) % 1) - 0.5)];
    if (panel.chosen !== null && panel.chosen < block.shape[0]) { const [x, y] = panel.place(panel.chosen); for (const [colour, line] of [[ink.page, 4.5], [ink.strong, 2]]) { ctx.beginPath(); ctx.arc(x, y, 6, 0, 6.3); ctx.strokeStyle = colour; ctx.lineWidth = line; ctx.stroke(); } }
    ctx.restore();
    ctx.lineWidth = 1; ctx.strokeStyle = ink.grid; ctx.strokeRect(box.left + 0.5, 4.5, side - 1, side - 1);
    Object.assign(panel.node.dataset, { points: String(block.shape[0]), reach: half.toFixed(2), pockets: String(outlined) });
  };
  return { node: frame.node, frame: (next) => { blocks = next; }, paint: () => { legend(); panels.forEach(onePanel); }, theme: () => { legend(); panels.forEach(onePanel); }, destroy: () => {}, sources: spec.clicks ? panels.map((p) => p.key) : [],
    refused: (source, sentence) => { for (const p of panels) if (p.key === source) { p.chosen = null; onePanel(p); } answer.say(sentence); } };
};
