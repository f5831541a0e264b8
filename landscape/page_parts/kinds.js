// What the page shows for each kind of result.

const HALF = 1.96; // standard errors on each side of a band

// Values between bounds of so many standard errors; no bounds where none is known.
function banded(x, value, stderr, style) {
  const half = stderr.map((e) => (Number.isFinite(e) ? HALF * e : NaN));
  return {
    x, y: value, low: value.map((v, i) => v - half[i]), high: value.map((v, i) => v + half[i]),
    say: (i) => withError(value[i], stderr[i], 6), ...style,
  };
}

const positive = (values) => values.filter(Number.isFinite).every((v) => v > 0) && values.some(Number.isFinite);
const wide = (values, ratio = 30) => {
  const [low, high] = extent(values);
  return positive(values) && high > ratio * low;
};
const spread = (values) => wide(values, 3); // enough for a logarithm to show something

// Values at `places` by straight lines between those known at rising `x`.
function between(places, x, values) {
  const known = [...x.keys()].filter((i) => Number.isFinite(values[i]));
  if (known.length < 2) return places.map(() => NaN);
  const axis = known.map((i) => x[i]);
  return places.map((place) => {
    const at = clamp(cellOf(axis, place), 0, axis.length - 1), below = Math.min(Math.floor(at), axis.length - 2);
    const [a, b] = [values[known[below]], values[known[below + 1]]];
    return a + (at - below) * (b - a);
  });
}

const lossLabel = (name) => (name === "loss" ? "loss (mean per example)" : name);

function lineView(host, entry, shared) {
  const record = entry.record, alpha = numbers(record.alpha), at = numbers(record.point_alpha);
  const order = [...at.keys()].sort((a, b) => at[a] - at[b]), sorted = order.map((i) => at[i]);
  const ends = record.marker_names.map((name, i) => ({ name, at: Number(record.marker_alpha[i]) }))
    .filter((end) => end.at >= alpha[0] && end.at <= alpha.at(-1));
  Object.entries(record.quantities).forEach(([name, q], n) => {
    const grid = numbers(q.grid), [value, stderr] = [numbers(q.point), numbers(q.point_stderr)].map((v) => order.map((i) => v[i]));
    const log = q.log && positive(grid);
    const series = [
      // On a log axis it is the relative error that is smooth between the points.
      banded(alpha, grid, between(alpha, sorted, log ? stderr.map((e, i) => e / value[i]) : stderr).map((e, i) => (log ? e * grid[i] : e)), {
        name: `${name} on the grid`, key: "interpolated, 1.96 standard errors", ink: n, line: true, band: true, say: (i) => text(grid[i], 6),
      }),
      banded(sorted, value, stderr, { name: "evaluated", key: "evaluated", ink: n, dots: 2.4 }),
    ];
    if (name === "loss" && record.marker_loss.length) series.push({
      name: "checkpoint by itself", key: "checkpoint evaluated by itself", ink: 1, x: numbers(record.marker_alpha), y: numbers(record.marker_loss), dots: 3.5, square: true,
    });
    const limits = shared?.[name] ?? {};
    chart(host, {
      label: `${name} along ${record.alpha_label}`, height: n ? 190 : 320, ends: n ? null : ends,
      x: { label: `${record.alpha_label}, \u03b1`, short: "\u03b1", low: alpha[0], high: alpha.at(-1) },
      y: { label: lossLabel(name), canLog: spread(grid), log, ...limits },
      series, rules: ends.map((end) => ({ axis: "x", at: end.at })),
    });
  });
}

