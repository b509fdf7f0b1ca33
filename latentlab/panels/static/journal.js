// The journal's bar below the header: the run that is recorded, what can be done with it, a repeat over seeds, its notes; and, at the foot, what is new in it.
LL.CLOSED = "this panel was closed"; // what the status says of a panel that nobody answers any more
LL.FIRST_STEP = "comes with the first step: a run is recorded from there on";

// `mask_kl` has weight 0 -> text and <code> nodes
LL.coded = (text) => {
  const parts = String(text ?? "").split("`");
  return parts.length % 2 ? parts.map((part, i) => (i % 2 ? LL.el("code", { text: part }) : document.createTextNode(part))) : [document.createTextNode(text)];
};

// ---- a repeat over seeds: how far it is, and what came out
LL.sweep = (host, wish) => {
  const mark = LL.el("i", { "aria-hidden": "true" }), sentence = LL.el("span", { class: "ll-clip" }), count = LL.el("span", { class: "ll-sweep-count" }), result = LL.el("b", { class: "ll-sweep-result" });
  const good = LL.el("span", { class: "good" }), failed = LL.el("span", { class: "failed" });
  const track = LL.el("div", { class: "ll-sweep-track", role: "progressbar", "aria-valuemin": "0", "aria-label": "runs of the repeat" }, good, failed);
  const cancel = LL.el("button", { type: "button", class: "ll-button", "data-journal": "cancel", text: "Cancel", title: "end the repeat; the runs that are done stay", on: { click: () => { cancel.disabled = true; wish("cancel", null); } } });
  host.append(mark, sentence, track, count, result, cancel);
  const MARKS = { running: ["●", ""], done: ["✓", ""], stopped: ["■", "cancelled"], failed: ["✕", "failed"] };
  return (now) => {
    const state = MARKS[now.state] ? now.state : "running", running = state === "running";
    host.hidden = !now.total;
    if (host.hidden) return;
    host.className = `ll-sweep ${state}`;
    LL.put(mark, MARKS[state][0]);
    const text = String(now.sentence || `repeat with ${now.total} seeds`);
    LL.put(sentence, LL.shortId(text)); sentence.title = text;
    good.style.width = `${(100 * (now.done ?? 0)) / now.total}%`; failed.style.width = `${(100 * (now.failed ?? 0)) / now.total}%`;
    const left = running ? now.seconds_left === null || now.seconds_left === undefined ? (now.running ? `${now.running} running` : "") : `${LL.duration(now.seconds_left)} left` : MARKS[state][1];
    LL.put(count, [`${now.done ?? 0} of ${now.total}`, now.failed ? `${now.failed} failed` : "", left === "failed" && now.failed ? "" : left].filter(Boolean).join(" · "));
    track.setAttribute("aria-valuemax", now.total); track.setAttribute("aria-valuenow", now.done ?? 0); track.setAttribute("aria-valuetext", count.textContent);
    LL.put(result, running ? "" : String(now.result ?? "")); result.hidden = running || !now.result;
    track.hidden = !running; cancel.hidden = !running; cancel.disabled = false;
  };
};

// ---- what is new: against the run before, and against the best one
LL.since = (host) => {
  let last = "";
  const line = (key, title, id, value, list, same) => LL.el("div", { class: `ll-since ${key}`, "data-since": key }, LL.el("b", { class: "ll-strip-title", text: title }),
    id ? LL.el("span", { class: "ll-since-id", text: LL.shortId(id), title: id }) : null, value, ...(list?.length ? LL.changes(list) : [LL.el("span", { class: "ll-note", text: same })]));
  return (run) => {
    const { previous, best, left_out: without } = run, text = JSON.stringify([run.id, previous, best, without]);
    if (text === last) return;
    last = text;
    host.hidden = !previous?.id && !best?.id && !without; host.replaceChildren();
    if (previous?.id) host.append(line("previous", "Since run", previous.id, null, previous.changes, "the same settings"));
    if (!best?.id) { if (without) host.append(LL.el("div", { class: "ll-since best ll-note", "data-since": "best", text: `No best run to compare with: left out are ${without}.` })); return; }
    const value = LL.el("span", { class: "ll-since-value" }, `${String(best.metric ?? "").replaceAll("_", " ")} `, LL.el("b", { text: LL.number(best.value) }));
    host.append(best.id === run.id ? line("best", "Best run", "", value, [], "this one") : line("best", "Best run", best.id, value, best.changes, "the same settings"));
    if (without) host.lastChild.append(LL.el("span", { class: "ll-note", text: `left out: ${without}` }));
  };
};

