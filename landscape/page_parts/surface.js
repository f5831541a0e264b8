// A surface from above and in space, with one cursor and one set of controls for both.

const STATUS = ["not computed", "evaluated", "not finite", "interpolated"];
const VIEW = { turn: 0.62, tilt: 0.62, zoom: 1 };

// A record as the pictures take it. An axis of one value becomes a strip.
function readSurface(entry) {
  const record = entry.record, raw = Object.entries(record.quantities);
  let [alpha, beta] = [numbers(record.alpha), numbers(record.beta)];
  const wide = (axis, other) => [-1, 1].map((sign) => axis[0] + 0.05 * sign * (other.at(-1) - other[0] || 1));
  const twice = [alpha.length === 1, beta.length === 1];
  const spread = (grid) => {
    const deep = twice[1] ? grid.map((row) => [row[0], row[0]]) : grid;
    return (twice[0] ? [deep[0], deep[0]] : deep).flat();
  };
  const surface = {
    name: entry.file, title: record.title || entry.file, kind: entry.kind, config: entry.config,
    alpha: twice[0] ? wide(alpha, beta) : alpha, beta: twice[1] ? wide(beta, alpha) : beta,
    labels: { alpha: `${record.alpha_label}, \u03b1`, beta: `${record.beta_label}, \u03b2` },
    status: spread(record.status),
    points: entry.kind === "race" && record.method === "exact" ? { alpha: [], beta: [] } // every cell
      : { alpha: numbers(record.point_alpha), beta: numbers(record.point_beta) },
    markers: record.marker_names.map((name, i) => ({
      name, alpha: Number(record.marker_alpha[i]), beta: Number(record.marker_beta[i]), loss: Number(record.marker_loss[i]),
    })),
    path: record.path_alpha ? record.path_alpha.map((a, i) => ({
      alpha: Number(a), beta: Number(record.path_beta[i]),
      step: record.step?.[i], file: record.checkpoint?.[i], loss: Number(record.path_loss?.[i] ?? NaN), off: Number(record.path_off?.[i] ?? NaN),
    })) : [],
    pathLabel: record.path_label || "path",
    ways: (record.optimizer ?? []).map((name, n) => ({
      name, tone: `var(--s${n % 6})`,
      spots: record.position_alpha[n].map((a, i) => [Number(a), Number(record.position_beta[n][i])]).filter(([a, b]) => Number.isFinite(a) && Number.isFinite(b)),
    })),
    quantities: Object.fromEntries(raw.map(([name, q]) => [name, {
      grid: spread(numbers(q.grid)), point: numbers(q.point), stderr: numbers(q.point_stderr), log: q.log, some: q.stderr_basis === "residual",
    }])),
  };
  return surface;
}

// Surfaces of one kind of axes, which share scales as long as the reader wants.
class Group {
  constructor(signed = false) {
    Object.assign(this, { members: [], shared: true, signed });
    this.common = { quantity: "loss", log: null, low: null, high: null, lines: true, points: !signed, path: true, ...VIEW };
  }

  settings(member) {
    return this.shared ? this.common : member.own;
  }

  change(member, changes) {
    Object.assign(this.settings(member), changes);
    for (const other of this.shared ? this.members : [member]) other.redraw(Object.keys(changes));
  }

  share(on) {
    if (!on) for (const member of this.members) member.own = { ...this.common };
    this.shared = on;
    for (const member of this.members) member.redraw(["shared"]);
  }

  // Colours, heights and axes of one member: of all members where they are shared.
  scale(member) {
    const set = this.settings(member);
    const among = (this.shared ? this.members : [member]).map((m) => m.surface).filter((s) => s.quantities[set.quantity]);
    const values = among.flatMap((s) => [extent(s.quantities[set.quantity].grid), extent(s.quantities[set.quantity].point)]).flat();
    let [least, most] = extent(values);
    if (!Number.isFinite(least)) [least, most] = [0, 1];
    const canLog = least > 0 && !this.signed;
    const log = canLog && (set.log ?? among.some((s) => s.quantities[set.quantity].log));
    if (this.signed) [least, most] = [-1, 1].map((sign) => sign * Math.max(-least, most, 1e-300));
    let [low, high] = [set.low ?? least, set.high ?? most];
    if (log && low <= 0) low = least;
    if (!(high > low)) [low, high] = low > 0 && log ? [low / 1.1, low * 1.1] : [low - (0.1 * Math.abs(low) || 1), low + (0.1 * Math.abs(low) || 1)];
    const height = log ? Math.log10 : (v) => v;
    const [a, b] = [height(low), height(high)];
    const limits = {};
    for (const axis of ["alpha", "beta"]) limits[axis] = extent(among.concat(member.surface).flatMap((s) => extent(s[axis])));
    return { log, canLog, low, high, least, most, limits, height, share: (h) => (h - a) / (b - a), clipped: [low > least, high < most] };
  }
}

