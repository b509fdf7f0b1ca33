// Checks as lights: a shape and a word beside the colour, the sentence and the remedy for what is not well.
LL.MARK = { ok: "✓", warn: "!", bad: "✕", off: "–" };
LL.WORD = { ok: "ok", warn: "warning", bad: "failed", off: "not run" };

LL.lights = (host) => {
  const strip = LL.el("div", { class: "ll-lights" }), stamp = LL.stamp(), detail = LL.el("div", { class: "ll-details", role: "status", "aria-live": "polite" }), opened = new Set();
  host.append(strip, detail);
  let checks = [], last = "";
  const draw = () => {
    const text = JSON.stringify([checks, [...opened]]);
    if (text === last) return;
    last = text;
    const focused = strip.contains(document.activeElement) ? document.activeElement.dataset.check : null;
    strip.replaceChildren(LL.el("b", { class: "ll-strip-title", text: "Checks" }), stamp.node); stamp.set(checks[0]?.step);
    detail.replaceChildren();
    if (!checks.length) strip.append(LL.el("span", { class: "ll-note", text: "none has run yet" }));
    for (const check of checks) {
      const open = opened.has(check.name), level = LL.MARK[check.level] ? check.level : "off";
      const light = LL.el("button", { class: `ll-light ${level}`, type: "button", "data-check": check.name, "aria-expanded": String(open), title: check.sentence ?? "",
        on: { click: () => { if (!opened.delete(check.name)) opened.add(check.name); draw(); } } },
        LL.el("i", { text: LL.MARK[level], "aria-label": LL.WORD[level] }), LL.el("span", { text: check.label ?? check.name }));
      if (check.value !== undefined && check.value !== null) light.append(LL.el("small", { text: LL.number(check.value) }));
      strip.append(light);
      if (check.name === focused) light.focus();
      if (!(open || level === "warn" || level === "bad")) continue;
      const line = LL.el("div", { class: `ll-detail ${level}` }, LL.el("b", { text: `${check.label ?? check.name}: ` }), LL.el("span", { text: check.sentence ?? "" }));
      if (check.threshold !== undefined && check.threshold !== null) line.append(LL.el("span", { class: "ll-note", text: ` threshold ${LL.number(check.threshold)}` }));
      if (check.remedy) line.append(LL.el("span", { class: "ll-remedy", text: ` ${check.remedy}` }));
      detail.append(line);
    }
  };
  return {
    set: (list) => { checks = list ?? []; draw(); },
    show: (name) => { // open one, and bring the keyboard there
      if (name) opened.add(name);
      draw();
      const light = strip.querySelector(name ? `[data-check="${CSS.escape(name)}"]` : "[data-check]");
      light?.scrollIntoView({ block: "nearest" }); light?.focus({ preventScroll: true });
    },
  };
};

LL.differs = (host) => (list) => {
  host.replaceChildren(LL.el("b", { class: "ll-strip-title", text: "Differs from the defaults" }));
  if (!list?.length) host.append(LL.el("span", { class: "ll-note", text: "nothing" }));
  for (const item of list ?? []) host.append(LL.chip(item.label, item.default, item.value));
};
