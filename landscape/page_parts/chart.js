// Curves over one variable: lines, bands, dots with bars; hover and arrow keys read the values.

// `spec`: {label, height, x: {label, kind, linear, low, high}, y: {label, log, canLog, low, high},
// series: [{name, ink, x, y, low, high, line, dash, dots, band, bars, open, square}], rules, ends}.
function chart(host, spec) {
  const figure = make("figure"), plot = make("div", {
    class: "plot", tabindex: "0", role: "group",
    "aria-label": `${spec.label}. Left and right arrows read the values.`,
  });
  const state = { log: spec.y.log ?? false, at: null };
  const controls = make("div", { class: "controls" });
  figure.append(make("div", { class: "head" }, legend(spec), spec.y.canLog ? controls : null), plot);
  host.append(figure);
  const places = [...new Set(spec.series.flatMap((s) => (s.silent ? [] : s.x)))].filter(Number.isFinite).sort((a, b) => a - b);
  let x, y, cursor;

  function paint(width) {
    const height = spec.height ?? 300, left = 66;
    const [low, high] = bounds(spec, state.log);
    x = new Axis(spec.x.kind ?? "linear", ...xBounds(spec, places), left, width - 14, spec.x.linear);
    y = new Axis(state.log ? "log" : "linear", low, high, height - 46, spec.ends ? 24 : 10);
    const image = draw("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.label });
    const clip = `clip-${(chart.count = (chart.count ?? 0) + 1)}`;
    image.append(draw("clipPath", { id: clip }, draw("rect", {
      x: left - 6, y: y.end - 6, width: width - 14 - left + 12, height: y.start - y.end + 12,
    })));
    const ticks = spec.x.ticks ?? null;
    image.append(frame(x, y, { x: spec.x.label, y: spec.y.label }, { xTicks: ticks }));
    const inside = draw("g", { "clip-path": `url(#${clip})` });
    image.append(inside);
    for (const rule of spec.rules ?? []) {
      const at = rule.axis === "x" ? x.at(rule.at) : y.at(rule.at);
      if (!Number.isFinite(at)) continue;
      inside.append(rule.axis === "x" ? line(at, y.start, at, y.end, "zero") : line(x.start, at, x.end, at, "zero"));
    }
    for (const end of spec.ends ?? []) {
      const at = x.at(end.at), anchor = at > width - 120 ? "end" : at < left + 60 ? "start" : "middle";
      image.append(draw("text", { x: at, y: 14, class: "tick", "text-anchor": anchor }, end.name));
    }
    for (const series of spec.series) inside.append(marks(series, x, y));
    cursor = draw("g", { "pointer-events": "none" });
    image.append(cursor);
    plot.replaceChildren(image);
    point();
  }

  // The cursor at its place, and what every series says there.
  function point() {
    cursor.replaceChildren();
    if (state.at === null) return;
    const here = places[state.at], lines = [spec.x.say ? spec.x.say(here) : `${spec.x.short ?? spec.x.label} ${text(here, 5)}`];
    cursor.append(line(x.at(here), y.start, x.at(here), y.end, "zero"));
    let top = y.start;
    for (const series of spec.series.filter((s) => !s.silent)) {
      const i = series.x.indexOf(here);
      if (i < 0 || Number.isNaN(series.y[i])) continue;
      const height = y.clamped(series.y[i]);
      top = Math.min(top, height);
      cursor.append(draw("circle", { cx: x.at(here), cy: height, r: 4.5, fill: "none", stroke: "var(--ink)", "stroke-width": 1.5 }));
      lines.push(`${series.name}: ${series.say ? series.say(i) : text(series.y[i], 6)}`);
    }
    const box = plot.getBoundingClientRect();
    showTip(lines, box.left + x.at(here), box.top + top);
  }

  function move(index) {
    state.at = index === null ? null : clamp(index, 0, places.length - 1);
    if (index === null) hideTip();
    point();
  }

  plot.addEventListener("pointermove", (event) => {
    const at = event.clientX - plot.getBoundingClientRect().left;
    let best = null, least = Infinity;
    places.forEach((place, i) => {
      const far = Math.abs(x.at(place) - at);
      if (far < least) [best, least] = [i, far];
    });
    move(best);
  });
  plot.addEventListener("pointerleave", () => move(null));
  plot.addEventListener("blur", () => move(null));
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") move(null);
    if (!steps || !places.length) return;
    event.preventDefault();
    move(state.at === null ? (steps > 0 && steps < 1e9 ? 0 : steps === 1e9 ? places.length - 1 : 0) : state.at + steps);
  });
  function control() {
    controls.replaceChildren(choice("Scale", [[false, "linear"], [true, "log"]], state.log, (log) => {
      state.log = log;
      control();
      plot.repaint(true);
    }));
  }
  if (spec.y.canLog) control();
  responsive(plot, spec.height ?? 300, paint);
}

function xBounds(spec, places) {
  const [a, b] = extent(places), low = spec.x.low ?? a, high = spec.x.high ?? b;
  if (!Number.isFinite(low)) return [0, 1];
  if (spec.x.kind === "log") return low < high ? [low / (high / low) ** 0.03, high * (high / low) ** 0.03] : [low / 2, high * 2];
  const pad = spec.x.kind === "asinh" ? 0 : 0.02 * (high - low) || 0.5;
  return [low - (spec.x.pad ?? pad), high + (spec.x.pad ?? pad)];
}

