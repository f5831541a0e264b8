// A surface in space, drawn from the back to the front on a plain canvas.

const TALL = 1.15; // height of the box, in halves of its width
const FLOOR = -0.16; // of the box, below the least height
const LIGHT = [-0.42, -0.3, 0.86];

// `scene`: {surface, heights, share, scale, table, lines, dots, path, markers, limits, view, labels}.
// Returns the projection, and the places of the cells on the canvas: [x, y, depth, index].
function paintRelief(canvas, width, height, scene) {
  const sharp = Math.max(2, devicePixelRatio || 1);
  canvas.width = width * sharp;
  canvas.height = height * sharp;
  const pen = canvas.getContext("2d");
  pen.scale(sharp, sharp);
  pen.lineJoin = pen.lineCap = "round";
  const eye = projection(scene, width, height);
  const back = stage(pen, eye, scene, width);
  const { surface, share } = scene, [rows, columns] = [surface.alpha.length, surface.beta.length];
  const spots = new Array(rows * columns), places = [];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const at = i * columns + j, level = share(scene.heights[at]);
      if (!Number.isFinite(level)) continue;
      spots[at] = eye(surface.alpha[i], surface.beta[j], clamp(level, 0, 1));
      Object.assign(spots[at], { level, alpha: surface.alpha[i], beta: surface.beta[j] });
      if (level <= 1) places.push([spots[at][0], spots[at][1], spots[at][2], at]);
    }
  }
  const things = [...tiles(spots, rows, columns, scene, eye), ...trimmings(eye, scene)];
  things.sort((a, b) => b.depth - a.depth);
  for (const thing of things) thing.paint(pen);
  front(pen, eye, scene, back);
  return { eye, places };
}

// Alpha, beta and a share of the height -> [x, y, depth, distance on the ground] on the canvas.
function projection(scene, width, height) {
  const { limits, view } = scene;
  const [halfA, halfB] = [(limits.alpha[1] - limits.alpha[0]) / 2, (limits.beta[1] - limits.beta[0]) / 2];
  const ratio = halfB / halfA, deep = ratio > 0.5 && ratio < 2 ? ratio : 1;
  const [cos, sin, up, down] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
  // As large as fits at every turn: the half diagonal of the floor across, floor and box upwards.
  const round = 1.06 * Math.hypot(1, deep), tall = TALL * (1 - FLOOR) * up;
  const size = view.zoom * Math.min((width - 84) / (2 * round), (height - 44) / (2 * round * down + tall));
  const centre = (0.5 + FLOOR / 2 - 0.5) * TALL * up;
  return (alpha, beta, level) => {
    const a = (alpha - limits.alpha[0]) / halfA - 1, b = ((beta - limits.beta[0]) / halfB - 1) * deep;
    const [x, y, z] = [a * cos - b * sin, a * sin + b * cos, (level - 0.5) * TALL];
    const depth = y * up - z * down, near = 7 / (7 + depth);
    return [width / 2 + size * near * x + 8, height / 2 - size * near * (z * up - centre + y * down) - 6, depth, y];
  };
}

// The floor with its contour lines and the edges behind the surface; returns what stands in front.
function stage(pen, eye, scene, width) {
  const { alpha, beta } = scene.limits;
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([i, j]) => ({ i, j, foot: eye(alpha[i], beta[j], FLOOR), head: eye(alpha[i], beta[j], 1) }));
  const nearest = corners.reduce((a, b) => (b.foot[2] < a.foot[2] ? b : a));
  const left = corners.reduce((a, b) => (b.foot[0] < a.foot[0] ? b : a));
  pen.fillStyle = ink("wash");
  trace(pen, corners.map((corner) => corner.foot), true);
  pen.fill();
  pen.strokeStyle = ink("faint");
  pen.lineWidth = 1;
  trace(pen, corners.map((corner) => corner.foot), true);
  pen.stroke();
  for (const corner of corners.filter((c) => c !== nearest)) {
    trace(pen, [corner.foot, corner.head]);
    pen.stroke();
  }
  const behind = corners.filter((c) => c !== nearest && (c.i === 1 - nearest.i || c.j === 1 - nearest.j));
  const far = behind.find((c) => c.i !== nearest.i && c.j !== nearest.j);
  for (const corner of behind.filter((c) => c !== far)) {
    trace(pen, [corner.head, far.head]);
    pen.stroke();
  }
  for (const { level, spots } of scene.lines) {
    pen.strokeStyle = colour(scene.table, scene.onDark ? 0.3 + 0.7 * scene.share(level) : scene.share(level));
    pen.lineWidth = 1;
    for (const run of spots) {
      trace(pen, run.map(([a, b]) => eye(a, b, FLOOR)));
      pen.stroke();
    }
  }
  return { nearest, left, width };
}

function trace(pen, spots, closed = false) {
  pen.beginPath();
  spots.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  if (closed) pen.closePath();
}

