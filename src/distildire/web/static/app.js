// Files in, verdicts out: the page's state and its events.

import * as api from "./api.js";
import { Detail } from "./detail.js";
import { isLitter, isOurs } from "./folder.js";
import { judgedElsewhere, share, WORDS } from "./parts.js";
import { bytes, Table } from "./table.js";

const AT_ONCE = 4;
const $ = (id) => document.getElementById(id);

const state = { thresholds: [], index: 0, queue: [], running: 0, done: 0, total: 0, limits: null };
const detail = new Detail($("detail"), close);
const table = new Table($("rows"), open);
let stopper = new AbortController();
let retry;

table.onShown = (count) => {
  $("none").hidden = count > 0 || !table.items.length;
};

function threshold() {
  return state.thresholds[state.index];
}

/** Fetch what the page needs of the server; while that can't be reached, ask ever less often. */
async function connect(failures = 0) {
  clearTimeout(retry);
  try {
    const { models: [model], limits } = await api.models();
    complain("");
    state.thresholds = model.thresholds;
    state.limits = limits;
    state.index = Math.max(0, model.thresholds.findIndex((row) => row.fpr === model.fpr));
    $("budget").max = model.thresholds.length - 1;
    $("budget").value = state.index;
    $("model").textContent = `model ${model.name} · ${model.sha256.slice(0, 8)} · v${model.version}`;
    $("limits").textContent = `Pictures${limits.video ? " and videos" : ""}, `
      + `${bytes(limits.max_body)} each at most`;
    $("key-form").hidden = true;
    applyBudget();
    pump();
  } catch (error) {
    if (error.status === 401) {
      complain("");
      askForKey();
      $("key").focus();
    } else {
      complain(`The server can't be reached: ${error.message}`);
      retry = setTimeout(connect, Math.min(1000 * 2 ** failures, 30_000), failures + 1);
    }
  }
}

function askForKey() {
  $("key-words").textContent = api.hasKey() ? "The server refuses this key." : "";
  $("key-form").hidden = false;
}

function complain(words) {
  $("alert").textContent = words;
  $("alert").hidden = !words;
}

function add(files) {
  if (!files.length) return;
  $("left-out").textContent = "";
  document.body.classList.add("busy");
  $("desk").hidden = false;
  for (const file of files) {
    const item = { file, url: URL.createObjectURL(file), result: null, pending: false };
    table.add(item);
    enqueue(item);
  }
  if (table.items.length === 1) table.choose(table.items[0]);
  progress();
  pump();
}

/** One request per file at a time: answers of two could come in the wrong order. */
function enqueue(item) {
  if (item.pending) return;
  item.pending = true;
  state.queue.push(item);
  state.total += 1;
}

function pump() {
  if (!state.thresholds.length) return;
  while (state.running < AT_ONCE && state.queue.length) {
    state.running += 1;
    score(state.queue.shift()).finally(() => {
      state.running -= 1;
      state.done += 1;
      progress();
      pump();
    });
  }
}

async function score(item) {
  const { signal } = stopper;
  const { max_body: limit } = state.limits;
  try {
    if (item.file.size > limit) throw new Error(`over the server's limit of ${bytes(limit)}`);
    item.result = await api.detect(item.file, threshold().fpr, signal);
  } catch (error) {
    if (error.status === 401) askForKey();
    if (!signal.aborted) item.result = { error: error.message, probability: null };
  }
  settle(item);
  if (!signal.aborted && judgedElsewhere(item.result, threshold())) enqueue(item);
}

/** A file without a result by now was stopped; one judged before keeps what it has. */
function settle(item) {
  item.pending = false;
  item.result ??= { error: "stopped", probability: null };
  table.update(item);
  if (table.chosen === item) detail.show(item, threshold());
}

function progress() {
  const { done, total } = state;
  const finished = done === total;
  $("progress").hidden = finished;
  $("bar").value = total ? done / total : 0;
  $("bar-words").textContent = `${done} of ${total}`;
  tally();
  if (!finished) return;
  state.done = state.total = 0;
  const counts = table.counts();
  $("status").textContent = table.items.length
    ? `Done. ${["fake", "unsure", "real", "error"].filter((k) => counts[k])
      .map((k) => `${counts[k]} ${WORDS[k].toLowerCase()}`).join(", ")}.` : "";
}