// ---- texts to be taken along, such as a line for a ledger: one click copies one
LL.copies = (host, list) => {
  const told = ({ text }) => `copy for a ledger: ${text}`, there = [...host.querySelectorAll(".ll-copy")];
  const same = there.length === list.length && list.every((one, i) => there[i].dataset.copy === one.copy && there[i].title === told(one));
  if (same) return; // a button that says "copied" goes on saying it while frames arrive
  for (const old of there) old.remove();
  for (const { text, copy } of list) {
    const done = LL.el("span", { role: "status" });
    const take = async () => {
      try { await navigator.clipboard.writeText(copy); } catch { // a page that is not served securely has no clipboard
        const area = LL.el("textarea", { style: "position:fixed;opacity:0" }); area.value = copy; host.append(area); area.select(); document.execCommand("copy"); area.remove();
      }
      LL.put(done, " copied"); setTimeout(() => LL.put(done, ""), 2500);
    };
    host.append(LL.el("button", { type: "button", class: "ll-mini ll-copy", "data-copy": copy, title: told({ text }), on: { click: take } }, `copy ${copy}`, done));
  }
};

LL.journal = ({ bar: host, drawer, since: foot, box }, wish) => {
  const mark = LL.el("i", { "aria-hidden": "true" }), id = LL.el("b"), word = LL.el("span"), folder = LL.el("span", { class: "ll-run-folder" }), label = LL.el("span", { class: "ll-run", role: "status" }, mark, id, word, folder);
  let closed = false;
  const error = LL.el("div", { class: "ll-error", role: "alert", hidden: true }), notes = LL.el("div", { class: "ll-run-notes", role: "list", "aria-label": "notes of this run", hidden: true, tabindex: "0" });
  const button = (name, text, why, call) => LL.el("button", { type: "button", class: "ll-button", "data-journal": name, text, title: why, "data-why": why, on: { click: call } });
  let now = {}, run = {}, waiting = new Set(), rows = 0, hide = null, noted = "";
  const ask = (name, value = null) => { waiting.add(name); error.hidden = true; wish(name, value); };
  const say = (text) => { error.textContent = text; error.hidden = false; clearTimeout(hide); hide = setTimeout(() => { error.hidden = true; }, 12000); };

  const save = button("save", "☆ Save", "keep this moment: its state can be loaded again", () => ask("save"));
  const note = button("note", "✎ Note", "write a sentence beside this run", () => write(editor.hidden));
  const picture = button("report", "▣ Report", "this run as one picture to show or send", () => { report.ask(); ask("report"); buttons(); });
  const seeds = LL.el("input", { type: "number", min: 2, max: 100, step: 1, value: 5, "aria-label": "seeds of a repeat" });
  const repeat = button("repeat", "⟳ Repeat", "train these settings again from other seeds, in the background", () => again());
  const group = LL.el("span", { class: "ll-repeat" }, repeat, "with", seeds, "seeds");
  const toggle = button("runs", "Runs", "the journal's earlier runs", () => { runs.open(drawer.hidden); if (!drawer.hidden) ask("runs"); buttons(); });
  const text = LL.el("input", { type: "text", maxlength: 4000, "aria-label": "note", placeholder: "what did you see, or what do you try?" });
  const editor = LL.el("div", { class: "ll-note-editor", hidden: true }, text, LL.el("button", { type: "button", class: "ll-button primary", text: "Save note", on: { click: () => keep() } }),
    LL.el("button", { type: "button", class: "ll-button", text: "Cancel", on: { click: () => write(false) } }), LL.el("span", { class: "ll-note", text: "Enter saves, Escape cancels" }));
  const progress = LL.el("div", { class: "ll-sweep", hidden: true });
  host.append(LL.el("div", { class: "ll-journal-line" }, label, LL.el("div", { class: "ll-journal-buttons", role: "group", "aria-label": "journal" }, save, note, picture, group), toggle), editor, error, progress, notes);
  const sweep = LL.sweep(progress, ask), since = LL.since(foot), runs = LL.runs(drawer, ask), report = LL.report(box);
  drawer.id = `ll${Math.random().toString(36).slice(2, 8)}-runs`; toggle.setAttribute("aria-controls", drawer.id);

  const write = (open) => { editor.hidden = !open; note.setAttribute("aria-expanded", String(open)); if (open) text.focus(); else { text.value = ""; error.hidden = true; note.focus(); } };
  const keep = () => { if (text.value.trim()) { ask("note", text.value.trim()); write(false); } else { say("A note needs a text."); text.focus(); } };
  const again = () => { const n = Number(seeds.value); if (Number.isInteger(n) && n >= 2 && n <= 100) ask("repeat", n); else { say("A repeat takes a whole number of seeds from 2 to 100."); seeds.focus(); } };
  LL.onEnter(seeds, () => { if (!repeat.disabled) again(); });
  text.addEventListener("keydown", (event) => { // the focus moves to the button: the key must not press it as well
    if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
    event.preventDefault(); event.stopPropagation();
    if (event.key === "Enter") keep(); else write(false);
  });

  const buttons = () => {
    const none = !run.id || closed, busy = now.sweep?.state === "running";
    for (const one of [save, note, picture, repeat]) { one.disabled = none; one.title = closed ? LL.CLOSED : none ? LL.FIRST_STEP : one.dataset.why; }
    seeds.disabled = none; group.hidden = busy; toggle.disabled = closed; progress.inert = closed;
    if (closed && !drawer.hidden) runs.open(false); // nobody would answer
    save.classList.toggle("kept", Boolean(run.kept)); LL.put(save, run.kept ? "★ Kept" : "☆ Save");
    if (run.kept) save.title = "kept; press again to keep this later moment, too";
    LL.put(note, run.notes?.length ? `✎ Note (${run.notes.length})` : "✎ Note");
    LL.put(picture, report.asked() ? "▣ Report …" : "▣ Report"); picture.classList.toggle("asked", report.asked());
    LL.put(toggle, `Runs (${LL.number(rows)}) ${drawer.hidden ? "▾" : "▴"}`); toggle.setAttribute("aria-expanded", String(!drawer.hidden));
    if (none && !editor.hidden) write(false);
    const held = document.activeElement; // what goes away must not take the keyboard's place with it
    if (host.contains(held) && (held.disabled || held.offsetParent === null)) toggle.focus({ preventScroll: true });
  };
  const show = (next) => {
    if (run.id !== next.run?.id) runs.answered();
    now = next; run = next.run ?? {}; waiting.clear();
    host.hidden = !Object.keys(next).length;
    if (host.hidden) { runs.open(false); editor.hidden = true; foot.hidden = true; since({}); return; }
    const state = closed ? "closed" : run.id ? (LL.RUN_STATES[run.state] ? run.state : "unknown") : "none", where = String(next.folder ?? "").split(/[\\/]/).filter(Boolean).pop() ?? "journal", [sign, name, why] = LL.RUN_STATES[state] ?? ["○", "", closed ? LL.CLOSED : LL.FIRST_STEP];
    label.dataset.state = state; label.title = [run.id, why, next.folder].filter(Boolean).join("\n");
    LL.put(mark, sign); LL.put(id, LL.shortId(run.id)); id.hidden = !run.id;
    LL.put(word, state === "none" ? "records from the first step" : closed ? (run.id ? "was recorded" : "recorded nothing") : state === "running" ? "recorded" : name || String(run.state ?? ""));
    LL.put(folder, state === "none" || (closed && !run.id) ? "" : closed || state === "running" ? `in ${where}` : `· recorded in ${where}`);
    const list = run.notes ?? [], said = JSON.stringify(list);
    if (said !== noted) { noted = said; notes.hidden = !list.length; notes.replaceChildren(...list.map((one) => LL.el("div", { role: "listitem", text: one }))); notes.scrollTop = notes.scrollHeight; }
    sweep(next.sweep ?? {}); since(run); buttons();
  };
  return {
    show, shut: (yes) => { if (closed !== yes) { closed = yes; show(now); } },
    runs: (list) => { rows = list.length; waiting.delete("runs"); waiting.delete("load"); runs.rows(list); runs.answered(); buttons(); },
    report: (bytes, meta) => { (meta.comparison || meta.series ? runs : report).show(bytes, meta); buttons(); },
    answered: runs.answered,
    waits: (name) => waiting.has(name),
    refused: (name, sentence) => {
      if (host.hidden || !["save", "note", "report", "repeat", "load", "compare", "pictures", "cancel", "runs"].includes(name)) return false;
      if (name === "pictures") { waiting.delete(name); runs.refusedPictures(sentence); return true; }
      waiting.delete(name); if (name === "compare") runs.refused(); if (name === "report") report.answered(); runs.answered(); say(sentence); buttons();
      return true;
    },
    stop: () => { clearTimeout(hide); report.stop(); runs.stop(); },
  };
};
