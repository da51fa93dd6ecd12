// Elements that show a result, with the classes and colours of the page that mmcl predict writes.

import { clock, el, signed } from "./elements.js";
import { makePlayer } from "./picker.js";

export const NAMES = { text: "text", audio: "voice", vision: "face" };
const [TOP, BOTTOM] = [6, 94]; // ends of the scale, in percent of the plot's height
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const LEAST_STRONG = 1 / 20; // of the range: smallest change that may have the full colour
const STRONG = 50; // percent of the strongest word's share, from which a word is bold

/** The ends of the scale on which predictions are drawn. */
export function ends(task) {
  return task.kind === "regression" ? [task.low, task.high] : [0, 1];
}

/** Decimals with which scores of a task are shown: about a sixtieth of the range. */
export function decimalsOf(task) {
  const [low, high] = ends(task);
  return high - low >= 60 ? 0 : Math.max(1, Math.ceil(-Math.log10((high - low) / 20)));
}

/** Return the height of a prediction in the plot: its score or its probability. */
export function levelOf(utterance) {
  return typeof utterance.prediction === "number" ? utterance.prediction : utterance.probability ?? 0;
}

/** Draw a result: player, timeline and utterances. */
export function drawResult(result, file, save) {
  const player = makePlayer(file);
  const total = lengthOf(result);
  const stage = el("section", { class: "stage", "aria-label": "Player and timeline" },
    player, ...unplayable(player),
    drawPlot(result, total, "u"), drawTimes(total), drawSmooth(), drawStrips(result, total), drawLegend(result),
    drawExtremes(result), ...captions(result), drawNotes(result.notes));
  const words = el("ol", { class: "utterances", "aria-label": "Utterances" },
    ...result.utterances.map((each, at) => drawUtterance(result, each, at)));
  const root = el("div", { class: "sides", "data-total": total }, stage, words);
  const heading = el("h2", { tabindex: "-1" }, result.name);
  const article = el("article", {}, heading, el("p", { class: "lead" }, result.headline),
    drawSpeakers(result), save, root);
  window.smoothTimeline(root);
  window.sayWhatPlays(root, player);
  window.followTimeline(root, player);
  return { article, heading };
}

/** Return the length of the time axis in seconds. */
export function lengthOf(...results) {
  const spans = results.flatMap((each) => each.utterances.map((one) => one.end));
  return Math.max(0.1, ...results.map((each) => each.duration || 0), ...spans);
}

/** Messages that are shown if a recording does not play. */
export function unplayable(player) {
  const picture = player.tagName === "VIDEO";
  return [
    el("p", { class: "soft silent", hidden: true },
      "This browser cannot play this recording; the rest of the page works without."),
    el("p", { class: "soft blind", hidden: true },
      picture ? "This browser plays the sound of this recording, but cannot show its picture." : ""),
  ];
}

