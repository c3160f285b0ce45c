// Small pieces that the table and the detail share.

export const WORDS = {
  fake: "Likely generated",
  real: "No sign found",
  unsure: "Unsure",
  error: "Not scored",
  waiting: "Waiting …",
};

/** el("p", {class: "x"}, "text", child): attributes by name, listeners as functions. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An error budget in percent. */
export function share(fpr) {
  return `${+(100 * fpr).toPrecision(3)}%`;
}

/** Never 0% or 100% for a probability that is neither. */
export function percent(p) {
  if (p < 0.001) return "<0.1%";
  if (p > 0.999) return ">99.9%";
  return `${(100 * p).toFixed(1)}%`;
}

/**
 * A video's verdict stays the server's, which splits the error budget among its scenes; so does
 * that of a picture in which there is nothing to judge, whatever its score.
 */
export function verdictOf({ logit, verdict, timeline, note }, threshold) {
  if (timeline || note) return verdict;
  if (logit > threshold.fake_above_logit) return "fake";
  return logit < threshold.real_below_logit ? "real" : "unsure";
}

/** Whether a video's verdict is of another budget than the one chosen. */
export function judgedElsewhere(result, threshold) {
  return Boolean(result?.timeline?.length) && result.fpr !== threshold.fpr;
}

/** What is said beside a verdict: its budget, why there is nothing to judge, what a file claims. */
export function remarks(result, threshold) {
  return [
    ["judged", judgedElsewhere(result, threshold)
      && `judged at an error budget of ${share(result.fpr)}`],
    ["note", result.note],
    ["declares", result.declares],
  ].filter(([, text]) => text).map(([kind, text]) => [kind, sentence(text)]);
}

/** The probability on a line from 0 to 100%, the unsure band marked. */
export function scale(probability, verdict, threshold, large = false) {
  const band = el("span", { class: "scale-band" });
  const left = 100 * threshold.real_below;
  band.style.left = `${left}%`;
  band.style.width = `${Math.max(0, 100 * threshold.fake_above - left)}%`;
  const mark = el("span", { class: "scale-mark" });
  mark.style.left = `${100 * probability}%`;
  const words = `${percent(probability)} on a scale from 0, camera, to 100, generated; unsure from `
    + `${percent(threshold.real_below)} to ${percent(threshold.fake_above)}`;
  return el("div", { class: `scale ${verdict}${large ? " large" : ""}` },
    el("div", { class: "scale-track", role: "img", "aria-label": words }, band, mark),
    el("div", { class: "scale-number" }, percent(probability)));
}

/** A sentence of the server as one: with a capital and a full stop. */
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

export function isVideo(file) {
  return file.type.startsWith("video/");
}

export function save(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
