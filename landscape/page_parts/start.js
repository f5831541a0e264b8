// The data of the page, and the picture of every result in its place.

const data = JSON.parse(document.getElementById("landscape-data").textContent);
const hosts = [...document.querySelectorAll(".view[data-result]")];
const surfaces = [], groups = new Map(), starts = [];

// Lines along equally named axes share the range of their values.
function sharedLines() {
  const lines = data.results.filter((entry) => entry.kind === "line"), found = {};
  if (lines.length < 2) return null;
  for (const name of new Set(lines.flatMap((entry) => Object.keys(entry.record.quantities)))) {
    const values = lines.flatMap((entry) => numbers(entry.record.quantities[name]?.grid ?? []));
    const [low, high] = extent(values);
    if (!(high > low)) continue;
    const log = low > 0 && high > 30 * low;
    found[name] = log ? { low: low / 1.1, high: high * 1.1 } : { low: low - 0.05 * (high - low), high: high + 0.05 * (high - low) };
  }
  return found;
}

const onOneScale = sharedLines();
data.results.forEach((entry, n) => {
  const host = hosts[n];
  try {
    if (["surface", "trajectory", "race"].includes(entry.kind)) {
      const surface = readSurface(entry), key = JSON.stringify([entry.kind, surface.labels, entry.kind === "race" ? n : 0]);
      if (!groups.has(key)) groups.set(key, new Group());
      starts.push([surfaceView(host, surface, groups.get(key)), host]);
      if (entry.kind === "surface") surfaces.push(surface);
      else (entry.kind === "race" ? raceMore : trajectoryMore)(host, entry);
    } else if (entry.kind === "line") lineView(host, entry, onOneScale);
    else if (VIEWS[entry.kind]) VIEWS[entry.kind](host, entry);
    else host.append(make("p", { class: "note" }, "There is no picture of this kind of result; its words are below."));
  } catch (error) {
    failed(host, error);
  }
});
for (const [view, host] of starts) {
  try {
    view.start();
  } catch (error) {
    failed(host, error);
  }
}
differences(document.getElementById("difference"), surfaces);

// One result that cannot be drawn leaves the others as they are.
function failed(host, error) {
  host.append(make("p", { class: "note" }, "This result could not be drawn; its words are below."));
  console.error(error);
}

// Light or dark: that of the system until the reader asks for another.
const theme = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function named() {
  theme.textContent = isDark() ? "Light page" : "Dark page";
  repaintAll();
}

theme.hidden = false;
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  named();
});
dark.addEventListener("change", named);
theme.textContent = isDark() ? "Light page" : "Dark page";

// Paper is white, and nobody can open a fold on it.
let before = null;
addEventListener("beforeprint", () => {
  before = { theme: document.documentElement.dataset.theme, closed: [...document.querySelectorAll("details:not([open])")] };
  document.documentElement.dataset.theme = "light";
  document.documentElement.classList.add("paper");
  for (const fold of before.closed) fold.open = true;
  repaintAll(true);
});
addEventListener("afterprint", () => {
  if (!before) return;
  if (before.theme) document.documentElement.dataset.theme = before.theme;
  else delete document.documentElement.dataset.theme;
  for (const fold of before.closed) fold.open = false;
  document.documentElement.classList.remove("paper");
  before = null;
  named();
});
document.documentElement.dataset.drawn = String(data.results.length);