function spectrumView(host, entry) {
  const r = entry.record, value = numbers(r.eigenvalue), residual = numbers(r.residual);
  const panels = make("div", { class: r.density || r.block ? "figures" : "figures one" });
  host.append(panels);
  const below = r.end.map((end) => end === "smallest");
  const rank = value.map((_, i) => (below[i] ? below.slice(i).filter(Boolean).length : below.slice(0, i + 1).filter((b) => !b).length));
  const series = [[false, "largest end", 0], [true, "smallest end", 1]].map(([lower, name, ink]) => {
    const chosen = [...value.keys()].filter((i) => below[i] === lower).sort((a, b) => rank[a] - rank[b]);
    const of = (list) => chosen.map((i) => list[i]);
    const [y, bar] = [of(value), of(residual)];
    return {
      name, key: name, ink, x: of(rank), y, low: y.map((v, i) => v - bar[i]), high: y.map((v, i) => v + bar[i]),
      bars: true, dots: 3.5, open: of(r.eigenvalue_converged).map((c) => !c),
      say: (i) => `${text(y[i], 6)}, residual ${text(bar[i], 2)}`,
    };
  }).filter((s) => s.x.length);
  chart(panels, {
    label: "Eigenvalues by rank; bars are residuals, hollow is not converged", height: 320,
    x: { label: "rank, from its end inwards", short: "rank", low: 1, high: Math.max(1, ...rank), pad: 0.5, ticks: evenTicks(1, Math.max(2, ...rank), 8).filter(Number.isInteger) },
    y: { label: `eigenvalue (${metric(r)})`, canLog: spread(value) },
    series, rules: [{ axis: "y", at: 0 }],
  });
  if (r.density) densityChart(panels, r, value);
  if (r.block) {
    const [top, trace, size] = [r.block_lambda_max, r.block_trace, r.block_size].map(numbers);
    const most = 40, chosen = [...top.keys()].sort((a, b) => top[b] - top[a]).slice(0, most).sort((a, b) => a - b);
    host.append(make("h3", {}, "Largest eigenvalue of every block"));
    rows(host, {
      label: "Largest eigenvalue of every block", x: { label: `eigenvalue of the block (${metric(r)})`, log: positive(chosen.map((i) => top[i])) },
      rows: chosen.map((i) => ({
        name: r.block[i], value: top[i], words: text(top[i], 3),
        say: `${text(top[i], 6)}; mean eigenvalue ${text(trace[i] / size[i], 3)}; ${size[i]} parameters; condition ${text(Number(r.block_condition[i]), 3)}`,
      })),
    });
    if (top.length > most) host.append(make("p", { class: "note" }, `${top.length - most} more blocks of smaller eigenvalue are not drawn.`));
  }
}

function metric(r) {
  return r.preconditioned ? "in Adam's metric" : "loss per squared weight";
}

function densityChart(host, r, value) {
  const grid = numbers(r.grid), log = r.linear_below > 0;
  const per = grid.map((g) => (log ? Math.hypot(g, r.linear_below) * Math.LN10 : 1));
  const floor = 1e-3 / (r.parameters * r.density_width);
  const shown = numbers(r.density).map((d, i) => Math.max(d * per[i], floor));
  const error = r.density_stderr ? numbers(r.density_stderr).map((e, i) => e * per[i]) : shown.map(() => NaN);
  const series = banded(grid, shown, error, { name: "density", key: "density, 1.96 standard errors over probes", ink: 0, line: true, band: true });
  series.low = series.low.map((v) => Math.max(v, floor));
  chart(host, {
    label: "Density of the eigenvalues", height: 320,
    x: { label: `eigenvalue (${metric(r)})`, short: "eigenvalue", kind: log ? "asinh" : "linear", linear: log ? 4 * r.linear_below : 1, low: grid[0], high: grid.at(-1) },
    y: { label: log ? "share of eigenvalues per decade" : "share per unit of eigenvalue", log: true, low: floor },
    series: [series, { name: "found", key: "eigenvalues found", ink: 1, x: value, y: value.map(() => floor), ticks: 14, silent: true }],
  });
}

