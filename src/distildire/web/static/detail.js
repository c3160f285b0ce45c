// One file in full: pictures, scale, stability, provenance, record.

import * as api from "./api.js";
import { el, isVideo, percent, remarks, save, scale, verdictOf } from "./parts.js";
import { clock, timeline } from "./timeline.js";

const HEADLINES = {
  fake: "Likely AI-generated",
  real: "No sign of AI generation found",
  unsure: "Unsure: the score supports neither verdict",
};

export class Detail {
  constructor(section, onClose) {
    this.section = section;
    this.onClose = onClose;
    this.item = null;
  }

  hide() {
    this.item = null;
    this.request?.abort();
    this.section.hidden = true;
    this.section.replaceChildren();
  }

  async show(item, threshold) {
    this.request?.abort();
    this.request = new AbortController();
    const { signal } = this.request;
    const fresh = item !== this.item;
    this.item = item;
    const { result } = item;
    const head = this.head(item, threshold);
    this.section.hidden = false;
    if (result?.error != null) {
      this.section.replaceChildren(head, el("p", { class: "summary" }, result.error));
      return fresh && this.focus();
    }
    if (!result) return this.section.replaceChildren(head);

    const verdict = verdictOf(result, threshold);
    const parts = [head, el("div", {},
      scale(result.probability, verdict, threshold, true),
      el("div", { class: "scale-ends" }, el("span", {}, "camera"),
        el("span", {}, el("i", { class: "swatch" }), "unsure"), el("span", {}, "generated"))),
    ...remarks(result, threshold).map(([kind, text]) => el("p", { class: kind }, text))];
    if (isVideo(item.file) || result.timeline) {
      this.section.replaceChildren(...parts, el("div", { class: "timeline" },
        el("h3", {}, "Over time"), timeline(result, threshold)),
      el("p", { class: "pending-words" }, overTime(result)));
      return fresh && this.focus();
    }
    const waiting = el("p", { class: "pending-words", role: "status" }, "Examining …");
    const view = new View(item);
    this.section.replaceChildren(...parts, waiting, view.node, this.downloads(item, threshold));
    if (fresh) this.focus();
    try {
      const explained = await api.explain(item.file, threshold.fpr, signal);
      const { record } = explained;
      const title = head.querySelector("h2");
      title.textContent = record.headline;
      title.className = (record.stability ?? record.result).verdict;
      waiting.replaceWith(el("p", { class: "summary" }, record.summary));
      view.fill(record, explained.noise);
      view.node.after(...[
        record.stability && stability(record.stability, threshold), facts(record), limits(record),
      ].filter(Boolean));
    } catch (error) {
      if (!signal.aborted) waiting.textContent = `No explanation: ${error.message}`;
    }
  }

  focus() {
    this.section.querySelector("h2").focus({ preventScroll: window.innerWidth >= 1056 });
  }

  head(item, threshold) {
    const { result } = item;
    const state = !result ? "waiting" : result.error != null ? "error"
      : verdictOf(result, threshold);
    const title = HEADLINES[state] ?? (state === "error" ? "Not scored" : "Waiting …");
    return el("div", { class: "detail-head" },
      el("div", {},
        el("h2", { id: "detail-title", class: state, tabindex: "-1" }, title),
        el("p", { class: "detail-file" }, item.file.name || "pasted picture")),
      el("button", { type: "button", class: "quiet", click: this.onClose }, "Close"));
  }

  downloads(item, threshold) {
    const failed = el("p", { class: "failed", role: "alert" });
    const button = (label, format) => {
      const node = el("button", { type: "button", class: "quiet" }, label);
      node.addEventListener("click", async () => {
        node.disabled = true;
        failed.textContent = "";
        try {
          const name = `record-${item.result.sha256.slice(0, 12)}.${format}`;
          save(await api.record(item.file, threshold.fpr, format), name);
        } catch (error) {
          failed.textContent = `No record: ${error.message}`;
        } finally {
          node.disabled = false;
        }
      });
      return node;
    };
    return el("div", { class: "downloads" }, button("Download record", "html"),
      button("Record as JSON", "json"),
      el("span", { class: "hint" }, "The same file gives the same record, byte for byte."),
      failed);
  }
}

function overTime({ timeline: frames, scenes, suspicious }) {
  const moment = suspicious ? `The score is that of its most suspicious moment, `
    + `${clock(suspicious[0])} to ${clock(suspicious[1])}. ` : "";
  return `${frames.length} frames of ${scenes} ${scenes === 1 ? "scene" : "scenes"} were looked `
    + `at. ${moment}`;
}

