// Earlier runs as a table in a drawer, and a run's report above the panel. Texts are data: they only ever become text nodes.
LL.RUN_STATES = {
  running: ["●", "running", "its steps are being written now"], done: ["✓", "done", "ended as it was meant to"], interrupted: ["❙❙", "interrupted", "stopped by hand before its end"],
  failed: ["✕", "failed", "ended with an error, which was recorded"], lost: ["?", "lost", "its process vanished without a word: what it had written is there"],
};
LL.runState = (state) => {
  const [mark, word, why] = LL.RUN_STATES[state] ?? ["–", String(state ?? "unknown"), ""];
  return LL.el("span", { class: `ll-runstate ${LL.RUN_STATES[state] ? state : "unknown"}`, title: why }, LL.el("i", { text: mark, "aria-hidden": "true" }), word);
};

// "20261121-120544-name-3fa9c2" -> "name-3fa9c2": the date stands beside it
LL.shortId = (id) => String(id ?? "").replace(/\b\d{8}-\d{6}-(?=\w)/g, "");

LL.duration = (seconds) => {
  if (!(seconds >= 0)) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${LL.number(seconds / 3600, 2)} h`;
};

LL.changes = (list, most = Infinity) => {
  const chips = (list ?? []).slice(0, most).map((change) => LL.chip(change.label, change.old, change.new)), rest = (list ?? []).slice(most);
  if (rest.length) chips.push(LL.el("span", { class: "ll-chip more", text: `+${rest.length}`, title: rest.map((c) => `${c.label} ${LL.number(c.old)} → ${LL.number(c.new)}`).join("\n") }));
  return chips;
};

// What runs look like side by side: a letter each, what differs, their numbers, one picture of all
LL.comparison = (host, untick) => {
  const image = LL.el("img", { alt: "" }), words = LL.el("div", { class: "ll-note", role: "status" }), body = LL.el("div", { class: "ll-beside-body" });
  host.append(words, body);
  let address = null;
  const forget = () => { if (address) URL.revokeObjectURL(address); address = null; };
  const line = (head, values, extra = {}) => LL.el("tr", extra, LL.el("th", { scope: "row" }, ...[head].flat()), ...values.map((value) => LL.el("td", { text: value || "–" })));
  return {
    wait: (count) => { host.hidden = count < 1; body.hidden = true; LL.put(words, count === 1 ? "One run is ticked: its pictures are above. Tick another one to see both side by side." : count > 1 ? "drawing them side by side …" : ""); },
    fail: () => { LL.put(words, "These runs could not be shown side by side."); },
    show: (bytes, meta) => {
      const { runs, apart, same, numbers, beside, left_out: without } = meta.comparison;
      forget(); host.hidden = false; body.hidden = false;
      address = URL.createObjectURL(new Blob([bytes], { type: "image/png" })); image.src = address; image.alt = `runs side by side: ${beside}`;
      LL.put(words, `${runs.length} runs side by side: ${beside}.`);
      const head = LL.el("tr", {}, LL.el("th"), ...runs.map((run) => LL.el("th", { scope: "col" }, LL.el("b", { class: "ll-letter", text: run.letter }), ` ${LL.shortId(run.id)} `,
        LL.el("small", { text: run.seeds > 1 ? `${run.state}, ${run.seeds} seeds` : run.state }), LL.el("button", { type: "button", class: "ll-mini", text: "×", title: "take this run out", "aria-label": `take run ${run.letter} out`, on: { click: () => untick(run.id) } }))));
      const title = (text) => LL.el("tr", { class: "title" }, LL.el("th", { colspan: runs.length + 1, text }));
      const rows = [head, title(apart.length ? `What differs (${same} settings are the same)` : `Nothing differs: ${same} settings are the same`), ...apart.map((one) => line(one.label, one.values)),
        title("Numbers, with mean and 95 % interval of the run's seeds"), ...numbers.map((one) => line([one.label, LL.el("small", { text: one.ruler })], one.values))];
      body.replaceChildren(LL.el("div", { class: "ll-beside-table" }, LL.el("table", {}, ...rows)), ...without.map((text) => LL.el("div", { class: "ll-note", text })), image);
    },
    stop: forget,
  };
};

// Pictures under a slider: along the steps of what is ticked, or along the values of a setting. All come once, the newest first; dragging asks nobody.
LL.timeline = (host, ask) => {
  const choice = LL.el("select", { "aria-label": "what the slider goes along" }), slider = LL.el("input", { type: "range", min: 0, step: 1, "data-timeline": "slider" }), told = LL.el("output", { class: "ll-timeline-told" });
  const words = LL.el("div", { class: "ll-note", role: "status" }), image = LL.el("img", { alt: "" }), bar = LL.el("div", { class: "ll-timeline-bar" }, LL.el("label", { class: "ll-note" }, "along ", choice), slider, told);
  host.append(bar, words, image);
  let asked = "", frames = [], about = null, over = "step", ids = [];
  const forget = () => { for (const one of frames) if (one) URL.revokeObjectURL(one); frames = []; };
  const show = () => {
    const at = Number(slider.value), come = frames[at];
    LL.put(told, about.told[at]); slider.style.setProperty("--p", `${(100 * at) / Math.max(1, Number(slider.max))}%`); slider.setAttribute("aria-valuetext", about.told[at]); host.dataset.shown = come ? about.told[at] : "";
    if (come && image.src !== come) { image.src = come; image.alt = `picture of ${about.told[at]}`; }
    image.classList.toggle("ll-waits", !come);
    const left = about.told.filter((_, i) => !frames[i]).length; host.dataset.left = left;
    LL.put(words, [left ? `drawing ${left} more …` : "", about.note].filter(Boolean).join(" ")); words.hidden = !words.textContent;
  };
  slider.addEventListener("input", show);
  choice.addEventListener("change", () => { over = choice.value; want(); });
  const want = () => {
    forget(); about = null; asked = ids.length ? JSON.stringify([over, ...ids]) : ""; host.dataset.shown = ""; host.dataset.left = "";
    host.hidden = !ids.length; image.hidden = true; slider.disabled = true; LL.put(told, ""); LL.put(words, "drawing its pictures …"); words.hidden = false;
    if (ids.length) ask("pictures", [over, ...ids]);
  };
  return {
    tick: (list) => { if (JSON.stringify(list) === JSON.stringify(ids)) return; ids = [...list]; over = "step"; choice.replaceChildren(); bar.hidden = true; want(); },
    show: (bytes, meta) => { // an answer to older ticks, or to another page, is left alone
      const now = meta.series;
      if (!bytes || !asked || JSON.stringify(now.asked) !== asked) return;
      if (!about) {
        about = now; frames = now.told.map(() => null); bar.hidden = false; image.hidden = false;
        slider.max = now.told.length - 1; slider.value = now.at; slider.disabled = now.told.length < 2; slider.setAttribute("aria-label", now.name);
        choice.replaceChildren(...now.choices.map(([value, text]) => LL.el("option", { value, text }))); choice.value = now.over; choice.parentElement.hidden = now.choices.length < 2;
      }
      frames[now.at] = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
      show();
    },
    refused: (sentence) => { if (!about) { LL.put(words, sentence); words.hidden = false; bar.hidden = !choice.children.length; } },
    stop: forget,
  };
};

LL.MOST_TICKED = 6;
LL.runs = (host, wish) => {
  const body = LL.el("div", { class: "ll-runs", role: "region", tabindex: "0", "aria-label": "earlier runs" }), count = LL.el("span", { class: "ll-note" });
  const refresh = LL.el("button", { type: "button", class: "ll-mini", text: "Refresh", title: "read the journal again", on: { click: () => wish("runs", null) } });
  const filter = LL.el("input", { type: "search", placeholder: "filter: words of id, state, settings, note", "aria-label": "filter runs", on: { input: () => draw() } });
  const fold = LL.el("button", { type: "button", class: "ll-mini ll-fold", hidden: true, title: "looks: fewer than 50 steps, or rebuilt within a minute; they stay in the journal", on: { click: () => { folded = !folded; draw(); } } });
  const clear = LL.el("button", { type: "button", class: "ll-mini ll-clear", hidden: true, on: { click: () => { ticked = []; ask(); draw(); } } });
  const besides = LL.el("div", { class: "ll-beside", hidden: true, role: "region", "aria-label": "runs side by side" });
  const along = LL.el("div", { class: "ll-timeline", hidden: true, role: "region", "aria-label": "pictures under a slider" }), timeline = LL.timeline(along, (name, value) => wish(name, value));
  host.append(LL.el("div", { class: "ll-runs-head" }, LL.el("b", { class: "ll-strip-title", text: "Earlier runs" }), count, fold, clear, filter, refresh), body, along, besides);
  const ACTIONS = { load: ["Load", "show this run and go on from its last state"], resume: ["Resume", "go on where this run was broken off"] };
  let rows = [], drawn = "", asked = null, ticked = [], folded = true, waits = false;

  const ask = () => {
    waits = ticked.length > 1;
    comparison.wait(ticked.length); timeline.tick(ticked);
    host.dataset.compared = "";
    if (waits) wish("compare", [...ticked]);
  };
  const tick = (id, yes) => { ticked = yes ? [...ticked, id] : ticked.filter((one) => one !== id); ask(); draw(); };
  const comparison = LL.comparison(besides, (id) => tick(id, false));

  const heading = (text, extra = {}) => LL.el("th", { scope: "col", text, ...extra });
  const cell = (kind, ...children) => LL.el("td", { class: kind }, ...children.filter(Boolean));
  const action = (run) => {
    if (!ACTIONS[run.action]) return null;
    const button = LL.el("button", { type: "button", class: "ll-button", "data-load": run.id, text: ACTIONS[run.action][0], title: ACTIONS[run.action][1], "aria-label": `${ACTIONS[run.action][0]} ${LL.shortId(run.id)}`,
      on: { click: () => { asked = run.id; button.disabled = true; wish("load", run.id); } } });
    button.disabled = asked === run.id;
    return button;
  };
  const box = (run) => {
    const at = ticked.indexOf(run.id), input = LL.el("input", { type: "checkbox", "data-tick": run.id, "aria-label": `compare ${LL.shortId(run.id)}`, title: "tick one run for its pictures under a slider, two to six to see them side by side", on: { change: (event) => tick(run.id, event.target.checked) } });
    input.checked = at >= 0; input.disabled = at < 0 && ticked.length >= LL.MOST_TICKED;
    return LL.el("label", { class: "ll-tick" }, input, at >= 0 ? LL.el("b", { class: "ll-letter", text: "ABCDEF"[at] }) : null);
  };
  const number = (run, name) => {
    const other = run.apart?.[name], value = LL.number(run.metrics?.[name] ?? null);
    return cell(`count metric${other === undefined ? "" : " apart"}`, LL.el("span", { text: other === undefined || value === "–" ? value : `≠ ${value}`, title: other === undefined ? null : `measured on: ${other || "nothing stated"}. Not comparable with the run shown now.` }));
  };
  const row = (run, metrics) => {
    const [day, time] = String(run.when ?? "").split(" "), when = [LL.el("span", { text: day }), time ? " " : null, time ? LL.el("span", { text: time }) : null].filter(Boolean);
    const marks = { class: [run.current ? "current" : "", run.short ? "short" : ""].join(" ").trim(), "data-of": run.id };
    const main = LL.el("tr", { ...marks, "aria-current": run.current ? "true" : null, "data-run": run.id },
      cell("tick", box(run)), cell("star", run.kept ? LL.el("span", { text: "★", title: "kept", role: "img", "aria-label": "kept" }) : null),
      cell("when", ...when), cell("id", LL.el("span", { class: "ll-clip", text: LL.shortId(run.id), title: run.id })), cell("state", LL.runState(run.state)),
      cell("count", LL.number(run.steps)), cell("count", run.seed === null || run.seed === undefined ? "–" : String(run.seed)), ...metrics.map((name) => number(run, name)), cell("action", action(run)));
    const differs = run.current ? [LL.el("span", { class: "ll-note", text: "this run" })] : run.changes?.length ? [LL.el("span", { class: "ll-note", text: "differs by" }), ...LL.changes(run.changes)] : [LL.el("span", { class: "ll-note", text: "the same settings" })];
    const more = LL.el("tr", { ...marks, class: `${marks.class} more` }, LL.el("td", { colspan: 2 }), LL.el("td", { class: "changes", colspan: 6 + metrics.length }, LL.el("div", { class: "ll-chips" }, ...differs, run.note ? LL.el("span", { class: "ll-runnote", text: run.note, title: run.note }) : null)));
    return [main, more];
  };
  const found = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (run) => [run.id, run.when, run.state, run.note, run.kept ? "kept" : "", run.current ? "this run" : "", `seed ${run.seed}`, ...(run.changes ?? []).map((c) => `${c.label} ${LL.number(c.old)} → ${LL.number(c.new)}`)].join(" ").toLowerCase();
    return rows.filter((run) => { const all = text(run); return words.every((word) => all.includes(word)); });
  };
  const draw = () => {
    const text = JSON.stringify([rows, filter.value, folded, ticked]);
    if (host.hidden || text === drawn) return;
    drawn = text;
    const list = found(), looks = list.filter((run) => run.short && !ticked.includes(run.id)), shown = folded ? list.filter((run) => !looks.includes(run)) : list;
    const metrics = [...new Set(rows.flatMap((run) => Object.keys(run.metrics ?? {})))];
    const held = body.contains(document.activeElement) ? { ...document.activeElement.dataset } : {}, at = [body.scrollLeft, body.scrollTop];
    LL.put(count, !rows.length ? "" : list.length < rows.length ? `${LL.number(list.length)} of ${LL.number(rows.length)}` : `${LL.number(rows.length)}, newest first`);
    fold.hidden = !looks.length; LL.put(fold, `${looks.length} short run${looks.length === 1 ? "" : "s"} ${folded ? "▸" : "▾"}`); fold.setAttribute("aria-expanded", String(!folded));
    clear.hidden = !ticked.length; LL.put(clear, `${ticked.length} ticked ×`); clear.title = "tick none";
    filter.hidden = !rows.length;
    if (!shown.length) { body.replaceChildren(LL.el("div", { class: "ll-runs-empty", text: rows.length ? (looks.length ? "only short runs: open them above" : "no run has these words") : "no earlier runs yet" })); return; }
    const head = LL.el("tr", {}, LL.el("th", { scope: "col", class: "tick", text: "compare", title: "tick one run for its pictures under a slider, two to six to see them side by side" }), LL.el("th", { scope: "col" }, LL.el("span", { text: "★", title: "kept", role: "img", "aria-label": "kept" })), heading("time", { class: "when" }), heading("run"), heading("state"), heading("steps", { class: "count" }), heading("seed", { class: "count" }),
      ...metrics.map((name) => heading(name.replaceAll("_", " "), { class: "count metric" })), LL.el("th", { class: "action", "aria-label": "action" }));
    body.replaceChildren(LL.el("table", {}, LL.el("thead", {}, head), LL.el("tbody", {}, ...shown.flatMap((run) => row(run, metrics)))));
    [body.scrollLeft, body.scrollTop] = at;
    for (const key of ["load", "tick"]) if (held[key]) [...body.querySelectorAll(`[data-${key}]`)].find((one) => one.dataset[key] === held[key])?.focus({ preventScroll: true });
  };
  return {
    rows: (list) => { rows = list ?? []; const kept = ticked.filter((id) => rows.some((run) => run.id === id)); if (kept.length < ticked.length) { ticked = kept; ask(); } draw(); },
    open: (yes) => { host.hidden = !yes; draw(); },
    show: (bytes, meta) => { // an answer to older ticks, or to another page, is left alone
      if (meta.series) { timeline.show(bytes, meta); return; }
      if (!waits || !bytes || JSON.stringify(meta.ids) !== JSON.stringify(ticked)) return;
      waits = false; comparison.show(bytes, meta); host.dataset.compared = meta.ids.join(" ");
      besides.scrollIntoView({ block: "nearest" });
    },
    refusedPictures: timeline.refused,
    refused: () => { if (waits) { waits = false; comparison.fail(); } },
    stop: () => { comparison.stop(); timeline.stop(); },
    answered: () => {
      if (asked === null) return;
      for (const button of body.querySelectorAll("[data-load]")) {
        const lost = button.disabled && button.dataset.load === asked && document.activeElement === document.body; // a button that is disabled loses the focus
        button.disabled = false;
        if (lost) button.focus({ preventScroll: true });
      }
      asked = null;
    },
  };
};

// A report opens on the page that asked for it; a page that is loaded afresh finds the bytes and leaves them alone.
LL.report = (box) => {
  const image = LL.el("img", { alt: "" }), title = LL.el("b"), detail = LL.el("span", { class: "ll-note" }), download = LL.el("a", { class: "ll-button primary", text: "Download" });
  const close = LL.el("button", { type: "button", class: "ll-button", text: "Close", title: "Escape closes it, too", on: { click: () => show(false) } });
  const dialog = LL.el("div", { class: "ll-report-sheet", role: "dialog", tabindex: "-1", "aria-modal": "true", "aria-label": "report of the run" }, LL.el("div", { class: "ll-report-head" }, title, detail, download, close), image);
  const over = LL.el("div", { class: "ll-report-over", hidden: true, on: { click: (event) => { if (event.target === over) show(false); } } }, dialog);
  box.append(over);
  let address = null, asked = false, back = null, timer = null;
  const escape = (event) => { if (event.key === "Escape" && over.offsetParent !== null) { event.preventDefault(); event.stopPropagation(); show(false); } };
  const show = (open) => {
    if (over.hidden !== open) return;
    over.hidden = !open;
    for (const part of box.children) if (part !== over) part.inert = open; // what is below can neither be clicked nor reached by Tab
    window[open ? "addEventListener" : "removeEventListener"]("keydown", escape, true); // wherever the focus is
    if (open) { back = document.activeElement; close.focus({ preventScroll: true }); dialog.scrollIntoView({ block: "nearest" }); } else back?.focus({ preventScroll: true });
  };
  const forget = () => { if (address) URL.revokeObjectURL(address); address = null; };
  const answered = () => { asked = false; clearTimeout(timer); };
  return {
    ask: () => { asked = true; clearTimeout(timer); timer = setTimeout(answered, 60000); },
    asked: () => asked, answered,
    show: (bytes, meta) => {
      if (!asked || !bytes) return;
      answered(); forget();
      address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
      image.src = address; image.alt = `report of run ${meta.id}`;
      download.href = address; download.download = `${meta.id}.png`;
      LL.put(title, LL.shortId(meta.id)); title.title = String(meta.id ?? ""); LL.put(detail, meta.step === undefined || meta.step === null ? "" : `step ${LL.number(meta.step)}`);
      show(true);
    },
    stop: () => { answered(); forget(); window.removeEventListener("keydown", escape, true); },
  };
};
