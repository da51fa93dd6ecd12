// Progress of a job, stage by stage, with a button that cancels it.

import { el } from "./elements.js";

/** Progress of one job; several can be shown together and be cancelled together. */
export class Work {
  constructor(place, stop, title = null) {
    this.stages = el("ol", { class: "stages", "aria-label": "Done" });
    this.now = el("span", {});
    const line = el("p", { class: "now-line", role: "status" }, el("span", { class: "dot" }), this.now);
    const cancel = el("button", { type: "button", class: "button small cancel", onclick: () => stop.abort() }, "Cancel");
    const card = el("div", { class: "card working" }, title ? el("h3", {}, title) : null, line, this.stages, cancel);
    if (title && place.querySelector(".working")) place.append(card);
    else place.replaceChildren(card);
  }

  say(text) {
    // Announced once: a screen reader would otherwise repeat it at every event.
    if (this.now.textContent !== text) this.now.textContent = text;
  }

  sent(share) {
    if (share < 1) this.say(`sending the recording, ${Math.floor(share * 10)}0%`);
    else this.say("the service reads it");
  }

  show(job) {
    if (job.status === "queued") {
      this.say(job.position > 1 ? `waiting: ${job.position - 1} before it` : "waiting: it is next");
    } else if (job.status === "running") {
      this.say(job.stage || "working");
    }
    this.stages.replaceChildren(...(job.stages || []).map((stage) => el("li", {}, stage)));
  }
}
