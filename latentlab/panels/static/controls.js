// One control per setting, made from the schema. Python owns the values; a control shows what was asked for until Python answers.
LL.GROUPS = [["live", "Live", "from the next step"], ["model", "Model", "rebuilds"], ["data", "Data", "rebuilds"]];

// a typed number: 0.125, 1e-3 or 1/8; NaN for anything else
LL.readNumber = (text) => { const parts = String(text).trim().split("/"); return parts.some((one) => one.trim() === "") || parts.length > 2 ? NaN : parts.length === 2 ? Number(parts[0]) / Number(parts[1]) : Number(parts[0]); };

LL.scale = (spec) => {
  const int = spec.type === "int";
  if (spec.widget === "log") {
    const low = Math.log10(spec.low), high = Math.log10(spec.high), step = spec.step || 0.02;
    const read = (p) => Math.min(spec.high, Math.max(spec.low, int ? Math.round(10 ** p) : Number((10 ** p).toPrecision(3))));
    const fine = Math.max(spec.step || 0, (high - low) / 100, Math.log10(1.02)); // a press of a key is seen: a hundredth of the range, at least 2 %
    const move = (v, k) => { const next = read(Math.log10(Math.max(v, spec.low)) + k * fine); return int && next === v ? Math.min(spec.high, Math.max(spec.low, v + Math.sign(k))) : next; };
    return { low, high, step, place: (v) => Math.log10(Math.max(v, spec.low)), read, move };
  }
  const step = spec.step || (int ? 1 : (spec.high - spec.low) / 200);
  const read = (p) => (int ? Math.round(p) : Number(Number(p).toPrecision(10)));
  return { low: spec.low, high: spec.high, step, place: (v) => v, read };
};

// each maker returns {input, value(), show(v)}; `told(final)` is called when the user moved it
LL.makers = {
  slider: (spec, id, told) => {
    const scale = LL.scale(spec);
    let at = null; // the value itself: the thumb may stand beside it by a rounding
    const input = LL.el("input", { type: "range", id, min: scale.low, max: scale.high, step: spec.widget === "log" ? "any" : scale.step });
    const fill = () => input.style.setProperty("--p", `${(100 * (input.value - scale.low)) / (scale.high - scale.low || 1)}%`);
    const show = (v) => { at = v; input.value = scale.place(v); fill(); };
    input.addEventListener("keydown", (event) => { // a log slider has no native step: keys move its value
      if (spec.widget !== "log") return;
      const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!move) return;
      event.preventDefault(); show(scale.move(at ?? scale.read(Number(input.value)), move)); told(false); told(true);
    });
    input.addEventListener("input", () => { at = scale.read(Number(input.value)); fill(); told(false); });
    input.addEventListener("change", () => told(true));
    return { input, value: () => at ?? scale.read(Number(input.value)), show,
      say: (text) => input.setAttribute("aria-valuetext", text) };
  },
  number: (spec, id, told) => {
    const whole = spec.type === "int"; // a field of the browser's own kind takes no 1/8
    const input = LL.el("input", whole ? { type: "number", id, min: spec.low, max: spec.high, step: spec.step || 1 } : { type: "text", inputmode: "decimal", id, spellcheck: "false" });
    const tell = () => { if (input.value !== "" || spec.optional) told(true); };
    input.addEventListener("change", tell); LL.onEnter(input, tell);
    return { input, value: () => (input.value === "" ? null : LL.readNumber(input.value)), show: (v) => { input.value = v ?? ""; } };
  },
  choice: (spec, id, told) => {
    if (spec.free) return LL.makers.suggest(spec, id, told);
    const input = LL.el("select", { id });
    spec.choices.forEach((choice, i) => input.append(LL.el("option", { value: i, text: choice === null ? "none" : LL.number(choice) })));
    input.addEventListener("change", () => told(true));
    return { input, value: () => spec.choices[Number(input.value)], show: (v) => { input.value = spec.choices.findIndex((c) => LL.same(c, v)); } };
  },
  // a free text with usual values: a menu of those, of what was in force before, and of what is typed
  suggest: (spec, id, told) => {
    const known = spec.seen ?? new Set(), input = LL.el("select", { id }), node = LL.el("span", { class: "ll-suggest" }, input);
    const [called, begins] = spec.typed ?? ["other", ""];
    let now = null;
    for (const choice of spec.choices) known.add(choice);
    const show = (v) => {
      now = v;
      const texts = [...new Set([...known, v ?? ""])], list = JSON.stringify(texts);
      if (input.dataset.known !== list) { input.dataset.known = list; input.replaceChildren(...texts.map((text) => LL.el("option", { value: `=${text}`, text: text === "" ? "none" : text })), LL.el("option", { value: "other", text: `${called} …` })); }
      input.value = `=${v}`; input.title = String(v ?? "");
    };
    input.addEventListener("change", () => {
      if (input.value !== "other") { now = input.value.slice(1); told(true); return; }
      input.value = `=${now}`;
      const begun = !String(now ?? "").startsWith(begins);
      LL.typed(input, begun ? begins : String(now ?? ""), spec.label, (text) => { show(text.trim()); told(true); return true; }, begun);
    });
    return { input, node, value: () => now, show, keep: (v) => known.add(v ?? "") };
  },
  switch: (spec, id, told) => {
    const input = LL.el("input", { type: "checkbox", role: "switch", id });
    input.addEventListener("change", () => told(true));
    return { input, value: () => input.checked, show: (v) => { input.checked = Boolean(v); } };
  },
  text: (spec, id, told) => {
    const input = LL.el("input", { type: "text", id, spellcheck: "false" });
    input.addEventListener("change", () => told(true)); LL.onEnter(input, () => told(true));
    return { input, value: () => input.value, show: (v) => { input.value = v ?? ""; } };
  },
};
LL.makers.log = LL.makers.slider;

