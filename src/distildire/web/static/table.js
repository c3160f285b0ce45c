// The list of files: sort, filter, choose, and give out as CSV.

import { el, isVideo, remarks, save, scale, verdictOf, WORDS } from "./parts.js";

const ORDER = { fake: 0, unsure: 1, real: 2, error: 3, waiting: 4 };

export class Table {
  constructor(body, onChoose) {
    this.body = body;
    this.onChoose = onChoose;
    this.items = [];
    this.threshold = null;
    this.chosen = null;
    this.sort = { key: null, down: false };
    this.filter = "all";
    this.search = "";
    this.scheduled = false;
  }

  add(item) {
    this.items.push(item);
    item.row = this.row(item);
    this.fill(item);
    this.refresh();
  }

  clear() {
    for (const item of this.items) URL.revokeObjectURL(item.url);
    this.items = [];
    this.chosen = null;
    this.body.replaceChildren();
    this.refresh();
  }

  state(item) {
    if (!item.result) return "waiting";
    return item.result.error != null ? "error" : verdictOf(item.result, this.threshold);
  }

  counts() {
    const counts = { fake: 0, unsure: 0, real: 0, error: 0, waiting: 0 };
    for (const item of this.items) counts[this.state(item)] += 1;
    return counts;
  }

  row(item) {
    const name = el("button", { type: "button", class: "name", title: item.file.name },
      item.file.name || "pasted picture");
    item.nameButton = name;
    item.meta = el("div", { class: "meta" });
    item.verdictCell = el("td", { role: "cell" });
    item.scaleCell = el("td", { role: "cell" });
    return el("tr", { role: "row", click: () => this.choose(item) },
      el("td", { role: "cell" }, thumbnail(item)),
      el("td", { role: "cell" }, name, item.meta), item.verdictCell, item.scaleCell);
  }

  fill(item) {
    const state = this.state(item);
    const result = item.result;
    item.verdictCell.replaceChildren(el("span", { class: `verdict ${state}` }, WORDS[state]));
    const said = (text) => el("p", { class: "why", title: text }, text);
    item.scaleCell.replaceChildren(...(result && result.error == null
      ? [scale(result.probability, state, this.threshold),
        ...remarks(result, this.threshold).map(([, text]) => said(text))]
      : [said(result?.error ?? "")]));
    const size = result?.width ? `${result.width} × ${result.height} · ` : "";
    item.meta.textContent = size + bytes(item.file.size);
  }

  update(item) {
    this.fill(item);
    this.refresh();
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    for (const item of this.items) this.fill(item);
    this.refresh();
  }

  choose(item) {
    this.chosen?.row.classList.remove("chosen");
    this.chosen?.nameButton.removeAttribute("aria-current");
    this.chosen = item;
    item?.row.classList.add("chosen");
    item?.nameButton.setAttribute("aria-current", "true");
    this.onChoose(item);
  }

  shown() {
    const words = this.search.trim().toLowerCase();
    const items = this.items.filter((item) =>
      (this.filter === "all" || this.state(item) === this.filter)
      && item.file.name.toLowerCase().includes(words));
    if (this.sort.key) {
      const value = {
        name: (item) => item.file.name.toLowerCase(),
        verdict: (item) => ORDER[this.state(item)],
        probability: (item) => item.result?.probability ?? -1,
      }[this.sort.key];
      const sign = this.sort.down ? -1 : 1;
      items.sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
    }
    return items;
  }

  /** Many results a second come in: the rows are laid out once per frame. */
  refresh() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      const rows = this.shown().map((item) => item.row);
      const same = rows.length === this.body.children.length
        && rows.every((row, i) => row === this.body.children[i]);
      if (!same) {
        const focused = document.activeElement;
        this.body.replaceChildren(...rows);
        if (this.body.contains(focused)) focused.focus();
      }
      this.onShown?.(rows.length);
    });
  }

  /** A video's verdict is of the budget that it was asked with (see verdictOf), and says so. */
  csv(fpr) {
    const head = ["file", "sha256", "verdict", "probability", "logit", "fpr", "width", "height",
      "model", "error", "note", "declares", "model_sha256"];
    const lines = this.shown().filter((item) => item.result).map((item) => {
      const r = item.result;
      return [item.file.name, r.sha256, r.error == null ? this.state(item) : "", r.probability,
        r.logit, r.timeline ? r.fpr : fpr, r.width, r.height, r.model, r.error, r.note, r.declares,
        r.model_sha256].map(cell).join(",");
    });
    save(new Blob([[head.join(","), ...lines, ""].join("\r\n")], { type: "text/csv" }),
      "distildire.csv");
  }
}

/** Names that a spreadsheet would run as a formula are kept as text. */
function cell(value) {
  let text = value == null ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function thumbnail(item) {
  if (isVideo(item.file)) {
    return el("video", { class: "thumb", src: `${item.url}#t=0.5`, muted: true, preload: "metadata",
      tabindex: "-1", "aria-hidden": "true" });
  }
  const image = el("img", { class: "thumb", alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () =>
    image.replaceWith(el("span", { class: "thumb broken", "aria-hidden": "true" }, "–")));
  image.src = item.url;
  return image;
}

export function bytes(count) {
  if (count < 1024) return count === 1 ? "1 byte" : `${count} bytes`;
  return count < 1024 ** 2 ? `${Math.round(count / 1024)} KiB` : `${+(count / 1024 ** 2).toFixed(1)} MiB`;
}