function trackView(host, entry) {
  const r = entry.record, step = numbers(r.step), lambda = numbers(r.lambda_max), residual = numbers(r.lambda_max_residual);
  const span = step.at(-1) - step[0], sorted = [...step].sort((a, b) => a - b);
  const uneven = step.filter((s) => s > 0).length > 2 && sorted[sorted.length >> 1] - step[0] < 0.05 * span;
  const x = {
    label: "step", kind: uneven ? "asinh" : "linear", linear: uneven ? Math.min(...step.filter((s) => s > 0)) : 1,
    say: (at) => [`step ${text(at, 7)}`, r.checkpoint[step.indexOf(at)]].join(", "),
  };
  const top = (values, bars, converged, threshold, label) => {
    const edge = numbers(threshold ?? []), series = [{
      name: label, key: `${label} with its residual`, ink: 0, x: step, y: values, low: values.map((v, i) => v - bars[i]), high: values.map((v, i) => v + bars[i]),
      line: true, bars: true, dots: 3, open: converged.map((c) => !c), say: (i) => `${text(values[i], 6)}, residual ${text(bars[i], 2)}`,
    }];
    if (edge.some(Number.isFinite)) series.push({ name: "edge of stability", key: `edge of stability: ${r.formula}`, ink: 1, x: step, y: edge, line: true, dash: true });
    chart(host, { label, height: 290, x, y: { label, canLog: spread([...values, ...edge]), log: wide([...values, ...edge], 40) }, series });
  };
  top(lambda, residual, r.lambda_max_converged, r.threshold, "largest eigenvalue");
  if (r.preconditioned_lambda_max) {
    top(numbers(r.preconditioned_lambda_max), numbers(r.preconditioned_residual), r.preconditioned_converged, r.preconditioned_threshold, "largest preconditioned eigenvalue");
  }
  const more = [["trace", numbers(r.trace), numbers(r.trace_stderr)]];
  for (const [name, q] of Object.entries(r.quantities)) more.push([name, numbers(q.value), numbers(q.stderr)]);
  const panels = make("div", { class: "figures" });
  host.append(panels);
  more.filter(([, value]) => value.some(Number.isFinite)).forEach(([name, value, stderr], n) => chart(panels, {
    label: name, height: 220, x, y: { label: lossLabel(name), canLog: spread(value), log: name.startsWith("loss") && wide(value) },
    series: [banded(step, value, stderr, { name, ink: n + 2, line: true, band: true, dots: 2.4 })],
  }));
}

function sharpnessView(host, entry) {
  const r = entry.record, rho = numbers(r.rho), [rise, low, high, stderr] = [r.rise, r.rise_low, r.rise_high, r.rise_stderr].map(numbers);
  const norms = [...r.norm.keys()].filter((j) => r.measure.some((_, i) => rise[i][j].some(Number.isFinite)) || numbers(r.quadratic)[j].some(Number.isFinite));
  const panels = make("div", { class: norms.length > 1 ? "figures" : "figures one" });
  host.append(panels);
  const interval = (i, j, k) => (Number.isFinite(low[i][j][k])
    ? `${text(rise[i][j][k], 4)} [${text(low[i][j][k], 3)}, ${text(high[i][j][k], 3)}]` : withError(rise[i][j][k], stderr[i][j][k], 4));
  for (const j of norms) {
    const quadratic = numbers(r.quadratic)[j], shown = r.measure.map((_, i) => i).filter((i) => rise[i][j].some(Number.isFinite));
    const all = shown.flatMap((i) => rise[i][j]).concat(quadratic).filter(Number.isFinite);
    const box = make("div", {}, make("h3", {}, `${r.norm[j]} norm`));
    panels.append(box);
    if (rho.length > 1) {
      const series = shown.map((i) => ({
        name: r.measure[i], key: r.measure[i], ink: i, x: rho, y: rise[i][j], low: low[i][j], high: high[i][j], line: true, band: true, bars: true, dots: 3, say: (k) => interval(i, j, k),
      }));
      if (quadratic.some(Number.isFinite)) series.push({ name: "quadratic model", key: "quadratic model", ink: "soft", x: rho, y: quadratic, line: true, dash: true });
      chart(box, {
        label: `Rise of the loss over the radius, ${r.norm[j]} norm`, height: 330,
        x: { label: "radius \u03c1", short: "\u03c1", kind: "log" }, y: { label: "rise of the mean loss", canLog: spread(all), log: wide(all, 8) }, series,
      });
    } else {
      const list = shown.map((i) => ({ name: r.measure[i], value: rise[i][j][0], low: low[i][j][0], high: high[i][j][0], ink: i, bar: true, words: interval(i, j, 0) }));
      if (Number.isFinite(quadratic[0])) list.push({ name: "quadratic model", value: quadratic[0], ink: "soft", square: true, bar: true, words: text(quadratic[0], 4) });
      rows(box, { label: `Rise of the loss, ${r.norm[j]} norm`, x: { label: `rise of the mean loss within \u03c1 = ${text(rho[0])}`, zero: true }, rows: list });
    }
  }
  if (r.block_rise) blockRises(host, r, norms, rho);
  const some = numbers(r.rise_low).flat(3).some(Number.isFinite);
  host.append(make("p", { class: "note" }, some ? "Bars and bands: 95 % t intervals over groups of examples. Worst is a lower bound." : "Too few groups of examples for intervals. Worst is a lower bound."));
}

