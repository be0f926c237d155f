// The page's own lines. `DataTable` and `Plotly` are the two libraries above.

const dark = matchMedia("(prefers-color-scheme: dark)");

// What the colours of the page ask of a plot.
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name));
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
  const themed = {
    ...layout,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: text, family: style.getPropertyValue("--font"), size: 12 },
    margin: { l: 56, r: 16, t: 16, b: 48 },
    hovermode: "closest",
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
  };
  for (const name of ["xaxis", "yaxis", "yaxis2"]) {
    if (layout[name]) themed[name] = { ...axis, ...layout[name] };
  }
  return themed;
}

function draw(plot) {
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  const config = { displayModeBar: false, responsive: true };
  Plotly.react(plot, figure.data, themed(figure.layout), config);
}

// A plot is drawn when it comes near the window, since most readers see few of them.
const watch = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        watch.unobserve(target);
        draw(target);
      }
    }
  },
  { rootMargin: "600px" },
);
const plots = [...document.querySelectorAll(".plot")];
for (const plot of plots) watch.observe(plot);
addEventListener("beforeprint", () => plots.filter((plot) => plot.offsetParent).forEach(draw));

for (const table of document.querySelectorAll("table.results")) {
  new DataTable(table, {
    paging: false,
    info: false,
    order: [],
    autoWidth: false,
    language: { search: "Filter" },
  });
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();

function recolour() {
  document.documentElement.classList.toggle("dark", dark.matches);
  plots.filter((plot) => plot.data).forEach(draw);
}
dark.addEventListener("change", recolour);
recolour();
