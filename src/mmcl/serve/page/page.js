// The page: its tabs, its forms, and what happens to a recording between them.

import { drawComparison } from "./compare.js";
import { drawResult } from "./draw.js";
import { el, showProblem } from "./elements.js";
import { Picker } from "./picker.js";
import { Problem, follow, forget, getJson, send } from "./service.js";
import { makeTabs } from "./tabs.js";
import { Work } from "./work.js";

const NAMES = { text: "words", audio: "voice", vision: "face" };
const panels = { one: panel("one"), two: panel("two"), report: panel("report") };
let models = [];
let working = null; // controller of the current task; there is one task at a time

const picker = new Picker(document.getElementById("picker"), {
  onChange: () => panelNow().querySelector(".work > .problem")?.remove(),
  onExample: () => panelNow().querySelector(".ask").requestSubmit(),
});

makeTabs(document.querySelector("[role=tablist]"), (name) => {
  if (name in panels && name !== "report") panels[name].querySelector(".slot").append(picker.root);
  if (name === "report") showReport();
});
panels.one.querySelector("form").addEventListener("submit", (event) => ask(event, predict));
panels.two.querySelector("form").addEventListener("submit", (event) => ask(event, compare));
panels.report.querySelector("select").addEventListener("change", showReport);
panels.one.querySelector("select").addEventListener("change", describeModel);
// A file dropped beside the drop zone would otherwise replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
hideToken();
const listed = listModels(); // forms that are sent sooner wait for it

function panel(name) {
  return document.getElementById(`panel-${name}`);
}

function panelNow() {
  return Object.values(panels).find((each) => !each.hidden);
}