function bounds(spec, log) {
  const values = spec.series.flatMap((s) => [...s.y, ...(s.low ?? []), ...(s.high ?? [])]);
  values.push(...(spec.rules ?? []).filter((rule) => rule.axis === "y" && rule.shown).map((rule) => rule.at));
  const tight = spec.series.flatMap((s) => [...s.y]);
  let [low, high] = extent(log ? values.filter((v) => v > 0) : values);
  if (!Number.isFinite(low)) return log ? [0.1, 1] : [0, 1];
  low = spec.y.low ?? (log ? Math.max(low, extent(tight.filter((v) => v > 0))[0] / 10) : low);
  high = spec.y.high ?? high;
  if (log) {
    const pad = (high / low) ** 0.06 || 1;
    return pad > 1.001 ? [spec.y.low ?? low / pad, spec.y.high ?? high * pad] : [low / 2, high * 2];
  }
  const pad = 0.06 * (high - low) || 0.1 * Math.abs(low) || 1;
  return [spec.y.low ?? low - pad, spec.y.high ?? high + pad];
}

function marks(series, x, y) {
  const group = draw("g", { style: `--mark: ${tone(series.ink)}` });
  const known = [...series.x.keys()].filter((i) => Number.isFinite(y.height(series.y[i])) && Number.isFinite(x.height(series.x[i])));
  const place = (i, values) => `${x.at(series.x[i]).toFixed(1)},${y.clamped(values[i]).toFixed(1)}`;
  if (series.band) {
    for (const run of runs(known.filter((i) => Number.isFinite(series.low[i])))) {
      const there = run.map((i) => place(i, series.high)), back = run.map((i) => place(i, series.low)).reverse();
      group.append(draw("path", { d: `M${[...there, ...back].join("L")}Z`, fill: "var(--mark)", opacity: 0.18 }));
    }
  }
  if (series.line) {
    const d = runs(known).map((run) => `M${run.map((i) => place(i, series.y)).join("L")}`).join("");
    group.append(draw("path", {
      d, fill: "none", stroke: "var(--mark)", "stroke-width": series.thin ? 1 : 1.7,
      "stroke-dasharray": series.dash ? "5 4" : null, "stroke-linejoin": "round",
    }));
  }
  if (series.ticks) {
    const d = known.map((i) => `M${x.at(series.x[i]).toFixed(1)},${y.start}v${-series.ticks}`).join("");
    group.append(draw("path", { d, stroke: "var(--mark)", "stroke-width": 1, opacity: series.faint ? 0.4 : 1 }));
    return group;
  }
  if (series.bars) {
    const d = known.filter((i) => Number.isFinite(series.low[i])).map((i) => {
      const [at, low, high] = [x.at(series.x[i]), y.clamped(series.low[i]), y.clamped(series.high[i])];
      const cap = low - high > 1 ? `M${at - 3},${low}h6M${at - 3},${high}h6` : "";
      return `M${at.toFixed(1)},${low.toFixed(1)}V${high.toFixed(1)}${cap}`;
    }).join("");
    group.append(draw("path", { d, stroke: "var(--mark)", "stroke-width": 1.1, fill: "none" }));
  }
  if (series.dots) {
    const open = known.filter((i) => series.open?.[i]), full = known.filter((i) => !series.open?.[i]);
    const spots = (list) => list.map((i) => `M${place(i, series.y)}h.01`).join("");
    const style = { stroke: "var(--mark)", "stroke-linecap": series.square ? "square" : "round", fill: "none" };
    if (full.length) group.append(draw("path", { ...style, d: spots(full), "stroke-width": 2 * series.dots }));
    if (open.length) {
      group.append(draw("path", { ...style, d: spots(open), "stroke-width": 2 * series.dots + 2.4 }));
      group.append(draw("path", { ...style, d: spots(open), "stroke-width": 2 * series.dots, stroke: "var(--paper)" }));
    }
  }
  return group;
}

// Neighbouring indices without a gap.
function runs(indices) {
  const found = [];
  indices.forEach((i, n) => (n && i === indices[n - 1] + 1 ? found.at(-1).push(i) : found.push([i])));
  return found;
}

function tone(number) {
  return number === "soft" ? "var(--soft)" : `var(--s${number % 6})`;
}

function legend(spec) {
  const row = make("div", { class: "legend" });
  for (const series of spec.series.filter((s) => s.key)) {
    const sample = draw("svg", { viewBox: "0 0 24 12", style: `--mark: ${tone(series.ink)}`, "aria-hidden": "true" });
    if (series.band) sample.append(draw("rect", { x: 0, y: 1, width: 24, height: 10, fill: "var(--mark)", opacity: 0.18 }));
    if (series.line) sample.append(draw("path", { d: "M0,6H24", stroke: "var(--mark)", "stroke-width": 1.7, "stroke-dasharray": series.dash ? "5 4" : null }));
    if (series.ticks) sample.append(draw("path", { d: "M6,11V3M12,11V3M18,11V3", stroke: "var(--mark)" }));
    if (series.dots) sample.append(draw("path", {
      d: "M12,6h.01", stroke: "var(--mark)", "stroke-width": 2 * series.dots, "stroke-linecap": series.square ? "square" : "round",
    }));
    row.append(make("span", {}, sample, series.key));
  }
  for (const rule of (spec.rules ?? []).filter((r) => r.name)) {
    const sample = draw("svg", { viewBox: "0 0 24 12", "aria-hidden": "true" }, draw("path", { d: "M0,6H24", class: "zero" }));
    row.append(make("span", {}, sample, rule.name));
  }
  return row;
}
