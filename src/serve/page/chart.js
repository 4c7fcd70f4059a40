// Charts and graphs as inline SVG. Values are set as text and attributes, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#2f6f9f", "#c8452f", "#4b9a5d", "#9a6bb0", "#c99a2e", "#5b8c8c", "#a85a7a", "#7a7a7a"];

export function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function label(x, y, text, attributes = {}) {
  return element("text", { x, y, ...attributes }, String(text));
}

function shortened(text, length = 22) {
  const whole = String(text ?? "null");
  return whole.length > length ? whole.slice(0, length - 1) + "…" : whole;
}

// Round numbers that cover low to high.
function ticks(low, high) {
  const span = high - low || 1;
  const step = 10 ** Math.floor(Math.log10(span / 4));
  const fine = [1, 2, 5, 10].map(n => n * step).find(size => span / size <= 6);
  const found = [];
  for (let at = Math.ceil(low / fine) * fine; at <= high + fine / 1e6; at += fine) found.push(Number(at.toPrecision(12)));
  return found;
}

// A line over numbers, or bars over names: `rows` of {x, y, by}.
export function chart(rows, name) {
  const points = rows.filter(row => typeof row.y === "number" && row.x !== null && row.x !== undefined);
  if (points.length === 0) return null;
  const series = [...new Set(points.map(row => row.by))].slice(0, COLOURS.length);
  const numeric = points.every(row => typeof row.x === "number");
  const width = 860, height = 300, left = 70, bottom = numeric ? 40 : 90, top = 24;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  const ys = points.map(row => row.y);
  const low = Math.min(0, ...ys), high = Math.max(0, ...ys) || 1;
  const y = value => top + (high - value) / (high - low) * (height - top - bottom);
  for (const tick of ticks(low, high)) {
    svg.append(element("line", { x1: left, x2: width - 10, y1: y(tick), y2: y(tick), class: "axis" }));
    svg.append(label(left - 8, y(tick) + 4, tick, { "text-anchor": "end", class: "dim" }));
  }
  if (numeric) lines(svg, points, series, { left, width, height, bottom, y });
  else bars(svg, points, series, { left, width, height, bottom, y });
  if (series.length > 1 || series[0] !== "") {
    series.forEach((by, i) => {
      svg.append(element("rect", { x: left + i * 105, y: 4, width: 10, height: 10, fill: COLOURS[i] }));
      svg.append(label(left + 14 + i * 105, 13, shortened(by, 12)));
    });
  }
  return svg;
}

function lines(svg, points, series, { left, width, height, bottom, y }) {
  const xs = points.map(row => row.x);
  const low = Math.min(...xs), high = Math.max(...xs);
  const x = value => left + (value - low) / (high - low || 1) * (width - left - 20);
  for (const tick of ticks(low, high)) {
    svg.append(label(x(tick), height - bottom + 20, tick, { "text-anchor": "middle", class: "dim" }));
  }
  series.forEach((by, i) => {
    const own = points.filter(row => row.by === by).sort((a, b) => a.x - b.x);
    const path = own.map((row, at) => `${at ? "L" : "M"}${x(row.x).toFixed(1)},${y(row.y).toFixed(1)}`).join("");
    svg.append(element("path", { d: path, fill: "none", stroke: COLOURS[i], "stroke-width": 2 }));
    if (own.length < 60) own.forEach(row => svg.append(element("circle", { cx: x(row.x), cy: y(row.y), r: 3, fill: COLOURS[i] })));
  });
}

function bars(svg, points, series, { left, width, height, bottom, y }) {
  const names = [...new Set(points.map(row => row.x))].slice(0, 40);
  const room = (width - left - 10) / names.length;
  const thick = Math.min(40, room * .8 / series.length);
  names.forEach((name, at) => {
    const start = left + at * room + (room - thick * series.length) / 2;
    series.forEach((by, i) => {
      const row = points.find(row => row.x === name && row.by === by);
      if (!row) return;
      const ends = [y(row.y), y(0)].sort((a, b) => a - b);
      const bar = { x: start + i * thick, y: ends[0], width: thick - 1, height: Math.max(1, ends[1] - ends[0]), fill: COLOURS[i] };
      svg.append(element("rect", bar, element("title", {}, `${name} ${by} ${row.y}`)));
    });
    const middle = left + at * room + room / 2, below = height - bottom + 14;
    svg.append(label(middle, below, shortened(name, 16), { "text-anchor": "end", transform: `rotate(-35 ${middle} ${below})` }));
  });
}

// Versions as boxes, each to the right of what it was made from.
export function graph(nodes, chosen) {
  const byId = new Map(nodes.map(node => [node.id, node]));
  const depth = new Map();
  const deep = (id, path) => {
    if (depth.has(id)) return depth.get(id);
    const inputs = (byId.get(id)?.inputs ?? []).filter(input => byId.has(input) && !path.includes(input));
    const found = inputs.length ? 1 + Math.max(...inputs.map(input => deep(input, [...path, id]))) : 0;
    depth.set(id, found);
    return found;
  };
  nodes.forEach(node => deep(node.id, []));
  const columns = [];
  nodes.forEach(node => (columns[depth.get(node.id)] ??= []).push(node));
  const wide = 170, high = 44, gapX = 60, gapY = 18;
  const tallest = Math.max(...columns.map(column => column.length));
  const width = columns.length * (wide + gapX), height = tallest * (high + gapY) + 10;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": `what ${chosen} was made from` });
  const place = new Map();
  columns.forEach((column, x) => column.forEach((node, y) => {
    place.set(node.id, [x * (wide + gapX) + 4, y * (high + gapY) + 5 + (tallest - column.length) * (high + gapY) / 2]);
  }));
  for (const node of nodes) {
    const [toX, toY] = place.get(node.id);
    for (const input of node.inputs.filter(input => place.has(input))) {
      const [x, y] = place.get(input);
      const from = [x + wide, y + high / 2], to = [toX, toY + high / 2], bend = (to[0] - from[0]) / 2;
      svg.append(element("path", { class: "edge", d: `M${from}C${from[0] + bend},${from[1]} ${to[0] - bend},${to[1]} ${to}` }));
    }
  }
  for (const node of nodes) {
    const [x, y] = place.get(node.id);
    const about = node.rows === null ? node.fingerprint.slice(0, 10) : `${node.rows} rows · ${node.fingerprint.slice(0, 10)}`;
    svg.append(element("rect", { x, y, width: wide, height: high, rx: 5, class: node.kind.toLowerCase() },
      element("title", {}, `${node.name} ${node.fingerprint}, stage ${node.stage ?? "(from outside)"}`)));
    svg.append(label(x + 9, y + 18, shortened(node.name, 20)), label(x + 9, y + 35, shortened(about, 24), { class: "dim" }));
  }
  return svg;
}
