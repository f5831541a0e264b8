// A surface from above: colours interpolated between the cells, and contour lines at round values.

// The lines on which the heights of a grid equal `level`: lists of [row, column] in cells.
function isolines(heights, rows, columns, level) {
  const joins = new Map(); // edge -> the edges it is joined to; an edge is its place in the grid
  const join = (a, b) => {
    for (const [from, to] of [[a, b], [b, a]]) joins.set(from, [...(joins.get(from) ?? []), to]);
  };
  const across = (i, j) => 2 * (i * columns + j), along = (i, j) => across(i, j) + 1; // (i,j)-(i,j+1), (i,j)-(i+1,j)
  for (let i = 0; i + 1 < rows; i++) {
    for (let j = 0; j + 1 < columns; j++) {
      const at = i * columns + j;
      const [a, b, c, d] = [heights[at], heights[at + 1], heights[at + columns + 1], heights[at + columns]];
      if (!Number.isFinite(a + b + c + d)) continue;
      const edges = [];
      if (a > level !== b > level) edges.push(across(i, j));
      if (b > level !== c > level) edges.push(along(i, j + 1));
      if (d > level !== c > level) edges.push(across(i + 1, j));
      if (a > level !== d > level) edges.push(along(i, j));
      if (edges.length === 2) join(...edges);
      if (edges.length === 4) {
        // A saddle: the mean of the corners says which of them hang together.
        const high = (a + b + c + d) / 4 > level;
        const [p, q, r, s] = edges;
        if (high === a > level) (join(p, q), join(r, s));
        else (join(p, s), join(q, r));
      }
    }
  }
  const spot = (edge) => {
    const cell = edge >> 1, i = Math.floor(cell / columns), j = cell % columns;
    const other = edge & 1 ? cell + columns : cell + 1;
    const share = (level - heights[cell]) / (heights[other] - heights[cell]);
    return edge & 1 ? [i + share, j] : [i, j + share];
  };
  const lines = [];
  const starts = [...joins.keys()].filter((edge) => joins.get(edge).length === 1);
  for (const start of [...starts, ...joins.keys()]) {
    if (!joins.has(start)) continue;
    const edges = [start];
    let here = start;
    for (;;) {
      const next = joins.get(here)?.find((edge) => joins.has(edge) && edge !== edges.at(-2));
      if (next === undefined) break;
      edges.push(next);
      if (next === start) break;
      if (here !== start) joins.delete(here);
      here = next;
    }
    joins.delete(start);
    joins.delete(here);
    if (edges.length > 1) lines.push(edges.map(spot));
  }
  return lines;
}

// Where `value` lies in the rising `axis`, in cells.
function cellOf(axis, value) {
  let low = 0, high = axis.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (axis[middle] <= value) low = middle;
    else high = middle;
  }
  return low + (value - axis[low]) / (axis[high] - axis[low] || 1);
}

// The value of the axis so many cells in.
function axisAt(axis, cells) {
  const below = clamp(Math.floor(cells), 0, axis.length - 2);
  return axis[below] + (cells - below) * (axis[below + 1] - axis[below]);
}

// Colours into the image data of a canvas: bilinear in the height, nothing where a corner is unknown.
function paintField(canvas, surface, heights, share, table, x, y) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const image = context.createImageData(width, height), columns = surface.beta.length;
  const pixels = new Uint32Array(image.data.buffer), packed = table.map(([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0);
  const first = share(0), slope = share(1) - first; // shares rise evenly with the height
  const scale = width / (x.end - x.start);
  const across = Array.from({ length: width }, (_, p) => cellOf(surface.alpha, x.under(x.start + (p + 0.5) / scale)));
  for (let row = 0; row < height; row++) {
    const j = cellOf(surface.beta, y.under(y.end + (row + 0.5) / scale));
    if (j < 0 || j > columns - 1) continue;
    const right = Math.min(Math.floor(j), columns - 2), v = j - right;
    for (let p = 0; p < width; p++) {
      const i = across[p];
      if (i < 0 || i > surface.alpha.length - 1) continue;
      const below = Math.min(Math.floor(i), surface.alpha.length - 2), u = i - below, at = below * columns + right;
      const value = (1 - u) * ((1 - v) * heights[at] + v * heights[at + 1]) +
        u * ((1 - v) * heights[at + columns] + v * heights[at + columns + 1]);
      if (!Number.isFinite(value)) continue;
      const place = 255 * (first + slope * value) + 0.5;
      pixels[row * width + p] = packed[place <= 0 ? 0 : place >= 255 ? 255 : place | 0];
    }
  }
  context.putImageData(image, 0, 0);
}

// A number on the longest line of every level, where it runs most nearly straight.
function lineNumbers(lines, words, dark) {
  const group = draw("g", { "aria-hidden": "true" });
  const taken = [];
  lines.forEach(({ level, spots }, n) => {
    const longest = spots.reduce((a, b) => (b.length > a.length ? b : a), []);
    const reach = 4;
    let best = null, least = Infinity;
    for (let i = reach; i + reach < longest.length; i++) {
      const [a, m, b] = [longest[i - reach], longest[i], longest[i + reach]];
      const bend = Math.abs((m[0] - a[0]) * (b[1] - m[1]) - (m[1] - a[1]) * (b[0] - m[0])) / (Math.hypot(b[0] - a[0], b[1] - a[1]) ** 2 || 1);
      const near = taken.some(([x, y]) => Math.abs(x - m[0]) < 44 && Math.abs(y - m[1]) < 18);
      const cost = bend + (near ? 9 : 0);
      if (cost < least) [best, least] = [[a, m, b], cost];
    }
    if (!best || least > 8) return;
    const [a, m, b] = best;
    let turn = (Math.atan2(b[1] - a[1], b[0] - a[0]) * 180) / Math.PI;
    if (turn > 90) turn -= 180;
    if (turn < -90) turn += 180;
    taken.push(m);
    group.append(draw("text", {
      "text-anchor": "middle", transform: `translate(${m[0].toFixed(1)},${m[1].toFixed(1)}) rotate(${turn.toFixed(0)}) translate(0,3.5)`,
      style: `font-size: 10px; fill: ${dark(level) ? "#fff" : "#111"}; stroke: ${dark(level) ? "rgba(0,0,0,.45)" : "rgba(255,255,255,.5)"}; stroke-width: 2.5px; paint-order: stroke`,
    }, words[n]));
  });
  return group;
}

// The colours with their values, standing at the right of a picture.
function colourBar(scale, table, left, top, height, label) {
  const group = draw("g", { "aria-hidden": "true" });
  const canvas = make("canvas", { width: 1, height: 256 }), context = canvas.getContext("2d");
  for (let i = 0; i < 256; i++) {
    context.fillStyle = colour(table, 1 - i / 255);
    context.fillRect(0, i, 1, 1);
  }
  group.append(draw("image", { href: canvas.toDataURL(), x: left, y: top, width: 12, height, preserveAspectRatio: "none" }));
  const axis = new Axis(scale.log ? "log" : "linear", scale.low, scale.high, top + height, top);
  const ticks = axis.ticks(Math.max(2, height / 45));
  tickTexts(ticks, axis.kind).forEach((words, i) => {
    const at = axis.at(ticks[i]);
    group.append(line(left + 12, at, left + 16, at, "axis"));
    group.append(draw("text", { x: left + 20, y: at + 4, class: "tick" }, words));
  });
  group.append(draw("text", { x: left + 12, y: top + height + 37, class: "label", "text-anchor": "middle" }, label));
  return group;
}