/** Draw predictions over time: a step per utterance, with its error band and its spread. */
export function drawPlot(result, total, prefix) {
  const { task, error, utterances } = result;
  const y = (value) => heightOf(task, value);
  const levels = levelsOf(task);
  const svg = el("svg", { role: "group", "aria-label": `Predictions over time, ${result.model}` },
    ...levels.map(([value]) => line("level", 0, 100, y(value), y(value))));
  utterances.forEach((each, at) => {
    const [left, right] = [each.start, each.end].map((time) => (100 * time) / total);
    const middle = (left + right) / 2;
    const label = `${clock(each.start)}, ${each.label}`;
    const step = el("a", { svg: true, href: `#${prefix}${at + 1}`, class: each.tint,
      "data-at": each.start, "data-end": each.end, "aria-label": label },
    el("title", { svg: true }, label),
    box("hit", left, right, 0, 100));
    if (task.kind === "regression" && error !== null) {
      step.append(box("band", left, right, y(levelOf(each) + error), y(levelOf(each) - error)));
    }
    step.append(line("step", left, right, y(levelOf(each)), y(levelOf(each))));
    if (each.spread !== null) {
      const [high, low] = [levelOf(each) + each.spread, levelOf(each) - each.spread].map(y);
      step.append(line("whisker", middle, middle, high, low));
    }
    svg.append(step);
  });
  svg.append(line("head", 0, 0, 0, 100));
  if (task.kind === "regression") {
    svg.append(el("svg", { class: "curve", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, el("path")));
  }
  const names = levels.map(([value, text]) =>
    el("span", { class: "name", style: { top: `${y(value)}%` } }, text));
  return el("div", { class: "plot" }, ...names, svg);
}

/** Make the place for the choice of a curve; timeline.js fills it. */
export function drawSmooth() {
  return el("p", { class: "smooth", hidden: true });
}

/** List the utterances that stand out; the service names none of few. */
function drawExtremes({ extremes, utterances }) {
  if (!extremes.positive.length && !extremes.negative.length) return null;
  const list = (kind) => el("div", {}, el("h3", {}, `Most ${kind}`), el("ol", {},
    ...extremes[kind].map((at) => drawExtreme(utterances[at], at)),
    extremes[kind].length ? null : el("li", { class: "soft" }, `No utterance is ${kind}.`)));
  return el("nav", { class: "extremes", "aria-label": "Most positive and most negative" },
    list("positive"), list("negative"));
}

function drawExtreme(each, at) {
  return el("li", {}, el("a", { class: each.tint, href: `#u${at + 1}`, "data-at": each.start },
    el("span", { class: "clock" }, clock(each.start)), el("b", {}, each.label.split(" ")[0]),
    el("span", {}, each.text || "no words")));
}

/** Say of every speaker what the headline says of all. */
function drawSpeakers({ speakers }) {
  if (!speakers.length) return null;
  return el("section", { "aria-label": "Speakers" }, el("dl", { class: "speakers" },
    ...speakers.flatMap(({ name, sentence }) => [el("dt", {}, name), el("dd", {}, sentence)])));
}

/** Label about six round times along the plot. */
export function drawTimes(total) {
  const step = STEPS.find((each) => total / each <= 6) || 3600;
  const times = [];
  for (let at = 0; at < total; at += step) {
    times.push(el("span", { style: { left: `${(100 * at) / total}%` } }, clock(at)));
  }
  return el("div", { class: "times", "aria-hidden": "true" }, ...times);
}

/** Draw a row per modality: what is common above, what is kept below. */
export function drawStrips(result, total) {
  const used = modalitiesOf(result).filter((m) => result.utterances.some((each) => each.rows?.[m]));
  return el("div", { class: "strips" }, ...used.map((m) => drawStrip(result, m, total)));
}

function drawStrip(result, modality, total) {
  const svg = el("svg", { role: "img" });
  const means = { commonality: [], action: [] };
  for (const each of result.utterances) {
    const row = each.rows?.[modality];
    if (!row) {
      svg.append(line("none", (100 * each.start) / total, (100 * each.end) / total, 50, 50));
      continue;
    }
    row.times.forEach(([start, end], at) => {
      const [common, kept] = [row.commonality?.[at] ?? null, row.action?.[at] ?? null];
      if (start === null || common === null || kept === null) return; // not measured: a gap
      means.commonality.push(common);
      means.action.push(kept);
      const title = `${clock(start)} ${NAMES[modality]}: ${inWords(row, at)}`;
      const [left, right] = [(100 * start) / total, (100 * end) / total];
      svg.append(el("g", { "data-at": start, "data-end": end }, el("title", { svg: true }, title),
        box("hit", left, right, 0, 100), cell("common", left, right, 0, 48, common), cell("action", left, right, 52, 100, kept)));
    });
  }
  svg.append(line("head", 0, 0, 0, 100));
  const [common, kept] = [mean(means.commonality), mean(means.action)];
  svg.setAttribute("aria-label", common === null
    ? `${NAMES[modality]}: not measured`
    : `${NAMES[modality]}: on average common ${common.toFixed(2)}, kept ${kept.toFixed(2)}`);
  return el("div", { class: "strip" }, el("span", { "aria-hidden": "true" }, NAMES[modality]), svg);
}

function inWords(row, at) {
  const [common, kept] = [row.commonality?.[at] ?? null, row.action?.[at] ?? null];
  if (common === null || kept === null) return "not measured";
  return `common ${common.toFixed(2)}, kept ${kept.toFixed(2)}`;
}

function drawUtterance(result, each, at) {
  const time = clock(each.start);
  const header = el("header", {},
    el("button", { type: "button", class: "clock", "data-at": each.start, "aria-label": `Play from ${time}` }, time),
    each.speaker ? el("span", { class: "speaker" }, each.speaker) : null,
    el("span", { class: "badge" }, each.label),
    each.certainty ? el("span", { class: "certainty" }, each.certainty) : null);
  const driven = el("div", { class: "driven" },
    el("p", { class: "why" }, each.sentence), drawBars(result, each));
  return el("li", { class: `utterance ${each.tint}`, id: `u${at + 1}`, "data-from": each.start, "data-end": each.end },
    header, drawWords(result, each), driven);
}

function drawWords(result, each) {
  if (!each.words) return el("p", { class: "soft" }, "No words were found.");
  const all = result.utterances.flatMap((one) => one.words || []);
  const most = strongest(result, all.map((word) => word.contribution));
  const words = each.words.map((word, at) => {
    const share = word.contribution || 0;
    const percent = Math.round((100 * Math.abs(share)) / most);
    const classes = ["word", share > 0 ? "positive" : "negative", percent >= STRONG && "strong"];
    const button = word.start === null
      ? el("span", {}, word.text)
      : el("button", { type: "button", "data-at": word.start, "data-end": word.end,
        tabindex: at ? "-1" : null }, word.text);
    return el("span", { class: classes.filter(Boolean).join(" "), title: titleOf(result, each, word),
      style: { "--v": `${percent}%` } }, button);
  });
  return el("div", { class: "words" }, ...words);
}

function titleOf(result, each, word) {
  const moved = word.contribution;
  const lines = moved === null ? [] : [`moved it by ${shared(result.task, moved)}`];
  for (const modality of modalitiesOf(result)) {
    const row = each.rows?.[modality];
    const at = row ? row.times.findIndex(([start, end]) => start < word.end && end > word.start) : -1;
    lines.push(`${NAMES[modality]}: ${at < 0 ? "not measured" : inWords(row, at)}`);
  }
  return lines.join("\n");
}

function drawBars(result, each) {
  const most = strongest(result, result.utterances.flatMap((one) => Object.values(one.shares)));
  const bars = el("dl", { class: "bars" });
  for (const modality of modalitiesOf(result)) {
    const share = each.shares[modality] ?? null;
    const text = share === null ? "none" : shared(result.task, share);
    const tint = { "+": "positive", "−": "negative" }[text[0]]; // none where it shows 0
    const width = tint ? `${Math.round((50 * Math.abs(share)) / most)}%` : "0";
    bars.append(
      el("dt", {}, NAMES[modality]),
      el("dd", { class: "track", "aria-hidden": "true" },
        el("span", { class: tint || "neutral", style: { width } })),
      el("dd", { class: "number" }, text));
  }
  return bars;
}

function captions(result) {
  const lines = [];
  if (result.task.kind !== "regression") {
    lines.push("Height: the probability of the prediction.");
  } else if (result.error !== null) {
    lines.push("Band: the mean error of predictions on the validation clips of the training corpus, " +
      `±${result.error.toFixed(2)}. Another recording may be harder.`);
  }
  if (result.utterances.some((each) => each.spread !== null)) {
    lines.push("Thin line: ± one standard deviation between the networks of the different seeds.");
  }
  return lines.map((text) => el("p", { class: "soft" }, text));
}

/** Draw the notes on a result. */
export function drawNotes(notes) {
  return notes.length ? el("aside", {}, ...notes.map((note) => el("p", {}, note))) : null;
}

function drawLegend(result) {
  const moved = result.task.kind === "regression"
    ? "lowered (dashed) or raised (solid) the score"
    : "spoke against (dashed) or for (solid) the answer";
  const entry = (kind, text) => el("li", {}, el("span", { class: `ramp ${kind}` }), text);
  return el("ul", { class: "legend" },
    entry("common", "common: other modalities say the same"),
    entry("action", "kept: its own contribution is used"),
    entry("shares", moved));
}

function modalitiesOf(result) {
  return Object.keys(NAMES).filter((m) => result.utterances.some((each) => each.shares[m] !== null));
}

function strongest({ task }, shares) {
  const [low, high] = ends(task);
  return Math.max(LEAST_STRONG * (high - low), ...shares.map((share) => Math.abs(share || 0)));
}

/** Return a share as text, on the scale of the scores or in percentage points. */
export function shared(task, share) {
  return task.kind === "regression" ? signed(share, decimalsOf(task)) : signed(100 * share, 0);
}

function levelsOf(task) {
  const [low, high] = ends(task);
  if (task.kind !== "regression") return [high, 0.5, low].map((value) => [value, `${100 * value}%`]);
  const middle = low < 0 && high > 0 ? 0 : (low + high) / 2;
  const name = (value) => (low < 0 ? signed(value, high - low >= 4 ? 0 : 1) : `${Number(value.toPrecision(6))}`);
  return [high, middle, low].map((value) => [value, name(value)]);
}

function heightOf(task, value) {
  const [low, high] = ends(task);
  const inside = Math.min(Math.max(value, low), high);
  return TOP + ((high - inside) / (high - low)) * (BOTTOM - TOP);
}

function line(name, x1, x2, y1, y2) {
  return el("line", { class: name, x1: `${x1}%`, x2: `${x2}%`, y1: `${y1}%`, y2: `${y2}%` });
}

function box(name, left, right, top, bottom) {
  return el("rect", { class: name, x: `${left}%`, width: `${right - left}%`, y: `${top}%`, height: `${bottom - top}%` });
}

function cell(name, left, right, top, bottom, value) {
  const rect = box(name, left, right, top, bottom);
  rect.style.setProperty("--v", value);
  return rect;
}

function mean(values) {
  return values.length ? values.reduce((sum, each) => sum + each, 0) / values.length : null;
}