function tally() {
  const counts = table.counts();
  $("tally").textContent = ["fake", "unsure", "real", "error", "waiting"]
    .filter((k) => counts[k])
    .map((k) => `${counts[k]} ${WORDS[k].toLowerCase().replace(" …", "")}`).join(" · ");
}

function applyBudget() {
  const { fpr, remark } = threshold();
  $("budget-words").textContent = `calls at most about ${share(fpr)} of camera pictures generated`
    + (remark ? ` (${remark})` : "");
  $("budget").setAttribute("aria-valuetext", share(fpr));
  table.setThreshold(threshold());
  tally();
}

function open(item) {
  $("desk").classList.toggle("open", Boolean(item));
  if (item) detail.show(item, threshold());
  else detail.hide();
}

function close() {
  const { chosen } = table;
  table.choose(null);
  chosen?.nameButton.focus();
}

function theme(next) {
  document.documentElement.dataset.theme = next;
  $("theme").setAttribute("aria-pressed", String(next === "dark"));
  localStorage.setItem("distildire-theme", next);
}

// --- events

$("theme").addEventListener("click", () =>
  theme($("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark"));
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const wanted = localStorage.getItem("distildire-theme");
if (wanted) theme(wanted);
else $("theme").setAttribute("aria-pressed", String(dark));

$("pick").addEventListener("change", () => {
  add([...$("pick").files]);
  $("pick").value = "";
});
$("folder").addEventListener("change", () => {
  const files = [...$("folder").files].filter((file) => !isLitter(file));
  const ours = files.filter(isOurs);
  add(ours);
  const others = files.length - ours.length;
  $("left-out").textContent = others ? "Left out, as neither pictures nor videos by their names: "
    + `${others} of ${files.length} ${files.length === 1 ? "file" : "files"}.` : "";
  $("folder").value = "";
});

document.addEventListener("paste", (event) => add([...event.clipboardData.files]));

let depth = 0;
document.addEventListener("dragenter", () => {
  depth += 1;
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  if (depth <= 0) document.body.classList.remove("dragging");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  add([...event.dataTransfer.files]);
});

let moving;
$("budget").addEventListener("input", () => {
  state.index = Number($("budget").value);
  applyBudget();
  clearTimeout(moving);
  moving = setTimeout(() => {
    if (table.chosen) detail.show(table.chosen, threshold());
    const videos = table.items.filter((item) => judgedElsewhere(item.result, threshold()));
    videos.forEach(enqueue);
    if (videos.length) progress();
    pump();
  }, 300);
});
$("filter").addEventListener("change", () => {
  table.filter = $("filter").value;
  table.refresh();
});
$("search").addEventListener("input", () => {
  table.search = $("search").value;
  table.refresh();
});
for (const head of document.querySelectorAll("th[data-key]")) {
  head.querySelector("button").addEventListener("click", () => {
    const { key } = head.dataset;
    const first = key === "probability";
    table.sort = { key, down: table.sort.key === key ? !table.sort.down : first };
    for (const other of document.querySelectorAll("th[data-key]")) {
      other.removeAttribute("aria-sort");
    }
    head.setAttribute("aria-sort", table.sort.down ? "descending" : "ascending");
    table.refresh();
  });
}
$("csv").addEventListener("click", () => table.csv(threshold().fpr));
$("stop").addEventListener("click", () => {
  for (const item of state.queue.splice(0)) {
    state.done += 1;
    settle(item);
  }
  stopper.abort();
  stopper = new AbortController();
  progress();
});
$("clear").addEventListener("click", () => {
  $("stop").click();
  table.choose(null);
  table.clear();
  $("left-out").textContent = "";
  $("desk").hidden = true;
  document.body.classList.remove("busy");
  $("pick").focus();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("key-words").textContent = "";
  api.useKey($("key").value.trim());
  connect();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && table.chosen) close();
});

connect();
