// How far two groups of scores lie apart, with a threshold that stays in the browser; and bars with one row a layer.
LL.rocOf = (inside, outside) => { // both sorted upwards; higher = more out of distribution; ties count half
  const n = inside.length, m = outside.length, points = [[0, 0]];
  let i = n - 1, j = m - 1, area = 0, fp = 0, tp = 0;
  while (i >= 0 || j >= 0) {
    const v = Math.max(i >= 0 ? inside[i] : -Infinity, j >= 0 ? outside[j] : -Infinity), f = fp, t = tp;
    while (i >= 0 && inside[i] === v) { i--; fp++; }
    while (j >= 0 && outside[j] === v) { j--; tp++; }
    area += ((fp - f) * (t + tp)) / 2; points.push([fp / n, tp / m]);
  }
  return { points, area: area / (n * m) };
};

LL.hist = (spec) => {
  const frame = LL.plotFrame(spec.title ?? "", spec.note ?? "", "hist"), bars = LL.sheet("histograms of both groups", "hist"), roc = LL.sheet("share found against share refused", "roc");
  const slider = LL.el("input", { type: "range", min: 0, max: 1, step: "any", "aria-label": "threshold", "data-threshold": "" }), words = LL.el("div", { class: "ll-scorewords" });
  const [one, other] = [{ colour: "#0072B2", ...spec.inside }, { colour: "#D55E00", ...spec.outside }];
  const body = LL.el("div", { class: "ll-scores" }, LL.el("div", { class: "ll-histbox" }, bars.canvas, slider), roc.canvas);
  frame.area.replaceWith(body, words);
  const marks = () => frame.legend.replaceChildren(...[one, other].map((g) => LL.el("span", { class: "ll-legend-item" }, LL.swatch(g), g.label)));
  let blocks = {}, tab = 0, tabs = null, found = 0.8, range = [0, 1], groups = null;
  const here = () => spec.tabs.filter((t) => blocks[t.inside] && blocks[t.outside]);
  const sorted = (key) => Float32Array.from(blocks[key].data).filter((v) => Number.isFinite(v)).sort();
  const above = (values, t) => { let low = 0, high = values.length; while (low < high) { const k = (low + high) >> 1; if (values[k] >= t) high = k; else low = k + 1; } return (values.length - low) / values.length; };
  const threshold = () => { const out = groups.outside; return out[Math.max(0, Math.min(out.length - 1, Math.round((1 - found) * out.length)))]; };
  const choose = () => {
    const list = here(), text = list.map((t) => t.inside).join();
    if (tabs === text) return;
    tabs = text; tab = Math.min(tab, Math.max(0, list.length - 1));
    frame.tools.replaceChildren(LL.segments("score", list.map((t) => ({ ...t, key: t.label })), (i) => { tab = i; paint(); }));
  };
  // the threshold is kept as the share it finds: when scores move, it moves with them
  slider.addEventListener("input", () => { if (!groups) return; found = above(groups.outside, range[0] + Number(slider.value) * (range[1] - range[0])); paint(true); });
  const paint = (dragging = false) => {
    choose();
    const item = here()[tab];
    if (!item) return;
    groups = { inside: sorted(item.inside), outside: sorted(item.outside) };
    if (!groups.inside.length || !groups.outside.length) return;
    const ends = [groups.inside, groups.outside].map((v) => [v[Math.floor(0.005 * v.length)], v[Math.ceil(0.995 * v.length) - 1]]);
    range = [Math.min(ends[0][0], ends[1][0]), Math.max(ends[0][1], ends[1][1])];
    const room = 0.04 * (range[1] - range[0]) || 0.5; range = [range[0] - room, range[1] + room];
    const t = dragging ? range[0] + Number(slider.value) * (range[1] - range[0]) : threshold(), tpr = above(groups.outside, t), fpr = above(groups.inside, t), curve = LL.rocOf(groups.inside, groups.outside);
    if (!dragging) slider.value = String((t - range[0]) / (range[1] - range[0]));
    slider.style.setProperty("--p", `${100 * slider.value}%`); slider.setAttribute("aria-valuetext", `${LL.number(t)} ${item.unit}`);
    histogram(item, t); corner(curve, fpr, tpr);
    const strong = (text) => LL.el("b", { text });
    words.replaceChildren("at ", strong(`${LL.number(t)} ${item.unit}`), ": found ", strong(LL.percent(tpr)), ` of ${other.short ?? "the out-set"} (TPR), refused `, strong(LL.percent(fpr)), ` of ${one.short ?? "the in-set"} (FPR) · AUROC `, strong(curve.area.toFixed(3)), ` · n = ${groups.inside.length} + ${groups.outside.length}`);
    LL.put(frame.note, item.note ?? spec.note ?? "");
    Object.assign(frame.node.dataset, { tab: item.label, threshold: t.toFixed(4), tpr: tpr.toFixed(4), fpr: fpr.toFixed(4), auroc: curve.area.toFixed(4) });
  };
  const histogram = (item, t) => {
    const place = bars.begin();
    if (!place) return;
    const { ctx, ink, width, height } = place, box = { left: 7, top: 6, width: width - 14, height: height - 40 }, bins = Math.max(12, Math.min(48, Math.round(box.width / 9)));
    const counts = [groups.inside, groups.outside].map((values) => { const c = new Float32Array(bins); for (const v of values) { const k = Math.floor((bins * (v - range[0])) / (range[1] - range[0])); if (k >= 0 && k < bins) c[k] += 1 / values.length; } return c; });
    const most = Math.max(...counts[0], ...counts[1]) * 1.05 || 1, named = `${item.axis ?? item.label}, ${item.unit}`;
    const x = [`${named} → more out of distribution`, `${named} → more out`, named].find((text) => ctx.measureText(text).width <= width - 2) ?? named, at = LL.box(ctx, ink, box, range, [0, most], { ys: [], x });
    bars.canvas.title = `${named} → more out of distribution`; frame.node.dataset.axis = x;
    [[counts[0], one], [counts[1], other]].forEach(([count, group]) => {
      ctx.beginPath(); ctx.moveTo(box.left, at.y(0));
      count.forEach((c, k) => { const x0 = box.left + (k * box.width) / bins; ctx.lineTo(x0, at.y(c)); ctx.lineTo(x0 + box.width / bins, at.y(c)); });
      ctx.lineTo(box.left + box.width, at.y(0));
      ctx.globalAlpha = 0.28; ctx.fillStyle = LL.themed(group.colour); ctx.fill(); ctx.globalAlpha = 1; ctx.strokeStyle = LL.themed(group.colour); ctx.lineWidth = 1.5; ctx.stroke();
    });
    ctx.strokeStyle = ink.text; ctx.lineWidth = 1; ctx.beginPath(); ctx.moveTo(box.left, at.y(0) + 0.5); ctx.lineTo(box.left + box.width, at.y(0) + 0.5); ctx.stroke();
    const mark = at.x(Math.max(range[0], Math.min(range[1], t)));
    ctx.strokeStyle = ink.accent; ctx.lineWidth = 2; ctx.beginPath(); ctx.moveTo(mark, box.top); ctx.lineTo(mark, box.top + box.height); ctx.stroke();
  };
  const corner = (curve, fpr, tpr) => {
    const place = roc.begin();
    if (!place) return;
    const { ctx, ink, width, height } = place, side = Math.min(width - 46, height - 40), box = { left: 40, top: 6, width: side, height: side };
    const at = LL.box(ctx, ink, box, [0, 1], [0, 1], { x: "refused, FPR", y: "found, TPR", xs: [0, 0.5, 1], ys: [0, 0.5, 1], grid: true });
    ctx.setLineDash([4, 3]); ctx.strokeStyle = ink.text; ctx.beginPath(); ctx.moveTo(at.x(0), at.y(0)); ctx.lineTo(at.x(1), at.y(1)); ctx.stroke(); ctx.setLineDash([]);
    ctx.beginPath(); curve.points.forEach(([x, y], i) => (i ? ctx.lineTo(at.x(x), at.y(y)) : ctx.moveTo(at.x(x), at.y(y))));
    ctx.strokeStyle = LL.themed(other.colour); ctx.lineWidth = 1.8; ctx.stroke();
    ctx.beginPath(); ctx.arc(at.x(fpr), at.y(tpr), 4.5, 0, 7); ctx.fillStyle = ink.accent; ctx.fill(); ctx.strokeStyle = ink.page; ctx.lineWidth = 1.5; ctx.stroke();
  };
  marks();
  return { node: frame.node, frame: (next) => { blocks = next; }, paint: () => paint(), theme: () => { marks(); paint(); }, destroy: () => {} };
};