const STEP = 0.05; // of the height: a tile that rises more is drawn in parts, each of one colour

// The cells of the grid as tiles, cut off where they rise above the clip.
function tiles(spots, rows, columns, scene, eye) {
  const found = [], turned = lightOf(scene.view), [down, across] = [rows, columns].map(corners);
  for (let p = 0; p + 1 < down.length; p++) {
    for (let q = 0; q + 1 < across.length; q++) {
      const [i, k, j, l] = [down[p], down[p + 1], across[q], across[q + 1]];
      const ring = [spots[i * columns + j], spots[i * columns + l], spots[k * columns + l], spots[k * columns + j]];
      if (ring.some((spot) => !spot) || ring.every((spot) => spot.level > 1)) continue;
      const [low, high] = extent(ring.map((spot) => clamp(spot.level, 0, 1)));
      const parts = clamp(Math.ceil((high - low) / STEP), 1, 4);
      const shine = shading(ring, (rows - 1) / (k - i), (columns - 1) / (l - j), turned);
      for (const part of parts === 1 ? [ring] : split(ring, parts, eye)) {
        if (part.every((spot) => spot.level > 1)) continue;
        const level = part.reduce((sum, spot) => sum + clamp(spot.level, 0, 1), 0) / 4;
        const shape = part.some((spot) => spot.level > 1) ? cut(part, eye) : part;
        found.push({
          depth: (part[0][3] + part[1][3] + part[2][3] + part[3][3]) / 4, // on the ground: no tile stands over another
          paint: tile(shape, colour(scene.table, level, shine)),
        });
      }
    }
  }
  return found;
}

// Where tiles begin and end: at every line of the grid, or at every other one where they lie close.
function corners(count) {
  const step = Math.ceil(count / 64), found = [];
  for (let i = 0; i < count - 1; i += step) found.push(i);
  return [...found, count - 1];
}

function tile(shape, tone) {
  return (pen) => {
    trace(pen, shape, true);
    pen.fillStyle = pen.strokeStyle = tone;
    pen.lineWidth = 0.7; // closes the seams
    pen.fill();
    pen.stroke();
  };
}

// How bright a tile is, by its slope; so many of its size fit along the grid.
function shading(ring, down, across, light) {
  const [a, b, c, d] = ring.map((spot) => clamp(spot.level, 0, 1));
  const slope = [((d + c - a - b) / 4) * TALL * down, ((b + c - a - d) / 4) * TALL * across];
  const shine = Math.abs(-slope[0] * light[0] - slope[1] * light[1] + light[2]) / Math.hypot(slope[0], slope[1], 1);
  return 0.66 + 0.36 * shine;
}

// A tile in count times count parts.
function split(ring, count, eye) {
  const [a, b, c, d] = ring;
  const spot = (u, v) => {
    const of = (key) => (1 - u) * ((1 - v) * a[key] + v * b[key]) + u * ((1 - v) * d[key] + v * c[key]);
    const [alpha, beta, level] = [of("alpha"), of("beta"), of("level")];
    return Object.assign(eye(alpha, beta, clamp(level, 0, 1)), { alpha, beta, level });
  };
  const grid = Array.from({ length: count + 1 }, (_, i) => Array.from({ length: count + 1 }, (__, j) => spot(i / count, j / count)));
  const parts = [];
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < count; j++) parts.push([grid[i][j], grid[i][j + 1], grid[i + 1][j + 1], grid[i + 1][j]]);
  }
  return parts;
}

// The part of a tile that is not above the clip.
function cut(ring, eye) {
  const kept = [];
  ring.forEach((spot, n) => {
    const next = ring[(n + 1) % 4];
    if (spot.level <= 1) kept.push(spot);
    if (spot.level > 1 === next.level > 1) return;
    const share = (1 - spot.level) / (next.level - spot.level);
    kept.push(eye(spot.alpha + share * (next.alpha - spot.alpha), spot.beta + share * (next.beta - spot.beta), 1));
  });
  return kept;
}

// The light stands still beside the reader, not on the surface.
function lightOf({ turn }) {
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return [LIGHT[0] * cos + LIGHT[1] * sin, -LIGHT[0] * sin + LIGHT[1] * cos, LIGHT[2]];
}