/** Remove the token from the address; the cookie has it now. */
function hideToken() {
  const address = new URL(location.href);
  if (!address.searchParams.has("token")) return;
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

async function listModels() {
  try {
    models = (await getJson("v1/models")).models;
  } catch (problem) {
    showProblem(document.getElementById("page-problem"), problem);
    return;
  }
  const readers = models.filter((each) => each.takes_media);
  for (const select of document.querySelectorAll("select.model")) {
    const offered = select.matches(".every") ? models : readers;
    select.replaceChildren(...offered.map(({ name }) => el("option", { value: name }, name)));
  }
  const second = panels.two.querySelector(".second");
  second.selectedIndex = Math.min(1, readers.length - 1);
  panels.two.querySelector(".few").hidden = readers.length > 1;
  panels.two.querySelector("form").hidden = readers.length < 2;
  panels.two.querySelector(".slot").hidden = readers.length < 2;
  if (readers.length) picker.setLimits(readers[0].limits || {});
  else sayNoReaders();
  describeModel();
  if (!panels.report.hidden) showReport(); // its tab was opened before there were runs to show
}

function sayNoReaders() {
  showProblem(document.getElementById("page-problem"), {
    title: "No run of this service reads recordings",
    detail: "A run reads recordings if its model says from which moments it predicts (calibrated or released), " +
      "and if its corpus was made by mmcl extract.\nFeatures can be sent to every run: POST /v1/predict",
  });
}

function describeModel() {
  describe(panels.one, panels.one.querySelector("select").value);
}

function describe(place, name) {
  const model = models.find((each) => each.name === name);
  place.querySelector(".about").textContent = model ? inWords(model) : "";
}

function inWords({ model, task, modalities, seeds, validation_error: error }) {
  const count = seeds.length;
  const parts = [`${model}, from ${modalities.map((m) => NAMES[m]).join(", ")}`,
    `${count} ${count === 1 ? "seed" : "seeds"}`];
  if (task.kind === "regression") parts.push(`scores ${task.low}…${task.high}`.replaceAll("-", "−"));
  if (error !== null && error !== undefined) parts.push(`mean error ${error.toFixed(2)} on validation`);
  return `${parts.join("; ")}.`;
}

/** Start the task of a form, and cancel the one before. */
async function ask(event, what) {
  event.preventDefault();
  const place = event.target.parentElement;
  const [work, result] = [place.querySelector(".work"), place.querySelector(".result")];
  const mine = new AbortController();
  working?.abort();
  working = mine;
  try {
    const recording = picker.recording;
    work.replaceChildren();
    result.replaceChildren();
    await listed;
    const { article, heading } = await what(recording, work, mine);
    work.replaceChildren();
    result.replaceChildren(article);
    heading.focus({ preventScroll: true });
    heading.scrollIntoView({ block: "start" });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    const asked = mine.signal.aborted;
    mine.abort(); // of two jobs, the other one is of no use now
    if (!asked) showProblem(work, problem);
    else if (working === mine) {
      work.replaceChildren();
      event.target.querySelector("[type=submit]").focus();
    }
  }
}

async function predict(recording, work, stop) {
  const name = panels.one.querySelector("select").value;
  const shown = new Work(work, stop);
  const { id, result } = await predictOne(recording, name, shown, stop.signal);
  return drawResult(result, recording.file, drawSave(id, recording.file.name));
}

async function compare(recording, work, stop) {
  const [first, second] = [".first", ".second"].map((each) => panels.two.querySelector(each).value);
  if (first === second) {
    throw new Problem({ title: "One run, twice", detail: `Both are "${first}"; choose two different runs.` });
  }
  const shown = [first, second].map((name) => new Work(work, stop, name));
  const both = [first, second].map((name, at) => predictOne(recording, name, shown[at], stop.signal));
  const results = await Promise.all(both);
  return drawComparison(results[0].result, results[1].result, recording.file);
}

/** Send a recording, follow its job, and fetch the result. */
async function predictOne(recording, name, shown, signal) {
  shown.say("sending the recording");
  const { id } = await send(recording, name, { signal, onSent: (share) => shown.sent(share) });
  const cancel = () => forget(id).catch(() => {});
  signal.addEventListener("abort", cancel);
  if (signal.aborted) cancel();
  const job = await follow(id, {
    onChange: (state) => shown.show(state),
    onSilence: () => shown.say("the service does not answer; asking again"),
  });
  signal.removeEventListener("abort", cancel);
  if (job.status === "cancelled") throw new Problem({ title: "Cancelled", detail: "The job was cancelled." });
  if (job.status === "failed") throw new Problem(job.problem || { status: 500 });
  return { id, result: await getJson(`v1/jobs/${id}/result?as=json`) };
}

function drawSave(id, name) {
  const base = name.replace(/\.[^.]*$/, "");
  const links = ["json", "csv", "means.csv", "srt", "html"].map((kind) =>
    el("a", { class: "button small", href: `v1/jobs/${id}/result?as=${kind}`, download: `${base}.${kind}`,
      "aria-label": `Save as ${kind}` }, kind));
  const gone = el("button", { type: "button", class: "button small", onclick: () => remove(id, save) },
    "Delete on the service");
  const save = el("p", { class: "save" }, el("span", {}, "Save as"), ...links, gone);
  return save;
}

async function remove(id, save) {
  try {
    await forget(id);
  } catch (problem) {
    if (problem.status !== 404) { // 404: it is gone already
      save.append(el("span", { role: "alert" }, `Not deleted: ${problem.detail}`));
      return;
    }
  }
  save.replaceChildren(
    el("span", { role: "status" }, "The service has deleted this result; the page still shows it."));
}

function showReport() {
  const name = panels.report.querySelector("select").value;
  const place = panels.report.querySelector(".result");
  describe(panels.report, name);
  if (!name || place.querySelector("iframe")?.dataset.name === name) return;
  place.replaceChildren(el("iframe", { class: "report", sandbox: "allow-scripts", title: `Report of ${name}`,
    src: `v1/models/${encodeURIComponent(name)}/report`, "data-name": name }));
}
