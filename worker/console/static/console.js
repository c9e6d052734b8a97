// The chart of the overview.
(() => {
  "use strict";

  const place = document.getElementById("chart");
  if (!place || !window.uPlot) return;

  const names = JSON.parse(place.dataset.names);
  const inZone = (form) => {
    const formatter = new Intl.DateTimeFormat(place.dataset.language, { timeZone: place.dataset.zone, hourCycle: "h23", ...form });
    return (seconds) => formatter.format(new Date(seconds * 1000));
  };
  const minute = inZone({ hour: "2-digit", minute: "2-digit" });
  const second = inZone({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const rate = (value) => (value == null ? "–" : value.toLocaleString(place.dataset.language, { maximumFractionDigits: 1 }));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");

  let chart = null;
  let figures = null;

  const draw = () => {
    if (!figures) return;
    if (chart) { chart.setData(figures); return; }
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    chart = new uPlot({
      width: place.clientWidth,
      height: 240,
      cursor: { points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, Math.max(1, (high || 0) * 1.1)] } },
      axes: [
        { ...axis, space: 70, values: (_plot, splits) => splits.map(minute) },
        { ...axis, size: 54, values: (_plot, splits) => splits.map(rate) },
      ],
      series: [
        { value: (plot, at) => second(at ?? plot.data[0].at(-1)), label: place.dataset.time },
        ...names.map((label, at) => ({
          label,
          stroke: colour(`--series-${at + 1}`),
          width: at === names.length - 1 ? 1.5 : 2.5,
          dash: [[], [12, 12], [3, 9], [5, 4]][at], // where lanes are even, each shows through the gaps of the next
          points: { show: false },
          value: (plot, value, series, index) => rate(index == null ? plot.data[series].at(-1) : value),
        })),
      ],
    }, figures, place);
  };

  const redraw = () => { if (chart) { chart.destroy(); chart = null; } draw(); };

  const look = async () => {
    if (document.hidden && chart) return;
    try {
      const answer = await fetch(place.dataset.src, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(8000) });
      if (!answer.ok) throw new Error(String(answer.status));
      figures = await answer.json();
      draw();
    } catch (_) {
      document.dispatchEvent(new Event("contact:lost"));
    }
  };

  new ResizeObserver(() => { if (chart && place.clientWidth) chart.setSize({ width: place.clientWidth, height: 240 }); }).observe(place);
  dark.addEventListener("change", redraw);
  look();
  setInterval(look, 5000);
})();
