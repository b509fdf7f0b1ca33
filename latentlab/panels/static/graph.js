// Nodes and arrows in layers. Editable: drag between nodes, or click one and Shift-click another, to add an arrow; its x cuts it.
LL.svg = (tag, options = {}, ...children) => {
  const node = document.createElementNS("http:" + "//www.w3.org/2000/svg", tag); // a name, not an address: nothing is fetched
  for (const [key, value] of Object.entries(options)) if (value !== null && value !== undefined) { if (key === "text") node.textContent = value; else node.setAttribute(key, value); }
  node.append(...children);
  return node;
};

// does an arrow lead from a to b, over any others?
LL.reaches = (edges, a, b) => { const seen = new Set([a]), stack = [a]; while (stack.length) { const at = stack.pop(); if (at === b) return true; for (const [p, q] of edges) if (p === at && !seen.has(q)) { seen.add(q); stack.push(q); } } return false; };

// layer = longest way from a node without parents; within a layer nodes stand near the mean of their parents
LL.layers = (names, edges) => {
  const layer = new Map(names.map((name) => [name, 0]));
  for (let k = 0; k < names.length; k++) for (const [a, b] of edges) if (a !== b && layer.get(b) < layer.get(a) + 1 && layer.get(a) + 1 < names.length) layer.set(b, layer.get(a) + 1);
  const rows = Array.from({ length: Math.max(0, ...layer.values()) + 1 }, (_, k) => names.filter((name) => layer.get(name) === k)).filter((row) => row.length), place = new Map();
  rows.forEach((row, k) => {
    const mean = (name) => { const up = edges.filter(([, b]) => b === name).map(([a]) => place.get(a)?.share).filter((v) => v !== undefined); return up.length ? up.reduce((s, v) => s + v, 0) / up.length : 0.5; };
    if (k) row = row.map((name, i) => [name, mean(name), i]).sort((p, q) => p[1] - q[1] || p[2] - q[2]).map(([name]) => name);
    row.forEach((name, i) => place.set(name, { row: k, share: (i + 0.5) / row.length, of: row.length }));
  });
  return { place, rows: rows.length };
};

LL.past = new WeakMap(); // who is told -> key of a graph -> its names, and its arrows before each edit

