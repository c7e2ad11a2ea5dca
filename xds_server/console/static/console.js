"use strict";
// Search, the map's selection, and live figures. Every page works without this script, but for the live figures.

const rows = [...document.querySelectorAll("#rows tr[data-route]")];
const texts = rows.map((row) => row.textContent.toLowerCase());
const search = document.getElementById("search");
let chosen = null;

function filter() {
  const words = (search?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row, number) => {
    const inside = chosen === null || row.dataset[chosen.kind].split(" ").includes(chosen.name);
    row.hidden = !(inside && words.every((word) => texts[number].includes(word)));
    shown += row.hidden ? 0 : 1;
  });
  const count = document.getElementById("shown");
  if (count) count.textContent = shown === rows.length ? String(shown) : `${shown} of ${rows.length}`;
}

search?.addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && search && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    search.focus();
  }
});
for (const box of document.querySelectorAll(".box")) {
  box.addEventListener("click", () => {
    const pressed = box.getAttribute("aria-pressed") === "true";
    document.querySelectorAll(".box").forEach((one) => one.setAttribute("aria-pressed", "false"));
    box.setAttribute("aria-pressed", String(!pressed));
    const kind = box.dataset.listener !== undefined ? "listeners" : "targets";
    chosen = pressed ? null : { kind, name: box.dataset.listener ?? box.dataset.upstream };
    filter();
  });
}

const history = { rate: [], errors: [], p99: [] };
const KEPT = 90;

function draw(name, value) {
  const output = document.getElementById(`total-${name}`);
  if (output) output.textContent = value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: 1 });
  const points = history[name];
  points.push(value ?? 0);
  if (points.length > KEPT) points.shift();
  const chart = document.querySelector(`[data-chart="${name}"]`);
  if (!chart) return;
  const top = Math.max(1, ...points);
  chart.setAttribute("viewBox", `0 0 ${KEPT} 48`);
  chart.setAttribute("preserveAspectRatio", "none");
  let line = chart.querySelector("polyline");
  if (!line) line = chart.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  line.setAttribute("points", points.map((one, at) => `${KEPT - points.length + at + 1},${46 - (one / top) * 44}`).join(" "));
}

function bars(id, figures) {
  const list = document.getElementById(id);
  if (!list) return;
  const found = Object.entries(figures).sort((one, other) => other[1] - one[1]).slice(0, 20);
  const top = Math.max(1, ...found.map(([, value]) => value));
  list.replaceChildren(...found.map(([name, value]) => {
    const item = document.createElement("li"), label = document.createElement("span"), number = document.createElement("span");
    const meter = document.createElement("meter");
    label.textContent = name;
    number.textContent = value.toFixed(1);
    number.className = "number";
    meter.max = top;
    meter.value = value;
    item.append(label, meter, number);
    return item;
  }));
  if (!found.length) list.append(Object.assign(document.createElement("li"), { textContent: "None." }));
}

let lit = new Set();
function figures(routes) {
  const now = new Set();
  rows.forEach((row) => {
    const one = routes[row.dataset.route];
    if (!one && !lit.has(row)) return;
    if (one) now.add(row);
    const cells = row.querySelectorAll("td.number");
    [one?.rate, one?.errors, one?.p99].forEach((value, at) => { cells[at].textContent = value === undefined ? "" : value.toFixed(1); });
  });
  lit = now;
}

if (document.body.dataset.metrics === "on" && document.querySelector(".figures, #consumers")) {
  const only = document.querySelector("[data-only]")?.dataset.only;
  const hint = document.getElementById("live-hint");
  const stream = new EventSource("/live");
  stream.onmessage = (event) => {
    const data = JSON.parse(event.data);
    if (hint) hint.textContent = data.up ? "" : "No Envoy of this machine shows its figures.";
    if (!data.up) return;
    const shown = only === undefined ? data.total : data.routes[only] ?? { rate: 0, errors: 0 };
    for (const name of Object.keys(history)) draw(name, shown[name]);
    figures(data.routes);
    bars("consumers", data.consumers);
    bars("rejections", data.rejections);
    document.body.dataset.live = "yes";
  };
  stream.onerror = () => { if (hint) hint.textContent = "The control plane does not answer."; };
}
