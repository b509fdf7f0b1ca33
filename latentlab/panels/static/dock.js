// What stands below the pictures: curves, as many side by side as have room, and the checks and changed settings behind tabs; a wide panel shows those beside the pictures.
LL.DOCK = 220; // pixels that curves need with their names and axes
LL.PLOT_WIDTH = 270; // of one plot at least
LL.WIDE = 1400; // from where checks and changes have a column of their own

// the part of the page that scrolls a notebook; null elsewhere
LL.scroller = (node) => node.closest(".jp-WindowedPanel-outer") ?? node.closest(".jp-Notebook");

LL.heightFor = (node, scroller) => {
  const seen = scroller?.clientHeight || window.innerHeight - 40;
  return Math.round(Math.max(600, Math.min(1150, seen - 12)));
};

// A notebook that is run as a whole scrolls to its last cell. The first panel that appears is brought back into sight, until somebody scrolls, clicks or types.
LL.keepInSight = (root, scroller, fresh) => {
  const done = new AbortController(), stop = () => done.abort();
  let mine = true; // until a hand moves, no other panel of this page takes its place
  if (!fresh || !scroller || window.latentlabShown?.isConnected) return { stop };
  window.latentlabShown = root;
  const here = () => { const a = root.getBoundingClientRect(), b = scroller.getBoundingClientRect(); return Math.abs(a.top - b.top) < 40 || (a.top >= b.top - 1 && a.bottom <= b.bottom + 1); };
  const back = () => { if (!done.signal.aborted && root.isConnected && !here()) root.scrollIntoView({ block: "start" }); };
  const end = setTimeout(() => { mine = false; stop(); }, 120000);
  for (const kind of ["wheel", "pointerdown", "keydown", "touchstart"]) window.addEventListener(kind, stop, { capture: true, passive: true, signal: done.signal });
  scroller.addEventListener("scroll", () => requestAnimationFrame(back), { passive: true, signal: done.signal });
  done.signal.addEventListener("abort", () => { clearTimeout(end); if (mine && window.latentlabShown === root) window.latentlabShown = null; });
  requestAnimationFrame(back);
  return { stop };
};

LL.dock = (host, aside, panes, shown) => {
  const tabs = LL.el("div", { class: "ll-tabs", role: "tablist", "aria-label": "curves, checks and changes" }), area = LL.el("div", { class: "ll-pages" });
  host.append(tabs, area);
  let names = [], nodes = [], pages = [], open = "plots-0", built = "", marks = {};
  const wide = () => host.closest(".ll")?.clientWidth >= LL.WIDE;
  const choose = (key, focus = false) => {
    if (!pages.some((page) => page.key === key)) key = pages[0]?.key;
    open = key;
    for (const page of pages) {
      const on = page.key === key;
      page.node.hidden = page.tab ? !on : false;
      if (page.tab) { page.tab.setAttribute("aria-selected", String(on)); page.tab.tabIndex = on ? 0 : -1; if (on && focus) page.tab.focus(); }
    }
    shown();
  };
  const label = (page) => { if (page.tab) page.tab.replaceChildren(LL.el("span", { text: page.title }), ...(marks[page.key] ?? []).map(([kind, text]) => LL.el("i", { class: `ll-tally ${kind}`, text }))); };
  const build = () => {
    const width = host.clientWidth, most = Math.max(1, Math.floor(width / LL.PLOT_WIDTH)), beside = wide(), text = JSON.stringify([names, most, beside]);
    if (text === built && nodes.every((node) => node.isConnected)) return false;
    built = text; pages = [];
    for (let at = 0; at < nodes.length; at += most) {
      const node = LL.el("div", { class: "ll-plots", role: "tabpanel" }); node.append(...nodes.slice(at, at + most)); node.style.setProperty("--ll-plots", Math.min(most, nodes.length));
      pages.push({ key: `plots-${pages.length}`, title: names.slice(at, at + most).join(" · "), node });
    }
    for (const [key, [title, content]] of Object.entries(panes)) pages.push({ key, title, node: content, pane: true });
    const behind = pages.filter((page) => !(beside && page.pane));
    aside.replaceChildren(...pages.filter((page) => beside && page.pane).map((page) => page.node)); aside.hidden = !aside.children.length;
    area.replaceChildren(...behind.map((page) => page.node)); tabs.replaceChildren(); tabs.hidden = behind.length < 2; host.hidden = !behind.length;
    for (const page of behind) {
      page.tab = LL.el("button", { type: "button", class: "ll-tab", role: "tab", "data-dock": page.key, on: { click: () => choose(page.key) } });
      page.tab.addEventListener("keydown", (event) => { const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; if (move) { event.preventDefault(); choose(behind[(behind.indexOf(page) + move + behind.length) % behind.length].key, true); } });
      label(page); tabs.append(page.tab);
    }
    choose(open);
    return true;
  };
  return {
    plots: (titles, list) => { names = titles; nodes = list; built = ""; build(); },
    fit: build,
    open: (key) => { build(); choose(key); },
    mark: (key, list) => { marks[key] = list; for (const page of pages) if (page.key === key) label(page); },
  };
};
