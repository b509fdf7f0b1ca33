// Curves over the training step and paths in a plane; axes, ticks and zoom by uPlot, colours by the page's theme.
LL.FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

LL.ink = (node) => {
  const style = getComputedStyle(node);
  return { text: style.getPropertyValue("--ll-fg2").trim() || "#667", grid: style.getPropertyValue("--ll-grid").trim() || "#e5e7eb", strong: style.getPropertyValue("--ll-fg").trim() || "#111" };
};

LL.ticks = (u, splits) => splits.map((v) => (v === null ? "" : LL.number(v)));

LL.plotFrame = (title, text, kind = "") => {
  const legend = LL.el("div", { class: "ll-legend" }), area = LL.el("div", { class: "ll-area" }), tools = LL.el("span", { class: "ll-tools" }), note = LL.el("span", { class: "ll-note", text: text ?? "", title: text ?? "" });
  const head = LL.el("div", { class: "ll-plothead" }, LL.el("b", { text: title }), note, tools);
  return { node: LL.el("section", { class: `ll-plot ${kind}`, "aria-label": title, "data-picture": kind || null }, head, legend, area), legend, area, tools, note };
};

LL.keySwatch = (item) => LL.el("i", { class: `ll-key${item.dash ? " dash" : ""}`, style: `--c:${LL.themed(item.colour)}` });

// the rows from a step on: before it the columns had another unit, and two units share no axis
LL.from = (data, since) => {
  if (!since || !data.step.length || data.step[0] >= since) return data;
  const at = data.step.findIndex((step) => step >= since), cut = (column) => (at < 0 ? [] : column.slice(at));
  return { step: cut(data.step), columns: Object.fromEntries(Object.entries(data.columns).map(([name, column]) => [name, cut(column)])) };
};
// a curve whose ruler came into force later than its plot begins there, and the plot says so
LL.lateParts = (spec) => (spec.terms ?? spec.series ?? []).filter((part) => (part.since ?? 0) > (spec.since ?? 0));
LL.begun = (spec) => {
  const late = LL.lateParts(spec), steps = [...new Set(late.map((part) => part.since))];
  const said = steps.map((step) => `${late.filter((part) => part.since === step).map((part) => part.label).join(", ")} from step ${LL.number(step)}, measured otherwise before`);
  return [spec.since ? `from step ${LL.number(spec.since)}, with its new unit` : "", ...said, spec.note ?? ""].filter(Boolean).join("; ");
};
LL.first = (spec) => Math.max(spec.since ?? 0, Math.min(...(spec.terms ?? spec.series ?? []).map((part) => part.since ?? 0)));
LL.late = (step, column, since) => (since && column ? column.map((v, i) => (step[i] < since ? null : v)) : column);

