// Title, question, state and the five commands.
LL.STATES = { idle: "ready", building: "building", running: "running", paused: "paused", stopped: "stopped", failed: "failed" };

LL.header = (host, send) => {
  const title = LL.el("b", { class: "ll-title" }), question = LL.el("span", { class: "ll-question" });
  const state = LL.el("b"), detail = LL.el("span"), pill = LL.el("span", { class: "ll-pill", role: "status" }, LL.el("i", { "aria-hidden": "true" }), state, detail);
  const button = (name, text, why) => LL.el("button", { type: "button", class: "ll-button", "data-command": name, title: why, text, on: { click: () => press(name) } });
  const toggle = LL.el("button", { type: "button", class: "ll-button primary", on: { click: () => press(toggle.dataset.command) } });
  const buttons = { step: button("step", "Step", "one training step"), rebuild: button("rebuild", "Rebuild", "start afresh with these settings and this seed"), stop: button("stop", "Stop", "end the training thread; the model stays") };
  host.append(LL.el("div", { class: "ll-titles" }, title, question), pill, LL.el("div", { class: "ll-buttons", role: "group", "aria-label": "training" }, toggle, ...Object.values(buttons)));
  let timer = null;
  const press = (name) => { send(name); host.classList.add("asked"); clearTimeout(timer); timer = setTimeout(() => host.classList.remove("asked"), 1500); };
  const layout = (next) => { LL.put(title, next.title ?? ""); question.replaceChildren(...LL.rich(next.question)); };
  const status = (now, step, stale, closed = false) => {
    const name = LL.STATES[now.state] ? now.state : "idle", running = name === "running";
    pill.dataset.state = stale ? "stale" : name;
    LL.put(state, closed ? "closed" : stale ? "no frames" : LL.STATES[name]);
    const parts = [];
    if (step !== null && step !== undefined) parts.push(`step ${LL.number(step)}`);
    if (running && !stale && now.rate > 0) parts.push(`${LL.number(now.rate, now.rate < 10 ? 2 : 3)} steps/s`);
    if (now.device) parts.push(now.device);
    LL.put(detail, parts.join(" · "));
    toggle.dataset.command = running ? "pause" : "run";
    LL.put(toggle, running ? "❚❚ Pause" : "▶ Run");
    toggle.title = running ? "pause after this step" : "train until paused";
    toggle.disabled = closed || name === "building";
    buttons.step.disabled = closed || running || name === "building";
    buttons.stop.disabled = closed || name === "idle" || name === "stopped";
    buttons.rebuild.disabled = closed || name === "building";
  };
  return { layout, status, answered: () => host.classList.remove("asked"), stop: () => clearTimeout(timer) };
};
