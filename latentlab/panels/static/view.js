// The widget: reads the traits, composes the primitives, repaints at most once per animation frame, and says once a second whether somebody can see it.
LL.STALE_MS = 3000;
LL.PICTURES = { field: LL.field, scatter: LL.scatter, hist: LL.hist, bars: LL.bars, strip: LL.strip, graph: LL.graph, matrix: LL.matrix, brush: LL.brush, slider: LL.slider, ramp: LL.ramp, lines: LL.lines };
LL.PLACES = { graph: "right", matrix: "right", lines: "right" }; // where a picture stands that does not say; the left otherwise

LL.render = ({ model, el }) => {
  const picture = { mask: "soft", top: 0.25, opacity: 0.75, colour: "#E69F00", ...(model.get("plan").picture ?? {}) };
  const part = (name, extra = {}) => LL.el("div", { class: name, ...extra });
  const top = part("ll-header"), banner = part("ll-banner", { hidden: true, role: "alert" }), trustHost = part("ll-trust", { hidden: true, role: "group", "aria-label": "code from outside" }), notes = part("ll-notes", { hidden: true });
  const journalHost = part("ll-journal", { hidden: true }), drawer = part("ll-drawer", { hidden: true }), sinceHost = part("ll-foot since", { hidden: true });
  const side = part("ll-side"), bar = part("ll-bar"), pictures = part("ll-pictures"), leftHost = part("ll-column left"), rightHost = part("ll-column right"), wideHost = part("ll-wide"), rowHost = part("ll-rows"), cardHost = part("ll-numbers"), dockHost = part("ll-dock"), aside = part("ll-aside");
  const checkHost = part("ll-foot checks"), differsHost = part("ll-foot differs"), quiet = part("ll-foot quiet ll-notes", { hidden: true }), changes = part("ll-changes"); changes.append(quiet, differsHost, sinceHost);
  const main = part("ll-main", {}); main.append(bar, pictures, cardHost, dockHost); pictures.append(leftHost, rightHost, wideHost); leftHost.append(rowHost);
  const body = part("ll-body"); body.append(side, main, aside);
  const box = part("ll-box"); box.append(top, journalHost, trustHost, banner, notes, drawer, body);
  const root = part("ll", { "data-painted": "0", "data-step": "", lang: "en" });
  root.append(box); el.append(root);
  let scroller = null, kept = { stop: () => {} }; // the node stands in no page yet: found with its first size

  // JupyterLab binds arrows, Enter and letters to cells, and looks at the focused element before its ancestors: plain keys belong to the panel, Ctrl+S stays the page's.
  const guard = (event) => { if (root.contains(event.target)) event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey || event.altKey)); };
  window.addEventListener("keydown", guard, true);

  // ---- what a test or a benchmark reads: times of inputs, frames painted, and the first frame that used a new value
  const record = (window.latentlab = { inputs: [], paints: [], latencies: [], sent: 0, alive: 0 });
  const note = (list, item) => { list.push(item); if (list.length > 2000) list.shift(); };
  const waiting = new Map();
  const send = (content) => { record.sent += 1; model.send(content); };
  let slid = -Infinity; // when a slider of the picture was moved last: no step begins for a moment, and the top line says so
  const event = (source, type, value, buffer) => { if (type === "slide") slid = performance.now(); record.sent += 1; model.send({ kind: "event", source, type, value }, undefined, buffer ? [buffer.buffer] : undefined); };
  const asks = new Map();
  const set = (name, value) => { asks.set(name, value); send({ kind: "set", name, value }); };

  const header = LL.header(top, (name) => send({ kind: "command", name }), (name) => { dock.open("checks"); lights.show(name); });
  const trust = LL.trust(trustHost, (name, value) => send({ kind: "command", name, value }));
  const controls = LL.controls(side, set, box);
  const grid = LL.grid(rowHost, picture);
  const journal = LL.journal({ bar: journalHost, drawer, since: sinceHost, box }, (name, value) => send({ kind: "journal", name, value }));
  const lights = LL.lights(checkHost), differs = LL.differs(differsHost), dock = LL.dock(dockHost, aside, { checks: ["Checks", checkHost], changes: ["Settings changed", changes] }, () => { for (const plot of plots) plot.fit(); repaint(false, true, true); });
  let plots = [], shown = [], held = {}, numbers = () => {}, painted = 0, received = performance.now(), lastSeq = null, queued = false, dirty = { frame: true, plots: true }, visible = true, plotTime = 0, stale = false, error = null;

  side.addEventListener("input", (event) => {
    const name = event.target.closest("[data-name]")?.dataset.name;
    if (name) { note(record.inputs, { name, t: performance.now() }); waiting.set(name, performance.now()); }
  }, true);
  side.addEventListener("keydown", (event) => {
    const name = event.target.closest("[data-name]")?.dataset.name;
    if (name && event.target.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key)) waiting.set(name, performance.now());
  }, true);

  const meta = () => model.get("frame_meta") ?? {};
  const status = () => model.get("status") ?? {};
  const closed = () => Boolean(status().closed);
  const seen = () => visible && document.visibilityState === "visible";
  let told = null;
  const alive = () => { // what Python needs to know to send no frame that nobody sees
    if (closed()) return;
    const now = seen();
    if (now && told === false) received = performance.now(); // the frames were silent because nobody looked: that is no reason to warn
    told = now; record.alive += 1;
    try { model.send({ kind: "alive", visible: now }); } catch { /* the kernel is gone: the panel says so once no frames come */ }
  };

  // name -> value that waits for a rebuild; undefined where Python named the control only
  const pending = () => { const list = status().pending ?? {}; return Array.isArray(list) ? Object.fromEntries(list.map((name) => [name, undefined])) : list; };

  const table = () => {
    const names = model.get("curves_meta")?.columns ?? [], flat = LL.floats(model.get("curves")), rows = names.length ? flat.length / names.length : 0;
    const columns = {};
    names.forEach((name, k) => { columns[name] = Array.from(flat.subarray(k * rows, (k + 1) * rows), (v) => (Number.isFinite(v) ? v : null)); });
    const tail = meta().tail, steps = columns.step ?? [];
    if (tail && names.length && (!rows || tail.step > steps[rows - 1])) for (const name of names) columns[name].push(tail[name] ?? null);
    return { step: columns.step ?? [], columns };
  };

  const paint = (time) => {
    queued = false;
    if (!visible) return;
    if (dirty.frame) {
      dirty.frame = false;
      const now = meta();
      grid.paint(); for (const one of shown) one.paint();
      numbers(now.table, now.measured, now.step);
      header.status(status(), now.step ?? status().step, stale, closed(), performance.now() - slid < 400);
      if (now.seq !== undefined && now.seq !== lastSeq) {
        lastSeq = now.seq; painted += 1;
        const beat = String(Math.floor(performance.now() / 800) % 2);
        if (root.dataset.beat !== beat) root.dataset.beat = beat;
        root.dataset.painted = String(painted); root.dataset.step = String(now.step ?? ""); root.dataset.values = JSON.stringify(now.values ?? {});
        const t = performance.now();
        note(record.paints, { t, seq: now.seq, step: now.step });
        for (const [name, start] of waiting) {
          const asked = asks.get(name);
          if (asked === undefined || !LL.same(now.values?.[name], asked)) continue;
          waiting.delete(name); asks.delete(name); note(record.latencies, { name, value: asked, ms: t - start });
        }
      }
    }
    if (dirty.plots && time - plotTime > 180) {
      dirty.plots = false; plotTime = time;
      const data = table();
      for (const plot of plots) { plot.data(data); if (plot.node.offsetParent !== null) plot.draw(); }
    }
    if (dirty.plots) soon();
  };
  const soon = () => { if (!queued) { queued = true; requestAnimationFrame(paint); } };
  const repaint = (frame, curves, now = false) => { dirty.frame ||= frame; dirty.plots ||= curves; if (now) plotTime = 0; soon(); };
  LL.pictureBar(bar, picture, () => { grid.ramp(); repaint(true, false); });

  const say = () => {
    const now = status(), bad = [], lines = [];
    root.dataset.state = now.state ?? ""; root.dataset.stale = String(stale);
    const age = Math.round((performance.now() - received) / 1000);
    if (stale) bad.push(`No new frame for ${age} s although the training is said to run. The kernel may be busy or gone; the picture is from step ${LL.number(meta().step ?? null)}.`);
    if (now.error) bad.push(now.error);
    const kept = model.get("journal") ?? {};
    if (kept.error) bad.push(kept.error);
    if (error) bad.push(error);
    if (now.state === "building" || now.message) lines.push(now.message || "Building the model.");
    if (kept.message) lines.push(kept.message);
    const wanted = Object.entries(pending()).map(([name, v]) => {
      const now = model.get("values")[name], next = v ?? controls.asked(name);
      return `${controls.label(name)}${LL.same(now, next) ? "" : ` ${LL.number(now)} → ${LL.number(next)}`}`;
    });
    if (wanted.length) lines.push(`Waits for the rebuild: ${wanted.join(", ")}.`);
    const all = [...bad, ...lines];
    banner.hidden = all.length === 0;
    banner.className = `ll-banner ${now.error || kept.error || error ? "bad" : stale ? "warn" : "info"}`;
    if (banner.textContent !== all.join("")) banner.replaceChildren(...all.map((text, i) => LL.el("div", { class: i < bad.length ? "" : "info", text })));
    pictures.classList.toggle("stale", stale);
    header.status(now, meta().step ?? now.step, stale, closed());
  };
  const tick = setInterval(() => {
    const was = stale;
    alive();
    stale = status().state === "running" && seen() && performance.now() - received > LL.STALE_MS;
    if (stale || was) say();
    controls.refresh();
  }, 1000);

  let pressed = false, late = false, drawn = null, rests = null; // bytes that were read last
  const blocks = () => {
    if (late) return; // what comes now belongs to the layout that waits
    const all = { ...held, ...LL.blocks(meta().blocks, drawn = model.get("frame")) };
    grid.frame(all); for (const one of shown) one.frame(all);
    repaint(true, false);
  };
  const readHeld = () => { held = LL.blocks((model.get("held_meta") ?? {}).blocks, rests = model.get("held")); blocks(); };
  const press = () => { pressed = true; }, release = (event) => { if (pressed && !event.buttons) { pressed = false; if (late) requestAnimationFrame(readLayout); } };
  const readLayout = () => {
    if ((late = pressed)) return; // a new layout has new elements: a click or a stroke that has begun would be lost with the old ones
    const layout = model.get("plan") ?? {}, masked = (layout.rows ?? []).some((row) => row.kind === "keep" || row.kind === "seen");
    header.layout(layout); grid.layout(layout); grid.ramp(); bar.hidden = !masked;
    for (const one of [...plots, ...shown]) one.destroy();
    plots = (layout.plots ?? []).filter((spec) => LL.PLOTS[spec.kind]).map((spec) => LL.PLOTS[spec.kind](spec, event));
    dock.plots((layout.plots ?? []).filter((spec) => LL.PLOTS[spec.kind]).map((spec) => spec.title ?? ""), plots.map((plot) => plot.node));
    const chosen = (layout.pictures ?? []).filter((spec) => LL.PICTURES[spec.kind]);
    shown = chosen.map((spec) => LL.PICTURES[spec.kind](spec, event));
    // beside rows of images there is no room for three scatters and more: they go below, over the whole width, and the bars beside them
    const wide = (layout.rows ?? []).length > 0 && chosen.some((spec) => spec.kind === "scatter" && spec.panels.length > 2);
    const placeOf = (spec) => (wide && ["scatter", "bars"].includes(spec.kind) ? "wide" : spec.place ?? LL.PLACES[spec.kind] ?? "left");
    const side = (name) => shown.filter((_, i) => placeOf(chosen[i]) === name).map((one) => one.node);
    leftHost.replaceChildren(rowHost, ...side("left")); rightHost.replaceChildren(...side("right")); wideHost.replaceChildren(...side("wide"));
    rightHost.hidden = !rightHost.children.length; wideHost.hidden = !wide; pictures.classList.toggle("two", !rightHost.hidden); pictures.classList.toggle("rows", masked || (layout.rows ?? []).length > 0); pictures.classList.toggle("difference", (layout.rows ?? []).some((row) => row.kind === "difference"));
    numbers = LL.numbers(cardHost, layout.table); copies();
    room(); blocks(); readPositions(); repaint(true, true);
  };
  // the panel is as high as the part of the page that shows it; pictures get what curves, numbers and words leave of it
  const room = () => {
    root.style.setProperty("--ll-height", `${LL.heightFor(el, scroller)}px`);
    if (!main.clientHeight) return;
    const rest = (bar.hidden ? 0 : bar.offsetHeight + 10) + (cardHost.hidden ? 0 : cardHost.offsetHeight + 10) + LL.DOCK + 24, left = Math.max(170, main.clientHeight - rest);
    if (pictures.dataset.room !== String(left)) { pictures.dataset.room = String(left); pictures.style.setProperty("--ll-room", `${left}px`); grid.fit(left); }
  };
  const readPositions = () => { if (late) return; const now = model.get("positions") ?? {}; for (const one of shown) one.place?.(now); };
  const readFrame = () => {
    if (meta().seq !== undefined) received = performance.now();
    blocks();
    if (stale) { stale = false; say(); }
    repaint(true, true);
  };
  const readStatus = () => {
    error = null; root.classList.toggle("closed", closed()); root.dataset.closed = String(closed()); controls.shut(closed()); journal.shut(closed());
    header.answered(); journal.answered(); if (status().state !== "running") stale = false; else if (root.dataset.state !== "running") received = performance.now(); controls.pending(pending()); trust.ask(closed() ? null : status().trust); say();
  };
  const copies = () => { const head = cardHost.querySelector(".ll-numbers-head"); if (head) LL.copies(head, (model.get("notes") ?? []).filter((note) => note.copy)); };
  const readNotes = () => { // the journal's words stand among the notes, each sentence once; an ordinary choice is no warning, and all of them are one line
    const words = ((model.get("journal") ?? {}).run?.words ?? []).map((text) => ({ text, loud: true })), seen = new Set(), chosen = [];
    copies();
    const rest = [...(model.get("notes") ?? []).filter((note) => !note.copy), ...words].filter((note) => {
      const [, name, value] = /^`([^`]+)` is (.+); the default is .+\.$/.exec(note.text) ?? [];
      if (name) chosen.push(`${name} ${{ True: "on", False: "off" }[value] ?? value}`);
      return !name && !seen.has(note.text) && seen.add(note.text);
    });
    const some = [...new Set(chosen)], one = some.length === 1;
    if (some.length) rest.push({ text: `${some.length} switch${one ? " differs from its default" : "es differ from their defaults"}: ${some.join(", ")}`, loud: false, folded: true });
    const list = [...rest.filter((note) => note.loud), ...rest.filter((note) => !note.loud)], text = JSON.stringify(list);
    if (notes.dataset.said === text) return;
    notes.dataset.said = text;
    for (const [host, some] of [[notes, list.filter((note) => note.loud)], [quiet, list.filter((note) => !note.loud)]]) { // what changes the meaning of the picture stands above it; an ordinary choice among the changes
      host.hidden = !some.length; host.classList.toggle("loud", host === notes && some.length > 0);
      host.replaceChildren(...some.map((note) => LL.el("div", { class: note.loud ? "loud" : "quiet" }, ...LL.coded(note.text))));
    }
  };
  const readJournal = () => {
    const now = model.get("journal") ?? {}, sweep = now.sweep ?? {};
    root.dataset.run = now.run?.id ?? ""; root.dataset.sweep = sweep.total ? `${sweep.done ?? 0}/${sweep.total}` : "";
    journal.show(now); readNotes(); say();
  };
  const readRuns = () => { const list = model.get("runs") ?? []; root.dataset.runs = String(list.length); journal.runs(list); };
  const readReport = () => journal.report(LL.bytes(model.get("report")), model.get("report_meta") ?? {});
  const readMessage = (content) => {
    if (content?.kind !== "refused") return;
    waiting.delete(content.name); asks.delete(content.name);
    const picture = [...shown, ...plots].find((one) => one.sources?.includes(content.name));
    if (picture) { picture.refused(content.name, content.sentence); return; }
    if (!journal.waits(content.name) && controls.refuse(content.name, content.sentence)) return;
    if (!journal.refused(content.name, content.sentence)) { error = content.sentence; say(); }
  };
  const theme = () => { root.classList.toggle("dark", LL.dark()); [...plots, ...shown].forEach((one) => one.theme()); numbers = LL.numbers(cardHost, (model.get("plan") ?? {}).table); copies(); repaint(true, false); };
  const readChecks = () => { const list = model.get("checks") ?? []; lights.set(list); header.verdicts(list); dock.mark("checks", LL.tally(list)); };
  const readDiffers = () => { const list = model.get("differs") ?? []; differs(list); dock.mark("changes", list.length ? [["", `${list.length}`]] : []); };

  const watch = {
    "change:plan": readLayout, "change:schema": () => controls.build(model.get("schema") ?? []), "change:values": () => controls.values(model.get("values") ?? {}),
    // marimo says that a word has changed before the bytes that came with it are there
    "change:held": () => { if (model.get("held") !== rests) readHeld(); }, "change:frame": () => { if (model.get("frame") !== drawn) blocks(); },
    "change:held_meta": readHeld, "change:frame_meta": readFrame, "change:curves": () => repaint(false, true),
    "change:status": readStatus, "change:checks": readChecks, "change:notes": readNotes, "change:differs": readDiffers,
    "change:positions": readPositions, "change:journal": readJournal, "change:runs": readRuns, "change:report_meta": readReport, "msg:custom": readMessage,
  };

  theme(); readLayout(); controls.build(model.get("schema") ?? []); controls.values(model.get("values") ?? {});
  readHeld();
  readChecks(); readDiffers(); readNotes(); readStatus(); readJournal(); readRuns();
  for (const [event, call] of Object.entries(watch)) model.on(event, call);

  const sizes = new ResizeObserver(() => {
    if (!scroller && (scroller = LL.scroller(el))) { sizes.observe(scroller); kept = LL.keepInSight(root, scroller, (meta().seq ?? 0) <= 3); }
    room(); dock.fit(); grid.fit(); plots.forEach((plot) => plot.fit()); repaint(true, true);
  });
  for (const one of [root, main, top, cardHost, document.documentElement]) sizes.observe(one);
  const sight = new IntersectionObserver((entries) => { const now = entries[entries.length - 1].isIntersecting; if (now !== visible) { visible = now; alive(); } if (visible) soon(); });
  sight.observe(root);
  const holds = [[root, "pointerdown", press], ...["pointermove", "pointerup", "pointercancel"].map((name) => [window, name, release])];
  for (const [on, name, call] of holds) on.addEventListener(name, call, true);
  document.addEventListener("visibilitychange", alive);
  alive();
  const themes = new MutationObserver((seen) => { if (/jp/.test(seen[0].attributeName) || LL.dark() !== root.classList.contains("dark")) theme(); });
  for (const one of [document.body, document.documentElement]) themes.observe(one, { attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class", "theme"] });
  requestAnimationFrame(() => { theme(); repaint(true, true); });

  return () => {
    for (const [event, call] of Object.entries(watch)) model.off(event, call);
    for (const [on, name, call] of holds) on.removeEventListener(name, call, true);
    window.removeEventListener("keydown", guard, true); document.removeEventListener("visibilitychange", alive); clearInterval(tick); sizes.disconnect(); kept.stop(); controls.stop(); trust.stop(); sight.disconnect(); themes.disconnect(); header.stop(); journal.stop(); [...plots, ...shown].forEach((one) => one.destroy()); root.remove();
  };
};

export default { render: LL.render };
