// Helpers that make elements. Text is inserted as text, never as markup: it comes from recordings.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "line", "rect", "g", "path"]);

/**
 * Make an element: `el("p", { class: "soft" }, "text", other)`.
 * A property that is null or false is left out. `style` takes an object, because the content
 * policy allows no style attributes. A name that begins with "on" is a listener.
 */
export function el(tag, properties = {}, ...children) {
  const drawn = DRAWN.has(tag) || properties.svg;
  const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false || name === "svg") continue;
    if (name === "style") {
      for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    } else if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Show a problem in a place, instead of an earlier one. */
export function showProblem(place, problem) {
  place.replaceChildren(
    el("div", { class: "problem", role: "alert" }, el("strong", {}, problem.title), problem.detail),
  );
}

/** Return seconds as on a clock: 0:07, 12:30, 1:00:00. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const hours = Math.floor(whole / 3600);
  const minutes = String(Math.floor(whole / 60) % 60).padStart(hours ? 2 : 1, "0");
  return `${hours ? `${hours}:` : ""}${minutes}:${String(whole % 60).padStart(2, "0")}`;
}

/** Return a number with its sign, without one where it rounds to 0. */
export function signed(value, decimals = 1) {
  const text = Math.abs(value).toFixed(decimals);
  if (Number(text) === 0) return text;
  return (value > 0 ? "+" : "−") + text;
}

/** Return a size in bytes as text, in the units that the service uses. */
export function size(bytes) {
  const [unit, name] = bytes < 2 ** 20 ? [2 ** 10, "KiB"] : [2 ** 20, "MiB"];
  const count = bytes / unit;
  return `${count.toFixed(count < 10 && count % 1 ? 1 : 0)} ${name}`;
}
