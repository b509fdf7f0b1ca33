// Lines through points that can be chosen: a click takes the nearest point, arrow keys walk along them, a marker stands on each line.
LL.lines = (spec, tell) => {
  const key = spec.key, frame = LL.plotFrame(spec.title ?? key, spec.note ?? "", "lines"), sheet = LL.sheet(spec.title ?? key, "lines"), answer = LL.answer(), canvas = sheet.canvas;
  const lines = spec.lines.map((line, i) => ({ colour: LL.OKABE[i % LL.OKABE.length], ...line }));
  frame.area.replaceWith(canvas, answer.node); frame.node.title = spec.help ?? "";
  for (const line of lines) { line.value = LL.el("b", {}); line.item = LL.el("span", { class: "ll-legend-item" }, LL.keySwatch(line), LL.el("span", { text: line.label }), line.value); frame.legend.append(line.item); }
  canvas.tabIndex = 0; canvas.setAttribute("role", "application"); canvas.setAttribute("aria-label", `${spec.title ?? key}: arrow keys choose a point`);
  let blocks = {}, spots = [], own = null, asked = 0;
  const rows = () => { const block = blocks[key]; if (!block) return []; const wide = 1 + lines.length; return Array.from({ length: block.data.length / wide }, (_, i) => Array.from(block.data.subarray(i * wide, (i + 1) * wide))); };
  const standing = () => { const block = blocks[spec.now]; return block && Number.isFinite(block.data[0]) ? Array.from(block.data) : null; };
  const pick = (index) => { own = index; asked = performance.now(); answer.clear(); paint(); tell(spec.slides, "slide", spec.values[index]); };
  const near = (x, y) => { let best = null; for (const spot of spots) { const far = Math.hypot(spot.x - x, spot.y - y); if (!best || far < best.far) best = { far, index: spot.index }; } return best?.index ?? null; };
  canvas.addEventListener("click", (event) => { const home = canvas.getBoundingClientRect(), index = near(event.clientX - home.left, event.clientY - home.top); if (index !== null) pick(index); });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key], points = rows(), now = standing();
    if (!move || !points.length) return;
    event.preventDefault();
    const order = points.map((_, i) => i).sort((a, b) => points[a][0] - points[b][0]), place = own ?? (now ? order.reduce((best, i) => (Math.abs(points[i][0] - now[0]) < Math.abs(points[best][0] - now[0]) ? i : best), order[0]) : order[0]);
    pick(order[Math.max(0, Math.min(order.length - 1, order.indexOf(place) + move))]);
  });
  const paint = () => {
    const points = rows(), place = sheet.begin();
    if (own !== null && performance.now() - asked > 1500) own = null;
    frame.node.dataset.source = key; frame.node.dataset.points = String(points.length);
    if (!place || !points.length) return;
    const now = standing(), { ctx, ink, width, height } = place, shown = now ? [...points, now] : points, finite = (v) => Number.isFinite(v);
    const low = Math.min(0, ...shown.flatMap((row) => row.slice(1)).filter(finite)), high = Math.max(...shown.flatMap((row) => row.slice(1)).filter(finite)) || 1, most = Math.max(...shown.map((row) => row[0]).filter(finite)) || 1;
    const box = { left: spec.y ? 62 : 40, top: 8, width: width - (spec.y ? 76 : 54), height: height - (spec.x ? 46 : 30) };
    const at = LL.box(ctx, ink, box, [0, most * 1.04], [low, low + (high - low) * 1.08], { x: spec.x ?? "", grid: true });
    if (spec.y) { ctx.save(); ctx.fillStyle = ink.text; ctx.translate(9, box.top + box.height / 2); ctx.rotate(-Math.PI / 2); ctx.textAlign = "center"; ctx.textBaseline = "middle"; ctx.fillText(spec.y, 0, 0); ctx.restore(); }
    spots = [];
    lines.forEach((line, k) => {
      const colour = LL.themed(line.colour), way = points.map((row, index) => ({ x: at.x(row[0]), y: at.y(row[k + 1]), index })).filter((spot) => finite(spot.x) && finite(spot.y));
      ctx.strokeStyle = colour; ctx.fillStyle = colour; ctx.lineWidth = 1.75; ctx.setLineDash(line.dash ? [5, 3] : []);
      ctx.beginPath(); way.forEach((spot) => ctx.lineTo(spot.x, spot.y)); ctx.stroke(); ctx.setLineDash([]);
      for (const spot of way) { ctx.beginPath(); ctx.arc(spot.x, spot.y, 2.2, 0, 7); ctx.fill(); }
      spots.push(...way);
      if (now && finite(now[k + 1])) { ctx.beginPath(); ctx.arc(at.x(now[0]), at.y(now[k + 1]), 5.5, 0, 7); ctx.fillStyle = line.dash ? ink.page : colour; ctx.fill(); ctx.lineWidth = 2; ctx.stroke(); }
      LL.put(line.value, now ? LL.number(now[k + 1]) : "");
    });
    if (now) { frame.node.dataset.now = now.map((v) => v.toPrecision(5)).join(","); frame.node.dataset.at = spots.slice(0, points.length).map((spot) => `${spot.x.toFixed(0)},${spot.y.toFixed(0)}`).join(" "); }
  };
  return { node: frame.node, sources: [], frame: (next) => { blocks = next; }, paint, theme: () => { lines.forEach((line) => line.item.replaceChild(LL.keySwatch(line), line.item.firstChild)); paint(); }, destroy: () => {}, refused: (source, sentence) => { own = null; answer.say(sentence); paint(); } };
};
