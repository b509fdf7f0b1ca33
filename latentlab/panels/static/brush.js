// Paint and erase on an image. Each stroke is sent once, when the pointer is lifted: a byte a pixel, 255 where painted.
LL.brush = (spec, tell) => {
  const frame = LL.plotFrame(spec.title ?? spec.label ?? "Brush", spec.note ?? "", "brush"), canvas = LL.el("canvas", { class: "ll-brush-canvas", tabindex: "0", role: "application" }), answer = LL.answer(), spot = LL.el("i", { class: "ll-brush-spot", hidden: true });
  const button = (text, why, call) => LL.el("button", { type: "button", class: "ll-mini", text, title: why, "aria-label": why, on: { click: call } });
  const tool = LL.segments("brush", [{ label: "paint", help: "paint with the pointer, or with Space at the keyboard's cursor" }, { label: "erase", help: "take paint away" }], (k) => { erase = k === 1; });
  const size = LL.el("input", { type: "range", min: 1, max: 9, step: 1, value: spec.size ?? 3, "aria-label": "width of the brush in pixels", "data-brush-size": "" }), wide = LL.el("output", { class: "ll-value" });
  const undo = button("↶ undo", "undo the last stroke", () => { const steps = undone(); if (steps.length) { masks.set(index, steps.pop()); send(); } }), clear = button("clear", "take all paint away", () => { remember(); masks.set(index, new Uint8Array(area())); send(); });
  const before = button("‹", "image before", () => turn(-1)), after = button("›", "next image", () => turn(1)), which = LL.el("span", { class: "ll-note" }), share = LL.el("span", { class: "ll-note ll-brush-share" });
  const pages = LL.el("span", { class: "ll-brush-pages" }, before, which, after);
  const side = LL.el("div", { class: "ll-brush-side" }, tool, LL.el("label", { class: "ll-brush-size" }, "width", size, wide), LL.el("div", { class: "ll-brush-buttons" }, undo, clear), pages, share);
  frame.area.replaceWith(LL.el("div", { class: "ll-brush" }, LL.el("div", { class: "ll-brush-stage" }, canvas, spot), side), answer.node); frame.legend.remove();
  const masks = new Map(), sent = new Map(), history = new Map();
  let blocks = {}, erase = false, index = spec.start ?? 0, last = null, cursor = null, pressed = false, asked = 0;
  const shape = () => { const found = blocks[spec.image ?? "image"]?.shape; return found && found.length >= 3 ? [found[0], found[1], found[2], found[3] ?? 1] : null; };
  const area = () => { const found = shape(); return found ? found[1] * found[2] : 0; };
  const undone = () => { if (!history.has(index)) history.set(index, []); return history.get(index); };
  const told = () => { const block = blocks[spec.key], pixels = area(); return block && block.data.length >= pixels * (index + 1) && block.shape.length === 3 ? Uint8Array.from(block.data.subarray(index * pixels, (index + 1) * pixels)) : new Uint8Array(pixels); };
  const mask = () => { const now = masks.get(index); return now && now.length === area() ? now : told(); }; // one's own until Python has it, then what Python says
  const remember = () => { const steps = undone(), now = mask(); steps.push(now.slice()); if (steps.length > 30) steps.shift(); masks.set(index, now); };
  const send = () => { const now = mask().slice(); sent.set(index, [now.slice(), performance.now()]); answer.clear(); paint(); tell(spec.key, "paint", index, now); };
  const heard = () => { const [now, since] = sent.get(index) ?? []; if (now && blocks[spec.key] && !pressed && (performance.now() - since > 4000 || told().every((v, p) => v === now[p]))) { sent.delete(index); masks.delete(index); } };
  const turn = (step) => { const found = shape(); if (found) { index = (index + step + found[0]) % found[0]; paint(); if (spec.turns) { asked = performance.now(); tell(spec.key, "turn", index); } } };
  const dab = (x, y) => { // a disc: all pixels whose centres are nearer than half the brush's width
    const [, height, width] = shape(), r = Number(size.value) / 2, now = mask();
    for (let j = Math.max(0, Math.floor(y - r)); j <= Math.min(height - 1, Math.ceil(y + r)); j++) for (let i = Math.max(0, Math.floor(x - r)); i <= Math.min(width - 1, Math.ceil(x + r)); i++) if (Math.hypot(i + 0.5 - x, j + 0.5 - y) <= Math.max(r, 0.71)) now[j * width + i] = erase ? 0 : 255;
  };
  const line = (from, to) => { const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1]))); for (let k = 0; k <= steps; k++) dab(from[0] + ((to[0] - from[0]) * k) / steps, from[1] + ((to[1] - from[1]) * k) / steps); };
  const place = (event) => { const box = canvas.getBoundingClientRect(), [, height, width] = shape(); return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height]; };
  const show = (point) => {
    spot.hidden = !point;
    if (!point) return;
    const [, , width] = shape(), unit = canvas.clientWidth / width, d = Math.max(6, Number(size.value) * unit);
    spot.style.cssText = `left:${point[0] * unit - d / 2}px;top:${point[1] * unit - d / 2}px;width:${d}px;height:${d}px`;
  };
  canvas.addEventListener("pointerdown", (event) => { if (event.button !== 0 || !shape()) return; event.preventDefault(); canvas.focus({ preventScroll: true }); canvas.setPointerCapture(event.pointerId); remember(); pressed = true; last = place(event); dab(...last); paint(); });
  canvas.addEventListener("pointermove", (event) => { if (!shape()) return; const to = place(event); show(to); if (pressed && last) { line(last, to); last = to; paint(); } });
  const lift = () => { if (!pressed) return; pressed = false; last = null; send(); };
  canvas.addEventListener("pointerup", lift); canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) show(null); });
  canvas.addEventListener("blur", () => show(null));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key], found = shape();
    if (!found) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); event.stopPropagation(); undo.click(); return; }
    if (!step && event.key !== " ") return;
    event.preventDefault();
    cursor ??= [Math.floor(found[2] / 2) + 0.5, Math.floor(found[1] / 2) + 0.5];
    if (step) { const far = event.shiftKey ? 4 : 1, next = [Math.max(0.5, Math.min(found[2] - 0.5, cursor[0] + far * step[0])), Math.max(0.5, Math.min(found[1] - 0.5, cursor[1] + far * step[1]))]; if (pressed) line(cursor, next); cursor = next; }
    if (event.key === " " && !pressed) { remember(); pressed = true; dab(...cursor); }
    paint(); show(cursor);
  });
  canvas.addEventListener("keyup", (event) => { if (event.key === " ") { event.preventDefault(); lift(); } });
  size.addEventListener("input", () => paint());
  const paint = () => {
    const found = shape(), block = blocks[spec.image ?? "image"];
    if (!found) return;
    index = Math.min(index, found[0] - 1);
    const [n, height, width, channels] = found, now = mask(), ctx = canvas.getContext("2d"), tint = LL.rgb(spec.colour ?? "#E69F00"), unit = block.data instanceof Uint8Array ? 1 : 255;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; canvas.style.aspectRatio = `${width} / ${height}`; }
    const image = ctx.createImageData(width, height), from = index * height * width * channels;
    let painted = 0;
    for (let p = 0; p < height * width; p++) {
      const on = now[p] / 255;
      painted += on;
      for (let c = 0; c < 3; c++) image.data[4 * p + c] = unit * block.data[from + p * channels + (channels === 3 ? c : 0)] * (1 - 0.62 * on) + 0.62 * on * tint[c];
      image.data[4 * p + 3] = 255;
    }
    ctx.putImageData(image, 0, 0);
    LL.put(which, `image ${index + 1} of ${n}`); pages.hidden = n < 2; LL.put(share, `${LL.percent(painted / (height * width))} painted`); LL.put(wide, `${size.value} px`);
    size.style.setProperty("--p", `${(100 * (size.value - 1)) / 8}%`); undo.disabled = !undone().length; clear.disabled = !painted;
    canvas.setAttribute("aria-label", `paint on image ${index + 1}: arrow keys move, Space paints, Ctrl+Z undoes`);
    Object.assign(frame.node.dataset, { source: spec.key, painted: String(Math.round(painted)), index: String(index) });
  };
  return { node: frame.node, sources: [spec.key], frame: (next) => { blocks = next; heard(); }, paint, theme: paint, destroy: () => {},
    place: (positions) => { if (spec.turns && spec.key in positions && !pressed && performance.now() - asked > 700 && positions[spec.key] !== index) { index = positions[spec.key]; paint(); } },
    refused: (source, sentence) => { masks.delete(index); const was = undone().pop(); if (was && !blocks[spec.key]) masks.set(index, was); answer.say(sentence); paint(); } };
};
