// The page: asks the server that it came from, with the token that this tab keeps.

import { chart, graph } from "/chart.js";

const $ = id => document.getElementById(id);
const SHOWN = 1000;
let running = null;
let shown = null;

// An element with text or other elements in it; nothing is ever read as markup.
function make(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.map(child => child instanceof Node ? child : String(child)));
  return made;
}

class Refused extends Error {}

async function request(path, options = {}) {
  const headers = { ...options.headers, Authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).error; } catch { /* it is not ours */ }
  if (response.status === 401) throw new Refused(reason);
  throw new Error(reason || response.statusText);
}

async function ask(sql, params, signal) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const response = await request("/query", { method: "POST", headers, body: JSON.stringify({ sql, params }), signal });
  return { columns: JSON.parse(response.headers.get("salmon-columns")), rows: await response.json() };
}

function problem(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
  if (error instanceof Refused) leave();
}

async function attempt(work) {
  problem(null);
  try { await work(); } catch (error) { problem(error); }
}

function cell(value) {
  if (value === null || value === undefined) return make("td", { class: "dim" }, "null");
  if (typeof value === "number") return make("td", { class: "number" }, Number.isInteger(value) ? value : Number(value.toPrecision(6)));
  return make("td", {}, typeof value === "object" ? JSON.stringify(value) : value);
}

