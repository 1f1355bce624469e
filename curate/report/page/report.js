// Draws the charts, links their brushes and shows examples. Dataset text is only ever set as
// textContent; Vega's expressions are interpreted, so that the page's policy can forbid eval.
const page = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map();
const brushed = {};
const numbers = new Intl.NumberFormat("en");
const at = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Charts -----------------------------------------------------------------------------------

function named(spec, found = new Set()) {
  if (spec.data?.name) found.add(spec.data.name);
  for (const layer of spec.layer ?? []) named(layer, found);
  return found;
}

async function draw(place) {
  const name = place.dataset.chart;
  const spec = structuredClone(page.charts[name]);
  spec.datasets = { ...spec.datasets };
  for (const set of named(spec)) spec.datasets[set] ??= page.data[set];
  spec.config = page.themes[dark.matches ? "dark" : "light"];
  spec.autosize = { type: "fit-x", contains: "padding" };
  try {
    views.get(name)?.finalize();
    const { view } = await vegaEmbed(place, spec, {
      mode: "vega-lite", ast: true, actions: false, tooltip: tip,
      logLevel: 1, // errors only: a brush that matches nothing needs no warning
      renderer: name === "losses" ? "canvas" : "svg",
    });
    views.set(name, view);
    if (place.dataset.brush) follow(view, place.dataset.brush);
    if (name === "losses") view.addEventListener("click", (event) => pin(view, event));
  } catch (error) {
    place.replaceChildren(element("p", "failed", "This chart could not be drawn."));
    console.error(name, error);
  }
}

async function drawAll() {
  delete document.documentElement.dataset.drawn;
  for (const key of Object.keys(brushed)) delete brushed[key];
  for (const place of document.querySelectorAll(".plot")) await draw(place);
  tell();
  document.documentElement.dataset.drawn = views.size;
}

// Brushes ----------------------------------------------------------------------------------

function follow(view, field) {
  view.addSignalListener("pick", (_, value) => {
    const picked = value?.[field];
    if (picked?.length) brushed[field] = [...picked];
    else delete brushed[field];
    keep();
  });
}

let waiting = 0;
function keep() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    for (const name of ["gaps", "lengths", "sources", "refusals", "losses"])
      views.get(name)?.signal("keep", { ...brushed }).runAsync();
    tell();
  });
}

function passes(row, middle) {
  const { gap, ...lists } = brushed;
  if (gap && !(middle >= gap[0] && middle <= gap[1])) return false;
  return Object.entries(lists).every(([field, values]) => values.includes(row[field]));
}

function tell() {
  const bar = at("filter");
  if (!bar) return;
  const active = Object.keys(brushed).length > 0;
  bar.hidden = !active;
  at("drawn").hidden = !active;
  if (!active) return;
  let kept = 0, total = 0;
  for (const cell of page.data.cells) {
    total += cell.n;
    if (passes(cell, (cell.gap + cell.gap_end) / 2)) kept += cell.n;
  }
  const said = [];
  if (brushed.gap) said.push(`gap ${brushed.gap.map((x) => x.toFixed(2)).join(" to ")}`);
  if (brushed.length) said.push(`${range(brushed.length)} tokens`);
  for (const field of ["source", "refusal"])
    if (brushed[field]) said.push(brushed[field].map((x) => x === "answer" ? "no refusals" : x).join(", "));
  const share = total ? (100 * kept / total).toFixed(1) : "0";
  at("kept").textContent = `${numbers.format(kept)} example${kept === 1 ? "" : "s"} (${share} %): ${said.join(" · ")}`;
  offset = 0;
  show();
}

function range(labels) {
  const first = labels[0].split("–")[0], last = labels.at(-1).split("–").at(-1);
  return first === last ? first : `${first}–${last}`;
}

at("clear")?.addEventListener("click", drawAll);

// Examples ---------------------------------------------------------------------------------

let offset = 0;
function show() {
  const found = page.data.points.filter((point) => passes(point, point.gap));
  const list = at("examples");
  list.replaceChildren();
  for (let step = 0; step < Math.min(6, found.length); step++) {
    // Even steps through the ranking, so that the few shown are not all from its top.
    const place = (Math.floor((step + 0.5) * found.length / Math.min(6, found.length)) + offset) % found.length;
    const item = element("li");
    item.append(...card(found[place]));
    list.append(item);
  }
  if (!found.length) list.append(element("li", "", "No example on this page matches."));
}
at("more")?.addEventListener("click", () => { offset += 1; show(); });

function card(point) {
  const example = page.examples[point.i];
  const facts = `gap ${point.gap.toFixed(3)} · rank ${numbers.format(point.rank)} · aligned ${point.aligned.toFixed(3)} · `
    + `misaligned ${point.misaligned.toFixed(3)} · ${numbers.format(point.tokens)} tokens · ${point.kind} · ${point.source} · ${example.id.slice(0, 12)}`;
  return [
    element("p", "sample-prompt", example.prompt || "(no prompt)"),
    element("p", "sample-answer", example.answer || "(empty)"),
    element("p", "sample-facts", facts),
  ];
}

function pin(view, event) {
  const drawing = view.container().querySelector("canvas, svg").getBoundingClientRect();
  const [left, top] = view.origin();
  const x = view.scale("x"), y = view.scale("y");
  const from = [event.clientX - drawing.left - left, event.clientY - drawing.top - top];
  let nearest = null, distance = 24; // pixels: about a fingertip
  for (const point of page.data.points) {
    const away = Math.hypot(x(point.aligned) - from[0], y(point.misaligned) - from[1]);
    if (away < distance && passes(point, point.gap)) [nearest, distance] = [point, away];
  }
  const place = at("pinned");
  place.hidden = !nearest;
  if (nearest) place.replaceChildren(...card(nearest));
}

// Tooltips ---------------------------------------------------------------------------------

function tip(_, event, __, value) {
  const box = at("tip");
  if (value === null || value === undefined || value === "") { box.hidden = true; return; }
  if (typeof value === "object") {
    const list = element("dl");
    for (const [key, text] of Object.entries(value))
      list.append(element("dt", "", key), element("dd", "", String(text)));
    box.replaceChildren(list);
  } else {
    const point = page.data.points[Number(value)];
    box.replaceChildren(...(point ? card(point) : [document.createTextNode(String(value))]));
  }
  beside(box, event.clientX, event.clientY);
}

function beside(box, x, y) {
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? Math.max(8, x - width - 16) : x + 16;
  const top = y + 16 + height > innerHeight ? Math.max(8, y - height - 16) : y + 16;
  box.style.transform = `translate(${left}px, ${top}px)`;
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest?.("i[data-gap]");
  if (!token) return;
  at("tip").replaceChildren(document.createTextNode(`gap ${token.dataset.gap} nats`));
  beside(at("tip"), event.clientX, event.clientY);
  token.addEventListener("pointerout", () => { at("tip").hidden = true; }, { once: true });
});
addEventListener("scroll", () => { at("tip").hidden = true; }, { passive: true });

// Buttons ----------------------------------------------------------------------------------

for (const button of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch { // not allowed here: select the text, ready for the keyboard
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

const all = at("open-all");
if (all) {
  all.hidden = false;
  all.addEventListener("click", () => {
    const rows = [...document.querySelectorAll(".reading details")];
    const open = rows.some((row) => !row.open);
    for (const row of rows) row.open = open;
    all.textContent = open ? "Close all" : "Open all";
  });
}

dark.addEventListener("change", drawAll);
await drawAll();
