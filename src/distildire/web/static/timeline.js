// A video's frames over time, as SVG.

import { el, percent, svg } from "./parts.js";

const WIDTH = 560, HEIGHT = 150, LEFT = 34, TOP = 8, BOTTOM = 24;

export function timeline(result, threshold) {
  const frames = (result.timeline ?? []).filter((frame) => frame.probability != null);
  if (!frames.length) return el("p", { class: "pending-words" }, "No frame could be scored.");
  const end = Math.max(frames.at(-1).time, 0.001);
  const x = (time) => LEFT + (WIDTH - LEFT - 8) * (time / end);
  const y = (p) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - p);
  const text = (content, at) => {
    const node = svg("text", at);
    node.textContent = content;
    return node;
  };
  const marks = frames.map((frame) => {
    const kind = frame.probability > threshold.fake_above ? "fake"
      : frame.probability < threshold.real_below ? "real" : "unsure";
    return svg("circle", { cx: x(frame.time).toFixed(1), cy: y(frame.probability).toFixed(1),
      r: frames.length > 80 ? 2.5 : 4, fill: "currentColor", class: kind });
  });
  const highest = frames.reduce((a, b) => (b.probability > a.probability ? b : a));
  const label = `${frames.length} frames; the highest, ${percent(highest.probability)}, at `
    + `${clock(highest.time)}`;
  const line = frames.map((f) => `${x(f.time).toFixed(1)},${y(f.probability).toFixed(1)}`).join(" ");
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    svg("rect", { x: LEFT, width: WIDTH - LEFT - 8, y: y(threshold.fake_above),
      height: Math.max(1, y(threshold.real_below) - y(threshold.fake_above)),
      fill: "var(--band)", opacity: 0.45 }),
    svg("polyline", { points: line, fill: "none", stroke: "var(--line-strong)" }), ...marks,
    text("100%", { x: LEFT - 6, y: y(1) + 8, "text-anchor": "end" }),
    text("0%", { x: LEFT - 6, y: y(0), "text-anchor": "end" }),
    text("0:00", { x: LEFT, y: HEIGHT - 6 }),
    text(clock(end), { x: WIDTH - 8, y: HEIGHT - 6, "text-anchor": "end" }));
}

export function clock(seconds) {
  const s = Math.floor(seconds);
  const parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((n, i) => (i ? String(n).padStart(2, "0") : n)).join(":");
}
