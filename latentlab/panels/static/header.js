// Title, question, state and the five commands.
LL.STATES = { idle: "ready", building: "building", running: "running", paused: "paused", stopped: "stopped", failed: "failed" };

// how serious a level is, and the word that leads its sentence in the top line
LL.RANK = { bad: 2, warn: 1, ok: 0 };

// the worst of some verdicts, the first of equals; null for none
LL.worst = (checks) => (checks ?? []).reduce((worst, check) => (check.level in LL.RANK && (!worst || LL.RANK[check.level] > LL.RANK[worst.level]) ? check : worst), null);

// how many checks have each level, the worst first, as marks: [["bad", "✕ 1"], ["ok", "✓ 6"]]
LL.tally = (checks) => ["bad", "warn", "ok"].map((level) => [level, (checks ?? []).filter((check) => check.level === level).length]).filter(([, count]) => count).map(([level, count]) => [level, `${LL.MARK[level]} ${count}`]);

LL.header = (host, send, lead) => {
  const title = LL.el("b", { class: "ll-title" }), question = LL.el("span", { class: "ll-question" });
  const state = LL.el("b"), detail = LL.el("span"), pill = LL.el("span", { class: "ll-pill", role: "status" }, LL.el("i", { "aria-hidden": "true" }), state, detail);
  const button = (name, text, why) => LL.el("button", { type: "button", class: "ll-button", "data-command": name, title: why, text, on: { click: () => press(name) } });
  const toggle = LL.el("button", { type: "button", class: "ll-button primary", on: { click: () => press(toggle.dataset.command) } });
  const buttons = { step: button("step", "Step", "one training step"), rebuild: button("rebuild", "Rebuild", "start afresh with these settings and this seed"), stop: button("stop", "Stop", "end the training thread; the model stays") };
  const mark = LL.el("i"), words = LL.el("span", { class: "ll-verdict-words" }), stamp = LL.stamp(), verdict = LL.el("button", { type: "button", class: "ll-verdict off", on: { click: () => lead(verdict.dataset.check) } }, mark, words, stamp.node);
  host.append(LL.el("div", { class: "ll-titles" }, title, question), LL.el("div", { class: "ll-now" }, pill, verdict), LL.el("div", { class: "ll-buttons", role: "group", "aria-label": "training" }, toggle, ...Object.values(buttons)));
  const verdicts = (checks) => {
    const worst = LL.worst(checks), level = worst?.level ?? "off", fine = level === "ok", others = LL.tally(checks).filter(([one]) => one !== "ok" && one !== level).map(([, text]) => text);
    verdict.className = `ll-verdict ${level}`; verdict.dataset.level = level; verdict.dataset.check = fine ? "" : worst?.name ?? "";
    LL.put(mark, LL.MARK[level]); mark.setAttribute("aria-label", LL.WORD[level]);
    const same = (checks ?? []).filter((check) => check.level === level).length - 1, more = [same > 0 ? `+${same}` : "", ...others].filter(Boolean).join(" ");
    words.replaceChildren(...(level === "off" ? ["no check has run yet"] : fine ? [`${checks.length} ${LL.unit(checks.length, "checks")} well`] : [LL.el("b", { text: `${worst.label ?? worst.name}: ` }), LL.el("span", { text: worst.sentence ?? "" }), more ? LL.el("small", { text: ` ${more}` }) : ""]));
    verdict.title = level === "off" || fine ? "show the checks" : [worst.sentence, worst.remedy, "Click: all checks."].filter(Boolean).join("\n");
    stamp.set(worst?.step);
  };
  let timer = null;
  const press = (name) => { send(name); host.classList.add("asked"); clearTimeout(timer); timer = setTimeout(() => host.classList.remove("asked"), 1500); };
  const layout = (next) => { LL.put(title, next.title ?? ""); question.replaceChildren(...LL.rich(next.question)); };
  const status = (now, step, stale, closed = false, slides = false) => {
    const name = LL.STATES[now.state] ? now.state : "idle", running = name === "running";
    pill.dataset.state = stale ? "stale" : name;
    LL.put(state, closed ? "closed" : stale ? "no frames" : LL.STATES[name]);
    const parts = [];
    if (step !== null && step !== undefined) parts.push(`step ${LL.number(step)}`);
    if (running && !stale && slides) parts.push("waits for the slider");
    else if (running && !stale && now.rate > 0) parts.push(`${LL.number(now.rate, now.rate < 10 ? 2 : 3)} steps/s`);
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
  return { layout, status, verdicts, answered: () => host.classList.remove("asked"), stop: () => clearTimeout(timer) };
};

// Code from outside that the training needs: each value whole, what would be run or fetched, and nothing of it before the click.
LL.trust = (host, send) => {
  const list = LL.el("div", { class: "ll-trust-values" });
  const answer = (name) => { yes.disabled = no.disabled = true; send(name, host.dataset.question); };
  const yes = LL.el("button", { type: "button", class: "ll-button", "data-command": "trust", on: { click: () => answer("trust") } });
  const no = LL.el("button", { type: "button", class: "ll-button", "data-command": "leave", text: "Leave it", title: "nothing is run, and the old model stays", on: { click: () => answer("leave") } });
  host.append(LL.el("b", { text: "This needs code from outside." }), list, LL.el("div", { text: "It would run with your rights, on your files and your network. Trust it only if you know where it comes from." }), LL.el("div", { class: "ll-trust-buttons" }, yes, no));
  let timer = null;
  return {
    ask: (question) => {
      if ((host.dataset.question ?? "") === (question?.id ?? "")) return;
      host.dataset.question = question?.id ?? ""; host.hidden = !question;
      clearTimeout(timer);
      if (!question) return;
      list.replaceChildren(...question.values.map((one) => LL.el("div", {}, `${one.label} `, LL.el("code", { text: one.value }), ` ${one.does}.`)));
      LL.put(yes, `Trust and ${question.verb}`); no.disabled = false;
      yes.disabled = true; timer = setTimeout(() => { yes.disabled = false; }, 600); // the second click of a double click on what stood here is no answer
    },
    stop: () => clearTimeout(timer),
  };
};
