// Elements, numbers, colours, and the one tooltip of the page.

function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// JSON has no NaN and no infinity: they come as strings that Number reads.
function numbers(values) {
  return Array.isArray(values) ? values.map(numbers) : values === null ? NaN : Number(values);
}

const MINUS = "\u2212";
const RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";

// The value at so many digits, as a person writes it; with a power of ten outside `plain` ones.
function text(value, digits = 4, plain = [-4, Math.max(5, digits)]) {
  if (Number.isNaN(value)) return "not known";
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : `${MINUS}infinite`;
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (exponent >= plain[0] && exponent < plain[1]) {
    return String(Number(value.toPrecision(digits))).replace("-", MINUS);
  }
  const raised = [...String(Math.abs(exponent))].map((d) => RAISED[d]).join("");
  const short = String(Number(mantissa)).replace("-", MINUS);
  return `${short === "1" ? "" : `${short}\u00d7`}10${exponent < 0 ? "\u207b" : ""}${raised}`;
}

function withError(value, error, digits = 5) {
  return Number.isFinite(error) ? `${text(value, digits)} \u00b1 ${text(error, 2)}` : text(value, digits);
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (Number.isFinite(value)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return [low, high];
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Even lightness from dark to bright, readable without colour vision (viridis), and, for
// differences, from blue over white to red.
const RISING = ramp(
  "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 " +
  "84d44b addc30 d8e219 fde725"
);
const DIVERGING = ramp("15508d 307ab6 5fa5cd a0cce2 d5e7f1 f6f7f7 fcdecd f6b191 e17860 c2383a 930e26");

function ramp(stops) {
  const colours = stops.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const table = [];
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (colours.length - 1), below = Math.min(Math.floor(place), colours.length - 2);
    table.push([0, 1, 2].map((c) => {
      const [a, b] = [colours[below][c], colours[below + 1][c]];
      return Math.round(a + (place - below) * (b - a));
    }));
  }
  return table;
}

function colour(table, share, light = 1) {
  const [r, g, b] = table[Math.round(255 * clamp(share, 0, 1))];
  return `rgb(${Math.round(r * light)},${Math.round(g * light)},${Math.round(b * light)})`;
}

const tip = document.getElementById("tip");

function showTip(lines, x, y) {
  tip.textContent = lines.filter((line) => line).join("\n");
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const right = x + 14 + box.width < innerWidth;
  tip.style.left = `${Math.max(4, right ? x + 14 : x - 14 - box.width)}px`;
  tip.style.top = `${clamp(y - box.height - 10, 4, innerHeight - box.height - 4)}px`;
}

function hideTip() {
  tip.hidden = true;
}

// Calls `paint(width)` when the element comes near to what is seen, when its width changes, and
// when it is told to; until then `height` pixels are kept for it.
const painters = new Set();
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) target.repaint();
});
const approached = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.near = isIntersecting;
    target.repaint();
  }
}, { rootMargin: "600px" });

function responsive(element, height, paint) {
  let painted = 0;
  element.style.minHeight = `${height}px`;
  element.repaint = (always = false) => {
    const width = Math.round(element.clientWidth);
    if (always) painted = 0;
    if (!element.near || width === 0 || width === painted) return;
    painted = width;
    element.style.minHeight = "";
    paint(width);
  };
  painters.add(element);
  resized.observe(element);
  approached.observe(element);
}

function repaintAll(everywhere = false) {
  for (const element of painters) {
    element.near ||= everywhere;
    element.repaint(true);
  }
}

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function button(words, pressed, press) {
  const element = make("button", { type: "button", "aria-pressed": String(pressed) }, words);
  element.addEventListener("click", press);
  return element;
}

// Buttons of which one is pressed; `choices` are [value, words].
function choice(label, choices, current, choose) {
  const group = make("span", { class: "group", role: "group", "aria-label": label }, make("span", {}, label));
  for (const [value, words] of choices) group.append(button(words, value === current, () => choose(value)));
  return group;
}
