// A row for each name: a value between its bounds on a common axis, with the number beside it.

// `spec`: {label, x: {label, log}, rows: [{name, value, low, high, ink, square, words, say}], rules}.
function rows(host, spec) {
  const figure = make("figure"), plot = make("div", { class: "plot" });
  figure.append(plot);
  host.append(figure);
  const named = spec.rules?.some((rule) => rule.name);
  responsive(plot, 30 * spec.rows.length + 60, (width) => {
    const narrow = width < 560; // then name and number stand above their bar
    const step = narrow ? 46 : 30, top = named ? 26 : 8, bottom = top + step * spec.rows.length, height = bottom + 46;
    const names = narrow ? 6 : Math.min(0.36 * width, 12 + 7.2 * Math.max(...spec.rows.map((row) => row.name.length)));
    const values = narrow ? 8 : Math.min(0.42 * width, 14 + 6.5 * Math.max(...spec.rows.map((row) => row.words.length)));
    const x = rowAxis(spec, names, width - values), y = new Axis("linear", 0, 1, bottom, top);
    const image = draw("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.label });
    image.append(frame(x, y, { x: spec.x.label }, { yTicks: [] }));
    for (const rule of spec.rules ?? []) {
      const at = x.at(rule.at);
      image.append(draw("path", { d: `M${at},${top}V${bottom}`, class: rule.name ? "axis" : "zero" }));
      if (rule.name) image.append(draw("text", { x: at, y: top - 8, class: "tick", "text-anchor": "middle" }, rule.name));
    }
    spec.rows.forEach((row, i) => image.append(mark(row, x, top + step * i, step, { names, right: width - values, width, narrow })));
    plot.replaceChildren(image);
  });
}

// The axis of all rows, with room around them.
function rowAxis(spec, left, right) {
  const all = spec.rows.flatMap((row) => [row.value, row.low, row.high]).concat((spec.rules ?? []).map((rule) => rule.at));
  let [low, high] = extent(spec.x.log ? all.filter((v) => v > 0) : all);
  if (!Number.isFinite(low)) [low, high] = spec.x.log ? [0.1, 1] : [0, 1];
  if (spec.x.log) {
    low = Math.max(low, extent(spec.rows.map((row) => row.value).filter((v) => v > 0))[0] / 10);
    const pad = Math.max((high / low) ** 0.07, 1.2);
    return new Axis("log", low / pad, high * pad, left, right);
  }
  if (spec.x.zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const pad = 0.07 * (high - low) || 0.1 * Math.abs(low) || 1;
  [low, high] = [spec.x.zero && low === 0 ? 0 : low - pad, high + pad];
  const far = spec.x.wide && Math.max(-low, high) > 8; // beyond that, logarithmic
  return new Axis(far ? "asinh" : "linear", low, high, left, right);
}

function mark(row, x, top, step, { names, right, width, narrow }) {
  const group = draw("g", { style: `--mark: ${row.tone ?? tone(row.ink ?? 0)}` });
  const at = narrow ? top + 32 : top + step / 2, words = narrow ? top + 17 : at + 4;
  const most = Math.max(4, Math.floor((narrow ? width - 6.5 * row.words.length - 20 : names - 12) / 6.6));
  const shown = row.name.length > most ? `${row.name.slice(0, most - 1)}\u2026` : row.name;
  group.append(draw("title", {}, `${row.name}: ${row.say ?? row.words}`));
  group.append(draw("rect", { x: 0, y: top, width, height: step, fill: "transparent" }));
  group.append(draw("text", { x: narrow ? names + 6 : names - 10, y: words, class: narrow ? "over" : null, "text-anchor": narrow ? "start" : "end", "font-weight": row.strong ? 700 : null }, shown));
  group.append(draw("text", { x: narrow ? width - 8 : right + 10, y: words, class: narrow ? "tick over" : "tick", "text-anchor": narrow ? "end" : "start" }, row.words));
  if (!Number.isFinite(x.height(row.value))) return group;
  if (row.bar) {
    const [a, b] = [x.clamped(0), x.at(row.value)];
    group.append(draw("rect", { x: Math.min(a, b), y: at - 7, width: Math.abs(b - a), height: 14, fill: "var(--mark)", opacity: 0.28 }));
  }
  if (Number.isFinite(row.low) && Number.isFinite(row.high)) {
    const [a, b] = [x.clamped(row.low), x.clamped(row.high)];
    group.append(draw("path", { d: `M${a},${at}H${b}M${a},${at - 5}v10M${b},${at - 5}v10`, stroke: "var(--mark)", "stroke-width": 1.6, fill: "none" }));
  }
  group.append(draw("path", {
    d: `M${x.at(row.value)},${at}h.01`, stroke: "var(--mark)", "stroke-width": 9, "stroke-linecap": row.square ? "square" : "round",
  }));
  return group;
}

// A matrix of numbers as colours, with the numbers in it.
function heat(host, spec) {
  const figure = make("figure", {}, make("figcaption", {}, spec.label));
  const plot = make("div", { class: "plot", tabindex: "0", role: "group", "aria-label": `${spec.label}. Arrow keys read the cells.` });
  figure.append(plot);
  host.append(figure);
  const count = spec.names.length;
  let at = null, side, left;

  function paint(width) {
    left = Math.min(0.4 * width, 16 + 7 * Math.max(...spec.names.map((name) => Math.min(name.length, 18))));
    side = Math.min(92, (width - left - 4) / count);
    const below = 22 + 0.75 * (left - 8), height = side * count + below;
    const image = draw("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.label });
    spec.names.forEach((name, i) => {
      const short = name.length > 18 ? `${name.slice(0, 17)}\u2026` : name;
      const [centre, foot] = [left + side * (i + 0.5), side * count + 14];
      image.append(draw("text", { x: left - 8, y: side * (i + 0.5) + 4, "text-anchor": "end" }, short));
      image.append(draw("text", { "text-anchor": "end", transform: `translate(${centre + 4},${foot}) rotate(-40)` }, short));
      spec.table[i].forEach((value, j) => {
        const share = value / spec.top;
        const known = Number.isFinite(value) && i !== j;
        const cell = draw("g", {}, draw("rect", {
          x: left + side * j + 1, y: side * i + 1, width: side - 2, height: side - 2,
          fill: known ? colour(RISING, share) : "var(--wash)",
        }));
        if (known && side > 34) cell.append(draw("text", {
          x: left + side * (j + 0.5), y: side * (i + 0.5) + 4, "text-anchor": "middle",
          style: `fill: ${share < 0.62 ? "#fff" : "#111"}`,
        }, text(value, 2)));
        if (at && at[0] === i && at[1] === j) cell.firstChild.setAttribute("stroke", "var(--focus)");
        if (at && at[0] === i && at[1] === j) cell.firstChild.setAttribute("stroke-width", 3);
        image.append(cell);
      });
    });
    plot.replaceChildren(image);
  }

  function move(i, j) {
    at = i === null ? null : [clamp(i, 0, count - 1), clamp(j, 0, count - 1)];
    plot.repaint(true);
    if (!at) return hideTip();
    const box = plot.getBoundingClientRect();
    showTip(spec.say(...at), box.left + left + side * (at[1] + 0.5), box.top + side * at[0]);
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const [i, j] = [Math.floor((event.clientY - box.top) / side), Math.floor((event.clientX - box.left - left) / side)];
    if (i >= 0 && j >= 0 && i < count && j < count) move(i, j);
    else move(null);
  });
  plot.addEventListener("pointerleave", () => move(null));
  plot.addEventListener("blur", () => move(null));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") move(null);
    if (!step) return;
    event.preventDefault();
    move((at?.[0] ?? 0) + (at ? step[0] : 0), (at?.[1] ?? 0) + (at ? step[1] : 0));
  });
  responsive(plot, 90 * count, paint);
}
