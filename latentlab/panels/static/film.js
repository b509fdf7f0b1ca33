// Frames along an axis: all of them small, one of them large, a scrubber below. Which one is shown stays in the browser; Python hears of it when it asked to.
LL.strip = (spec, tell) => {
  const frame = LL.plotFrame(spec.label ?? spec.title ?? spec.key, spec.note ?? "", "strip"), id = `ll${Math.random().toString(36).slice(2, 8)}`;
  const large = LL.el("canvas", { class: "ll-film-large", role: "img" }), small = LL.el("canvas", { class: "ll-film-small" }), mark = LL.el("i", { class: "ll-film-mark" }), ticks = LL.el("div", { class: "ll-film-ticks", "aria-hidden": "true" });
  const range = LL.el("input", { type: "range", id, min: 0, max: 0, step: 1, value: 0, "data-scrub": spec.key, "aria-label": `${spec.label ?? spec.key}: position on ${spec.axis ?? "the axis"}` });
  const where = LL.el("b", { class: "ll-film-where" }), answer = LL.answer(), film = LL.el("div", { class: "ll-film-row" }, small, mark);
  const body = LL.el("div", { class: "ll-film" }, large, LL.el("div", { class: "ll-film-reel" }, film, range, ticks));
  frame.area.replaceWith(body, answer.node); frame.legend.remove(); frame.tools.append(where);
  let blocks = {}, at = spec.start ?? 0, n = 0, chosen = [], built = "", asked = 0;
  const post = LL.throttle((k) => { asked = performance.now(); tell(spec.key, "scrub", k); });
  const name = (k) => (spec.ticks?.[k] === undefined || spec.ticks[k] === null ? String(k + 1) : LL.number(spec.ticks[k]));
  const sizes = () => { const shape = blocks[spec.key]?.shape; return !shape || shape.length < 4 ? null : shape.length === 5 ? shape : [1, ...shape]; }; // rows, frames, height, width, channels
  const draw = (context, data, start, height, width, channels, left, top) => {
    const image = context.createImageData(width, height), unit = data instanceof Uint8Array ? 1 : 255;
    for (let p = 0; p < height * width; p++) for (let c = 0; c < 4; c++) image.data[4 * p + c] = c === 3 ? 255 : unit * data[start + p * channels + (channels === 3 ? c : 0)];
    context.putImageData(image, left, top);
  };
  const move = (k, final, said = true) => {
    const next = Math.max(0, Math.min(n - 1, Math.round(k)));
    if (next !== at || final) { at = next; answer.clear(); paint(); if (said && spec.scrub) post(at, final); }
  };
  range.addEventListener("input", () => move(Number(range.value), false));
  range.addEventListener("change", () => move(Number(range.value), true));
  small.addEventListener("click", (event) => {
    const box = small.getBoundingClientRect(), k = chosen[Math.min(chosen.length - 1, Math.floor((chosen.length * (event.clientX - box.left)) / box.width))];
    move(k, true); tell(spec.key, "click", k);
  });
  const paint = () => {
    const size = sizes();
    if (!size) return;
    const [rows, frames, height, width, channels] = size, data = blocks[spec.key].data, side = Math.min(150, (190 * width) / (rows * height)), room = body.clientWidth > 0 ? Math.max(120, body.clientWidth - side - 14) : 500, gap = Math.max(1, Math.round(width / 18));
    n = frames; at = Math.min(at, n - 1);
    const most = Math.max(2, Math.min(n, Math.floor(room / 28)));
    chosen = n <= most ? Array.from({ length: n }, (_, k) => k) : Array.from({ length: most }, (_, j) => Math.round((j * (n - 1)) / (most - 1)));
    small.width = chosen.length * width + (chosen.length - 1) * gap; small.height = rows * height + (rows - 1) * gap;
    large.width = width; large.height = small.height; large.style.width = `${side}px`;
    const one = small.getContext("2d"), two = large.getContext("2d");
    for (let r = 0; r < rows; r++) {
      chosen.forEach((k, j) => draw(one, data, (r * n + k) * height * width * channels, height, width, channels, j * (width + gap), r * (height + gap)));
      draw(two, data, (r * n + at) * height * width * channels, height, width, channels, 0, r * (height + gap));
    }
    const reel = Math.min(room, chosen.length * Math.min(86, (86 * width) / height, (258 * width) / (rows * height))), cell = reel / chosen.length;
    film.parentNode.style.width = `${reel}px`;
    range.max = n - 1; range.value = at; range.style.margin = `0 ${Math.max(0, cell / 2 - 7)}px`; range.style.width = `${reel - 2 * Math.max(0, cell / 2 - 7)}px`; range.style.setProperty("--p", `${(100 * at) / Math.max(1, n - 1)}%`);
    const place = n > 1 ? cell / 2 + ((reel - cell) * at) / (n - 1) : cell / 2;
    mark.style.cssText = `left:${place - cell / 2}px;width:${cell}px`;
    const said = `${spec.axis ?? "frame"} ${name(at)}${spec.unit ? ` ${spec.unit}` : ""}`;
    range.setAttribute("aria-valuetext", said); LL.put(where, said); large.setAttribute("aria-label", `${spec.label ?? spec.key} at ${said}`); small.title = `click a frame, or move the scrubber: ${spec.axis ?? "frame"}`;
    const now = JSON.stringify([chosen, spec.ticks, Math.round(cell)]);
    if (now !== built) {
      built = now;
      const every = Math.max(1, Math.ceil((10 + 7 * Math.max(...chosen.map((k) => name(k).length))) / cell));
      ticks.style.gridTemplateColumns = `repeat(${chosen.length}, minmax(0, 1fr))`;
      ticks.replaceChildren(...chosen.map((k, j) => LL.el("span", { text: j % every ? "" : name(k) })));
    }
    Object.assign(frame.node.dataset, { source: spec.key, at: String(at), frames: String(n) });
  };
  return { node: frame.node, sources: [spec.key], frame: (next) => { blocks = next; }, paint, theme: paint, destroy: () => post.stop(),
    place: (positions) => { if (spec.key in positions && performance.now() - asked > 700 && positions[spec.key] !== at) { at = positions[spec.key]; paint(); } },
    refused: (source, sentence) => answer.say(sentence) };
};