// a number, or a range of them: two thumbs on one track; where both stand on one place it is a number
LL.makers.range = (spec, id, told) => {
  const scale = LL.scale({ ...spec, widget: spec.scale === "log" ? "log" : "slider" }), fine = spec.scale === "log" ? "any" : scale.step;
  const thumb = (end, more) => LL.el("input", { type: "range", min: scale.low, max: scale.high, step: fine, "data-end": end, "aria-label": `${spec.label}, ${end} end of its range`, ...more });
  const inputs = [thumb("low", { id }), thumb("high")], node = LL.el("fieldset", { class: "ll-pair" }, ...inputs);
  let ends = [spec.low, spec.low];
  const fill = () => { inputs.forEach((input, k) => { input.value = scale.place(ends[k]); }); const share = (v) => (100 * (scale.place(v) - scale.low)) / (scale.high - scale.low || 1); node.style.setProperty("--a", `${share(ends[0])}%`); node.style.setProperty("--b", `${share(ends[1])}%`); };
  const move = (k, v, final) => { ends[k] = v; if (ends[0] > ends[1]) ends[1 - k] = v; fill(); told(final); };
  inputs.forEach((input, k) => {
    input.addEventListener("input", () => move(k, scale.read(Number(input.value)), false));
    input.addEventListener("change", () => told(true));
    input.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!step || !scale.move) return;
      event.preventDefault(); move(k, scale.move(ends[k], step), true);
    });
  });
  return { input: node, value: () => (LL.same(ends[0], ends[1]) ? ends[0] : { low: ends[0], high: ends[1], scale: spec.scale ?? "linear" }),
    show: (v) => { ends = v !== null && typeof v === "object" ? [v.low, v.high] : [v ?? spec.low, v ?? spec.low]; fill(); },
    text: (v) => (v !== null && typeof v === "object" ? `${v.low}..${v.high}` : String(v ?? "")),
    read: (text) => { const [a, b] = text.split(/\.\.|–/).map(LL.readNumber); return b === undefined ? a : Number.isFinite(a) && Number.isFinite(b) ? { low: a, high: b, scale: spec.scale ?? "linear" } : NaN; },
    say: (text) => { for (const input of inputs) input.setAttribute("aria-valuetext", text); } };
};