/** The picture, with the heat map over it or its noise in its place. */
class View {
  constructor(item) {
    this.picture = el("img", { src: item.url, alt: `The picture ${item.file.name}` });
    this.heat = el("img", { alt: "Heat map over the picture", hidden: true });
    this.noise = el("img", { alt: "First-step noise of the picture, grey is zero", hidden: true });
    this.stack = el("div", { class: "stack" }, this.picture, this.heat, this.noise);
    this.fit(item.result.width / item.result.height);
    this.choices = ["Picture", "Heat map", "Noise"].map((label, i) => el("label", {},
      el("input", { type: "radio", name: "view", value: label, checked: i === 0, disabled: i > 0,
        change: () => this.see(label) }),
      el("span", {}, label)));
    this.slider = el("input", { type: "range", id: "strength", min: "0", max: "100", value: "70",
      input: () => this.strength() });
    this.sliderBox = el("div", { class: "strength", hidden: true },
      el("label", { for: "strength" }, "Strength"), this.slider);
    this.legend = el("p", { class: "legend", hidden: true }, el("span", {}, "speaks for camera"),
      el("i"), el("span", {}, "for generated"));
    this.caution = el("p", { class: "caution", hidden: true });
    this.node = el("figure", {},
      el("div", { class: "views" },
        el("div", { class: "segments", role: "radiogroup", "aria-label": "View" }, ...this.choices),
        this.sliderBox),
      this.stack, this.legend, this.caution);
    this.strength();
  }

  fit(ratio) {
    this.stack.style.aspectRatio = String(ratio);
    this.stack.style.width = `min(100%, ${(ratio * 56).toFixed(2)}vh)`;
  }

  fill({ heatmap, result }, noise) {
    if (heatmap) {
      this.heat.src = heatmap.overlay;
      this.caution.textContent = `${result.looked_at.share < 0.995
        ? "Grey: the score does not look there. " : ""}${heatmap.note}`;
    }
    if (noise) this.noise.src = noise;
    for (const [i, there] of [[1, heatmap], [2, noise]]) {
      const input = this.choices[i].querySelector("input");
      input.disabled = !there;
      if (!there) this.choices[i].title = "There is none for this picture";
    }
  }

  see(label) {
    const heat = label === "Heat map";
    this.heat.hidden = this.sliderBox.hidden = this.legend.hidden = this.caution.hidden = !heat;
    this.noise.hidden = label !== "Noise";
  }

  strength() {
    this.heat.style.opacity = String(this.slider.value / 100);
  }
}

function stability(checked, threshold) {
  const list = el("dl", { class: "bars" });
  for (const [name, p] of Object.entries(checked.scores)) {
    const verdict = p > threshold.fake_above ? "fake" : p < threshold.real_below ? "real" : "unsure";
    const fill = el("span", { class: "fill" });
    fill.style.width = `${100 * p}%`;
    const edge = el("span", { class: "edge" });
    edge.style.left = `${100 * threshold.real_below}%`;
    edge.style.width = `${100 * (threshold.fake_above - threshold.real_below)}%`;
    list.append(el("dt", {}, name),
      el("dd", { class: `track ${verdict}`, "aria-hidden": "true" }, edge, fill),
      el("dd", { class: "number" }, percent(p)));
  }
  const words = checked.stable ? "Stable: the verdict survives re-encoding and resizing"
    : "Not stable: the verdict changes when the picture is altered";
  return el("div", {}, el("h3", {}, words), list);
}

/** Prompts and packets can be long: the record has them whole. */
function brief(text) {
  return text.length > 600 ? `${text.slice(0, 600)} …` : text;
}

function facts(record) {
  const { input, model, provenance, result } = record;
  const credentials = {
    none: "none", unchecked: "not checked on this server", unreadable: "damaged",
  }[provenance.c2pa.status] ?? `${provenance.c2pa.status}: says that ${provenance.c2pa.says}`
    + (provenance.c2pa.claim_generator ? ` (${provenance.c2pa.claim_generator})` : "");
  const rows = [
    ["Format", `${input.format}, ${input.width} × ${input.height}, ${input.mode}`],
    ["Looked at", result.looked_at.words],
    ["Says of its origin", provenance.declares ?? "nothing"],
    ...provenance.findings.map(({ source, kind, value }) => [`${source} (${kind})`, brief(value)]),
    ["Content credentials", credentials],
    ...Object.entries(input.exif).map(([name, value]) => [name, brief(value)]),
    ...Object.entries(input.text).map(([name, value]) => [name, brief(value)]),
    ...input.passed_over.map((sentence) => ["Passed over", sentence]),
    ["SHA-256", el("span", { class: "mono" }, input.sha256)],
    ["Perceptual hash", el("span", { class: "mono" }, input.perceptual_hash)],
    ["Model", el("span", {}, `${model.name} · `, el("span", { class: "mono" },
      model.sha256.slice(0, 12)))],
  ];
  return el("div", {}, el("h3", {}, "The file"), el("dl", { class: "facts" },
    ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function limits(record) {
  return el("details", {}, el("summary", {}, "What this does not tell"),
    el("ul", {}, ...record.limits.map((limit) => el("li", {}, limit))));
}