function surfaceView(host, surface, group) {
  const member = { surface, own: null, cursor: null, redraw };
  group.members.push(member);
  const table = group.signed ? DIVERGING : RISING;
  const controls = make("div", { class: "controls", role: "group", "aria-label": "What the pictures show" });
  const above = make("div", {
    class: "stage", tabindex: "0", role: "group",
    "aria-label": `Contours of ${surface.title}. Arrow keys read the cells, with Shift five at a time.`,
  });
  const space = make("div", {
    class: "stage relief", tabindex: "0", role: "group",
    "aria-label": `${surface.title} in space. Arrow keys turn it, plus and minus zoom, 0 resets.`,
  });
  const pair = make("div", { class: "figures" }, make("figure", {}, above), make("figure", {}, space));
  const caption = make("p", { class: "note" });
  host.append(controls, pair, caption);
  const field = make("canvas"), relief = make("canvas", { role: "img", "aria-label": `${surface.title} in space` });
  const spot = make("span", { class: "ring", hidden: "" });
  space.append(relief, spot);
  let scale, heights, lines, x, y, over, shortened = false, places = [], eye = null, painted = "";

  const settings = () => group.settings(member);
  const quantity = () => surface.quantities[settings().quantity] ?? Object.values(surface.quantities)[0];
  const known = () => (surface.quantities[settings().quantity] ? settings().quantity : Object.keys(surface.quantities)[0]);

  // What both pictures need, worked out once for each setting.
  function prepare() {
    scale = group.scale(member);
    const key = [known(), scale.log, scale.low, scale.high].join();
    if (key === painted) return;
    painted = key;
    heights = quantity().grid.map((value) => {
      const h = scale.height(value);
      return Number.isFinite(value) && Number.isFinite(h) ? h : NaN;
    });
    lines = null;
  }

  // The contour lines, which take the longest to find.
  function contours() {
    prepare();
    if (lines) return;
    const axis = new Axis(scale.log ? "log" : "linear", scale.low, scale.high, 0, 1);
    const [low, high] = extent(heights);
    lines = axis.ticks(11).map((value) => ({ value, level: scale.height(value) }))
      .filter(({ level }) => level > low && level < high && level - low > 0.004 * (high - low));
    for (const entry of lines) {
      entry.spots = isolines(heights, surface.alpha.length, surface.beta.length, entry.level)
        .map((run) => run.map(([i, j]) => [axisAt(surface.alpha, i), axisAt(surface.beta, j)]));
    }
  }

  function paintAbove(width) {
    contours();
    const [a, b] = [scale.limits.alpha, scale.limits.beta], left = 58, right = 62, wide = width - left - right;
    const ratio = (b[1] - b[0]) / (a[1] - a[0]), tall = Math.round(wide * (ratio > 0.5 && ratio < 2 ? ratio : 0.85));
    const height = tall + 54;
    x = new Axis("linear", a[0], a[1], left, left + wide);
    y = new Axis("linear", b[0], b[1], 8 + tall, 8);
    const sharp = Math.max(2, devicePixelRatio || 1);
    Object.assign(field, { width: Math.round(wide * sharp), height: Math.round(tall * sharp) });
    const share = (part, whole) => `${(100 * part) / whole}%`; // keeps its place where the page is scaled
    Object.assign(field.style, { left: share(left, width), top: share(8, height), width: share(wide, width), height: share(tall, height) });
    paintField(field, surface, heights, scale.share, table, x, y);
    const image = draw("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Contours of ${surface.title}` });
    const clip = `clip-${(chart.count = (chart.count ?? 0) + 1)}`;
    image.append(draw("clipPath", { id: clip }, draw("rect", { x: left, y: 8, width: wide, height: tall })));
    const fitting = (label, room) => (7 * label.length < room ? label : label.at(-1)); // else the Greek letter alone
    shortened = fitting(surface.labels.beta, tall) !== surface.labels.beta;
    image.append(frame(x, y, { x: fitting(surface.labels.alpha, wide), y: fitting(surface.labels.beta, tall) }, { grid: false }));
    const inside = draw("g", { "clip-path": `url(#${clip})` });
    image.append(inside, colourBar(scale, table, left + wide + 14, 8, tall, known()));
    const dark = (level) => !group.signed && scale.share(level) < 0.6;
    if (settings().lines) drawLines(inside, dark);
    if (settings().points) drawPoints(inside);
    drawPath(inside);
    image.append(over = draw("g", { "pointer-events": "none" }));
    above.replaceChildren(field, image);
    ring();
    describe();
  }

  function drawLines(inside, dark) {
    const onPage = lines.map((entry) => ({ ...entry, spots: entry.spots.map((run) => run.map(([a, b]) => [x.at(a), y.at(b)])) }));
    for (const { level, spots } of onPage) {
      const d = spots.map((run) => `M${run.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L")}`).join("");
      inside.append(draw("path", { d, fill: "none", stroke: dark(level) ? "rgba(255,255,255,.62)" : "rgba(0,0,0,.48)", "stroke-width": 0.8 }));
    }
    inside.append(lineNumbers(onPage, tickTexts(lines.map((l) => l.value), scale.log ? "log" : "linear"), dark));
  }

  function drawPoints(inside) {
    const { alpha, beta } = surface.points, values = quantity().point;
    const known = [...alpha.keys()], lone = !heights.some(Number.isFinite);
    const finite = known.filter((i) => Number.isFinite(scale.height(values[i])));
    if (lone) {
      for (const i of finite) inside.append(draw("circle", {
        cx: x.at(alpha[i]), cy: y.at(beta[i]), r: 4, fill: colour(table, scale.share(scale.height(values[i]))), stroke: "var(--ink)", "stroke-width": 0.6,
      }));
    } else {
      for (const [list, tone] of [[finite.filter((i) => scale.share(scale.height(values[i])) < 0.6), "rgba(255,255,255,.8)"], [finite.filter((i) => scale.share(scale.height(values[i])) >= 0.6), "rgba(0,0,0,.6)"]]) {
        const d = list.map((i) => `M${x.at(alpha[i]).toFixed(1)},${y.at(beta[i]).toFixed(1)}h.01`).join("");
        inside.append(draw("path", { d, stroke: tone, "stroke-width": finite.length > 900 ? 1.2 : 2, "stroke-linecap": "round" }));
      }
    }
    const broken = known.filter((i) => !Number.isFinite(values[i]) && !quantity().some);
    const d = broken.map((i) => `M${x.at(alpha[i]) - 3},${y.at(beta[i]) - 3}l6,6m-6,0l6,-6`).join("");
    inside.append(draw("path", { d, stroke: "var(--soft)", "stroke-width": 1 }));
  }

  function drawPath(inside) {
    // Far outside, coordinates are drawn no further than the eye could follow them.
    const far = (axis, value) => clamp(axis.at(value), -4000, 6000).toFixed(1);
    for (const way of settings().path ? surface.ways ?? [] : []) {
      if (!way.spots.length) continue;
      const d = `M${way.spots.map(([a, b]) => `${far(x, a)},${far(y, b)}`).join("L")}`;
      inside.append(draw("path", { d, fill: "none", stroke: "#fff", "stroke-width": 3.6, "stroke-linejoin": "round" }));
      inside.append(draw("path", { d, fill: "none", stroke: way.tone, "stroke-width": 1.9, "stroke-linejoin": "round" }));
    }
    if (settings().path && surface.path.length) {
      const d = `M${surface.path.map((s) => `${x.at(s.alpha).toFixed(1)},${y.at(s.beta).toFixed(1)}`).join("L")}`;
      inside.append(draw("path", { d, fill: "none", stroke: "#fff", "stroke-width": 3.6, "stroke-linejoin": "round" }));
      inside.append(draw("path", { d, fill: "none", stroke: "#111", "stroke-width": 1.7, "stroke-linejoin": "round" }));
      if (surface.kind === "trajectory") for (const s of surface.path) {
        inside.append(draw("circle", { cx: x.at(s.alpha), cy: y.at(s.beta), r: 3, fill: "#111", stroke: "#fff", "stroke-width": 1 }));
      }
    }
    if (surface.kind !== "race" && !surface.markers.some((m) => m.alpha === 0 && m.beta === 0)) {
      const [a, b] = [x.at(0), y.at(0)];
      for (const [tone, wide] of [["#fff", 3.4], ["#111", 1.4]]) inside.append(draw("path", { d: `M${a - 5},${b}h10M${a},${b - 5}v10`, stroke: tone, "stroke-width": wide }));
    }
    for (const m of surface.markers) {
      const [a, b] = [x.at(m.alpha), y.at(m.beta)];
      inside.append(draw("circle", { cx: a, cy: b, r: 4.2, fill: "#fff", stroke: "#111", "stroke-width": 1.3 }));
      const half = 3.4 * m.name.length, others = [...surface.path, ...surface.markers].filter((o) => o.alpha !== m.alpha || o.beta !== m.beta);
      const free = ([left, top]) => Math.min(
        40, left - half - x.start, x.end - left - half, top - y.end - 8, y.start - top - 8,
        ...others.map((o) => Math.hypot(Math.max(Math.abs(x.at(o.alpha) - left) - half, 0), y.at(o.beta) - top)),
      );
      const [left, top] = [[a, b - 14], [a, b + 15], [a + half + 9, b], [a - half - 9, b]].reduce((p, q) => (free(q) > free(p) ? q : p));
      inside.append(draw("text", { x: left, y: top + 4, class: "halo", "text-anchor": "middle" }, m.name));
    }
  }

  function paintSpace(width) {
    contours();
    const set = settings(), lone = !heights.some(Number.isFinite);
    const at = (alpha, beta, value) => [alpha, beta, scale.share(scale.height(value))];
    const onGround = ({ alpha, beta, loss }) => {
      const own = scale.share(interpolated(alpha, beta));
      return [alpha, beta, Number.isFinite(own) ? own : scale.share(scale.height(loss))];
    };
    const values = quantity().point;
    ({ eye, places } = paintRelief(relief, width, Math.round(clamp(0.86 * width, 260, 470)), {
      surface, heights, scale, share: scale.share, table, view: set, limits: scale.limits, alone: lone,
      lines: set.lines ? lines : [],
      dots: set.points && surface.points.alpha.length <= 900 ? surface.points.alpha.map((a, i) => at(a, surface.points.beta[i], values[i])).filter((d) => Number.isFinite(d[2])) : [],
      path: set.path ? surface.path.map(onGround).filter((s) => Number.isFinite(s[2])) : [],
      markers: surface.markers.map((m) => ({ place: onGround(m), name: m.name })).filter((m) => m.place[2] <= 1 && m.place[2] >= 0),
      onDark: isDark() && !group.signed,
      labels: { alpha: "\u03b1", beta: "\u03b2", value: known() },
    }));
    ring();
  }

  function interpolated(alpha, beta) {
    const i = cellOf(surface.alpha, alpha), j = cellOf(surface.beta, beta), columns = surface.beta.length;
    if (i < 0 || j < 0 || i > surface.alpha.length - 1 || j > columns - 1) return NaN;
    const [r, c] = [Math.min(Math.floor(i), surface.alpha.length - 2), Math.min(Math.floor(j), columns - 2)];
    const [u, v, at] = [i - r, j - c, r * columns + c];
    return (1 - u) * ((1 - v) * heights[at] + v * heights[at + 1]) + u * ((1 - v) * heights[at + columns] + v * heights[at + columns + 1]);
  }

  // The cursor: a cell of the grid, an evaluated point, or a station of the path.
  function cell(i, j) {
    const at = i * surface.beta.length + j, [alpha, beta] = [surface.alpha[i], surface.beta[j]];
    const point = surface.points.alpha.findIndex((a, n) => a === alpha && surface.points.beta[n] === beta);
    const words = Object.entries(surface.quantities).map(([name, q]) =>
      `${name} ${point >= 0 ? withError(q.grid[at], q.stderr[point], 6) : text(q.grid[at], 6)}`);
    return { i, j, alpha, beta, level: scale.share(heights[at]), lines: [place(alpha, beta), ...words, surface.status.length ? STATUS[surface.status[at]] : ""] };
  }

  const place = (alpha, beta) => `\u03b1 ${text(alpha, 4)}, \u03b2 ${text(beta, 4)}`;

  function evaluation(n) {
    const [alpha, beta] = [surface.points.alpha[n], surface.points.beta[n]];
    const words = Object.entries(surface.quantities).filter(([, q]) => !q.some || Number.isFinite(q.point[n])).map(([name, q]) => `${name} ${withError(q.point[n], q.stderr[n], 6)}`);
    return { ...nearest(alpha, beta), alpha, beta, level: scale.share(scale.height(quantity().point[n])), lines: [place(alpha, beta), ...words, "evaluated"] };
  }

  function station(s) {
    const words = [
      s.name ?? (s.step === undefined ? surface.pathLabel : `step ${s.step}`), s.file, place(s.alpha, s.beta),
      Number.isFinite(s.loss) ? `loss of the checkpoint ${text(s.loss, 6)}` : "",
      Number.isFinite(s.off) ? `${text(s.off, 3)} away from the plane` : "",
    ];
    return { ...nearest(s.alpha, s.beta), alpha: s.alpha, beta: s.beta, level: scale.share(interpolated(s.alpha, s.beta)), lines: words };
  }

  function nearest(alpha, beta) {
    const near = (axis, value) => clamp(Math.round(cellOf(axis, value)), 0, axis.length - 1);
    return { i: near(surface.alpha, alpha), j: near(surface.beta, beta) };
  }

  function under(left, top) {
    const far = (spot) => Math.hypot(x.at(spot.alpha) - left, y.at(spot.beta) - top);
    const stations = [...surface.markers, ...(settings().path && surface.kind === "trajectory" ? surface.path : [])];
    const close = stations.filter((s) => far(s) < 8).sort((a, b) => far(a) - far(b))[0];
    if (close) return station(close);
    const [alpha, beta] = [x.under(left), y.under(top)];
    if (alpha < surface.alpha[0] || alpha > surface.alpha.at(-1) || beta < surface.beta[0] || beta > surface.beta.at(-1)) return null;
    const here = nearest(alpha, beta), spot = cell(here.i, here.j);
    if (!settings().points) return spot;
    let best = -1, least = Math.min(6, far(spot) - 1e-9);
    surface.points.alpha.forEach((a, n) => {
      const distance = far({ alpha: a, beta: surface.points.beta[n] });
      if (distance < least) [best, least] = [n, distance];
    });
    return best >= 0 ? evaluation(best) : spot;
  }

  function ring() {
    over?.replaceChildren();
    const shown = member.cursor && eye && Number.isFinite(member.cursor.level);
    spot.hidden = !shown;
    if (shown) {
      const [left, top] = eye(member.cursor.alpha, member.cursor.beta, clamp(member.cursor.level, 0, 1));
      Object.assign(spot.style, { left: `${left}px`, top: `${top}px` });
    }
    if (!member.cursor || !over) return;
    const [a, b] = [x.at(member.cursor.alpha), y.at(member.cursor.beta)];
    for (const [tone, wide] of [["#fff", 3.6], ["#111", 1.6]]) over.append(draw("circle", { cx: a, cy: b, r: 6, fill: "none", stroke: tone, "stroke-width": wide }));
  }

  function move(cursor, left, top) {
    member.cursor = cursor;
    ring();
    if (!cursor) return hideTip();
    showTip(cursor.lines, left, top);
  }

  above.addEventListener("pointermove", (event) => {
    const box = above.getBoundingClientRect();
    move(under(event.clientX - box.left, event.clientY - box.top), event.clientX, event.clientY);
  });
  for (const stage of [above, space]) {
    stage.addEventListener("pointerleave", () => move(null));
    stage.addEventListener("blur", () => move(null));
  }
  above.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Escape") move(null);
    if (!step && event.key !== "Home") return;
    event.preventDefault();
    const from = member.cursor && event.key !== "Home" ? member.cursor : nearest(0, 0), size = event.shiftKey ? 5 : 1;
    const [di, dj] = member.cursor && step ? step : [0, 0];
    const cursor = cell(clamp(from.i + size * di, 0, surface.alpha.length - 1), clamp(from.j + size * dj, 0, surface.beta.length - 1));
    const box = above.getBoundingClientRect();
    move(cursor, box.left + x.at(cursor.alpha), box.top + y.at(cursor.beta));
  });

  const turn = (by, tilt = 0) => group.change(member, { turn: settings().turn + by, tilt: clamp(settings().tilt + tilt, 0.05, 1.5) });
  const zoom = (by) => group.change(member, { zoom: clamp(settings().zoom * by, 0.5, 3) });
  let held = null;
  space.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    space.setPointerCapture(event.pointerId);
    move(null);
  });
  space.addEventListener("pointerup", () => (held = null));
  space.addEventListener("pointercancel", () => (held = null));
  space.addEventListener("pointermove", (event) => {
    if (held) {
      turn((event.clientX - held[0]) / 130, (event.clientY - held[1]) / 160);
      held = [event.clientX, event.clientY];
      return;
    }
    const box = space.getBoundingClientRect(), [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const near = places.filter(([a, b]) => Math.hypot(a - left, b - top) < 9).sort((a, b) => a[2] - b[2])[0];
    const columns = surface.beta.length;
    move(near ? cell(Math.floor(near[3] / columns), near[3] % columns) : null, event.clientX, event.clientY);
  });
  space.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.07], ArrowDown: [0, -0.07] }[event.key];
    if (by) turn(...by);
    else if (event.key === "+" || event.key === "=") zoom(1.15);
    else if (event.key === "-") zoom(1 / 1.15);
    else if (event.key === "0") group.change(member, { ...VIEW });
    else return;
    event.preventDefault();
  });

  function control() {
    const set = settings(), change = (changes) => group.change(member, changes);
    const parts = [];
    const names = Object.keys(surface.quantities);
    if (names.length > 1) {
      const select = make("select", {}, ...names.map((name) => make("option", { value: name }, name)));
      select.value = known();
      select.addEventListener("change", () => change({ quantity: select.value, log: null, low: null, high: null }));
      parts.push(make("label", {}, "Show", select));
    }
    if (scale.canLog) parts.push(choice("Scale", [[false, "linear"], [true, "log"]], scale.log, (log) => change({ log })));
    const entry = (key, words) => {
      const field = make("input", { type: "number", step: "any", "aria-label": `${words} of the colours`, value: Number(scale[key].toPrecision(4)) });
      field.addEventListener("change", () => change({ [key]: field.value === "" || !Number.isFinite(Number(field.value)) ? null : Number(field.value) }));
      return field;
    };
    const slider = make("input", { type: "range", min: 3, max: 100, step: 1, "aria-label": "Clip from above" });
    const [a, b] = [scale.height(Math.min(scale.least, scale.low)), scale.height(scale.most)];
    slider.value = String(Math.round(100 * clamp((scale.height(scale.high) - a) / (b - a || 1), 0, 1)));
    slider.addEventListener("input", () => {
      const share = Number(slider.value) / 100, height = a + share * (b - a);
      const high = share >= 1 ? null : scale.log ? 10 ** height : height;
      change(group.signed ? { high: high === null ? null : Math.max(high, 1e-3 * scale.most), low: high === null ? null : -Math.max(high, 1e-3 * scale.most) } : { high });
    });
    parts.push(make("span", { class: "group" }, "Clip", entry("low", "Lower end"), "to", entry("high", "Upper end"), group.signed ? "" : slider));
    if (set.low !== null || set.high !== null) parts.push(button("whole range", false, () => change({ low: null, high: null })));
    const tick = (key, words) => {
      const box = make("input", { type: "checkbox" });
      box.checked = set[key];
      box.addEventListener("change", () => change({ [key]: box.checked }));
      return make("label", {}, box, words);
    };
    parts.push(tick("lines", "contour lines"));
    if (surface.points.alpha.length) parts.push(tick("points", "evaluated points"));
    if (surface.path.length || surface.ways?.length) parts.push(tick("path", surface.ways?.length ? "ways" : surface.pathLabel));
    if (group.members.length > 1) {
      const box = make("input", { type: "checkbox" });
      box.checked = group.shared;
      box.addEventListener("change", () => group.share(box.checked));
      parts.push(make("label", {}, box, `one scale for all ${group.members.length}`));
    }
    parts.push(button("reset view", false, () => change({ ...VIEW })));
    const focused = controls.contains(document.activeElement) ? [...controls.querySelectorAll("input, select, button")].indexOf(document.activeElement) : -1;
    if (focused >= 0 && document.activeElement.type === "range") return; // still being moved
    controls.replaceChildren(...parts);
    if (focused >= 0) controls.querySelectorAll("input, select, button")[focused]?.focus();
  }

  function describe() {
    const words = [];
    const unknown = [...heights.keys()].filter((n) => !Number.isFinite(heights[n]));
    if (unknown.some((n) => surface.status[n] === 2)) words.push("Blank: the value is not finite.");
    if (unknown.some((n) => surface.status[n] === 0)) words.push("Blank: not computed.");
    if (scale.clipped[1]) words.push(`Values above ${text(scale.high, 3)} are cut off in space and have the last colour.`);
    if (scale.clipped[0]) words.push(`Values below ${text(scale.low, 3)} have the first colour.`);
    if (surface.points.alpha.length && settings().points) words.push(`Dots: ${surface.points.alpha.length} points where the network was evaluated.`);
    if (shortened) words.push(`Across: ${surface.labels.alpha}; upwards: ${surface.labels.beta}.`);
    caption.textContent = words.join(" ");
  }

  function redraw(changed) {
    prepare();
    const onlyView = changed.every((name) => ["turn", "tilt", "zoom"].includes(name));
    space.repaint(true);
    if (onlyView) return;
    above.repaint(true);
    control();
    describe();
  }

  responsive(above, 450, paintAbove);
  responsive(space, 450, paintSpace);
  return { member, start: () => redraw(["all"]) };
}