// several values in one field: 64, 32
LL.makers.list = (spec, id, told) => {
  const input = LL.el("input", { type: "text", id, spellcheck: "false", title: "values with commas between them" });
  const text = (v) => (Array.isArray(v) ? JSON.stringify(v).slice(1, -1).replaceAll('"', "").replaceAll(",", ", ") : v ?? "");
  const value = () => { const typed = input.value.trim().replace(/,$/, ""); if (typed === "" && spec.optional) return null; try { return JSON.parse(`[${typed}]`); } catch { return typed.split(",").map((one) => one.trim()); } };
  input.addEventListener("change", () => told(true)); LL.onEnter(input, () => told(true));
  return { input, value, show: (v) => { input.value = text(v); } };
};

// a field in the place of a node: Enter hands its text on, Escape and blur bring the node back
LL.typed = (node, text, label, done, begun = false) => {
  const field = LL.el("input", { type: "text", class: "ll-typed", spellcheck: "false", autocomplete: "off", "aria-label": `${label}, type a value`, title: "Enter sends, Escape leaves it as it is" });
  let open = true;
  const close = (focus) => { if (!open) return; open = false; field.replaceWith(node); if (focus) node.focus({ preventScroll: true }); };
  field.value = text;
  field.addEventListener("keydown", (event) => { // the focus moves to the node: the key must not press it as well
    if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
    event.preventDefault(); event.stopPropagation();
    const said = field.value;
    if (event.key === "Escape") close(true); else if (done(said)) close(true);
  });
  field.addEventListener("blur", () => close(false));
  node.replaceWith(field); field.focus({ preventScroll: true });
  if (!begun) field.select();
};

// Enter means "now": inside a notebook the page may keep the key from becoming a change event
LL.onEnter = (input, call) => input.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.stopPropagation(); call(); } });

