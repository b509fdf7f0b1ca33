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

LL.runs = (host, wish) => {
  const body = LL.el("div", { class: "ll-runs", role: "region", tabindex: "0", "aria-label": "earlier runs" }), count = LL.el("span", { class: "ll-note" });
  const refresh = LL.el("button", { type: "button", class: "ll-mini", text: "Refresh", title: "read the journal again", on: { click: () => wish("runs", null) } });
  host.append(LL.el("div", { class: "ll-runs-head" }, LL.el("b", { class: "ll-strip-title", text: "Earlier runs" }), count, refresh), body);
  const ACTIONS = { load: ["Load", "show this run and go on from its last state"], resume: ["Resume", "go on where this run was broken off"] };
  let rows = [], drawn = "", asked = null;

  const heading = (text, extra = {}) => LL.el("th", { scope: "col", text, ...extra });
  const cell = (kind, ...children) => LL.el("td", { class: kind }, ...children.filter(Boolean));
  const action = (run) => {
    if (!ACTIONS[run.action]) return null;
    const button = LL.el("button", { type: "button", class: "ll-button", "data-load": run.id, text: ACTIONS[run.action][0], title: ACTIONS[run.action][1], "aria-label": `${ACTIONS[run.action][0]} ${LL.shortId(run.id)}`,
      on: { click: () => { asked = run.id; button.disabled = true; wish("load", run.id); } } });
    button.disabled = asked === run.id;
    return button;
  };
  const row = (run, metrics) => {
    const differs = run.current ? [LL.el("span", { class: "ll-note", text: "this run" })] : run.changes?.length ? LL.changes(run.changes, 3) : [LL.el("span", { class: "ll-note", text: "nothing" })];
    const [day, time] = String(run.when ?? "").split(" "), when = () => [LL.el("span", { text: day }), time ? " " : null, time ? LL.el("span", { text: time }) : null].filter(Boolean);
    const note = () => LL.el("span", { class: "ll-clip", text: run.note ?? "", title: run.note || null }); // where there is little room, time and note stand below id and changes
    return LL.el("tr", { class: run.current ? "current" : "", "aria-current": run.current ? "true" : null, "data-run": run.id },
      cell("star", run.kept ? LL.el("span", { text: "★", title: "kept", role: "img", "aria-label": "kept" }) : null),
      cell("when", ...when()), cell("id", LL.el("span", { class: "ll-clip", text: LL.shortId(run.id), title: run.id }), LL.el("small", {}, ...when())), cell("state", LL.runState(run.state)),
      cell("count", LL.number(run.steps)), cell("count", run.seed === null || run.seed === undefined ? "–" : String(run.seed)), ...metrics.map((name) => cell("count metric", LL.number(run.metrics?.[name] ?? null))),
      cell("changes", LL.el("div", { class: "ll-chips" }, ...differs), run.note ? note() : null), cell("note", note()), cell("action", action(run)));
  };
  const draw = () => {
    const text = JSON.stringify(rows);
    if (host.hidden || text === drawn) return;
    drawn = text;
    const metrics = [...new Set(rows.flatMap((run) => Object.keys(run.metrics ?? {})))];
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.load : undefined, at = [body.scrollLeft, body.scrollTop];
    LL.put(count, rows.length ? `${LL.number(rows.length)}, newest first` : "");
    if (!rows.length) { body.replaceChildren(LL.el("div", { class: "ll-runs-empty", text: "no earlier runs yet" })); return; }
    const head = LL.el("tr", {}, LL.el("th", { scope: "col" }, LL.el("span", { text: "★", title: "kept", role: "img", "aria-label": "kept" })), heading("time", { class: "when" }), heading("run"), heading("state"), heading("steps", { class: "count" }), heading("seed", { class: "count" }),
      ...metrics.map((name) => heading(name.replaceAll("_", " "), { class: "count metric" })), heading("differs by", { title: "from the run shown now" }), heading("note", { class: "note" }), LL.el("th", { class: "action", "aria-label": "action" }));
    body.replaceChildren(LL.el("table", {}, LL.el("thead", {}, head), LL.el("tbody", {}, ...rows.map((run) => row(run, metrics)))));
    [body.scrollLeft, body.scrollTop] = at;
    if (focused) [...body.querySelectorAll("[data-load]")].find((button) => button.dataset.load === focused)?.focus();
  };
  return {
    rows: (list) => { rows = list ?? []; draw(); },
    open: (yes) => { host.hidden = !yes; draw(); },
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