LL.bars = (spec) => {
  const frame = LL.plotFrame(spec.title ?? "", spec.note ?? "", "bars"), host = LL.el("div", { class: "ll-bars" });
  frame.area.replaceWith(host); frame.legend.remove();
  let blocks = {}, rows = [], top = 0;
  const build = (n) => {
    rows = Array.from({ length: n }, (_, k) => {
      const bar = LL.el("i", { class: "ll-barfill", style: `--c:${LL.themed(spec.colour ?? "#CC79A7")}` }), mark = LL.el("i", { class: "ll-barmark", hidden: true }), value = LL.el("b"), units = LL.el("span", { class: "ll-note" }), dots = LL.el("span", { class: "ll-units", "aria-hidden": "true" });
      const node = LL.el("div", { class: "ll-barrow", "data-layer": k + 1 }, LL.el("b", { text: spec.labels?.[k] ?? String(k + 1) }), LL.el("span", { class: "ll-bartrack" }, bar, mark), LL.el("span", { class: "ll-barvalue" }, value, LL.el("small", { text: ` ${spec.unit ?? ""}` })), LL.el("span", { class: "ll-barunits" }, dots, units));
      return { node, bar, mark, value, units, dots };
    });
    host.replaceChildren(...(spec.down ? rows : [...rows].reverse()).map((row) => row.node)); // the layer nearest the data stands at the bottom
  };
  const paint = () => {
    const values = blocks[spec.key]?.data, active = blocks[spec.active]?.data, total = blocks[spec.total]?.data, marks = blocks[spec.marks]?.data, level = (k) => (marks && Number.isFinite(marks[k]) ? marks[k] : null);
    if (!values) return;
    if (rows.length !== values.length) build(values.length);
    const most = Math.max(...Array.from(values, (v, k) => Math.max(Number.isFinite(v) ? v : 0, level(k) ?? 0)), 1e-9);
    if (most > top || most < 0.5 * top) top = most * 1.1;
    rows.forEach((row, k) => {
      const low = spec.low !== undefined && values[k] < spec.low;
      row.bar.style.width = `${Math.max(0, Math.min(100, (100 * values[k]) / top))}%`;
      row.mark.hidden = level(k) === null; row.mark.style.left = `${(100 * (level(k) ?? 0)) / top}%`; if (level(k) !== null) row.node.dataset.mark = level(k).toFixed(4);
      LL.put(row.value, `${Number.isFinite(values[k]) ? LL.number(values[k]) : "–"}${level(k) === null ? "" : ` ${spec.against ?? "of"} ${LL.number(level(k))}`}`); row.node.classList.toggle("low", low); row.node.dataset.value = values[k].toFixed(4);
      if (!active || !total) return;
      LL.put(row.units, `${Math.round(active[k])} of ${Math.round(total[k])} ${LL.unit(Math.round(total[k]), "units")} active${low ? `: ${spec.word ?? "collapsed"}` : ""}`);
      const few = total[k] <= 8 ? Math.round(total[k]) : 0;
      while (row.dots.children.length > few) row.dots.lastChild.remove();
      while (row.dots.children.length < few) row.dots.append(LL.el("i"));
      [...row.dots.children].forEach((dot, i) => dot.classList.toggle("on", i < active[k]));
    });
  };
  return { node: frame.node, frame: (next) => { blocks = next; }, paint, theme: () => { rows = []; paint(); }, destroy: () => {} };
};