function blockRises(host, r, norms, rho) {
  const [rise, stderr] = [numbers(r.block_rise), numbers(r.block_rise_stderr)];
  for (const j of norms) {
    const i = ["worst", "sam", ...r.measure].map((m) => r.measure.indexOf(m)).find((m) => m >= 0 && rise[m][j].at(-1).some(Number.isFinite));
    if (i === undefined) continue;
    const [value, error] = [rise[i][j].at(-1), stderr[i][j].at(-1)];
    host.append(make("h3", {}, `Each block moved alone (${r.measure[i]}, ${r.norm[j]} norm), with standard errors`));
    rows(host, {
      label: "Rise of each block", x: { label: `rise of the mean loss within \u03c1 = ${text(rho.at(-1))}`, zero: true },
      rows: r.block.map((name, b) => ({ name, value: value[b], low: value[b] - error[b], high: value[b] + error[b], ink: i, bar: true, words: withError(value[b], error[b], 3) })),
    });
  }
}

function verdictView(host, entry) {
  const r = entry.record;
  host.append(make("p", { class: `verdict ${r.verdict}` }, make("strong", {}, r.verdict.toUpperCase()), r.reason));
  const [low, middle, high, margin] = [r.low, r.difference, r.high, r.margin].map(numbers);
  const list = r.rule.map((name, i) => {
    const widest = Math.max(Math.abs(low[i]), Math.abs(high[i]));
    const unit = Number.isFinite(margin[i]) && margin[i] !== 0 ? Math.abs(margin[i]) : widest > 0 && Number.isFinite(widest) ? widest : 1;
    const sign = name.endsWith(".min") ? -1 : 1;
    const whole = [low[i], middle[i], high[i]].every(Number.isFinite);
    const known = !Number.isNaN(Number(r.candidate[i]));
    const ends = [sign * low[i], sign * high[i]].sort((a, b) => a - b);
    const words = !whole ? (known ? "not finite" : "not measured") : `${text(sign * middle[i], 3)} [${text(ends[0], 3)}, ${text(ends[1], 3)}]`;
    return {
      name: r.level[i] === "warn" ? `${name} (warn)` : name, value: middle[i] / unit, low: low[i] / unit, high: high[i] / unit,
      tone: `var(--${r.rule_verdict[i]})`, words, say: `${r.rule_verdict[i]}; ${words}; ${r.limit[i]}; ${r.groups[i]} groups`,
    };
  });
  rows(host, {
    label: "Every rule: the difference between its bounds, in units of its limit", rows: list,
    x: { label: "difference, in units of its limit", wide: true }, rules: [{ at: 0 }, { at: 1, name: "limit" }],
  });
  host.append(make("p", { class: "note" }, "Points and bars: the difference and its bounds. A rule passes where the upper bound is left of its limit, and refuses where the lower bound is right of it."));
}

