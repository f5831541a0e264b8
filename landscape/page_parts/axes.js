// Axes: linear, logarithmic, or asinh (logarithmic on both sides of a linear stretch).

class Axis {
  // `kind` of axis, data from `low` to `high`, drawn from `start` to `end` in pixels.
  constructor(kind, low, high, start, end, linear = 1) {
    Object.assign(this, { kind, low, high, start, end, linear });
    [this.a, this.b] = [this.height(low), this.height(high)];
  }

  height(value) {
    if (this.kind === "log") return Math.log10(value);
    return this.kind === "asinh" ? Math.asinh(value / this.linear) : value;
  }

  value(height) {
    if (this.kind === "log") return 10 ** height;
    return this.kind === "asinh" ? this.linear * Math.sinh(height) : height;
  }

  at(value) {
    return this.start + ((this.height(value) - this.a) / (this.b - this.a)) * (this.end - this.start);
  }

  under(pixel) {
    return this.value(this.a + ((pixel - this.start) / (this.end - this.start)) * (this.b - this.a));
  }

  // Inside the drawing, for bars whose end lies beyond.
  clamped(value) {
    const place = this.kind === "log" && value <= 0 ? this.start : this.at(value);
    return clamp(place, Math.min(this.start, this.end), Math.max(this.start, this.end));
  }

  ticks(count) {
    if (this.kind === "log") return logTicks(this.low, this.high, count);
    return this.kind === "asinh" ? this.decades(count) : evenTicks(this.low, this.high, count);
  }

  decades(count) {
    const most = Math.max(Math.abs(this.low), Math.abs(this.high));
    const powers = [];
    for (let p = Math.ceil(Math.log10(this.linear) + 0.7); 10 ** p <= most; p++) powers.push(10 ** p);
    const step = Math.max(1, Math.ceil((2 * powers.length) / count));
    const shown = powers.reverse().filter((_, i) => i % step === 0).reverse();
    return [...shown.map((p) => -p).reverse(), 0, ...shown].filter((t) => t >= this.low && t <= this.high);
  }
}

function evenTicks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((s) => s * power >= rough * (1 - 1e-9)) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function logTicks(low, high, count) {
  if (Math.log10(high / low) < 0.7) return evenTicks(low, high, count).filter((t) => t > 0);
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (const digits of [[1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let p = first; p <= last; p++) {
      for (const digit of digits) {
        const tick = Number(`${digit}e${p}`);
        if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(tick);
      }
    }
    if (ticks.length <= 1.3 * count) return ticks;
  }
  const stride = Math.ceil((last - first) / count), ticks = [];
  for (let p = first; p <= last; p += stride) {
    if (p >= Math.log10(low) - 1e-9 && p <= Math.log10(high) + 1e-9) ticks.push(10 ** p);
  }
  return ticks;
}

// Tick values with as many digits as tell each from the next.
function tickTexts(ticks, kind) {
  if (kind !== "linear" || ticks.length < 2) {
    const sizes = ticks.map(Math.abs).filter((size) => size > 0);
    const far = sizes.some((size) => size < 1e-4 || size >= 1e5); // then small and large ones look alike
    return ticks.map((tick) => text(tick, 3, far ? [-2, 4] : undefined));
  }
  const most = Math.max(...ticks.map(Math.abs)), step = Math.abs(ticks[1] - ticks[0]);
  const digits = clamp(Math.ceil(Math.log10(most / step) + 1.5), 2, 12);
  return ticks.map((tick) => text(Math.abs(tick) < 1e-9 * step ? 0 : tick, digits));
}

// The frame of a plot: two axes with ticks, labels and a light grid.
function frame(x, y, labels, { grid = true, xTicks = null, yTicks = null } = {}) {
  const group = draw("g", { "aria-hidden": "true" });
  const across = xTicks ?? x.ticks(Math.max(2, Math.abs(x.end - x.start) / 75));
  const up = yTicks ?? y.ticks(Math.max(2, Math.abs(y.start - y.end) / 42));
  const [left, right, bottom, top] = [x.start, x.end, y.start, y.end];
  tickTexts(across, x.kind).forEach((words, i) => {
    const at = x.at(across[i]);
    if (grid) group.append(line(at, bottom, at, top, "grid"));
    group.append(line(at, bottom, at, bottom + 4, "axis"));
    group.append(draw("text", { x: at, y: bottom + 18, class: "tick", "text-anchor": "middle" }, words));
  });
  tickTexts(up, y.kind).forEach((words, i) => {
    const at = y.at(up[i]);
    if (grid) group.append(line(left, at, right, at, "grid"));
    group.append(line(left - 4, at, left, at, "axis"));
    group.append(draw("text", { x: left - 8, y: at + 4, class: "tick", "text-anchor": "end" }, words));
  });
  group.append(draw("path", { d: `M${left},${top}V${bottom}H${right}`, class: "axis" }));
  group.append(draw("text", { x: (left + right) / 2, y: bottom + 37, class: "label", "text-anchor": "middle" }, labels.x));
  if (labels.y) {
    const middle = (top + bottom) / 2;
    group.append(draw("text", {
      x: 0, y: 0, class: "label", "text-anchor": "middle", transform: `translate(13,${middle}) rotate(-90)`,
    }, labels.y));
  }
  return group;
}

function line(x1, y1, x2, y2, kind) {
  return draw("path", { d: `M${x1.toFixed(1)},${y1.toFixed(1)}L${x2.toFixed(1)},${y2.toFixed(1)}`, class: kind });
}