// Evaluated points, the path and the checkpoints, a little nearer than the surface under them.
function trimmings(eye, scene) {
  const found = [], nearer = 1.7 / (Math.min(scene.surface.alpha.length, scene.surface.beta.length) - 1);
  const spot = ([alpha, beta, level], raise = 0.012) => eye(alpha, beta, clamp(level, 0, 1) + raise);
  for (const dot of scene.dots.filter(([, , level]) => level <= 1.0001)) {
    const [x, y, , depth] = spot(dot, 0);
    found.push({ depth: depth - nearer, paint: (pen) => disc(pen, x, y, scene.alone ? 3.5 : 1.1, scene.alone ? colour(scene.table, dot[2]) : "rgba(20,20,20,.62)") });
  }
  scene.path.slice(1).forEach((to, n) => {
    const [a, b] = [spot(scene.path[n]), spot(to)];
    for (const [wide, tone] of [[4, "#fff"], [1.9, "#111"]]) {
      found.push({
        depth: Math.min(a[3], b[3]) - nearer - (wide < 3 ? 0.01 : 0),
        paint: (pen) => {
          trace(pen, [a, b]);
          pen.strokeStyle = tone;
          pen.lineWidth = wide;
          pen.stroke();
        },
      });
    }
  });
  for (const station of scene.path) {
    const [x, y, , depth] = spot(station);
    found.push({ depth: depth - nearer - 0.02, paint: (pen) => disc(pen, x, y, 2.6, "#111", "#fff") });
  }
  for (const { place } of scene.markers) {
    const [x, y, , depth] = spot(place);
    found.push({ depth: depth - nearer - 0.03, paint: (pen) => disc(pen, x, y, 4, "#fff", "#111") });
  }
  return found;
}

function disc(pen, x, y, radius, fill, edge = null) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fillStyle = fill;
  pen.fill();
  if (!edge) return;
  pen.strokeStyle = edge;
  pen.lineWidth = 1.3;
  pen.stroke();
}

function halo(pen, words, x, y) {
  pen.font = '12px system-ui, "Liberation Sans", sans-serif';
  pen.textAlign = "center";
  pen.lineWidth = 3;
  pen.strokeStyle = "#fff";
  pen.strokeText(words, x, y);
  pen.fillStyle = "#111";
  pen.fillText(words, x, y);
}

// The three axes with their ticks, and the names, in front.
function front(pen, eye, scene, { nearest, left }) {
  const { alpha, beta } = scene.limits, [i, j] = [nearest.i, nearest.j];
  const centre = eye((alpha[0] + alpha[1]) / 2, (beta[0] + beta[1]) / 2, FLOOR);
  pen.strokeStyle = ink("soft");
  pen.lineWidth = 1;
  rule(pen, evenTicks(...alpha, 4), "linear", (t) => eye(t, beta[j], FLOOR), centre, scene.labels.alpha);
  rule(pen, evenTicks(...beta, 4), "linear", (t) => eye(alpha[i], t, FLOOR), centre, scene.labels.beta);
  const kind = scene.scale.log ? "log" : "linear", axis = new Axis(kind, scene.scale.low, scene.scale.high, 0, 1);
  trace(pen, [left.foot, left.head]);
  pen.stroke();
  const ticks = axis.ticks(5);
  pen.fillStyle = ink("soft");
  pen.font = '11px system-ui, "Liberation Sans", sans-serif';
  pen.textAlign = "right";
  tickTexts(ticks, kind).forEach((words, n) => {
    const [x, y] = eye(alpha[left.i], beta[left.j], axis.at(ticks[n]));
    trace(pen, [[x, y], [x - 4, y]]);
    pen.stroke();
    pen.fillText(words, x - 7, y + 4);
  });
  pen.fillStyle = ink("ink");
  pen.font = '12.5px system-ui, "Liberation Sans", sans-serif';
  pen.textAlign = "center";
  pen.fillText(scene.labels.value, Math.max(left.head[0], 4 + pen.measureText(scene.labels.value).width / 2), left.head[1] - 12);
  for (const { place, name } of scene.markers) {
    const [x, y] = eye(place[0], place[1], clamp(place[2], 0, 1));
    halo(pen, name, x, y - 10);
  }
}

// Ticks and label of one edge of the floor, away from its centre.
function rule(pen, ticks, kind, place, centre, label) {
  const ends = [place(ticks[0]), place(ticks.at(-1))];
  const middle = [(ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2];
  const long = Math.hypot(ends[1][0] - ends[0][0], ends[1][1] - ends[0][1]) || 1;
  let out = [(ends[1][1] - ends[0][1]) / long, -(ends[1][0] - ends[0][0]) / long];
  if (out[0] * (middle[0] - centre[0]) + out[1] * (middle[1] - centre[1]) < 0) out = [-out[0], -out[1]];
  pen.font = '11px system-ui, "Liberation Sans", sans-serif';
  pen.textAlign = out[0] > 0.35 ? "left" : out[0] < -0.35 ? "right" : "center";
  tickTexts(ticks, kind).forEach((words, n) => {
    const [x, y] = place(ticks[n]);
    trace(pen, [[x, y], [x + 4 * out[0], y + 4 * out[1]]]);
    pen.stroke();
    pen.fillStyle = ink("soft");
    pen.fillText(words, x + 10 * out[0], y + 12 * out[1] + 3);
  });
  pen.fillStyle = ink("ink");
  pen.font = '12.5px system-ui, "Liberation Sans", sans-serif';
  pen.fillText(label, middle[0] + 34 * out[0], middle[1] + 32 * out[1] + 4);
}
