// Calls to the service. All addresses are relative, so that a proxy may add a prefix.

const FINAL = new Set(["done", "failed", "cancelled"]);
const SILENT = {
  title: "The service does not answer",
  detail: "Is it still running? Start it again: mmcl serve RUN",
};

const TITLES = { 401: "The service asks for a token", 413: "That is too much", 429: "Too many at once",
  501: "This service cannot do that", 503: "The service is busy" };

/** An error to show: a heading, and the service's text, which says what to do. */
export class Problem extends Error {
  constructor({ title, detail, status }) {
    super(detail || title || "");
    // The title of a problem with a status is HTTP's own, which says little to a reader.
    this.title = status ? TITLES[status] || "It could not be predicted" : title;
    this.status = status;
    this.detail = detail || (status ? `The service answered ${status}, and gave no reason. Its log may say more.` : "");
  }
}

/** Read JSON from the service. */
export async function getJson(path) {
  return (await call(path)).json();
}

/** Fetch from the service; throw a Problem where that fails. */
export async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(SILENT);
  }
  if (!response.ok) throw new Problem(await response.json().catch(() => ({ status: response.status })));
  return response;
}

/**
 * Send a recording to a run and return its job.
 * `onSent` gets the share that has been sent; `signal` stops the sending.
 */
export function send(recording, model, { onSent, signal }) {
  const form = new FormData();
  form.append("file", recording.file, recording.file.name);
  if (recording.transcript) form.append("transcript", recording.transcript);
  if (recording.language) form.append("language", recording.language);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch reports no progress of an upload
    request.open("POST", `v1/predict?model=${encodeURIComponent(model)}&wait=0`);
    request.responseType = "json";
    request.upload.onprogress = (event) => onSent(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 202) resolve(request.response);
      else reject(new Problem(request.response || { status: request.status }));
    };
    request.onerror = () => reject(new Problem(SILENT));
    request.onabort = () => reject(new Problem({ title: "Cancelled" }));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/**
 * Follow a job until it ends and return its last state.
 * `onChange` gets every state; `onSilence` is called when the service does not answer.
 */
export function follow(id, { onChange, onSilence }) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`v1/jobs/${id}/events`);
    events.addEventListener("job", (event) => {
      const job = JSON.parse(event.data);
      onChange(job);
      if (!FINAL.has(job.status)) return;
      events.close();
      resolve(job);
    });
    events.onerror = () => {
      if (events.readyState !== EventSource.CLOSED) { // the browser tries again by itself
        onSilence();
        return;
      }
      getJson(`v1/jobs/${id}`).then(resolve, reject);
    };
  });
}

/** Cancel a job, or delete its result. */
export async function forget(id) {
  await call(`v1/jobs/${id}`, { method: "DELETE" });
}
