// A number of the picture and not of the settings: a position on a range, a count of tokens, one latent. Python hears of it and answers with a frame.
LL.throttle = (call, wait = 60) => {
  let timer = null, last = 0, value = null, posted; // the last value is sent at once when it is final, and never twice
  const post = () => { clearTimeout(timer); timer = null; if (value === posted && performance.now() - last < 1500) return; last = performance.now(); posted = value; call(value); };
  const ask = (next, final) => { value = next; if (final) post(); else timer ??= setTimeout(post, Math.max(0, wait - (performance.now() - last))); };
  ask.stop = () => clearTimeout(timer);
  ask.forget = () => { posted = undefined; };
  return ask;
};

// the sentence of a refusal below a picture
LL.answer = () => {
  const node = LL.el("div", { class: "ll-error", role: "alert", hidden: true });
  let timer = null;
  return { node, say: (text) => { node.textContent = text; node.hidden = false; clearTimeout(timer); timer = setTimeout(() => { node.hidden = true; }, 12000); }, clear: () => { node.hidden = true; } };
};

LL.slider = (spec, tell) => {
  const full = { ...spec, widget: spec.scale === "log" ? "log" : "slider", type: spec.whole ? "int" : "float" }, id = `ll${Math.random().toString(36).slice(2, 8)}`, answer = LL.answer();
  let now = spec.value ?? spec.low, good = now, asked = 0;
  const post = LL.throttle((v) => { asked = performance.now(); tell(spec.name, "slide", v); });
  const maker = LL.makers.slider(full, id, (final) => { now = maker.value(); answer.clear(); show(); post(now, final); });
  const shown = LL.el("button", { class: "ll-value", type: "button", title: "click, or press Enter, to type a value" });
  const show = () => { const text = `${LL.number(now)}${spec.unit ? ` ${LL.unit(now, spec.unit)}` : ""}`; LL.put(shown, text); shown.setAttribute("aria-label", `${spec.label ?? spec.name}, ${text}: type a value`); maker.say?.(text); node.dataset.value = String(now); };
  const put = (v) => { now = v; maker.show(v); show(); };
  shown.addEventListener("click", () => LL.typed(shown, String(now), spec.label ?? spec.name, (text) => {
    const next = Number(text.trim());
    if (text.trim() === "" || !Number.isFinite(next) || next < spec.low || next > spec.high) answer.say(`${spec.label ?? spec.name} must lie between ${LL.number(spec.low)} and ${LL.number(spec.high)}: got ${text.trim() || "nothing"}.`);
    else { put(next); post(now, true); }
    return true;
  }));
  maker.input.setAttribute("data-slide", spec.name);
  const ends = LL.el("div", { class: "ll-slider-ends", "aria-hidden": "true" }, LL.el("span", { text: spec.ends?.[0] ?? LL.number(spec.low) }), LL.el("span", { text: spec.ends?.[1] ?? LL.number(spec.high) }));
  const node = LL.el("div", { class: "ll-slider", "data-picture": "slider", "data-source": spec.name, title: spec.help ?? "" }, LL.el("div", { class: "ll-slider-head" }, LL.el("label", { for: id, text: spec.label ?? spec.name }), LL.el("span", { class: "ll-note", text: spec.note ?? "" }), shown), maker.input, ends, answer.node);
  put(now);
  return { node, sources: [spec.name], frame: () => {}, paint: () => {}, theme: () => {}, destroy: () => post.stop(),
    place: (positions) => { good = positions[spec.name] ?? spec.value ?? spec.low; if (performance.now() - asked > 700 && !LL.same(good, now)) put(good); },
    refused: (source, sentence) => { put(good); post.forget(); answer.say(sentence); } };
};
