// Calls to the service. Every address is relative, so that a proxy may put it under a prefix.

const FINAL = new Set(["done", "failed", "cancelled"]);
const SILENT = {
  title: "The service does not answer",
  detail: "Is it still running? Start it again: mmcl serve RUN",
};

const TITLES = { 401: "The service asks for a token", 413: "That is too much", 429: "Too many at once",
  501: "This service cannot do that", 503: "The service is busy" };

/** What went wrong: a heading, and the service's own text, which names what to do. */
export class Problem extends Error {
  constructor({ title, detail, status }) {
    super(detail || title || "");
    // The title of a problem with a status is HTTP's own, which tells a reader nothing.
    this.title = status ? TITLES[status] || "It could not be predicted" : title;
    this.status = status;
    this.detail = detail || (status ? `The service answered ${status}, and gave no reason. Its log may tell.` : "");
  }
}

/** Read JSON from the service. */
export async function getJson(path) {
  return (await call(path)).json();
}

/** Fetch from the service; what is not a success is a Problem. */
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
 * `onSent` is told the share that has arrived; `signal` stops the sending.
 */
export function send(recording, model, { onSent, signal }) {
  const form = new FormData();
  form.append("file", recording.file, recording.file.name);
  if (recording.transcript) form.append("transcript", recording.transcript);
  if (recording.language) form.append("language", recording.language);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
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
 * `onChange` is told every state; `onSilence` is called when the service does not answer.
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
      if (events.readyState !== EventSource.CLOSED) { // it tries again by itself
        onSilence();
        return;
      }
      getJson(`v1/jobs/${id}`).then(resolve, reject);
    };
  });
}

/** Cancel a job, or delete what it left. */
export async function forget(id) {
  await call(`v1/jobs/${id}`, { method: "DELETE" });
}