LL.control = (spec, id, send) => {
  const ROW = { choice: 1, number: 1, switch: 1, text: 1, list: 1 };
  let sent = null, posted = null, sentAt = 0, timer = null, lastSent = 0, value = null, waiting = null;
  const shown = ROW[spec.widget] ? null : LL.el("button", { class: "ll-value", type: "button", "aria-label": `${spec.label}: type a value`, title: "click, or press Enter, to type a value" });
  const exact = (v) => (maker.text ? maker.text(v) : typeof v === "number" ? String(v) : "");
  const reset = LL.el("button", { class: "ll-reset", type: "button", text: "↺", hidden: true, title: `back to the default, ${LL.number(spec.default)}`, "aria-label": `${spec.label}: back to the default` });
  const error = LL.el("div", { class: "ll-error", role: "alert", hidden: true });
  const queued = LL.el("div", { class: "ll-queued", hidden: true });

  const post = () => { clearTimeout(timer); timer = null; lastSent = performance.now(); posted = sent; send(spec.name, sent); };
  const ask = (next, final) => {
    sent = next; sentAt = performance.now(); error.hidden = true; display(next);
    if (spec.group !== "live") { clearTimeout(timer); if (final) timer = setTimeout(post, 250); return; } // a rebuild waits for the release
    if (final) { post(); return; }
    if (timer === null) timer = setTimeout(post, Math.max(0, 60 - (performance.now() - lastSent)));
  };
  const maker = LL.makers[spec.widget](spec, id, (final) => {
    const next = maker.value();
    if (final && timer === null && posted !== null && LL.same(next, posted) && performance.now() - lastSent < 1500) return; // said already while dragging
    if (typeof next === "number" && !Number.isFinite(next)) { refuse(`${spec.label} must be a number.`); return; }
    ask(next, final);
  });
  shown?.addEventListener("click", () => {
    LL.typed(shown, exact(waiting?.value ?? sent ?? value), spec.label, (text) => {
      const next = maker.read ? maker.read(text) : LL.readNumber(text);
      if (text.trim() === "" || (typeof next === "number" && !Number.isFinite(next))) { refuse(`${spec.label} must be a number${maker.read ? " or a range such as 0.1..1" : ""}: got ${text.trim() || "nothing"}.`); return true; }
      maker.show(next); ask(next, true);
      return true;
    });
  });
  const display = (v) => {
    const drawn = v !== null && typeof v === "object" && !ROW[spec.widget] ? " per example" : "", unit = spec.unit && !ROW[spec.widget] && spec.unit.length <= 9 ? ` ${LL.unit(v, spec.unit)}` : "", text = LL.number(v) + unit + drawn;
    if (shown && shown.dataset.text !== text) { shown.dataset.text = text; shown.replaceChildren(document.createTextNode(LL.number(v)), unit ? LL.el("small", { text: unit }) : "", drawn ? LL.el("small", { class: "ll-each", text: drawn }) : ""); shown.setAttribute("aria-label", `${spec.label}, ${text}: type a value`); }
    maker.say?.(text); reset.hidden = LL.same(v, spec.default);
    node.classList.toggle("changed", !reset.hidden);
  };
  reset.addEventListener("click", () => { maker.show(spec.default); ask(spec.default, true); });
  const label = LL.el("label", { for: id, text: spec.label });
  let why = ""; // it does not matter now
  const node = LL.el("div", { class: `ll-control ${ROW[spec.widget] ? "row" : "range"} ${spec.widget}`, "data-name": spec.name },
    label, reset, shown, maker.node ?? maker.input, queued, error);

  const truth = (v) => {
    if (!LL.same(value, v)) error.hidden = true;
    maker.keep?.(v);
    value = v;
    if (waiting !== null) return;
    const busy = sent !== null && !LL.same(sent, v);
    if (!busy) sent = null;
    const holding = busy && (timer !== null || performance.now() - sentAt < 2500);
    if (holding) return;
    sent = null;
    if (document.activeElement !== maker.input || !["number", "text", "list"].includes(spec.widget)) maker.show(v);
    display(v);
  };
  const refuse = (sentence) => {
    sent = null; clearTimeout(timer); timer = null;
    error.textContent = sentence; error.hidden = false; maker.show(value); display(value);
    setTimeout(() => { error.hidden = true; }, 12000);
  };
  return {
    node, spec, refuse, truth, input: maker.input,
    pending: (on, v) => {
      if (!on) { if (waiting) { waiting = null; queued.hidden = true; truth(value); } return; }
      waiting = { value: v ?? waiting?.value ?? sent ?? value };
      queued.hidden = false; LL.put(queued, `${LL.same(value, waiting.value) ? "" : `${LL.number(value)} → ${LL.number(waiting.value)} `}waits for the rebuild`);
      if (document.activeElement !== maker.input) { maker.show(waiting.value); display(waiting.value); }
    },
    applies: (yes, sentence) => { maker.input.disabled = !yes; if (shown) shown.disabled = !yes; node.classList.toggle("off", !yes); why = yes ? "" : sentence; },
    why: () => why,
    now: () => waiting?.value ?? sent ?? value,
    stop: () => clearTimeout(timer),
  };
};

