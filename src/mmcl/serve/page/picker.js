// The choice of a recording: dropped, chosen, recorded, or the example.

import { clock, el, size } from "./elements.js";
import { Problem, call, getJson } from "./service.js";

const FORMATS = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4", "audio/webm"];
const LONGEST_WITHOUT_LIMIT = 600; // seconds of a recording where the service names no limit

/** The card with the recording; `onExample` is called when the example has been chosen. */
export class Picker {
  constructor(root, { onChange, onExample }) {
    this.root = root;
    this.onChange = onChange;
    this.file = null;
    this.spent = false; // the fields have been sent with a recording
    this.limits = {};
    this.camera = new Camera(this);
    const drop = this.find(".drop");
    this.find("input[type=file]").addEventListener("change", (event) => {
      this.choose(event.target.files[0]);
      event.target.value = ""; // the same file may be chosen again
    });
    this.find(".another").addEventListener("click", () => this.clear());
    this.find(".example").addEventListener("click", () => this.takeExample(onExample));
    for (const name of ["dragenter", "dragover"]) {
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      this.choose(event.dataTransfer.files[0]);
    });
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  /** Show the limits of the service. */
  setLimits(limits) {
    this.limits = limits;
    const parts = [];
    if (limits.max_bytes) parts.push(size(limits.max_bytes));
    if (limits.max_seconds) parts.push(`${Math.floor(limits.max_seconds / 60)} minutes`);
    const most = parts.length ? `, up to ${parts.join(" and ")}` : "";
    this.find(".limits").textContent = `mp4, webm, mov, mkv, wav, mp3 and the like${most}`;
  }

  /** Return what to send; throw a Problem where there is nothing, or too much. */
  get recording() {
    if (!this.file) {
      throw new Problem({
        title: "No recording yet",
        detail: "Drop a video or a sound, choose a file, record one, or try the example.",
      });
    }
    const most = this.limits.max_bytes;
    if (most && this.file.size > most) {
      throw new Problem({
        title: "The recording is too large",
        detail: `"${this.file.name}" has ${size(this.file.size)}; expected at most ${size(most)}.\n` +
          "Cut it, or scale its pictures down: 720 rows are enough.",
      });
    }
    this.spent = true;
    return {
      file: this.file,
      transcript: this.find(".transcript").value.trim(),
      language: this.find(".language").value.trim().toLowerCase(),
    };
  }

  choose(file, { transcript = "", language = "" } = {}) {
    if (!file) return;
    if (transcript || this.spent) { // the transcript of one recording does not fit the next
      this.find(".transcript").value = transcript;
      this.find(".language").value = language;
    }
    this.spent = false;
    this.file = file;
    this.find(".chosen-name").textContent = file.name;
    this.find(".chosen-size").textContent = size(file.size);
    this.show("chosen");
    this.onChange();
  }

  clear() {
    this.file = null;
    this.show("choices");
    this.find("input[type=file]").focus();
  }

  /** Show one part: choices, chosen or camera. */
  show(name) {
    for (const each of ["choices", "chosen", "camera"]) this.find(`.${each}`).hidden = each !== name;
    this.find(".camera-problem").hidden = true;
  }

  async takeExample(onExample) {
    try {
      const example = await getJson("v1/example");
      const media = new URL(example.media.replace(/^\//, ""), document.baseURI);
      const blob = await (await call(media)).blob();
      const file = new File([blob], "example.mp4", { type: "video/mp4" });
      this.choose(file, { transcript: example.transcript, language: "en" });
      onExample();
    } catch (problem) {
      this.complain(`${problem.title}\n${problem.detail}`);
    }
  }

  complain(text) {
    const place = this.find(".camera-problem");
    place.hidden = false;
    place.textContent = text;
  }
}

/** Records from camera and microphone, or from the microphone alone. */
class Camera {
  constructor(picker) {
    this.picker = picker;
    picker.find(".record").addEventListener("click", () => this.start());
    picker.find(".stop").addEventListener("click", () => this.stop());
    picker.find(".discard").addEventListener("click", () => this.stop({ keep: false }));
  }

  async start() {
    try {
      this.stream = await openStream();
    } catch (fault) {
      this.picker.complain(whyNoCamera(fault));
      return;
    }
    const mimeType = FORMATS.find((each) => MediaRecorder.isTypeSupported(each));
    this.pieces = [];
    this.recorder = new MediaRecorder(this.stream, { mimeType });
    this.recorder.addEventListener("dataavailable", (event) => this.pieces.push(event.data));
    this.recorder.addEventListener("stop", () => this.finish());
    this.keep = true;
    this.recorder.start(1000);
    this.watch();
  }

  watch() {
    const preview = this.picker.find(".camera video");
    preview.srcObject = this.stream;
    preview.play().catch(() => {});
    this.picker.show("camera");
    this.picker.find(".stop").focus();
    const began = performance.now();
    const longest = this.picker.limits.max_seconds || LONGEST_WITHOUT_LIMIT;
    this.ticking = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      this.picker.find(".elapsed").textContent = clock(seconds);
      if (seconds >= longest - 1) this.stop();
    }, 250);
  }

  stop({ keep = true } = {}) {
    this.keep = keep;
    if (this.recorder.state !== "inactive") this.recorder.stop();
  }

  finish() {
    clearInterval(this.ticking);
    for (const track of this.stream.getTracks()) track.stop();
    this.picker.find(".camera video").srcObject = null;
    this.picker.show("choices");
    if (!this.keep) return;
    const type = this.recorder.mimeType.split(";")[0];
    const name = `recording.${type.endsWith("mp4") ? "mp4" : "webm"}`;
    this.picker.choose(new File(this.pieces, name, { type }));
  }
}

async function openStream() {
  if (!navigator.mediaDevices || !window.MediaRecorder) throw new DOMException("", "InsecureError");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  } catch (fault) {
    if (fault.name !== "NotFoundError") throw fault;
    return navigator.mediaDevices.getUserMedia({ audio: true }); // no camera: the voice alone
  }
}

function whyNoCamera(fault) {
  return {
    NotFoundError: "This device has no camera and no microphone that the browser can use.\n" +
      "Choose a file instead.",
    NotAllowedError: "The browser was not allowed to use the camera and the microphone.\n" +
      "Allow it beside the address of this page, or choose a file instead.",
    NotReadableError: "The camera or the microphone is in use by another program.\n" +
      "Close that program, or choose a file instead.",
    InsecureError: "A browser records only for a page on this machine or over https.\n" +
      "Open the page there, or choose a file instead.",
  }[fault.name] || `The recording did not start (${fault.name}).\nChoose a file instead.`;
}

/** Make a player; the address of the recording before is released. */
export function makePlayer(file) {
  const kind = file.type.startsWith("audio/") ? "audio" : "video";
  const player = el(kind, { controls: true, preload: "auto", src: URL.createObjectURL(file),
    "aria-label": `Player: ${file.name}` });
  player.addEventListener("loadedmetadata", () => findDuration(player), { once: true });
  return player;
}

// A recording made by the browser has no duration, and no seeking works until it is known.
function findDuration(player) {
  if (Number.isFinite(player.duration)) return;
  player.addEventListener("durationchange", () => (player.currentTime = 0), { once: true });
  player.currentTime = Number.MAX_SAFE_INTEGER;
}