LL.curves = (spec, tell) => {
  const frame = LL.plotFrame(spec.title ?? "Terms", LL.begun(spec), "curves"), source = spec.source ?? spec.title ?? "Terms", answer = LL.answer();
  frame.node.append(answer.node);
  const terms = spec.terms.map((term, i) => ({ colour: LL.OKABE[i % LL.OKABE.length], ...term }));
  let plot = null, log = Boolean(spec.log), zoomed = false, data = null, ink = null, values = [], chosen = null;
  const mixed = new Set(terms.map((term) => term.unit ?? "")).size > 1, right = (term) => (term.axis ? term.axis === "right" : mixed && term.unit === "nats");
  const units = (side) => [...new Set(terms.filter((t) => right(t) === side).map((t) => t.unit).filter(Boolean))].join(" · ");

  for (const term of terms) {
    const value = LL.el("b", {}), item = LL.el("button", { class: "ll-legend-item", type: "button", "aria-pressed": "true", title: `${term.label}${term.unit ? `, ${term.unit}` : ""}: click to hide` });
    item.append(LL.keySwatch(term), LL.el("span", { text: term.label }), value);
    item.addEventListener("click", () => {
      term.off = !term.off; item.classList.toggle("off", term.off); item.setAttribute("aria-pressed", String(!term.off)); make();
    });
    values.push(value); frame.legend.append(item); term.item = item;
  }
  const toggle = LL.el("button", { class: "ll-mini", type: "button", "aria-pressed": String(log), text: "log", title: "logarithmic vertical axis" });
  toggle.addEventListener("click", () => { log = !log; toggle.setAttribute("aria-pressed", String(log)); make(); });
  if (spec.log !== null) frame.tools.append(toggle);

  const lines = (spec.lines ?? []).filter((line) => Number.isFinite(line.value)); // what a curve is held against: an oracle, a floor
  const settled = () => { // values after the first tenth, of each curve all but the outermost hundredths, with the lines: neither a start far away nor a spike may flatten the rest
    const found = lines.map((line) => line.value);
    for (const term of terms) {
      const column = term.off ? null : data?.columns[term.name], late = (column ?? []).slice(Math.floor((column ?? []).length / 10)).filter((v) => v !== null).sort((a, b) => a - b), last = late.length - 1;
      if (last >= 0) found.push(late[Math.floor(0.01 * last)], late[Math.ceil(0.99 * last)]);
    }
    return found.length ? [Math.min(...found), Math.max(...found)] : [0, 1];
  };
  const range = (u, low, high) => {
    if (low === null || high === null) return log ? [0.01, 1] : [0, 1];
    for (const { value } of lines) if (!log || value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
    if (log) return uPlot.rangeLog(Math.max(low, high * 1e-6), high, 10, false);
    if (spec.settled) { const [a, b] = settled(), room = 0.08 * (b - a) || 0.5; frame.node.dataset.range = `${a.toPrecision(6)},${b.toPrecision(6)}`; return [a - room, b + room]; }
    const room = (high - Math.min(0, low)) * 0.06 || 0.1;
    return [low < 0 ? low - room : 0, high + room];
  };
  const rule = (u) => {
    const ctx = u.ctx, ratio = devicePixelRatio || 1;
    if (chosen !== null) { // the step that was clicked
      const x = Math.round(u.valToPos(chosen, "x", true)) + 0.5;
      if (x >= u.bbox.left && x <= u.bbox.left + u.bbox.width) { ctx.save(); ctx.strokeStyle = LL.paper(frame.area).accent; ctx.lineWidth = 1.5 * ratio; ctx.beginPath(); ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke(); ctx.restore(); }
    }
    for (const step of new Set(LL.lateParts(spec).map((part) => part.since))) { // where a curve begins on another ruler
      const x = Math.round(u.valToPos(step, "x", true)) + 0.5;
      if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
      ctx.save(); ctx.strokeStyle = ink.text; ctx.lineWidth = ratio; ctx.setLineDash([2 * ratio, 3 * ratio]); ctx.beginPath(); ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke(); ctx.restore();
    }
    for (const line of lines) {
      const y = Math.round(u.valToPos(line.value, "y", true)) + 0.5;
      if (y < u.bbox.top - 1 || y > u.bbox.top + u.bbox.height + 1) continue;
      ctx.save(); ctx.strokeStyle = LL.themed(line.colour ?? "#000000"); ctx.lineWidth = 1.4 * ratio; ctx.setLineDash([7 * ratio, 4 * ratio]);
      ctx.beginPath(); ctx.moveTo(u.bbox.left, y); ctx.lineTo(u.bbox.left + u.bbox.width, y); ctx.stroke(); ctx.restore();
    }
  };
  for (const line of lines) { line.item = LL.el("span", { class: "ll-legend-item", title: line.help ?? "" }, LL.keySwatch({ dash: true, colour: line.colour ?? "#000000" }), LL.el("span", { text: line.label }), LL.el("b", { text: LL.number(line.value) })); frame.legend.append(line.item); }
  const columns = () => {
    if (!data) return [[0], ...terms.map(() => [null])];
    return [data.step, ...terms.map((t) => (log ? data.columns[t.name]?.map((v) => (v > 0 ? v : null)) : data.columns[t.name]) ?? data.step.map(() => null))];
  };
  const show = (index) => terms.forEach((term, i) => {
    const column = data?.columns[term.name];
    let at = index ?? (column?.length ?? 0) - 1;
    while (column && at > 0 && column[at] === null) at--;
    LL.put(values[i], LL.number(column ? column[at] : null));
  });
  const make = () => {
    plot?.destroy(); plot = null; zoomed = false;
    const width = frame.area.clientWidth, height = frame.area.clientHeight;
    if (!width || !height) return;
    ink = LL.ink(frame.area);
    const axis = (scale, side, label, extra = {}) => ({
      scale, side, label, labelSize: label ? 16 : 0, labelGap: 0, labelFont: LL.FONT, font: LL.FONT, gap: 4, values: LL.ticks, stroke: () => ink.text,
      grid: { stroke: () => ink.grid, width: 1 }, ticks: { show: false }, ...extra });
    const room = (least, gap) => (u, texts) => Math.max(least, gap + 4 + 6.2 * Math.max(0, ...(texts ?? []).map((text) => String(text ?? "").length))); // digits of 11 px never reach into the label
    const hasRight = terms.some((t) => right(t) && !t.off), scale = { distr: log ? 3 : 1, log: 10, range };
    plot = new uPlot({
      width, height, legend: { show: false }, padding: [8, hasRight ? 0 : 20, 0, 0],
      cursor: { drag: { x: true, y: false }, points: { size: 6 }, y: false },
      scales: { x: { time: false, range: (u, low, high) => (low === null ? [0, 1] : [low, high + Math.max((high - low) * 0.025, 1e-9)]) }, y: { ...scale }, r: { ...scale } },
      axes: [axis("x", 2, "step", { size: 24, space: 60 }), axis("y", 3, units(false), { size: room(40, 4), space: log ? 22 : 34 }),
        ...(hasRight ? [axis("r", 1, units(true), { size: room(30, 8), gap: 8, space: log ? 22 : 34, grid: { show: false } })] : [])],
      series: [{}, ...terms.map((t) => ({ scale: right(t) ? "r" : "y", show: !t.off, stroke: () => LL.themed(t.colour), width: 1.75, dash: t.dash ? [5, 3] : undefined, spanGaps: true, points: { show: false } }))],
      hooks: { draw: [rule], setSelect: [(u) => { if (u.select.width > 0) zoomed = true; }], setCursor: [(u) => show(u.cursor.idx)] },
    }, columns(), frame.area);
    plot.over.addEventListener("dblclick", () => { zoomed = false; draw(); });
    if (spec.clicks) { plot.over.style.cursor = "pointer"; plot.over.addEventListener("click", () => { if (plot.select.width > 0) return; pick(plot.cursor.idx); }); }
  };
  const pick = (index) => {
    const step = data?.step[index];
    if (step === undefined || step === null) return;
    chosen = step; frame.node.dataset.chosen = String(step); answer.clear(); plot?.redraw(); show(index); tell(source, "click", step);
  };
  if (spec.clicks) { // keys: arrows walk over the steps, Enter picks one
    let at = null;
    frame.area.tabIndex = 0; frame.area.setAttribute("role", "application"); frame.area.setAttribute("aria-label", `${spec.title ?? "curves"}: arrow keys choose a step, Enter picks it`); frame.node.dataset.source = source;
    frame.area.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key], last = (data?.step.length ?? 0) - 1;
      if (last < 0 || (!move && event.key !== "Enter")) return;
      event.preventDefault();
      if (!move) { pick(at ?? last); return; }
      at = Math.max(0, Math.min(last, (at ?? last) + move));
      plot?.setCursor({ left: plot.valToPos(data.step[at], "x"), top: 10 }); show(at);
    });
  }
  const draw = () => {
    if (!plot) make();
    if (!plot) return;
    plot.setData(columns(), !zoomed);
    if (zoomed) plot.redraw();
    if (plot.cursor.idx === null || plot.cursor.idx === undefined || plot.cursor.left < 0) show(null);
  };
  const fit = () => { if (!plot) { make(); return; } const w = frame.area.clientWidth, h = frame.area.clientHeight; if (w && h && (w !== plot.width || h !== plot.height)) plot.setSize({ width: w, height: h }); };
  const sizes = new ResizeObserver(fit); // a name that wraps takes room from the axes
  sizes.observe(frame.area);
  return {
    node: frame.node, sources: spec.clicks ? [source] : [], data: (next) => { const from = LL.from(next, LL.first(spec)); data = { step: from.step, columns: { ...from.columns, ...Object.fromEntries(terms.map((term) => [term.name, LL.late(from.step, from.columns[term.name], term.since)])) } }; }, draw, refused: (name, sentence) => { chosen = null; answer.say(sentence); plot?.redraw(); },
    theme: () => { ink = LL.ink(frame.area); terms.forEach((t) => t.item.replaceChild(LL.keySwatch(t), t.item.firstChild)); lines.forEach((l) => l.item.replaceChild(LL.keySwatch({ dash: true, colour: l.colour ?? "#000000" }), l.item.firstChild)); plot?.redraw(); },
    fit, destroy: () => { sizes.disconnect(); plot?.destroy(); },
  };
};