// What a control does, and then why it starts where it does: beside the control under the pointer or with the keyboard's focus. Escape closes it.
LL.help = (side, box) => {
  const node = LL.el("div", { class: "ll-help", role: "tooltip", id: `ll${Math.random().toString(36).slice(2, 8)}-help`, hidden: true });
  let at = null, timer = null;
  box.append(node);
  const hide = () => { clearTimeout(timer); timer = null; node.hidden = true; if (at) at.input.removeAttribute("aria-describedby"); at = null; };
  const place = () => {
    const home = box.getBoundingClientRect(), a = at.node.getBoundingClientRect(), column = side.getBoundingClientRect();
    const beside = column.right - home.left + 250 < home.width; // in a narrow panel the controls take the whole width: below then
    node.style.left = `${beside ? column.right - home.left + 4 : Math.max(4, a.left - home.left)}px`;
    node.style.top = `${Math.max(4, Math.min(beside ? a.top - home.top - 6 : a.bottom - home.top + 4, home.height - node.offsetHeight - 6))}px`;
  };
  const open = (control) => {
    const { spec } = control, sentence = (text) => { const s = String(text ?? "").trim(); return s && `${s[0].toUpperCase()}${s.slice(1)}${/[.!?]$/.test(s) ? "" : "."}`; };
    const range = spec.low !== null && spec.low !== undefined && spec.high !== null && spec.high !== undefined ? `${LL.number(spec.low)} to ${LL.number(spec.high)}` : "";
    clearTimeout(timer); if (at) at.input.removeAttribute("aria-describedby");
    at = control;
    node.replaceChildren(...[LL.el("b", { text: spec.label }), spec.what ? LL.el("div", { class: "ll-help-what" }, ...LL.coded(sentence(spec.what))) : null,
      LL.el("div", { class: "ll-help-why" }, LL.el("b", { text: `Default ${LL.number(spec.default)}` }), ...(spec.help ? [": ", ...LL.coded(sentence(spec.help))] : ["."])),
      range || spec.unit ? LL.el("div", { class: "ll-note", text: [range && `range ${range}`, spec.unit].filter(Boolean).join(", ") }) : null,
      LL.el("div", { class: "ll-note", text: spec.group === "live" ? "in force from the next step" : "builds the model anew" }),
      control.why() ? LL.el("div", { class: "ll-queued", text: sentence(control.why()) }) : null].filter(Boolean));
    node.hidden = false; control.input.setAttribute("aria-describedby", node.id); place();
  };
  side.addEventListener("scroll", hide, { passive: true });
  side.addEventListener("input", hide, true); // who moves a slider wants to see the picture, which the help may cover
  side.addEventListener("keydown", (event) => { if (/^(Escape|Arrow|Page|Home|End)/.test(event.key)) hide(); }, true);
  return { hide, watch: (control) => {
    control.node.addEventListener("pointerenter", (event) => { if (event.pointerType === "touch") return; clearTimeout(timer); timer = setTimeout(() => open(control), node.hidden ? 300 : 0); });
    control.node.addEventListener("pointerleave", () => { if (control.node.contains(document.activeElement) && control.node.querySelector(":focus-visible")) return; hide(); });
    control.node.addEventListener("pointerdown", () => { clearTimeout(timer); });
    control.node.addEventListener("focusin", () => { if (control.node.querySelector(":focus-visible")) open(control); });
    control.node.addEventListener("focusout", () => { if (at === control) hide(); });
  } };
};

LL.controls = (host, send, box) => {
  const all = new Map(), help = LL.help(host, box);
  let values = {}, closed = false;
  const seen = new Map(); // control -> texts that were offered or in force since the page was loaded: a schema forgets them
  const applies = () => {
    for (const control of all.values()) {
      const when = control.spec.when;
      if (!when) continue;
      const other = all.get(when[0]);
      const current = other ? other.now() : values[when[0]];
      control.applies(LL.same(current, when[1]), `matters only while ${other?.spec.label ?? when[0]} is ${LL.number(when[1])}`);
    }
  };
  const build = (schema) => {
    host.replaceChildren(); all.clear(); help.hide();
    for (const spec of schema) if (!seen.has(spec.path ?? spec.name)) seen.set(spec.path ?? spec.name, new Set());
    const prefix = `ll${Math.random().toString(36).slice(2, 8)}`;
    for (const [key, title, note] of LL.GROUPS) {
      const members = schema.filter((spec) => spec.group === key && LL.makers[spec.widget]);
      if (!members.length) continue;
      const group = LL.el("fieldset", { class: `ll-group ${key}` }, LL.el("legend", {}, LL.el("b", { text: title }), LL.el("span", { text: ` ${note}` })));
      const folded = members.filter((spec) => spec.folded), summary = LL.el("summary", {}), more = LL.el("details", { class: "ll-more" }, summary);
      summary.textContent = `${folded.length} more: ${folded.map((spec) => spec.label).join(", ")}`;
      for (const spec of members) {
        const control = LL.control({ ...spec, seen: seen.get(spec.path ?? spec.name) }, `${prefix}-${spec.name}`, (name, value) => { send(name, value); applies(); });
        help.watch(control);
        all.set(spec.name, control); (spec.folded ? more : group).append(control.node);
      }
      if (folded.length) group.append(more);
      host.append(group);
    }
    shut(closed);
    if (Object.keys(values).length) show(values);
  };
  const shut = (yes) => { closed = yes; for (const group of host.querySelectorAll("fieldset")) group.disabled = yes; };
  const show = (next) => {
    values = next;
    for (const [name, control] of all) if (name in next) control.truth(next[name]);
    for (const more of host.querySelectorAll(".ll-more:not([data-seen])")) { more.dataset.seen = "true"; more.open = more.querySelector(".changed") !== null; } // what is not at its default is never folded away
    applies();
  };
  return {
    build, values: show, shut,
    refresh: () => show(values),
    refuse: (name, sentence) => { const control = all.get(name); control?.refuse(sentence); applies(); return Boolean(control); },
    pending: (wanted) => { for (const [name, control] of all) control.pending(name in wanted, wanted[name]); },
    asked: (name) => all.get(name)?.now(),
    label: (name) => all.get(name)?.spec.label ?? name,
    stop: () => { help.hide(); for (const control of all.values()) control.stop(); },
  };
};

