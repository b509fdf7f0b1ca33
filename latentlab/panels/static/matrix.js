// A heat map of numbers with names at its rows and columns; a cell can be pointed at, clicked, and reached with the arrow keys.
LL.matrix = (spec, tell) => {
  const frame = LL.plotFrame(spec.title ?? spec.label ?? spec.key, spec.note ?? "", "matrix"), sheet = LL.sheet(spec.title ?? spec.key, "matrix"), readout = LL.el("span", { class: "ll-legend-item ll-readout", "aria-live": "polite" }), answer = LL.answer();
  frame.area.replaceWith(sheet.canvas, answer.node); frame.legend.remove(); frame.tools.append(readout);
  const canvas = sheet.canvas;
  canvas.tabIndex = 0; canvas.setAttribute("role", "application"); canvas.setAttribute("aria-label", `${spec.title ?? spec.key}: arrow keys choose a cell, Enter picks it`);
  let blocks = {}, view = null, cell = null, picked = null;
  const row = (r) => spec.rows?.[r] ?? String(r + 1), column = (c) => spec.columns?.[c] ?? String(c + 1);
  const range = (data) => {
    let low = Infinity, high = -Infinity;
    for (const v of data) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
    if (low > high) [low, high] = [0, 1];
    if (spec.signed) { const most = spec.high ?? (Math.max(high, -low) || 1); return [-most, most]; }
    low = spec.low ?? Math.min(0, low); high = spec.high ?? high;
    return low < high ? [low, high] : [low, low + 1];
  };
  const paint = () => {
    const block = blocks[spec.key];
    if (!block || block.shape.length !== 2) return;
    const [rows, columns] = block.shape, probe = canvas.getContext("2d"), width = canvas.clientWidth;
    if (!width) return;
    probe.font = LL.FONT;
    const wide = (texts) => Math.max(0, ...texts.map((text) => probe.measureText(text).width)), names = Array.from({ length: rows }, (_, r) => row(r)), heads = Array.from({ length: columns }, (_, c) => column(c));
    const left = Math.min(0.4 * width, wide(names) + 10), right = 62, size = Math.max(6, Math.min(46, (width - left - right) / columns)), turned = wide(heads) > size - 4, top = turned ? Math.min(90, wide(heads) * 0.72 + 16) : 18;
    const low = Math.min(size, Math.max(14, 340 / rows)), wanted = `${Math.round(top + rows * low + 6)}px`;
    if (canvas.style.height !== wanted) canvas.style.height = wanted;
    const place = sheet.begin();
    if (!place) return;
    const { ctx, ink } = place, ends = range(block.data), colours = spec.signed ? LL.SIGNED(LL.dark()) : LL.MAGMA, at = (v) => 3 * Math.max(0, Math.min(255, Math.round((255 * (v - ends[0])) / (ends[1] - ends[0])))), fine = size >= 32 && low >= 15;
    ctx.textBaseline = "middle";
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const v = block.data[r * columns + c], k = at(v), x = left + c * size, y = top + r * low;
      if (!Number.isFinite(v)) { ctx.strokeStyle = ink.grid; ctx.strokeRect(x + 0.5, y + 0.5, size - 2, low - 2); continue; }
      ctx.fillStyle = `rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`; ctx.fillRect(x, y, size - 1, low - 1);
      if (fine) { ctx.textAlign = "center"; ctx.fillStyle = 0.3 * colours[k] + 0.59 * colours[k + 1] + 0.11 * colours[k + 2] > 140 ? "#111" : "#fff"; ctx.fillText(LL.number(v, 2), x + size / 2, y + low / 2); }
    }
    ctx.fillStyle = ink.text; ctx.textAlign = "right";
    const shorten = (text, room) => { if (ctx.measureText(text).width <= room) return text; while (text.length > 1 && ctx.measureText(`${text}…`).width > room) text = text.slice(0, -1); return `${text}…`; };
    names.forEach((text, r) => ctx.fillText(shorten(text, left - 8), left - 6, top + (r + 0.5) * low));
    heads.forEach((text, c) => {
      ctx.save(); ctx.translate(left + (c + 0.5) * size, top - 5);
      if (turned) { ctx.rotate(-Math.PI / 4); ctx.textAlign = "left"; } else { ctx.textAlign = "center"; ctx.textBaseline = "bottom"; }
      ctx.fillText(turned ? shorten(text, 104) : text, 0, 0); ctx.restore();
    });
    const bar = left + columns * size + 8, height = rows * low - 1;
    for (let i = 0; i < height; i++) { const k = 3 * Math.round((255 * (height - 1 - i)) / Math.max(1, height - 1)); ctx.fillStyle = `rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`; ctx.fillRect(bar, top + i, 9, 1.5); }
    ctx.fillStyle = ink.text; ctx.textAlign = "left"; ctx.textBaseline = "middle";
    for (const v of LL.steps(ends[0], ends[1], height, 26)) ctx.fillText(LL.number(v), bar + 13, Math.max(top + 5, Math.min(top + height - 5, top + height - (height * (v - ends[0])) / (ends[1] - ends[0]))));
    for (const [one, colour, line] of [[picked, ink.accent, 2.5], [cell, ink.strong, 1.5]]) if (one && one[0] < rows && one[1] < columns) { ctx.strokeStyle = colour; ctx.lineWidth = line; ctx.strokeRect(left + one[1] * size - 0.5, top + one[0] * low - 0.5, size, low); }
    view = { rows, columns, left, top, size, low, data: block.data };
    LL.put(readout, words()); Object.assign(frame.node.dataset, { source: spec.key, cells: `${rows},${columns}`, picked: picked ? picked.join() : "" });
  };
  const words = () => { const one = cell ?? picked; return one && view && one[0] < view.rows && one[1] < view.columns ? `${row(one[0])}, ${column(one[1])}: ${LL.number(view.data[one[0] * view.columns + one[1]])} ${spec.unit ?? ""}` : spec.unit ?? ""; };
  const under = (event) => {
    if (!view) return null;
    const home = canvas.getBoundingClientRect(), c = Math.floor((event.clientX - home.left - view.left) / view.size), r = Math.floor((event.clientY - home.top - view.top) / view.low);
    return r >= 0 && c >= 0 && r < view.rows && c < view.columns ? [r, c] : null;
  };
  const pick = (one) => { if (!one) return; picked = one; answer.clear(); paint(); tell(spec.key, "click", one); };
  canvas.addEventListener("pointermove", (event) => { const one = under(event); if (String(one) !== String(cell)) { cell = one; canvas.style.cursor = one ? "pointer" : "default"; paint(); } });
  canvas.addEventListener("pointerleave", () => { cell = null; paint(); });
  canvas.addEventListener("click", (event) => pick(under(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step && view) { event.preventDefault(); const from = cell ?? picked ?? [0, 0]; cell = [Math.max(0, Math.min(view.rows - 1, from[0] + step[0])), Math.max(0, Math.min(view.columns - 1, from[1] + step[1]))]; paint(); }
    if ((event.key === "Enter" || event.key === " ") && cell) { event.preventDefault(); pick(cell); }
  });
  return { node: frame.node, sources: [spec.key], frame: (next) => { blocks = next; }, paint, theme: paint, destroy: () => {}, refused: (source, sentence) => { picked = null; answer.say(sentence); paint(); } };
};
