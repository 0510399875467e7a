"use strict";
// The page's own script. Data reach the page as text nodes only; objects are never keyed by anything that data say.
(() => {
  const $ = (id) => document.getElementById(id);
  const payload = JSON.parse($("payload").textContent);
  const items = payload.items;
  const MISSING = "–";

  function node(name, text, attributes = {}) {
    const element = document.createElement(name);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  // A name that may break after its parts, and within a part only where that is too long; as in names.py.
  const NAME = 24;
  function breakable(parent, text) {
    for (const [at, part] of (text.length <= NAME ? [text] : parts(text)).entries()) {
      if (at) parent.append(document.createElement("wbr"));
      parent.append(part);
    }
    return parent;
  }
  const parts = (text) => text.match(/.{1,23}?(?:[\s_/:#-](?![\s_/:#-])|\.(?=\D))|[^]{1,24}/g) || [];
  // Where a name ends a line of at most `width` characters in a figure; a text that fits has no match.
  const wrap = (width) => `(?!.{1,${width}}$)(.{1,${width - 1}}(?:[\\s_/:#-]|\\.(?!\\d))|.{1,${width}})`;
  const linesOf = (text, width) => text.replace(new RegExp(wrap(width), "g"), "$1\n").split("\n").length;

  // ---- numbers of a row -------------------------------------------------------------------------------------------
  const OUTSIDE = "outside";
  function weight(k, p) {
    const ratio = items.ratio[p][k];
    if (ratio === null || items.log_mean[p] === null) return null;
    return ratio === OUTSIDE ? 0 : Math.exp(ratio - items.log_mean[p]);
  }
  function digits(value, precision = 4) {
    if (value === null || value === undefined) return MISSING;
    if (typeof value === "string") return value;
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(precision)));
  }
  const whole = (text) => (Array.isArray(text) ? text[0] : text);

  // ---- tabs (WAI-ARIA pattern: one stop, arrows move and show) -----------------------------------------------------
  const tabs = [...document.querySelectorAll("[role=tab]")];
  function show(name, focus = false) {
    const tab = tabs.find((one) => one.getAttribute("aria-controls") === name);
    if (!tab) return;
    for (const one of tabs) {
      const on = one === tab;
      one.setAttribute("aria-selected", on);
      one.tabIndex = on ? 0 : -1;
      $(one.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) tab.focus();
    drawIn($(name));
  }
  function go(hash) {
    if (location.hash !== "#" + hash) history.replaceState(null, "", "#" + hash);
  }
  for (const tab of tabs) {
    tab.addEventListener("click", () => { const name = tab.getAttribute("aria-controls"); go(name); show(name); });
    tab.addEventListener("keydown", (event) => {
      const at = tabs.indexOf(tab), last = tabs.length - 1;
      const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const name = tabs[to].getAttribute("aria-controls");
      go(name);
      show(name, true);
    });
  }

  // ---- figures ----------------------------------------------------------------------------------------------------
  const views = new Map();
  const pending = new Set(payload.figures.map((figure) => figure.name));
  const look = {
    background: null, font: "system-ui, 'DejaVu Sans', sans-serif", aria: false,
    axis: { labelColor: "var(--ink)", titleColor: "var(--ink)", domainColor: "var(--muted)", tickColor: "var(--muted)",
      gridColor: "var(--grid)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", titlePadding: 8 },
    header: { labelColor: "var(--ink)", titleColor: "var(--ink)", labelFontSize: 12 },
    view: { stroke: "var(--line)" }, facet: { spacing: 18 }, text: { fontSize: 12, font: "system-ui, 'DejaVu Sans', sans-serif" },
  };
  const PANEL = { estimators: [420, 170, 20], weights: [300, 0, 105], sweep: [270, 70, 20] };  // least width, room left of all, room of each
  const ROW = { forest: 30, differences: 30, estimators: 18 };  // least height of a row

  function sized(figure, width) {
    const spec = structuredClone(figure.spec);
    spec.datasets = figure.rows;
    const data = Object.values(figure.rows)[0];
    const label = width < 520 ? 16 : 28;  // characters in a line of a name
    const values = { ...figure.values, wrap: wrap(spec.facet && figure.name !== "estimators" ? 28 : label) };
    for (const param of spec.params || []) if (Object.hasOwn(values, param.name)) param.value = values[param.name];
    if (figure.name in ROW) {
      const names = [...new Set(data.map((row) => (spec.facet ? row.estimator : row.policy)))];
      const step = Math.max(ROW[figure.name], 4 + 14 * Math.max(1, ...names.map((name) => linesOf(name, label))));
      (spec.facet ? spec.spec : spec).height = step * names.length;
    }
    if (!spec.facet) return Object.assign(spec, { width, autosize: { type: "fit-x", contains: "padding" } });
    const [least, once, each] = PANEL[figure.name];
    const panels = new Set(data.map((row) => row.policy)).size;
    spec.columns = Math.max(1, Math.min(spec.columns, panels, Math.floor(width / least)));
    spec.spec.width = Math.max(120, Math.floor((width - once) / spec.columns) - each);
    return spec;
  }
  const blocked = { load: () => Promise.reject(new Error("nothing is loaded")), sanitize: () => Promise.reject(new Error("nothing is loaded")) };

  async function draw(name) {
    pending.delete(name);
    const figure = payload.figures.find((one) => one.name === name);
    const place = $("plot-" + name);
    if (!figure || !place) return;
    if (name === "scatter") fillScatter(figure);
    if (name === "calibration") fillCalibration(figure);
    const main = document.querySelector("main");
    const around = 2 * parseFloat(getComputedStyle(main).paddingLeft) + 2 * 17;  // of main, and of the figure with its frame
    const width = Math.max(240, Math.min(main.clientWidth - around, 1240));
    const size = name === "scatter" || name === "calibration" ? Math.min(width, 820) : width;
    const plot = await vegaEmbed(place, sized(figure, size), {
      mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, config: look,
      hover: false, loader: blocked, tooltip: tip,
    });
    if (views.has(name)) views.get(name).finalize();
    views.set(name, plot);
    if (name === "scatter" || name === "calibration") {
      plot.view.addEventListener("click", (event, item) => {
        const k = item && item.datum ? item.datum.k : undefined;
        if (Number.isInteger(k) && k >= 0) { go("items-" + k); open(k, true); }
      });
      mark(name);
    }
    place.dataset.drawn = "true";
  }
  function drawIn(section) {
    for (const place of section.querySelectorAll(".plot")) if (pending.has(place.dataset.name)) draw(place.dataset.name);
  }
  function drawRest() {  // in idle time, so that a printed page has every figure
    const [name] = pending;
    if (name === undefined) { document.documentElement.dataset.ready = "true"; return; }
    draw(name).then(() => setTimeout(drawRest, 10));
  }
  function mark(name) {
    const plot = views.get(name);
    if (plot) plot.view.signal("chosen", chosen).runAsync();
  }
  let resized;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => { for (const name of [...views.keys()]) draw(name); }, 200);
  });

  // Tooltips are text nodes, whatever is in them.
  function tip(handler, event, item, value) {
    const box = $("tip");
    if (value === null || value === undefined || value === "") { box.hidden = true; return; }
    const lines = typeof value === "object" ? Object.entries(value).map(([key, entry]) => `${key}: ${typeof entry === "number" ? digits(entry) : entry}`) : [String(value)];
    box.replaceChildren(...lines.map((line) => node("p", line)));
    box.hidden = false;
    box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
    box.style.top = Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8) + "px";
  }
  addEventListener("scroll", () => { $("tip").hidden = true; }, { passive: true });

  let policy = 0;
  let chosen = -1;
  function extra(name, text) { $("extra-" + name).textContent = text; }

  function fillScatter(figure) {
    const rows = [];
    let zero = 0, missing = 0;
    const listed = Math.min(items.id.length, payload.points);
    for (let k = 0; k < listed; k++) {
      const w = weight(k, policy);
      if (w === null) missing++;
      else if (w === 0) zero++;
      else rows.push({ k, x: items.score[k], y: Math.min(1e6, Math.max(1e-6, w)), w: digits(w), id: items.id[k], labelled: items.label[k] !== null });
    }
    figure.rows.points = rows;
    const weights = rows.map((row) => row.y);
    figure.values = { lowest: Math.min(0.5, ...weights) / 1.5, highest: Math.max(2, ...weights) * 1.5 };
    extra("scatter", `${payload.policies[policy]}: ${rows.length} of ${items.n_rows} responses are drawn` +
      (listed < items.n_rows ? ", the most influential ones and a random sample" : "") +
      (zero ? `; ${zero} have weight zero` : "") + (missing ? `; ${missing} have no weight` : "") + ".");
  }
  function fillCalibration(figure) {
    const rows = [];
    let all = 0;
    for (let k = 0; items && k < items.id.length; k++) {
      if (items.label[k] === null) continue;
      all++;
      if (rows.length < payload.points) rows.push({ k, x: items.score[k], y: items.label[k], id: items.id[k], labelled: true });
    }
    figure.rows.points = rows;
    if (items && rows.length < all) extra("calibration", `${rows.length} of ${all} labelled responses are drawn, the most influential ones and a random sample.`);
  }

  // ---- items ------------------------------------------------------------------------------------------------------
  const columns = [
    { name: "share", title: "influence", of: (k) => share(k), down: true },
    { name: "id", title: "prompt id", of: (k) => items.id[k] },
    { name: "prompt", title: "prompt", of: (k) => beginning(k) },
    { name: "score", title: "judge score", of: (k) => items.score[k], down: true },
    { name: "label", title: "oracle label", of: (k) => items.label[k], down: true },
    { name: "ratio", title: "log ratio", of: (k) => (items.ratio[policy][k] === OUTSIDE ? -Infinity : items.ratio[policy][k]), down: true },
    { name: "weight", title: "weight", of: (k) => weight(k, policy), down: true },
  ];
  // Share of a row in the sampling variance of the chosen policy; over all rows of the data they sum to one.
  function share(k) {
    const at = payload.policies.length ? policy + 1 : 0;
    const move = items.move[at][k];
    return move === null || !items.squares[at] ? null : move ** 2 / items.squares[at];
  }
  const sorting = { by: "share", down: true };
  let matches = [];
  let page = 0;
  let haystack = null;

  function beginning(k) {
    const text = k < items.texts.length ? whole(items.texts[k][0]) : items.begin[k];
    return text === null || text === undefined ? null : text.slice(0, 90).replace(/\s+/g, " ");
  }
  function texts(k) {  // all that a search looks through, in lower case
    if (k >= items.texts.length) return (items.id[k] + "\n" + (items.begin[k] || "")).toLowerCase();
    const [prompt, response, draws] = items.texts[k];
    return [items.id[k], whole(prompt), whole(response), ...draws.flat().map(whole)].join("\n").toLowerCase();
  }
  function passes(k, criteria) {
    if (criteria.labelled && items.label[k] === null) return false;
    if (criteria.from !== null && !(items.score[k] >= criteria.from)) return false;
    if (criteria.to !== null && !(items.score[k] <= criteria.to)) return false;
    if (criteria.weight) {
      const w = weight(k, policy);
      if (criteria.weight === "missing" ? w !== null : w === null) return false;
      if (criteria.weight === "zero" && w !== 0) return false;
      const least = { above1: 1, above10: 10, above100: 100 }[criteria.weight];
      if (least !== undefined && !(w > least)) return false;
    }
    return criteria.words.every((word) => haystack[k].includes(word));
  }
  function filter() {
    const limit = (id) => ($(id).value === "" ? null : Number($(id).value));
    const criteria = { words: $("search").value.toLowerCase().split(/\s+/).filter(Boolean), labelled: $("labelled").checked,
      from: limit("from"), to: limit("to"), weight: $("weight").value };
    if (criteria.words.length && !haystack) haystack = items.id.map((_, k) => texts(k));
    matches = [];
    for (let k = 0; k < items.id.length; k++) if (passes(k, criteria)) matches.push(k);
    const value = columns.find((column) => column.name === sorting.by).of;
    const keys = new Map(matches.map((k) => [k, value(k)]));
    const sign = sorting.down ? -1 : 1;
    matches.sort((a, b) => {  // missing values last, whichever way
      const x = keys.get(a), y = keys.get(b);
      if (x === y) return a - b;
      if (x === null) return 1;
      if (y === null) return -1;
      return (x < y ? -1 : 1) * sign;
    });
    page = 0;
    list();
  }
  const size = () => Number($("size").value);
  const pages = () => Math.max(1, Math.ceil(matches.length / size()));
  function list() {
    const body = $("list").tBodies[0];
    const visible = matches.slice(page * size(), (page + 1) * size());
    body.replaceChildren(...visible.map(line));
    const stop = body.querySelector("[aria-selected=true]") || body.rows[0];
    if (stop) stop.tabIndex = 0;
    $("found").textContent = `${matches.length} of ${items.id.length} listed responses` + (matches.length ? "" : ": no match; clear a filter");
    $("page").textContent = `page ${page + 1} of ${pages()}`;
    $("first").disabled = $("previous").disabled = page === 0;
    $("next").disabled = $("last").disabled = page >= pages() - 1;
  }
  function line(k) {
    const row = node("tr", null, { "aria-selected": k === chosen, tabindex: -1, role: "row" });
    row.dataset.k = k;
    const influence = share(k);
    const cell = (text, title) => node("td", text, { class: "number", role: "cell", "data-label": title });
    row.append(cell(influence === null ? MISSING : (100 * influence).toFixed(2) + " %", "influence"));
    row.append(breakable(node("th", null, { scope: "row", role: "rowheader" }), items.id[k]));
    row.append(node("td", beginning(k) ?? MISSING, { class: "text", dir: "auto", role: "cell", "data-label": "prompt" }));
    const values = [items.score[k], items.label[k], items.ratio[policy]?.[k], payload.policies.length ? weight(k, policy) : null];
    values.forEach((value, at) => row.append(cell(digits(value, 3), columns[at + 3].title)));
    return row;
  }
  function heads() {
    const row = $("list").tHead.rows[0];
    row.replaceChildren(...columns.map((column) => {
      const on = sorting.by === column.name;
      const head = node("th", null, { scope: "col", role: "columnheader", "aria-sort": on ? (sorting.down ? "descending" : "ascending") : "none" });
      const button = node("button", column.title + (on ? (sorting.down ? " ▼" : " ▲") : ""), { type: "button", "data-sort": column.name });
      button.addEventListener("click", () => {
        sorting.down = on ? !sorting.down : Boolean(column.down);
        sorting.by = column.name;
        heads();
        filter();
        row.querySelector(`[data-sort=${column.name}]`).focus();
      });
      head.append(button);
      return head;
    }));
  }
  function turn(to, edge) {
    page = Math.max(0, Math.min(pages() - 1, to));
    list();
    const rows = $("list").tBodies[0].rows;
    if (edge && rows.length) focusRow(rows[edge === "last" ? rows.length - 1 : 0]);
  }
  function focusRow(row) {
    for (const one of row.parentNode.rows) one.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
  }
  function moved(event) {
    const row = event.target.closest("tbody tr");
    if (!row) return;
    const steps = {
      ArrowDown: () => (row.nextElementSibling ? focusRow(row.nextElementSibling) : page < pages() - 1 && turn(page + 1, "first")),
      ArrowUp: () => (row.previousElementSibling ? focusRow(row.previousElementSibling) : page > 0 && turn(page - 1, "last")),
      Home: () => focusRow(row.parentNode.rows[0]),
      End: () => focusRow(row.parentNode.rows[row.parentNode.rows.length - 1]),
      PageDown: () => turn(page + 1, "first"),
      PageUp: () => turn(page - 1, "first"),
      Enter: () => choose(Number(row.dataset.k), true),
      " ": () => choose(Number(row.dataset.k), false),
    };
    if (!Object.hasOwn(steps, event.key)) return;
    event.preventDefault();
    steps[event.key]();
  }

  function choose(k, focus) {
    chosen = k;
    for (const row of $("list").tBodies[0].rows) row.setAttribute("aria-selected", Number(row.dataset.k) === k);
    go("items-" + k);
    detail(k);
    mark("scatter");
    mark("calibration");
    if (focus) $("item").focus();
  }
  // From a figure: show the item, and the table at its page, without filters if they hide it.
  function open(k, focus) {
    if (!items || k < 0 || k >= items.id.length) return;
    show("items");
    if (!matches.includes(k)) { $("tools").reset(); syncPolicy(); filter(); }
    page = Math.floor(matches.indexOf(k) / size());
    list();
    choose(k, focus);
  }

  function block(title, text, fallback) {
    const parts = [node("h4", title)];
    if (text === null || text === undefined) parts.push(node("p", fallback, { class: "note" }));
    else {
      parts.push(node("pre", whole(text), { dir: "auto", tabindex: 0 }));
      if (Array.isArray(text)) parts.push(node("p", `The first ${text[0].length} of ${text[1]} characters.`, { class: "note" }));
    }
    return parts;
  }
  function detail(k) {
    $("item-title").textContent = items.id[k] + (items.draw && items.draw[k] ? `, draw ${items.draw[k]}` : "");
    const stored = k < items.texts.length ? items.texts[k] : null;
    const none = `This page stores the texts of ${items.texts.length} of ${items.n_rows} responses, and not this one: look it up in the data set by its prompt id.`;
    const body = [node("p", `Judge score ${digits(items.score[k])}, oracle label ${items.label[k] === null ? "none" : digits(items.label[k])}.`)];
    body.push(numbers(k));
    body.push(...block("Prompt", stored ? stored[0] : null, stored ? "The data have no text of this prompt." : none));
    body.push(...block(`Response of ${payload.base} (logged)`, stored ? stored[1] : null, stored ? "The data have no text of this response." : none));
    payload.policies.forEach((name, p) => {
      items.draws[p][k].forEach(([score, label], j) => {
        const title = `Fresh draw ${j} of ${name}: judge score ${digits(score)}` + (label === null ? "" : `, oracle label ${digits(label)}`);
        const text = stored && j < stored[2][p].length ? stored[2][p][j] : null;
        body.push(...block(title, text, stored && j < stored[2][p].length ? "The data have no text of this response." : none));
      });
    });
    $("item-body").replaceChildren(...body);
    $("item").scrollTop = 0;
  }
  function numbers(k) {
    const box = node("div", null, { class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers of this item" });
    const table = node("table");
    table.append(node("caption", "By policy"));
    const head = node("tr");
    for (const title of ["policy", "log ratio", "weight", "effect on the estimate"]) head.append(node("th", title, { scope: "col" }));
    table.append(node("thead"));
    table.tHead.append(head);
    const body = node("tbody");
    [payload.base, ...payload.policies].forEach((name, at) => {
      const row = node("tr");
      row.append(breakable(node("th", null, { scope: "row" }), name));
      row.append(node("td", at ? digits(items.ratio[at - 1][k]) : MISSING, { class: "number" }));
      row.append(node("td", at ? digits(weight(k, at - 1)) : MISSING, { class: "number" }));
      row.append(node("td", digits(items.move[at][k]), { class: "number" }));
      body.append(row);
    });
    table.append(body);
    box.append(table);
    return box;
  }

  function syncPolicy() {
    for (const select of document.querySelectorAll("select.policy")) select.value = String(policy);
  }
  function start() {
    const nTexts = items.texts.length, listed = items.id.length;
    let counted = listed < items.n_rows
      ? `${listed} of ${items.n_rows} logged responses are listed, half of them the most influential ones, half a random sample. `
      : `All ${items.n_rows} logged responses are listed, the most influential first. `;
    counted += nTexts < listed
      ? `The page stores the texts of ${nTexts} of them, half the most influential ones, half a random sample; of the others it shows the beginning of the prompt. Search looks in prompt ids and stored texts. `
      : "";
    const cut = countCut();
    counted += cut ? `${cut} texts are cut after ${items.cut} characters. ` : "";
    counted += "Influence: share of the sampling variance of the chosen policy's estimate; over all responses it sums to 100 %. Log ratio: log probability under the policy minus that under the base. Weight: importance weight, scaled to mean 1.";
    $("counted").textContent = counted;
    for (const select of document.querySelectorAll("select.policy")) {
      payload.policies.forEach((name, p) => select.append(node("option", name, { value: p })));
      select.addEventListener("change", () => {
        policy = Number(select.value);
        syncPolicy();
        if (views.has("scatter")) draw("scatter");
        filter();
      });
    }
    let waiting;
    $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
    for (const id of ["weight", "from", "to", "labelled", "size"]) $(id).addEventListener("input", filter);
    $("tools").addEventListener("reset", () => setTimeout(() => { syncPolicy(); filter(); }));
    $("tools").addEventListener("submit", (event) => { event.preventDefault(); filter(); });
    $("first").addEventListener("click", () => turn(0));
    $("previous").addEventListener("click", () => turn(page - 1));
    $("next").addEventListener("click", () => turn(page + 1));
    $("last").addEventListener("click", () => turn(pages() - 1));
    $("list").tBodies[0].addEventListener("keydown", moved);
    $("list").tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) { focusRow(row); choose(Number(row.dataset.k), false); }
    });
    heads();
    filter();
  }
  // A text is itself, or [its beginning, its length].
  const isCut = (text) => (Array.isArray(text) ? 1 : 0);
  function countCut() {
    let count = 0;
    for (const [prompt, response, draws] of items.texts) {
      count += isCut(prompt) + isCut(response);
      for (const ofPolicy of draws) for (const text of ofPolicy) count += isCut(text);
    }
    return count;
  }

  function route() {
    const [name, k] = location.hash.slice(1).split("-");
    if (name === "items" && k !== undefined && items) open(Number(k), false);
    else show(tabs.some((tab) => tab.getAttribute("aria-controls") === name) ? name : "overview");
  }
  if (items) start();
  addEventListener("hashchange", route);
  route();
  setTimeout(drawRest, 50);
})();