// What the browser alone decides: how the mask is shown. Nothing here sends a message.
LL.pictureBar = (host, picture, changed) => {
  const id = `ll${Math.random().toString(36).slice(2, 8)}`;
  const slider = (label, name, low, high, step, told) => {
    const value = LL.el("output", { class: "ll-value" });
    const input = LL.el("input", { type: "range", id: `${id}-${name}`, min: low, max: high, step, value: picture[name], "data-picture": name, "aria-label": label });
    const show = () => { const text = `${Math.round(100 * input.value)} %`; LL.put(value, text); input.setAttribute("aria-valuetext", text); input.style.setProperty("--p", `${(100 * (input.value - low)) / (high - low)}%`); };
    input.addEventListener("input", () => { picture[name] = Number(input.value); show(); told(); changed(); });
    show();
    return { input, value };
  };
  const group = LL.el("div", { class: "ll-segments", role: "radiogroup", "aria-label": "mask shown" });
  const buttons = [["soft", "soft", "as the explainer says: every pixel partly kept"], ["area", "hard, same area", "the first pixels by rank, as many as the soft mask holds: what a dimmed image cannot fake"], ["top", "top", "the first pixels by rank, as many as the slider says"]].map(([key, label, why]) => {
    const button = LL.el("button", { type: "button", role: "radio", title: why, text: label, "data-mask": key });
    button.addEventListener("click", () => { select(key); changed(); });
    button.addEventListener("keydown", (event) => { const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; if (move) { event.preventDefault(); const next = buttons[(buttons.indexOf(button) + move + buttons.length) % buttons.length]; next.click(); next.focus(); } });
    group.append(button);
    return button;
  });
  const select = (key) => { picture.mask = key; for (const b of buttons) { const on = b.dataset.mask === key; b.setAttribute("aria-checked", String(on)); b.tabIndex = on ? 0 : -1; } };
  select(picture.mask);
  const colours = LL.el("div", { class: "ll-colours", role: "radiogroup", "aria-label": "overlay colour" });
  for (const [name, colour] of [["orange", "#E69F00"], ["sky blue", "#56B4E9"], ["green", "#009E73"], ["pink", "#CC79A7"]]) {
    const button = LL.el("button", { type: "button", role: "radio", "aria-checked": String(colour === picture.colour), "aria-label": name, title: `overlay in ${name}`, style: `--c:${colour}` });
    button.addEventListener("click", () => { picture.colour = colour; for (const b of colours.children) b.setAttribute("aria-checked", String(b === button)); changed(); });
    colours.append(button);
  }
  const share = slider("keep the top share of the pixels", "top", 0.01, 1, 0.01, () => select("top")), opacity = slider("overlay strength", "opacity", 0, 1, 0.01, () => {});
  buttons[2].append(" ", share.value);
  host.append(LL.el("div", { class: "ll-pick" }, LL.el("span", { text: "mask" }), group, share.input),
    LL.el("div", { class: "ll-pick" }, LL.el("label", { for: opacity.input.id, text: "overlay" }), opacity.input, opacity.value, colours));
};