function table(columns, rows) {
  const numeric = column => rows.length > 0 && typeof rows[0][column] === "number" ? { class: "number" } : {};
  const head = make("tr", {}, ...columns.map(column => make("th", numeric(column), column)));
  const body = rows.map(row => make("tr", {}, ...columns.map(column => cell(row[column]))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function options(select, values, text = value => value) {
  select.replaceChildren(...values.map((value, i) => make("option", { value: i }, text(value))));
  select.values = values;
}

const chosen = select => select.values[select.value];
const quoted = name => `"${name.replaceAll('"', '""')}"`;

// Runs and what things were made from.

async function showRuns() {
  const runs = await (await request("/runs")).json();
  $("run-list").replaceChildren(...runs.flatMap(run => [
    make("h2", {}, run.run, " ", make("span", { class: "dim" }, `schema ${run.schema}`)),
    make("div", { class: "scroll" }, stages(run)),
  ]));
  $("lineage").replaceChildren();
}

function stages(run) {
  const columns = ["stage", "made", "version", "rows", "seconds", "started"];
  const head = make("tr", {}, ...columns.map(column => make("th", {}, column)));
  const rows = run.stages.map(stage => make("tr", {},
    make("td", {}, stage.stage),
    make("td", {}, make("button", { type: "button", class: "link", onclick: () => attempt(() => showLineage(run.schema, stage.name)) }, stage.name)),
    make("td", { class: "dim" }, stage.fingerprint.slice(0, 12)),
    cell(stage.rows), make("td", { class: "number" }, stage.seconds.toFixed(2)), make("td", {}, stage.started.slice(0, 19).replace("T", " "))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

async function showLineage(schema, name) {
  const path = `/lineage/${encodeURIComponent(schema)}/${encodeURIComponent(name)}`;
  const nodes = await (await request(path)).json();
  $("lineage").replaceChildren(make("h2", {}, `What ${name} was made from`), make("div", { class: "scroll" }, graph(nodes, name)));
  $("lineage").scrollIntoView();
}

// Queries.

async function showTables() {
  const tables = await (await request("/tables")).json();
  $("tables").replaceChildren(...tables.map(found => {
    const name = found.schema === "public" ? quoted(found.table) : `${quoted(found.schema)}.${quoted(found.table)}`;
    const open = make("button", { type: "button", class: "link", onclick: () => { $("sql").value = `select * from ${name} limit 100`; } }, "ask");
    const columns = found.columns.map(column => make("li", {}, `${column.name} ${column.type}`));
    const title = found.schema === "public" ? found.table : `${found.schema}.${found.table}`;
    return make("details", {}, make("summary", {}, title, " ", open), make("ul", {}, ...columns));
  }));
}

async function run() {
  const started = performance.now();
  running = new AbortController();
  $("cancel").disabled = false;
  $("status").textContent = "running …";
  try {
    shown = await ask($("sql").value, {}, running.signal);
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    const more = shown.rows.length > SHOWN ? `, the first ${SHOWN} are shown` : "";
    $("status").textContent = `${shown.rows.length} rows in ${seconds} s${more}`;
    $("result").replaceChildren(table(shown.columns, shown.rows.slice(0, SHOWN)));
    offerChart();
  } catch (error) {
    $("status").textContent = error.name === "AbortError" ? "cancelled" : "failed";
    if (error.name !== "AbortError") throw error;
  } finally {
    running = null;
    $("cancel").disabled = true;
  }
}

function offerChart() {
  const numbers = shown.columns.filter(column => shown.rows.some(row => typeof row[column] === "number"));
  $("chart-box").hidden = numbers.length === 0 || shown.rows.length < 2;
  if ($("chart-box").hidden) return;
  const flat = shown.columns.filter(column => shown.rows.every(row => typeof row[column] !== "object" || row[column] === null));
  options($("chart-y"), numbers);
  options($("chart-x"), flat);
  options($("chart-by"), ["", ...flat], column => column || "(one series)");
  $("chart-y").value = numbers.length - 1;
  const y = numbers[numbers.length - 1], x = flat.findIndex(column => column !== y);
  $("chart-x").value = Math.max(0, x);
  const names = flat.filter((column, i) => i !== x && column !== y && !numbers.includes(column));
  $("chart-by").value = names.length ? 1 + flat.indexOf(names[0]) : 0;
  draw();
}

function draw() {
  const [y, x, by] = ["chart-y", "chart-x", "chart-by"].map(id => chosen($(id)));
  const rows = shown.rows.map(row => ({ x: row[x], y: row[y], by: by ? String(row[by]) : "" }));
  const drawn = chart(rows, `${y} over ${x}`);
  $("chart").replaceChildren(...(drawn ? [drawn] : []));
}

// Rollouts of one prompt, side by side.

async function schemas() {
  return (await (await request("/runs")).json()).map(run => run.schema);
}

async function showRollouts() {
  options($("rollout-run"), await schemas());
  await showPrompts();
}

async function showPrompts() {
  const sql = `select prompt_id, min(instruction) as instruction, count(*) as n from ${quoted(chosen($("rollout-run")))}.rollouts
    group by prompt_id order by n desc, prompt_id limit 500`;
  const { rows } = await ask(sql, {});
  options($("rollout-prompt"), rows, row => `${row.instruction.slice(0, 70)} (${row.n})`);
  $("rollout-list").replaceChildren(...(rows.length ? [] : [make("p", { class: "note" }, "This run has no rollouts.")]));
  if (rows.length) await showCards();
}

const number = value => value === null ? "–" : Number(value).toFixed(3);

async function showCards() {
  const sql = `select policy, step, response, principles, score, reward, kl, finish_reason from ${quoted(chosen($("rollout-run")))}.rollouts
    where prompt_id = $prompt order by policy, step, reward desc limit 60`;
  const { rows } = await ask(sql, { prompt: chosen($("rollout-prompt")).prompt_id });
  $("rollout-list").replaceChildren(...rows.map(row => make("article", { class: "card" },
    make("strong", {}, row.policy), ` step ${row.step}`,
    make("p", {}, row.response),
    make("div", {}, ...row.principles.map(drawn =>
      make("span", { class: drawn.negated ? "chip not" : "chip", title: drawn.text }, drawn.negated ? `not ${drawn.name}` : drawn.name))),
    make("div", { class: "dim" }, `score ${number(row.score)} · reward ${number(row.reward)} · KL ${number(row.kl)} · ${row.finish_reason}`))));
}

// A pair of responses with the judge's score under each principle.

async function showJudgments() {
  options($("judgment-run"), await schemas());
  await showPairs();
}

async function showPairs() {
  const sql = `select prompt_id, sample_1, sample_2, min(instruction) as instruction from ${quoted(chosen($("judgment-run")))}.judgments
    group by prompt_id, sample_1, sample_2 order by prompt_id, sample_1, sample_2 limit 500`;
  const { rows } = await ask(sql, {});
  options($("judgment-pair"), rows, row => `${row.instruction.slice(0, 70)} (${row.sample_1} and ${row.sample_2})`);
  $("judgment-list").replaceChildren(...(rows.length ? [] : [make("p", { class: "note" }, "This run has no judgments.")]));
  if (rows.length) await showPair();
}

async function showPair() {
  const pair = chosen($("judgment-pair"));
  const sql = `select response_1, response_2, principle, score_ab, score_ba, (score_ab + score_ba) / 2 as score, verdict
    from ${quoted(chosen($("judgment-run")))}.judgments
    where prompt_id = $prompt and sample_1 = $first and sample_2 = $second order by principle`;
  const { rows } = await ask(sql, { prompt: pair.prompt_id, first: pair.sample_1, second: pair.sample_2 });
  const responses = ["response_1", "response_2"].map((name, i) => make("article", { class: "card" },
    make("strong", {}, i ? "second" : "first"), make("p", {}, rows[0]?.[name] ?? "")));
  const bars = chart(rows.map(row => ({ x: row.principle, y: row.score, by: "" })), "score under each principle, above 0 for the first");
  $("judgment-list").replaceChildren(
    make("div", { class: "columns" }, ...responses),
    make("h2", {}, "Score under each principle, above 0 for the first response"), bars ?? "",
    make("div", { class: "scroll" }, table(["principle", "score_ab", "score_ba", "score", "verdict"], rows)));
}

// Which section is seen.

const SECTIONS = { runs: showRuns, query: showTables, rollouts: showRollouts, judgments: showJudgments };

function show() {
  const known = sessionStorage.getItem("token") !== null;
  const name = location.hash.slice(1) in SECTIONS ? location.hash.slice(1) : "runs";
  $("login").hidden = known;
  $("leave").hidden = !known;
  for (const section of Object.keys(SECTIONS)) $(section).hidden = !known || section !== name;
  for (const link of document.querySelectorAll("nav a")) link.classList.toggle("here", known && link.hash === `#${name}`);
  if (known) attempt(SECTIONS[name]);
  else $("token").focus();
}

function leave() {
  sessionStorage.removeItem("token");
  $("token").value = "";
  show();
}

$("login").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  problem(null);
  show();
});
$("leave").addEventListener("click", leave);
$("ask").addEventListener("submit", event => { event.preventDefault(); attempt(run); });
$("sql").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); attempt(run); }
});
$("cancel").addEventListener("click", () => running?.abort());
["chart-y", "chart-x", "chart-by"].forEach(id => $(id).addEventListener("change", draw));
$("rollout-run").addEventListener("change", () => attempt(showPrompts));
$("rollout-prompt").addEventListener("change", () => attempt(showCards));
$("judgment-run").addEventListener("change", () => attempt(showPairs));
$("judgment-pair").addEventListener("change", () => attempt(showPair));
addEventListener("hashchange", show);
show();
