// The symbols of buttons, drawn as lines on a square of 24.

const PATHS = {
  again: "M4 12a8 8 0 1 1 2.3 5.6M4 12V7M4 12h5",
  attach: "M8 12.5l6-6a3 3 0 0 1 4.3 4.2l-7.6 7.6a5 5 0 0 1-7-7l7-7",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  dislike: "M17 4v10M17 14h3V4h-3l-8-.5a2.5 2.5 0 0 0-2.4 1.8L5 11a2 2 0 0 0 2 2.5h4L10 18a2 2 0 0 0 2 2.5L17 14",
  done: "M5 13l4.5 4.5L19 7",
  failed: "M12 5v9M12 18v.5",
  like: "M7 20V10M7 10H4v10h3l8 .5a2.5 2.5 0 0 0 2.4-1.8L19 13a2 2 0 0 0-2-2.5h-4L14 6a2 2 0 0 0-2-2.5L7 10",
  list: "M4 7h16M4 12h16M4 17h16",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  rename: "M4 20l1-4L16 5l3 3L8 19l-4 1zM14 7l3 3",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
};
const SVG = "http://www.w3.org/2000/svg";

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
