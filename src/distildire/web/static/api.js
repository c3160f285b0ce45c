// The server's endpoints, with its key and its "come back later".

let key = sessionStorage.getItem("distildire-key") ?? "";

export class ApiError extends Error {
  constructor(status, detail, results) {
    super(detail);
    this.status = status;
    this.results = results;
  }
}

export function useKey(value) {
  key = value;
  sessionStorage.setItem("distildire-key", value);
}

export function hasKey() {
  return Boolean(key);
}

export async function models() {
  return (await ask("/v1/models", {})).json();
}

/** One file -> its result; a file that can't be scored is a result too, with `error` set. */
export async function detect(file, fpr, signal) {
  try {
    return (await (await send(`/v1/detect?fpr=${fpr}`, file, signal)).json()).results[0];
  } catch (error) {
    if (error instanceof ApiError && [413, 422].includes(error.status)) {
      return error.results?.[0] ?? unscored(file, error.message);
    }
    throw error;
  }
}

export async function explain(file, fpr, signal) {
  return (await send(`/v1/explain?fpr=${fpr}`, file, signal)).json();
}

export async function record(file, fpr, format) {
  return (await send(`/v1/record?fpr=${fpr}&format=${format}`, file)).blob();
}

function unscored(file, error) {
  return { path: file.name, sha256: null, probability: null, logit: null, verdict: null,
    model: null, width: null, height: null, error };
}

function send(path, file, signal) {
  const body = new FormData();
  body.append("file", file, file.name || "pasted");
  return ask(path, { method: "POST", body, signal });
}

async function ask(path, options) {
  const headers = key ? { Authorization: `Bearer ${byteString(key)}` } : {};
  for (;;) {
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    if (response.status === 429) {
      await pause(1000 * Number(response.headers.get("Retry-After") ?? 1), options.signal);
      continue;
    }
    const problem = await response.json().catch(() => ({}));
    throw new ApiError(response.status, problem.detail ?? response.statusText, problem.results);
  }
}

/** Headers hold bytes: a letter each of its UTF-8, as the server reads a key. */
function byteString(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
