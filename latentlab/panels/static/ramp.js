// A weight over the steps, from corner to corner; one corner is dragged along the steps, and what lies before it stretches with it.
LL.ramp = (spec, tell) => {
  const key = spec.key, least = spec.low ?? 0, frame = LL.plotFrame(spec.title ?? key, spec.note ?? "", "ramp"), sheet = LL.sheet(spec.title ?? key, "ramp"), answer = LL.answer(), where = LL.el("b", { class: "ll-film-where" }), canvas = sheet.canvas;
  frame.area.replaceWith(canvas, answer.node); frame.legend.remove(); frame.tools.append(where);
  canvas.tabIndex = 0; canvas.setAttribute("role", "slider"); canvas.setAttribute("aria-valuemin", String(least)); canvas.setAttribute("aria-valuemax", String(spec.high));
  let blocks = {}, own = null, dragged = false, range = 1, view = null, asked = 0;
  const post = LL.throttle((v) => { asked = performance.now(); tell(key, "slide", v); });
  const given = () => { const block = blocks[key]; return block ? Array.from({ length: block.shape[0] }, (_, i) => [block.data[2 * i], block.data[2 * i + 1]]) : null; };
  const corners = () => { // with the corner where the hand has it
    const points = given(), end = points[spec.corner][0];
    if (own === null || own === end) return points;
    return end > 0 ? points.map(([x, y]) => [(x * own) / end, y]) : [[0, 0], ...points.slice(1).map(([, y]) => [own, y])];
  };
  const move = (v, final) => { own = Math.round(Math.max(least, Math.min(spec.high, v))); answer.clear(); paint(); post(own, final); };
  const locate = (event) => { const home = canvas.getBoundingClientRect(); return [event.clientX - home.left, event.clientY - home.top]; };
  const near = (event) => { if (!view) return false; const [x, y] = locate(event); return Math.hypot(x - view.x, y - view.y) < 18; };
  canvas.addEventListener("pointerdown", (event) => { if (event.button === 0 && near(event)) { dragged = true; canvas.setPointerCapture(event.pointerId); event.preventDefault(); canvas.focus({ preventScroll: true }); } });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged) { canvas.style.cursor = near(event) ? "ew-resize" : "default"; return; }
    move(((locate(event)[0] - view.left) / view.width) * range, false);
  });
  const release = () => { if (dragged) { dragged = false; move(own ?? corners()[spec.corner][0], true); } };
  canvas.addEventListener("pointerup", release); canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("keydown", (event) => {
    const points = given();
    if (!points) return;
    const at = own ?? points[spec.corner][0], jump = Math.max(1, Math.round(range / 50)), next = { ArrowRight: at + jump, ArrowUp: at + jump, ArrowLeft: at - jump, ArrowDown: at - jump, PageUp: at + 10 * jump, PageDown: at - 10 * jump, Home: least }[event.key];
    if (next !== undefined) { event.preventDefault(); move(next, true); }
  });
  const paint = () => {
    const points = given();
    if (!points || !points[spec.corner]) return;
    if (own !== null && !dragged && (own === points[spec.corner][0] || performance.now() - asked > 3000)) own = null;
    const shown = corners(), end = shown[spec.corner][0], now = blocks[spec.now]?.data[0], place = sheet.begin();
    if (!dragged) range = Math.max(100, 1.6 * end, 1.15 * (now ?? 0));
    canvas.setAttribute("aria-valuenow", String(end)); canvas.setAttribute("aria-valuetext", `${LL.number(end)} steps`); canvas.setAttribute("aria-label", `${spec.title ?? key}: arrow keys move its end`);
    LL.put(where, `${Math.round(end).toLocaleString("en")} ${LL.unit(end, "steps")}`);
    frame.node.dataset.source = key; frame.node.dataset.value = String(end);
    if (!place) return;
    const { ctx, ink, width, height } = place, box = { left: 34, top: 9, width: width - 46, height: height - 33 }, at = LL.box(ctx, ink, box, [0, range], [0, 1], { grid: true, ys: [0, 0.5, 1], room: 60 });
    const line = () => { for (const [x, y] of [...shown, [Math.max(range, shown[shown.length - 1][0]), shown[shown.length - 1][1]]]) ctx.lineTo(at.x(x), at.y(y)); };
    ctx.save(); ctx.beginPath(); ctx.rect(box.left - 1, box.top - 8, box.width + 2, box.height + 9); ctx.clip();
    if (now !== undefined && now <= range) { // what is paid so far
      ctx.save(); ctx.beginPath(); ctx.rect(box.left, box.top, at.x(now) - box.left, box.height); ctx.clip();
      ctx.beginPath(); ctx.moveTo(at.x(0), at.y(0)); line(); ctx.lineTo(at.x(range), at.y(0)); ctx.globalAlpha = 0.18; ctx.fillStyle = ink.accent; ctx.fill(); ctx.restore();
      ctx.beginPath(); ctx.moveTo(at.x(now), box.top); ctx.lineTo(at.x(now), box.top + box.height); ctx.strokeStyle = ink.text; ctx.setLineDash([3, 3]); ctx.lineWidth = 1; ctx.stroke(); ctx.setLineDash([]);
    }
    ctx.beginPath(); line(); ctx.strokeStyle = ink.accent; ctx.lineWidth = 2; ctx.stroke();
    ctx.restore();
    const [x, y] = [at.x(end), at.y(shown[spec.corner][1])];
    ctx.beginPath(); ctx.arc(x, y, 7, 0, 6.3); ctx.fillStyle = ink.page; ctx.fill(); ctx.strokeStyle = ink.accent; ctx.lineWidth = 2.5; ctx.stroke();
    view = { x, y, left: box.left, width: box.width }; frame.node.dataset.at = `${x.toFixed(1)},${y.toFixed(1)},${box.left}`;
  };
  return { node: frame.node, sources: [key], frame: (next) => { blocks = next; }, paint, theme: paint, destroy: () => post.stop(), refused: (source, sentence) => { own = null; post.forget(); answer.say(sentence); paint(); } };
};
