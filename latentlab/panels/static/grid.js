// Rows of small images on raw canvases: plain ones as they come, masked ones composed here. A row names the arrays that it is made of: mask, fill, original, rank.
LL.grid = (host, picture) => {
  let layout = {}, blocks = {}, rows = [], built = null;
  const body = LL.el("div", { class: "ll-grid" });
  const tip = LL.el("div", { class: "ll-tip", hidden: true, "aria-hidden": "true" });
  host.append(body, tip);

  const columns = (texts, kind) => {
    const line = LL.el("div", { class: `ll-columns ${kind}` });
    for (const text of texts) line.append(LL.el("span", { text, title: text }));
    return line;
  };

  const legend = (row) => {
    if (!["rank", "keep", "difference"].includes(row.kind)) return null;
    const bar = LL.el("span", { class: `ll-ramp ${row.kind}`, style: row.colour && row.kind !== "rank" ? `--ll-tint:${row.colour};--ll-minus:${row.minus_colour}` : null });
    const ends = row.kind === "rank" ? ["first to go", "last"] : row.kind === "keep" ? ["hidden", "kept"] : row.ends ?? ["more", "less"];
    return LL.el("div", { class: "ll-legend-ramp" }, LL.el("span", { text: ends[0] }), bar, LL.el("span", { text: ends[1] }));
  };

  // the arrays of a row by what they are for
  const parts = (row) => {
    const mask = row.mask ?? (row.kind === "seen" ? "keep" : row.key), rank = row.kind === "rank" ? row.rank ?? row.key : row.rank ?? (mask === "keep" ? "rank" : null);
    return { original: row.kind === "image" ? row.key : row.original ?? "image", mask: row.kind === "image" || (row.kind === "rank" && !row.mask) ? null : mask, minus: row.kind === "difference" ? row.minus : null, fill: row.fill ?? "fill", rank };
  };

  // n, height, width, channels of the pictures that a row draws; null while they have not come
  const size = (row) => {
    const shape = (blocks[parts(row).original] ?? {}).shape;
    return shape ? [shape[0], shape[1], shape[2], shape[3] ?? 1] : null;
  };

  const build = () => {
    const sizes = (layout.rows ?? []).map(size), now = JSON.stringify([layout.rows ?? [], layout.columns ?? [], sizes]);
    if (now === built) return;
    built = now; rows = [];
    body.replaceChildren(); host.hidden = !sizes.length;
    if (!sizes.length) return;
    const most = Math.max(0, ...sizes.map((s) => (s ? s[0] : 0)));
    if (!most) { body.append(LL.el("div", { class: "ll-empty", text: "The images come with the first frame." })); return; }
    body.style.setProperty("--ll-n", most);
    if (layout.columns?.length === most) body.append(LL.el("span"), columns(layout.columns, "names"));
    layout.rows.forEach((row, at) => {
      if (!sizes[at]) return;
      const [n, height, width, channels] = sizes[at], gap = Math.max(1, Math.round(width / 18));
      const canvas = LL.el("canvas", { role: "img", "aria-label": `${row.label}: ${row.note ?? ""}` });
      canvas.width = most * width + (most - 1) * gap;
      canvas.height = height;
      const strip = LL.el("div", { class: "ll-strip", "data-row": row.key }, canvas);
      const head = LL.el("div", { class: "ll-rowhead" }, LL.el("b", { text: row.label }), LL.el("span", { class: "ll-note", text: row.note ?? "", title: row.help ?? row.note ?? "" }), legend(row));
      const context = canvas.getContext("2d");
      const cross = LL.el("i", { class: "ll-cross", hidden: true });
      strip.append(cross);
      body.append(head, strip);
      const entry = { ...row, n, height, width, channels, gap, canvas, context, cross, data: context.createImageData(canvas.width, height), amounts: null, lines: [] };
      if (row.kind === "keep" || row.kind === "difference") {
        const amounts = columns(Array(n).fill(""), "amounts");
        body.append(LL.el("span", { class: "ll-amount-head", text: row.kind === "keep" ? "share kept" : "differs by" }), amounts);
        entry.amounts = [...amounts.children];
      }
      for (const [key, label] of row.numbers ?? []) {
        const line = columns(Array(n).fill(""), "amounts");
        line.dataset.numbers = key; body.append(LL.el("span", { class: "ll-amount-head", text: label }), line);
        entry.lines.push([key, [...line.children]]);
      }
      canvas.addEventListener("pointermove", (event) => point(event, entry));
      canvas.addEventListener("pointerleave", leave);
      rows.push(entry);
    });
    fit();
  };

  // A picture that is enlarged much stays crisp; one that is enlarged a little would get uneven pixels, so it is smoothed.
  let room = null; // height that all rows may take; null for as much as they like
  const fit = (height = room) => {
    room = height;
    if (rows.length && room && body.offsetHeight) { // narrower images where they would be higher than there is room
      const lines = [...body.querySelectorAll(".ll-columns")], gap = parseFloat(getComputedStyle(body).rowGap) || 0;
      const ratio = rows.reduce((sum, row) => sum + row.canvas.height / row.canvas.width, 0), words = lines.reduce((sum, line) => sum + line.offsetHeight, 0) + gap * (rows.length + lines.length);
      const least = 36 * Math.max(...rows.map((row) => row.n)), width = Math.max(least, Math.floor((room - words - 2) / ratio));
      body.style.setProperty("--ll-strip", `${width}px`);
    }
    for (const row of rows) {
      const ratio = (row.canvas.clientWidth * (window.devicePixelRatio || 1)) / row.canvas.width;
      row.canvas.style.imageRendering = ratio >= 2 ? "pixelated" : "auto";
    }
  };

  // share of pixels shown as kept: soft = keep itself, area = as many pixels as keep holds, top = the first x by rank
  const shown = (out, i, keep, rank) => {
    const pixels = out.length, start = i * pixels;
    if (picture.mask === "soft") { for (let p = 0; p < pixels; p++) out[p] = keep[start + p]; return; }
    let share = picture.top;
    if (picture.mask === "area") { let sum = 0; for (let p = 0; p < pixels; p++) sum += keep[start + p]; share = sum / (255 * pixels); }
    if (share >= 1) { out.fill(255); return; }
    if (!rank) { // no order was sent: the mask's own values are one, in 256 steps
      const counts = new Uint32Array(256); for (let p = 0; p < pixels; p++) counts[keep[start + p]] += 1;
      let level = 255, sum = counts[255]; while (level > 0 && sum + counts[level - 1] <= share * pixels) { level -= 1; sum += counts[level]; }
      for (let p = 0; p < pixels; p++) out[p] = keep[start + p] >= level ? 255 : 0;
      return;
    }
    const limit = 256 * (1 - share);
    for (let p = 0; p < pixels; p++) out[p] = rank[start + p] >= limit ? 255 : 0;
  };

  const paint = () => {
    build();
    const strength = picture.opacity;
    for (const row of rows) {
      const { n, height, width, channels, gap } = row, pixels = height * width, named = parts(row), [images, keep, fill, rank, minus] = [named.original, named.mask, named.fill, named.rank, named.minus].map((key) => blocks[key]?.data), tints = [row.colour ?? picture.colour, row.minus_colour ?? picture.colour].map(LL.rgb);
      const live = [row.kind === "rank" ? rank : keep, row.kind === "difference" ? minus : keep ?? rank].every((one) => one?.length === n * pixels), other = new Uint8Array(row.kind === "difference" ? pixels : 0), ordered = rank?.length === n * pixels ? rank : null, mask = new Uint8Array(pixels), fills = fill && images && fill.length === images.length ? fill : null;
      for (const [key, cells] of row.lines) cells.forEach((cell, i) => LL.put(cell, LL.number((row.kind === "keep" && picture.mask === "top" ? null : blocks[key]?.data[i]) ?? null, 2).replace("0.", "."))); // a number is of the mask, not of its top share
      if (!images || images.length !== n * pixels * channels || (!live && row.kind !== "image")) continue;
      const data = row.data.data, stride = row.data.width;
      for (let i = 0; i < n; i++) {
        const void_ = row.valid && !blocks[row.valid]?.data[i];
        let signs = null; // 1 where the second mask keeps more
        if (row.kind === "keep" || row.kind === "seen") shown(mask, i, keep, ordered);
        if (row.kind === "difference") {
          shown(mask, i, keep, null); shown(other, i, minus, null); signs = other;
          for (let p = 0; p < pixels; p++) { const d = void_ ? 0 : mask[p] - other[p]; mask[p] = Math.abs(d); signs[p] = d < 0 ? 1 : 0; }
        }
        if (row.amounts && void_) LL.put(row.amounts[i], row.void ?? "–");
        else if (row.amounts) { let sum = 0; for (let p = 0; p < pixels; p++) sum += mask[p]; LL.put(row.amounts[i], LL.kept(sum / (255 * pixels))); }
        for (let y = 0, p = 0; y < height; y++) {
          let at = 4 * (y * stride + i * (width + gap));
          for (let x = 0; x < width; x++, p++, at += 4) {
            data[at + 3] = 255;
            if (row.kind === "rank") {
              const k = 3 * rank[i * pixels + p];
              data[at] = LL.MAGMA[k]; data[at + 1] = LL.MAGMA[k + 1]; data[at + 2] = LL.MAGMA[k + 2];
              continue;
            }
            const from = (i * pixels + p) * channels;
            const r = images[from], g = channels === 3 ? images[from + 1] : r, b = channels === 3 ? images[from + 2] : r;
            if (row.kind === "image") { data[at] = r; data[at + 1] = g; data[at + 2] = b; continue; }
            const k = mask[p] / 255;
            if (row.kind === "seen") {
              const fr = fills ? fills[from] : 0, fg = fills && channels === 3 ? fills[from + 1] : fr, fb = fills && channels === 3 ? fills[from + 2] : fr;
              data[at] = k * r + (1 - k) * fr; data[at + 1] = k * g + (1 - k) * fg; data[at + 2] = k * b + (1 - k) * fb;
              continue;
            }
            // keep: hidden pixels lose colour and light, kept ones take the tint and keep their texture
            const light = 0.299 * r + 0.587 * g + 0.114 * b, dim = 1 - 0.85 * strength * (1 - k), grey = strength * (1 - k);
            const tint = tints[signs ? signs[p] : 0], a = Math.min(1, 1.15 * strength) * k, texture = 0.42 + (0.58 * light) / 255;
            data[at] = (1 - a) * dim * (r + (light - r) * grey) + a * tint[0] * texture;
            data[at + 1] = (1 - a) * dim * (g + (light - g) * grey) + a * tint[1] * texture;
            data[at + 2] = (1 - a) * dim * (b + (light - b) * grey) + a * tint[2] * texture;
          }
        }
      }
      row.context.putImageData(row.data, 0, 0);
    }
  };

  const point = (event, row) => {
    const { n, height, width, channels, gap } = row, box = row.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * row.canvas.width), y = Math.floor(((event.clientY - box.top) / box.height) * height);
    const i = Math.floor(x / (width + gap)), inside = x - i * (width + gap), named = parts(row), keep = blocks[named.mask]?.data, minus = blocks[named.minus]?.data, rank = blocks[named.rank]?.data, plain = blocks[named.original]?.data;
    if (i < 0 || i >= n || inside >= width || y < 0 || y >= height || !plain) { leave(); return; }
    const at = i * height * width + y * width + inside, value = (k) => (plain[at * channels + k] / 255).toFixed(2);
    tip.hidden = false;
    const owned = rows.find((other) => blocks[other.places]?.data.length === other.n * other.height * other.width), whose = owned && i < owned.n && owned.height === height && owned.width === width ? owned.words?.[blocks[owned.places].data[at]] : "";
    tip.textContent = `image ${i + 1}, pixel ${inside}, ${y} · ${whose ? `${whose} · ` : ""}${[keep ? `keep ${(keep[at] / 255).toFixed(2)}${minus ? ` against ${(minus[at] / 255).toFixed(2)}` : ""}` : "", rank ? `ranked above ${((100 * rank[at]) / 256).toFixed(0)} % of the pixels` : "", keep || rank ? "" : Array.from({ length: channels }, (_, k) => value(k)).join(", ")].filter(Boolean).join(" · ")}`;
    const home = host.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX - home.left + 12, home.width - tip.offsetWidth - 6))}px`;
    tip.style.top = `${event.clientY - home.top + 16}px`;
    for (const other of rows) {
      const unit = other.canvas.clientWidth / other.canvas.width;
      other.cross.hidden = i >= other.n;
      other.cross.style.cssText = `left:${x * unit}px;top:${y * unit}px;width:${unit}px;height:${unit}px`;
    }
  };
  const leave = () => { tip.hidden = true; for (const row of rows) row.cross.hidden = true; };

  return {
    fit, paint,
    layout: (next) => { layout = next ?? {}; },
    frame: (next) => { blocks = next; },
    ramp: () => body.style.setProperty("--ll-tint", picture.colour),
  };
};
