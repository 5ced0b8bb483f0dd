"use strict";
// Draws the figures and the latent explorer from the JSON in the page. Text goes in as textContent, never as HTML.

// The buttons are named one by one: plotly's own choice has one that sends the chart to a server.
const CONFIG = {
  responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#44AA99", "#332288", "#999933"];
const FONT = { family: "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif", size: 12, color: "#222" };

function json(place) {
  return JSON.parse(place.querySelector("script[type='application/json']").textContent);
}

// ---- figures: tabs; a plot is drawn when it is first seen

function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const figure = json(place);
  Plotly.newPlot(place.appendChild(document.createElement("div")), figure.data, figure.layout, CONFIG);
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "600px" });

for (const section of document.querySelectorAll(".figure")) {
  const buttons = [...section.querySelectorAll("button[data-tab]")];
  const show = (name) => {
    for (const tab of section.querySelectorAll(".tab")) tab.hidden = tab.dataset.tab !== name;
    for (const button of buttons) button.setAttribute("aria-selected", String(button.dataset.tab === name));
  };
  for (const button of buttons) {
    button.setAttribute("role", "tab");
    button.addEventListener("click", () => show(button.dataset.tab));
  }
  show(buttons[0].dataset.tab);
  const plot = section.querySelector(".plot");
  if (plot) seen.observe(plot);
}

// ---- the latent explorer

const explorer = document.getElementById("points");
const choices = Object.fromEntries(["cloud", "projection", "colour"].map((id) => [id, document.getElementById(id)]));
let cloud = null;

function clouds() {
  const place = document.querySelector(`.cloud-notes[data-cloud="${choices.cloud.value}"]`);
  for (const other of document.querySelectorAll(".cloud-notes")) other.hidden = other !== place;
  cloud = json(place);
  showNothing();
}

function quantile(values, share) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.round(share * (sorted.length - 1))] : 0;
}

function marker(name) {
  const values = cloud[name];
  const dot = { size: 6, opacity: 0.85, line: { width: 0 } };
  if (name === "episode") return { ...dot, color: values.map((value) => COLOURS[value % COLOURS.length]) };
  const low = quantile(values, 0.01), high = quantile(values, 0.99);
  const title = { text: choices.colour.selectedOptions[0].textContent, side: "right" };
  const bar = { title, thickness: 12, outlinewidth: 0, len: 0.7 };
  return { ...dot, color: values, colorscale: "Viridis", cmin: low, cmax: high > low ? high : low + 1, colorbar: bar };
}

function drawPoints() {
  const name = choices.projection.value, axes = cloud[name];
  const hidden = { showticklabels: false, ticks: "", zeroline: false, showgrid: false, showline: true, mirror: true, linecolor: "#ccc" };
  const label = (n) => name === "umap" ? `UMAP ${n}` : cloud.share ? `PC ${n} (${cloud.share[n - 1]} % of variance)` : `PC ${n}`;
  const layout = {
    font: FONT, hovermode: "closest", margin: { l: 40, r: 10, t: 32, b: 40 }, showlegend: false,
    xaxis: { ...hidden, title: { text: label(1) } }, yaxis: { ...hidden, title: { text: label(2) } },
    annotations: axes ? [] : [{ text: "constant latents", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }],
  };
  const data = axes ? [{
    type: "scatter", mode: "markers", x: axes[0], y: axes[1], marker: marker(choices.colour.value),
    customdata: cloud.time.map((time, n) => [cloud.episode[n], time]),
    hovertemplate: "episode %{customdata[0]}, step %{customdata[1]}<extra></extra>",
  }] : [];
  Plotly.react(explorer, data, layout, CONFIG);
}

const NUMBERS = ["reward", "predicted", "value", "episode", "time"];

function showNothing() {
  for (const name of NUMBERS) document.getElementById(`shown-${name}`).textContent = "";
  document.getElementById("frame").textContent = cloud.frames ? "Point at a dot: its frame appears here." : "This run has no recorded frames.";
}

function number(value) {
  return value === null ? "–" : String(Number(value.toPrecision(4)));
}

function showPoint(index) {
  for (const name of NUMBERS) document.getElementById(`shown-${name}`).textContent = number(cloud[name][index]);
  if (!cloud.frames) return;
  const picture = document.createElement("img");
  picture.src = `data:image/webp;base64,${cloud.frames[index]}`;
  picture.alt = `frame of episode ${cloud.episode[index]}, step ${cloud.time[index]}`;
  document.getElementById("frame").replaceChildren(picture);
}

if (explorer) {
  clouds();
  drawPoints();
  explorer.on("plotly_hover", (event) => showPoint(event.points[0].pointNumber));
  choices.cloud.addEventListener("change", () => { clouds(); drawPoints(); });
  choices.projection.addEventListener("change", drawPoints);
  choices.colour.addEventListener("change", drawPoints);
}