LL.graph = (spec, tell) => {
  const key = spec.key ?? "graph", frame = LL.plotFrame(spec.title ?? "Graph", spec.note ?? "", "graph"), answer = LL.answer(), stage = LL.el("div", { class: "ll-graph" }), hint = LL.el("div", { class: "ll-note ll-graph-hint", "aria-live": "polite" });
  const names = spec.nodes.map((node) => node.name), label = (name) => spec.nodes.find((node) => node.name === name)?.label ?? name, given = (spec.edges ?? []).map(([a, b]) => [a, b]);
  const undo = LL.el("button", { type: "button", class: "ll-mini", text: "↶ undo", title: "undo the last change of the arrows", disabled: true });
  if (spec.editable) frame.tools.append(undo);
  frame.legend.remove(); frame.area.replaceWith(stage, hint, answer.node);
  // an edit brings a new layout and with it a new graph: what can be undone is kept for graphs of the same nodes
  const past = LL.past.get(tell) ?? {}, kept = past[key], history = String(kept?.names) === String(names) ? kept.history : [];
  LL.past.set(tell, past); past[key] = { names, history }; undo.disabled = !history.length;
  let blocks = {}, edges = given.map((edge) => [...edge]), good = edges, first = null, drag = null, over = null, drawn = "", numbered = "", places = new Map(), small = [], rubber = null;
  const same = ([a, b], [c, d]) => a === c && b === d;
  const edit = (next, keep = true) => { if (keep) history.push(edges); edges = next; first = null; answer.clear(); undo.disabled = !history.length; draw(true); tell(key, "edit", { nodes: names, edges }); };
  undo.addEventListener("click", () => { if (history.length) edit(history.pop(), false); });
  const add = (a, b) => {
    first = null;
    if (a === b || edges.some((edge) => same(edge, [a, b]))) { draw(true); return; }
    if (spec.acyclic !== false && LL.reaches(edges, b, a)) { answer.say(`An arrow from ${label(a)} to ${label(b)} would close a circle: cut an arrow on the way from ${label(b)} to ${label(a)} first.`); draw(true); return; }
    edit([...edges, [a, b]]);
  };
  const pick = (name, joins = false) => {
    if (spec.editable && joins && first !== null && first !== name) { add(first, name); focus(name); return; }
    tell(key, "click", name);
    first = first === name ? null : name; draw(true);
    if (spec.editable) focus(name);
  };
  const focus = (name) => stage.querySelector(`[data-node="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
  const cut = (edge) => edit(edges.filter((one) => !same(one, edge)));
  const half = { x: 0, y: 15 };
  const meet = (from, to, gap) => { const dx = to.x - from.x, dy = to.y - from.y, k = Math.min(dx ? (from.half + gap) / Math.abs(dx) : Infinity, dy ? (half.y + gap) / Math.abs(dy) : Infinity, 0.48); return [from.x + k * dx, from.y + k * dy]; };
  const short = (text, room) => { const most = Math.max(3, Math.floor((2 * room - 8) / 6.6)); return text.length > most ? `${text.slice(0, most - 1)}…` : text; };
  const values = () => blocks[spec.values]?.data, idle = (i) => blocks[spec.active]?.data[i] === 0;
  const strength = (edge) => blocks[spec.strengths]?.data[given.findIndex((one) => same(one, edge))] ?? NaN; // of an arrow that the layout has
  // the stage holds the pointer while a node is pressed: a drawing is replaced, and the page may shift under a hand at rest
  const locate = (event) => { const box = stage.firstChild.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const hit = ([x, y]) => names.find((name) => { const p = places.get(name); return Math.abs(x - p.x) <= p.half + 3 && Math.abs(y - p.y) <= half.y + 3; });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.far ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 5;
    if (!drag.far || !spec.editable) return;
    const to = locate(event), from = places.get(drag.from);
    over = hit(to);
    for (const g of stage.querySelectorAll("[data-node]")) g.classList.toggle("over", g.dataset.node === over && over !== drag.from);
    rubber.setAttribute("d", `M${meet(from, { x: to[0], y: to[1] }, 1)} L${to}`);
  });
  stage.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { from, far } = drag, to = hit(locate(event));
    drag = null; over = null;
    if (!far) pick(from, event.shiftKey); else if (spec.editable && to && to !== from) add(from, to); else draw(true);
  });
  stage.addEventListener("pointercancel", () => { drag = null; over = null; draw(true); });
  const draw = (force = false) => {
    const width = stage.clientWidth, numbers = values(), text = JSON.stringify([width, edges, first, LL.dark(), Boolean(numbers), names.map((_, i) => idle(i)), edges.map(strength)]), figures = numbers ? Array.from(numbers, (v, i) => `${LL.number(v)} ${spec.unit ?? ""}${idle(i) ? ` · ${spec.idle ?? "passive"}` : ""}`) : [];
    if (!width || (drag && !force)) return;
    if (text === drawn && !force) { if (numbered !== String(figures)) { numbered = String(figures); small.forEach((one, i) => LL.put(one, figures[i] ?? "")); } return; }
    drawn = text; numbered = String(figures); small = [];
    const held = stage.contains(document.activeElement) ? document.activeElement.dataset.node ?? null : null;
    const { place, rows } = LL.layers(names, edges), space = 62, height = Math.max(54, rows * space - 14), wide = (name) => Math.max(22, 3.6 * Math.max(label(name).length, numbers ? 6 + (spec.unit ?? "").length + (idle(names.indexOf(name)) ? 4 + (spec.idle ?? "passive").length : 0) : 0) + 12);
    places = new Map(names.map((name) => { const p = place.get(name); return [name, { x: p.share * width, y: 20 + p.row * space, half: Math.min(wide(name), width / (2 * p.of) - 4) }]; }));
    const id = `ll${Math.random().toString(36).slice(2, 8)}`, svg = LL.svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${spec.title ?? "graph"}: ${names.length} nodes, ${edges.length} arrows` });
    svg.append(LL.svg("defs", {}, LL.svg("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerUnits: "userSpaceOnUse", markerWidth: 11, markerHeight: 11, orient: "auto-start-reverse" }, LL.svg("path", { d: "M0 0.6 L8 4 L0 7.4 Z", class: "ll-graph-head" }))));
    const crosses = [];
    for (const edge of edges) {
      const [a, b] = edge.map((name) => places.get(name)), skips = Math.abs(place.get(edge[1]).row - place.get(edge[0]).row) !== 1, bend = skips ? Math.min(70, 0.22 * Math.hypot(b.x - a.x, b.y - a.y)) * (a.x + b.x > width ? 1 : -1) : 0;
      const middle = { x: (a.x + b.x) / 2 + 2 * bend, y: (a.y + b.y) / 2, half: 0 }, p = meet(a, bend ? middle : b, 1), q = meet(b, bend ? middle : a, 3), at = [0.25 * p[0] + 0.5 * middle.x + 0.25 * q[0], 0.25 * p[1] + 0.5 * middle.y + 0.25 * q[1]];
      const force = strength(edge), known = Number.isFinite(force), weak = known && force < (spec.weak ?? 0), heavy = known ? 1.2 + (3.6 * Math.max(0, force)) / (Math.max(0, force) + 0.7) : null;
      svg.append(LL.svg("path", { d: bend ? `M${p} Q${middle.x},${middle.y} ${q}` : `M${p} L${q}`, class: `ll-graph-edge${weak ? " weak" : ""}`, style: heavy ? `stroke-width:${heavy.toFixed(2)}` : null, "marker-end": `url(#${id})`, "data-edge": edge.join(" > "), "data-strength": known ? force.toFixed(4) : null }));
      const [cx, cy] = bend ? at : [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2], left = q[0] < p[0] - 4;
      if (known) svg.append(LL.svg("text", { x: cx + (left ? -12 : 12), y: cy + 4, class: "ll-graph-force", "text-anchor": left ? "end" : "start", text: LL.number(force, 2) }, LL.svg("title", { text: `${label(edge[0])} → ${label(edge[1])}: strength ${LL.number(force)}` })));
      if (!spec.editable) continue;
      const cross = LL.svg("g", { class: "ll-graph-cut", transform: `translate(${[cx, cy]})`, tabindex: 0, role: "button", "data-cut": edge.join(" > "), "aria-label": `cut the arrow from ${label(edge[0])} to ${label(edge[1])}` }, LL.svg("title", { text: `cut ${label(edge[0])} → ${label(edge[1])}` }), LL.svg("circle", { r: 8 }), LL.svg("path", { d: "M-3 -3 L3 3 M-3 3 L3 -3" }));
      cross.addEventListener("pointerup", () => cut(edge)); // not click: a frame may redraw between press and release
      cross.addEventListener("keydown", (event) => { if (["Enter", " ", "Delete", "Backspace"].includes(event.key)) { event.preventDefault(); cut(edge); } });
      crosses.push(cross);
    }
    svg.append(...crosses);
    rubber = LL.svg("path", { class: "ll-graph-rubber", d: "", "marker-end": `url(#${id})` });
    spec.nodes.forEach((node, i) => {
      const at = places.get(node.name), g = LL.svg("g", { class: `ll-graph-node${first === node.name ? " on" : ""}${idle(i) ? " idle" : ""}`, transform: `translate(${at.x},${at.y})`, tabindex: 0, role: "button", "aria-pressed": String(first === node.name), "data-node": node.name, "aria-label": label(node.name), style: node.colour ? `--c:${LL.themed(node.colour)}` : null },
        LL.svg("title", { text: node.note ?? label(node.name) }), LL.svg("rect", { x: -at.half, y: -half.y, width: 2 * at.half, height: 2 * half.y, rx: 7 }), LL.svg("text", { y: numbers ? -2 : 4, text: short(label(node.name), at.half) }));
      if (numbers) { small.push(LL.svg("text", { y: 10, class: "small", text: figures[i] ?? "" })); g.append(small[i]); }
      g.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(node.name, event.shiftKey); }
        if (event.key === "Escape" && first !== null) { event.preventDefault(); first = null; draw(true); focus(node.name); }
      });
      g.addEventListener("pointerdown", (event) => { if (event.button === 0) { drag = { from: node.name, x: event.clientX, y: event.clientY, far: false }; event.preventDefault(); stage.setPointerCapture(event.pointerId); g.focus({ preventScroll: true }); } });
      svg.append(g);
    });
    svg.append(rubber);
    stage.replaceChildren(svg);
    if (held) focus(held);
    LL.put(hint, !spec.editable ? spec.hint ?? "" : first === null ? "Drag from one node to another to add an arrow; × cuts an arrow." : `From ${label(first)}: click with Shift where an arrow should end.`);
    hint.hidden = !hint.textContent;
    Object.assign(frame.node.dataset, { source: key, edges: edges.map((edge) => edge.join(" > ")).join(", "), chosen: first ?? "" });
  };
  return { node: frame.node, sources: [key], frame: (next) => { blocks = next; }, paint: () => draw(), theme: () => draw(true), destroy: () => {},
    place: (positions) => { good = (positions[key]?.edges ?? given).map((edge) => [...edge]); if (history.length === 0 && String(good) !== String(edges)) { edges = good; draw(true); } },
    refused: (source, sentence) => { edges = good; history.pop(); undo.disabled = !history.length; first = null; answer.say(sentence); draw(true); } };
};