function connectView(host, entry) {
  const r = entry.record, t = numbers(r.t), pointPath = r.point_path, pointT = numbers(r.point_t);
  const names = Object.keys(r.quantities), beside = (name) => names.some((other) => other !== name && name.startsWith(`${other} (`));
  names.filter((name) => !beside(name)).forEach((name, n) => {
    const q = r.quantities[name], value = numbers(q.value), stderr = numbers(q.stderr), point = numbers(q.point), error = numbers(q.point_stderr);
    const series = [];
    r.path.forEach((path, a) => {
      series.push(banded(t, value[a], stderr[a], { name: path, key: path, ink: a, line: true, band: true }));
      const mine = [...pointT.keys()].filter((i) => pointPath[i] === a).sort((i, j) => pointT[i] - pointT[j]);
      series.push(banded(mine.map((i) => pointT[i]), mine.map((i) => point[i]), mine.map((i) => error[i]), { name: path, ink: a, dots: 2.4, silent: true }));
    });
    for (const other of names.filter((o) => o.startsWith(`${name} (`))) {
      numbers(r.quantities[other].value).forEach((values, a) => series.push({ name: `${r.path[a]}, ${other}`, key: n ? null : `${r.path[a]}, ${other}`, ink: a, x: t, y: values, line: true, dash: true, thin: true }));
    }
    const own = numbers(q.own);
    series.push({ name: "checkpoint itself", key: n ? null : "checkpoint itself", ink: "soft", x: [0, 1], y: own, dots: 3.6, square: true });
    const all = value.flat();
    chart(host, {
      label: `${name} along the paths`, height: n ? 200 : 330, x: { label: "t (share of the path)", short: "t" },
      y: { label: lossLabel(name), canLog: spread(all), log: name === "loss" && wide(all) }, series,
      ends: n ? null : [{ name: r.names[0], at: 0 }, { name: r.names[1], at: 1 }], rules: [{ axis: "x", at: 0 }, { axis: "x", at: 1 }],
    });
  });
  const barrier = numbers(r.barrier), error = numbers(r.barrier_stderr);
  host.append(make("h3", {}, "Barriers"));
  rows(host, {
    label: "Barriers of the paths", x: { label: "largest loss above the chord", zero: true },
    rows: r.path.map((name, a) => ({ name, value: barrier[a], low: barrier[a] - HALF * error[a], high: barrier[a] + HALF * error[a], ink: a, bar: true, words: withError(barrier[a], error[a], 3) })),
  });
  host.append(make("p", { class: "note" }, "Dots: evaluated. Bands and bars: 1.96 standard errors."));
}

function matrixView(host, entry) {
  const r = entry.record, order = r.order.length === r.model.length ? r.order : r.model.map((_, i) => i);
  const tables = [["Straight lines", r.barrier, r.barrier_stderr]];
  if (r.aligned_barrier) tables.push([`Aligned by ${r.alignment}`, r.aligned_barrier, r.aligned_barrier_stderr]);
  const all = tables.flatMap(([, table]) => numbers(table).flat()), top = Math.max(extent(all)[1], 0) || 1;
  const panels = make("div", { class: tables.length > 1 ? "figures" : "figures one" });
  host.append(panels);
  const names = order.map((i) => r.model[i]);
  for (const [label, table, stderr] of tables) heat(panels, {
    label: `${label}: barrier (loss above the chord)`, names, top, table: order.map((i) => order.map((j) => numbers(table)[i][j])),
    say: (i, j) => (i === j ? [names[i], `loss ${withError(Number(r.loss[order[i]]), Number(r.loss_stderr[order[i]]), 4)}`]
      : [`${names[i]} to ${names[j]}`, `barrier ${withError(Number(table[order[i]][order[j]]), Number(stderr[order[i]][order[j]]), 5)}`]),
  });
  if (r.order.length === r.model.length) host.append(make("p", { class: "note" }, "In the order of the path through all networks with the least sum of barriers."));
}

