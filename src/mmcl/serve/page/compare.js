// Comparison of two runs on one recording: plots on the same axes, and differences in words.

import { clock, el } from "./elements.js";
import { NAMES, decimalsOf, drawNotes, drawPlot, drawSmooth, drawStrips, drawTimes, ends, lengthOf, levelOf, shared, unplayable } from "./draw.js";
import { makePlayer } from "./picker.js";

const HARDLY = 1 / 60; // of the range: smallest difference that is mentioned
const SHOWN = 3; // largest differences that are listed one by one

/** Draw both results under one player. */
export function drawComparison(first, second, file) {
  const player = makePlayer(file);
  const total = lengthOf(first, second);
  const pairs = pairUp(first, second);
  const words = [...overall(first, second, pairs), ...largest(first, second, pairs)];
  const heading = el("h2", { tabindex: "-1" }, `${first.model} and ${second.model}: ${first.name}`);
  const said = el("section", { "aria-label": "Differences" },
    el("ul", { class: "said" }, ...words.map((text) => el("li", {}, text))));
  const seen = el("div", { class: "seen" },
    el("section", { "aria-label": "Player" }, player, ...unplayable(player)), said);
  const root = el("div", { "data-total": total }, seen, drawSmooth(),
    el("div", { class: "pair" }, drawSide(first, total, "a"), drawSide(second, total, "b")),
    drawTable(first, second, pairs));
  window.smoothTimeline(root);
  window.sayWhatPlays(root, player);
  window.followTimeline(root, player);
  return { article: el("article", {}, heading, root), heading };
}

function drawSide(result, total, prefix) {
  return el("section", { "aria-label": result.model },
    el("h3", {}, result.model), el("p", { class: "soft" }, result.headline),
    drawPlot(result, total, prefix), drawTimes(total), drawStrips(result, total),
    drawNotes(result.notes) || el("div"));
}

/** Tell whether both rate on the same scale, so that their scores can be subtracted. */
export function comparable(first, second) {
  const [one, other] = [first.task, second.task];
  return one.kind === "regression" && other.kind === "regression" &&
    one.low === other.low && one.high === other.high;
}

/** Pair each utterance of the first with the one of the second that overlaps it most. */
export function pairUp(first, second) {
  return first.utterances.map((one, at) => {
    const shared = second.utterances.map(
      (other) => Math.min(one.end, other.end) - Math.max(one.start, other.start));
    const most = Math.max(0, ...shared);
    const other = most > 0 ? second.utterances[shared.indexOf(most)] : null;
    return { at, one, other, by: other && comparable(first, second) ? levelOf(one) - levelOf(other) : null };
  });
}

/** Sentences about the whole recording. */
export function overall(first, second, pairs) {
  if (!comparable(first, second)) {
    const same = pairs.filter((each) => each.other && each.one.label === each.other.label).length;
    return ["The runs predict different things, or on different scales, so their scores cannot be compared.",
      ...(first.task.kind === second.task.kind ? [`They give the same answer for ${same} of ${pairs.length} utterances.`] : [])];
  }
  const differences = pairs.map((each) => each.by).filter((by) => by !== null);
  if (!differences.length) return ["No utterance of one overlaps an utterance of the other."];
  const mean = differences.reduce((sum, by) => sum + by, 0) / differences.length;
  const apart = differences.reduce((sum, by) => sum + Math.abs(by), 0) / differences.length;
  const size = (value) => Math.abs(value).toFixed(decimalsOf(first.task));
  const lines = [
    Math.abs(mean) < worth(first)
      ? `On average they rate it alike (${shared(first.task, mean)} apart on ${scale(first)}).`
      : `On average ${first.model} rates it ${size(mean)} ${mean > 0 ? "higher" : "lower"} ` +
        `than ${second.model}, on ${scale(first)}.`,
    `For a single utterance they are ${size(apart)} apart on average.`,
    sides(pairs),
  ];
  const error = Math.max(first.error ?? 0, second.error ?? 0);
  if (error > 0 && apart < error) {
    lines.push(`That is less than their error on validation (±${size(error)}), ` +
      "so this recording does not tell which is right.");
  }
  return lines;
}

function sides(pairs) {
  const known = pairs.filter((each) => each.other);
  const opposed = known.filter(({ one, other }) => one.tint !== other.tint &&
    one.tint !== "neutral" && other.tint !== "neutral").length;
  if (!opposed) return "Nowhere does one call positive what the other calls negative.";
  return `In ${opposed} of ${known.length} utterances one calls positive what the other calls negative.`;
}

/** Sentences about the utterances on which they differ most. */
export function largest(first, second, pairs) {
  return pairs
    .filter((each) => each.by !== null && Math.abs(each.by) >= worth(first))
    .sort((a, b) => Math.abs(b.by) - Math.abs(a.by))
    .slice(0, SHOWN)
    .map(({ one, other, by }) =>
      `At ${clock(one.start)}${quoted(one.text)}: ${one.label} against ${other.label}` +
      `${because(first.task, one, other, by, worth(first))}.`);
}

/** Name the modality that explains most of a difference. */
function because(task, one, other, by, least) {
  const gaps = Object.keys(NAMES)
    .map((m) => [m, one.shares[m] ?? 0, other.shares[m] ?? 0])
    .map(([m, a, b]) => ({ m, a, b, gap: (a - b) * Math.sign(by) }))
    .sort((a, b) => b.gap - a.gap);
  if (!gaps.length || gaps[0].gap < least) return "";
  const { m, a, b } = gaps[0];
  return `; above all by the ${NAMES[m]}, which moved them by ${shared(task, a)} and ${shared(task, b)}`;
}

function drawTable(first, second, pairs) {
  const numbers = comparable(first, second);
  const head = ["time", "what is said", first.model, second.model, ...(numbers ? ["apart"] : [])];
  const rows = pairs.map(({ one, other, by }) => el("tr", {},
    el("td", {}, el("button", { type: "button", class: "clock", "data-at": one.start,
      "aria-label": `Play from ${clock(one.start)}` }, clock(one.start))),
    el("td", {}, one.text || "–"), el("td", {}, one.label), el("td", {}, other ? other.label : "–"),
    numbers ? el("td", { class: "number" }, by === null ? "–" : shared(first.task, by)) : null));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Utterance by utterance" },
    el("table", { class: "differences" },
      el("thead", {}, el("tr", {}, ...head.map((text, at) =>
        el("th", { scope: "col", class: at === 4 ? "number" : null }, text)))),
      el("tbody", {}, ...rows)));
}

function worth(result) {
  const [low, high] = ends(result.task);
  return HARDLY * (high - low);
}

function scale(result) {
  return `a scale of ${ends(result.task).map((end) => String(end).replace("-", "−")).join("…")}`;
}

function quoted(text) {
  if (!text) return "";
  return `, “${text.length > 60 ? `${text.slice(0, 59).trimEnd()}…` : text}”`;
}