LL.path = (spec) => {
  const frame = LL.plotFrame(spec.title ?? "Path", LL.begun(spec));
  const series = spec.series.map((item, i) => ({ colour: LL.OKABE[i % LL.OKABE.length], ...item }));
  let plot = null, data = null, ink = null;
  for (const item of series) {
    item.item = LL.el("span", { class: "ll-legend-item" }, LL.keySwatch(item), LL.el("span", { text: item.label }));
    frame.legend.append(item.item);
  }
  const readout = LL.el("span", { class: "ll-legend-item ll-readout" });
  frame.legend.append(readout);
  const points = (item) => {
    const xs = data?.columns[item.x], ys = data?.columns[item.y], found = [];
    if (xs && ys) for (let i = 0; i < xs.length; i++) if (xs[i] !== null && ys[i] !== null && data.step[i] >= (item.since ?? 0)) found.push([xs[i], ys[i]]);
    return found;
  };
  const bounds = (axis) => {
    let high = 0;
    for (const item of series) for (const p of item.points ?? []) high = Math.max(high, p[axis]);
    return [0, Math.min(axis === 0 ? 1.0 : Infinity, high * 1.08) || 1];
  };
  const trace = (u) => {
    const ctx = u.ctx, ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath(); ctx.rect(u.bbox.left - 8 * ratio, u.bbox.top - 8 * ratio, u.bbox.width + 16 * ratio, u.bbox.height + 16 * ratio); ctx.clip();
    ctx.lineJoin = "round"; ctx.lineCap = "round";
    for (const item of series) {
      const at = (item.points ?? []).map(([x, y]) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)]);
      if (!at.length) continue;
      ctx.strokeStyle = LL.themed(item.colour); ctx.lineWidth = 1.75 * ratio; ctx.setLineDash(item.dash ? [5 * ratio, 4 * ratio] : []);
      const parts = Math.min(10, at.length - 1); // older parts are paler: the path shows its direction
      for (let k = 0; k < parts; k++) {
        const from = Math.floor((k * (at.length - 1)) / parts), to = Math.floor(((k + 1) * (at.length - 1)) / parts);
        ctx.globalAlpha = 0.22 + (0.78 * (k + 1)) / parts;
        ctx.beginPath(); ctx.moveTo(...at[from]);
        for (let i = from + 1; i <= to; i++) ctx.lineTo(...at[i]);
        ctx.stroke();
      }
      ctx.globalAlpha = 1; ctx.setLineDash([]);
      const [x, y] = at[at.length - 1];
      ctx.beginPath(); ctx.arc(x, y, 4.5 * ratio, 0, 7); ctx.fillStyle = item.dash ? ink.page : ctx.strokeStyle; ctx.fill(); ctx.stroke();
    }
    ctx.restore();
  };
  const paper = () => ({ ...LL.ink(frame.area), page: getComputedStyle(frame.area).getPropertyValue("--ll-bg").trim() || "#fff" });
  const make = () => {
    const width = frame.area.clientWidth, height = frame.area.clientHeight;
    if (!width || !height) return;
    ink = paper();
    const axis = (scale, side, label, extra) => ({ scale, side, label, labelSize: 16, labelGap: 0, labelFont: LL.FONT, font: LL.FONT, gap: 4, values: LL.ticks, stroke: () => ink.text,
      grid: { stroke: () => ink.grid, width: 1 }, ticks: { show: false }, ...extra });
    plot = new uPlot({
      width, height, legend: { show: false }, padding: [8, 16, 0, 0], cursor: { drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, range: () => bounds(0) }, y: { range: () => bounds(1) } },
      axes: [axis("x", 2, spec.x_label ?? spec.x, { size: 24, space: 44 }), axis("y", 3, spec.y_label ?? spec.y, { size: 44, space: 34 })],
      series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
      hooks: { draw: [trace], setCursor: [(u) => LL.put(readout, u.cursor.left >= 0 ? `${LL.number(u.posToVal(u.cursor.left, "x"), 2)}, ${LL.number(u.posToVal(u.cursor.top, "y"), 2)}` : "")] },
    }, [[0, 1], [0, 1]], frame.area);
  };
  const draw = () => {
    for (const item of series) item.points = points(item);
    if (!plot) make(); else plot.setData([[0, 1], [0, 1]], true);
  };
  const fit = () => { if (!plot) { draw(); return; } const w = frame.area.clientWidth, h = frame.area.clientHeight; if (w && h && (w !== plot.width || h !== plot.height)) plot.setSize({ width: w, height: h }); };
  const sizes = new ResizeObserver(fit);
  sizes.observe(frame.area);
  return {
    node: frame.node, data: (next) => { data = LL.from(next, LL.first(spec)); }, draw,
    theme: () => { ink = paper(); series.forEach((s) => s.item.replaceChild(LL.keySwatch(s), s.item.firstChild)); plot?.redraw(); },
    fit, destroy: () => { sizes.disconnect(); plot?.destroy(); },
  };
};