// Two surfaces on equal grids: what the one is above the other.
function difference(one, other) {
  const quantities = {};
  for (const name of Object.keys(one.quantities).filter((n) => other.quantities[n])) {
    const [a, b] = [one.quantities[name].grid, other.quantities[name].grid];
    quantities[name] = { grid: a.map((value, n) => value - b[n]), point: [], stderr: [], log: false };
  }
  return {
    ...one, title: `${one.name} minus ${other.name}`, quantities, markers: [], path: [], kind: "difference",
    points: { alpha: [], beta: [] }, status: [],
  };
}

function sameGrid(one, other) {
  const equal = (a, b) => a.length === b.length && a.every((value, n) => Math.abs(value - b[n]) <= 1e-12 * (1 + Math.abs(value)));
  return equal(one.alpha, other.alpha) && equal(one.beta, other.beta);
}

// The section that subtracts surfaces; absent where no two have equal grids.
function differences(host, surfaces) {
  const able = surfaces.filter((s) => surfaces.some((t) => t !== s && sameGrid(s, t)));
  if (able.length < 2) return host.remove();
  const from = make("select", { "aria-label": "Surface" }), minus = make("select", { "aria-label": "Surface taken away" });
  for (const select of [from, minus]) {
    select.append(...able.map((s, n) => make("option", { value: n }, s.name)));
  }
  const partner = able.findIndex((s, n) => n > 0 && sameGrid(s, able[0]));
  [from.value, minus.value] = [String(partner), "0"];
  const view = make("div", { class: "view" }), note = make("p", { class: "note" });
  const title = make("h2", {}, "Difference of two surfaces");
  host.append(make("article", { id: "difference-of-two" },
    make("header", {}, make("p", { class: "kind" }, "Comparison"), title),
    make("div", { class: "controls" }, from, "minus", minus), view, note));
  function show() {
    const [one, other] = [able[from.value], able[minus.value]];
    for (const old of view.querySelectorAll(".stage")) painters.delete(old);
    view.replaceChildren();
    if (one === other || !sameGrid(one, other)) {
      note.textContent = "Choose two surfaces on equal grids.";
      return;
    }
    const settled = ["seed", "normalise", "include_1d", "resolution"].filter((key) => JSON.stringify(one.config[key]) !== JSON.stringify(other.config[key]));
    note.textContent = "Red: the first is higher. Each surface has its own directions, drawn by the same rule, and was evaluated by itself, so no standard error of the difference is known." +
      (settled.length ? ` The two were made with different ${settled.join(", ")}: compare with care.` : "");
    surfaceView(view, difference(one, other), new Group(true)).start();
  }
  for (const select of [from, minus]) select.addEventListener("change", show);
  show();
}