function mergeView(host, entry) {
  const r = entry.record, last = r.model.length - 1;
  const panels = make("div", { class: Object.keys(r.quantities).length > 1 ? "figures" : "figures one" });
  host.append(panels);
  Object.entries(r.quantities).forEach(([name, q]) => {
    const value = numbers(q.value), stderr = numbers(q.stderr);
    rows(panels, {
      label: `${name} of every model`, x: { label: lossLabel(name), log: name === "loss" && wide(value) }, rules: [{ at: value[last] }],
      rows: r.model.map((model, i) => ({ name: model, strong: i === last, value: value[i], low: value[i] - HALF * stderr[i], high: value[i] + HALF * stderr[i], ink: i === last ? 1 : 0, words: withError(value[i], stderr[i], 4) })),
    });
  });
  host.append(make("p", { class: "note" }, "Bars: 1.96 standard errors. The merged network stands last."));
}

function trajectoryMore(host, entry) {
  const r = entry.record, step = numbers(r.step), loss = numbers(r.path_loss), off = numbers(r.path_off);
  if (step.length < 2) return;
  const panels = make("div", { class: "figures" });
  host.append(make("h3", {}, "Along the training"), panels);
  const say = (at) => `step ${text(at, 7)}`;
  chart(panels, { label: "Loss of the checkpoints", height: 220, x: { label: "step", say }, y: { label: lossLabel("loss"), canLog: spread(loss), log: wide(loss) }, series: [{ name: "loss", ink: 0, x: step, y: loss, line: true, dots: 3 }] });
  chart(panels, { label: "Distance from the plane", height: 220, x: { label: "step", say }, y: { label: "distance from the plane" }, series: [{ name: "distance", ink: 3, x: step, y: off, line: true, dots: 3 }] });
}

// Ways of optimizers: loss and rate by step. Positions that were not kept are no gap in a line.
function raceMore(host, entry) {
  const r = entry.record, step = numbers(r.step), rows = (table) => numbers(table);
  if (!r.optimizer.length) return;
  const lowest = Number(r.lowest), above = Number.isFinite(lowest) ? lowest : 0;
  const panels = make("div", { class: "figures" });
  const known = (name, values, n) => {
    const at = [...step.keys()].filter((i) => Number.isFinite(values[i]));
    return { name, key: name, ink: n, x: at.map((i) => step[i]), y: at.map((i) => values[i]), line: true };
  };
  host.append(make("h3", {}, "Along the race"), panels);
  const loss = rows(r.position_loss).map((row) => row.map((v) => v - above));
  const start = Math.max(...loss.map((row) => row[0]).filter(Number.isFinite), 1e-300), all = loss.flat().filter((v) => v > 0);
  const label = Number.isFinite(lowest) ? "loss above the minimum" : lossLabel("loss");
  chart(panels, {
    label, height: 300, x: { label: "step" }, series: r.optimizer.map((name, n) => known(name, loss[n], n)),
    y: { label, canLog: spread(all), log: wide(all), low: Math.min(...all) < 1e-13 * start ? 1e-13 * start : undefined, high: Math.max(...all) > 1e3 * start ? 1e3 * start : undefined },
  });
  const base = numbers(r.base_rate);
  chart(panels, {
    label: "Learning rate, as a share of each optimizer's own", height: 300, x: { label: "step" }, y: { label: "rate / base rate", low: 0 },
    series: rows(r.rate).map((row, n) => known(`${r.optimizer[n]}, rate ${text(base[n], 3)}`, row.map((v) => v / base[n]), n)),
  });
}

const VIEWS = {
  hessian: spectrumView, track: trackView, sharpness: sharpnessView, verdict: verdictView,
  connect: connectView, matrix: matrixView, merge: mergeView,
};