LL.PLOTS = { curves: LL.curves, path: LL.path };

// numbers in words and digits: one card a quantity, the first value large, the others beside their names
LL.numbers = (host, spec) => {
  const cards = new Map(), stamp = LL.stamp(), grid = LL.el("div", { class: "ll-cards" });
  const all = (spec?.rows ?? []).map((row) => (row.unit ?? "").split(", ")), common = all.length > 1 ? all[0].filter((part) => part && all.every((parts) => parts.includes(part))) : []; // what holds for every number is said once
  host.replaceChildren(LL.el("div", { class: "ll-numbers-head" }, LL.el("b", { class: "ll-strip-title", text: "Held out" }), stamp.node, LL.el("small", { class: "ll-stamp", text: common.join(", ") })), grid);
  for (const row of spec?.rows ?? []) {
    const parts = (spec.columns ?? [""]).map((name, i) => {
      const value = LL.el(i ? "span" : "b", { text: "–" }), [, sign, word] = /^(± )?(.*)$/.exec(name), after = word ? LL.el("small", { text: word }) : null; // "± s.e." stands around its number
      return { name: word, value, after, node: LL.el("span", {}, sign ?? "", value, after) };
    });
    const card = LL.el("div", { class: "ll-card", title: row.help ?? "" }, LL.el("span", { class: "ll-card-label" }, row.colour ? LL.el("i", { class: "ll-dot", style: `--c:${LL.themed(row.colour)}` }) : null, row.label),
      LL.el("span", { class: "ll-card-values" }, ...parts.map((p) => p.node)));
    const unit = (row.unit ?? "").split(", ").filter((part) => !common.includes(part)).join(", ");
    if (unit) card.firstChild.append(" ", LL.el("small", { text: unit }));
    cards.set(row.name, { parts, card }); grid.append(card);
  }
  host.hidden = cards.size === 0;
  return (table, measured) => {
    const some = Object.keys(table ?? {}).length > 0;
    stamp.set(some ? measured : null);
    for (const [name, { parts, card }] of cards) {
      card.hidden = some && !(name in table);
      parts.forEach((p, i) => { // a row with fewer numbers shows fewer
        const v = table?.[name]?.[i] ?? null;
        LL.put(p.value, LL.number(v)); if (p.after) LL.put(p.after, LL.unit(v, p.name)); p.node.hidden = i > 0 && i >= (table?.[name]?.length ?? parts.length);
      });
    }
  };
};
