"use strict";

// ---- votes without a page: records in, records out ----------------------------------------------------------------------

const COLUMNS = ["item_id", "batch", "annotator_id", "score", "skipped", "comment", "submitted_at", "duration_s"];
const FORMULA = /^'*(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

/** The vote on an item as far as it is there. */
function voteOf(state, id) {
  return state.votes[id] || { score: null, skipped: false, comment: "", submitted_at: "", seconds: 0 };
}

/** The state with some fields of the vote on an item changed. */
function withVote(state, id, changes) {
  return { ...state, votes: { ...state.votes, [id]: { ...voteOf(state, id), ...changes } } };
}

function isDone(state, id) {
  const vote = voteOf(state, id);
  return vote.skipped || vote.score !== null;
}

/** The place of the first open task from a place on, then from the start; the number of tasks where none is open. */
function nextOpen(state, tasks, from) {
  const open = (place) => !isDone(state, tasks[place].item_id);
  const places = [...tasks.keys()];
  return [...places.slice(from), ...places.slice(0, from)].find(open) ?? tasks.length;
}

function counts(state, tasks) {
  const votes = tasks.map((task) => voteOf(state, task.item_id));
  const skipped = votes.filter((vote) => vote.skipped).length;
  const voted = votes.filter((vote) => !vote.skipped && vote.score !== null).length;
  return { voted, skipped, open: tasks.length - voted - skipped };
}

/** A cell of CSV that a spreadsheet does not run. */
function cell(value) {
  const text = String(value);
  const inert = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

/** The votes as CSV: one row a task that is done. */
function csv(state, tasks, batch) {
  const rows = tasks.filter((task) => isDone(state, task.item_id)).map((task) => {
    const vote = voteOf(state, task.item_id);
    const score = vote.skipped ? "" : vote.score;
    const end = [vote.comment, vote.submitted_at, Math.round(vote.seconds * 10) / 10];
    return [task.item_id, batch, state.rater, score, vote.skipped ? 1 : "", ...end];
  });
  return [COLUMNS, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

// ---- the page ------------------------------------------------------------------------------------------------------------

function startPage() {
  const byId = (name) => document.getElementById(name);
  const { batch, tasks } = JSON.parse(byId("data").textContent);
  const slider = byId("slider");
  const points = [...document.querySelectorAll("input[name=vote]")];
  let state = null; // {rater, at, votes}; null before a rater has begun
  let since = 0; // when the item came into view; 0 while none is in view

  const storageKey = (rater) => `labelling/${batch}/${rater}`;
  function save() {
    try {
      localStorage.setItem(storageKey(state.rater), JSON.stringify(state));
    } catch {
      byId("warning").hidden = false;
      byId("warning").textContent = "This browser saves nothing here: get your votes before you close the page.";
    }
  }
  function load(rater) {
    const none = { rater, at: 0, votes: {} };
    try {
      return { ...none, ...JSON.parse(localStorage.getItem(storageKey(rater))) };
    } catch {
      return none;
    }
  }

  const current = () => tasks[state.at]?.item_id;
  const inItem = () => state !== null && !byId("item").hidden;
  /** Add the time that the item was in view since the last call. */
  function clock() {
    const now = Date.now();
    if (since && inItem()) {
      state = withVote(state, current(), { seconds: voteOf(state, current()).seconds + (now - since) / 1000 });
    }
    since = document.hidden ? 0 : now;
  }
  function change(changes) {
    clock();
    state = withVote(state, current(), { ...changes, submitted_at: new Date().toISOString() });
    save();
    showVote();
  }

  function showVote() {
    const vote = voteOf(state, current());
    for (const point of points) point.checked = !vote.skipped && Number(point.value) === vote.score;
    if (slider) {
      if (vote.score !== null) slider.value = vote.score;
      byId("shown").textContent = vote.score === null ? "none yet" : String(vote.score);
    }
    byId("next").disabled = !isDone(state, current());
    showProgress();
  }
  function showProgress() {
    const { voted, skipped, open } = counts(state, tasks);
    byId("progress").textContent = `${voted} of ${tasks.length} voted, ${skipped} skipped, ${open} open`;
    byId("bar").value = (voted + skipped) / Math.max(tasks.length, 1);
  }
  function show(name) {
    for (const part of ["start", "item", "end"]) byId(part).hidden = part !== name;
    byId("finish").hidden = name !== "item";
  }
  function showItem(place) {
    if (inItem()) clock();
    state = { ...state, at: place };
    save();
    if (place >= tasks.length) return showEnd();
    show("item");
    byId("prompt").textContent = tasks[place].prompt;
    byId("response").textContent = tasks[place].response || "(an empty response)";
    byId("comment").value = voteOf(state, current()).comment;
    byId("back").disabled = place === 0;
    if (slider) slider.value = (Number(slider.min) + Number(slider.max)) / 2;
    showVote();
    byId("item").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    since = document.hidden ? 0 : Date.now();
  }
  function showEnd() {
    if (inItem()) clock();
    save();
    show("end");
    showProgress();
    const { voted, skipped, open } = counts(state, tasks);
    byId("summary").textContent = `Votes: ${voted}. Skipped: ${skipped}. Open: ${open}.`;
    byId("resume").hidden = open === 0;
    byId("copy").value = csv(state, tasks, batch);
    byId("end").focus();
  }

  const goOn = () => isDone(state, current()) && showItem(nextOpen(state, tasks, state.at + 1));
  const goBack = () => state.at > 0 && showItem(state.at - 1);
  function skip() {
    change({ skipped: true, score: null });
    goOn();
  }
  function download() {
    const url = URL.createObjectURL(new Blob([csv(state, tasks, batch)], { type: "text/csv" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `votes_${batch}_${state.rater.replace(/[^A-Za-z0-9_-]+/g, "_")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  byId("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const rater = byId("rater").value.trim();
    if (!rater) return;
    state = load(rater);
    showItem(nextOpen(state, tasks, Math.min(state.at, tasks.length)));
  });
  for (const point of points) {
    point.addEventListener("change", () => change({ score: Number(point.value), skipped: false }));
  }
  slider?.addEventListener("input", () => change({ score: Number(slider.value), skipped: false }));
  byId("comment").addEventListener("input", () => {
    state = withVote(state, current(), { comment: byId("comment").value });
    save();
  });
  byId("next").addEventListener("click", goOn);
  byId("back").addEventListener("click", goBack);
  byId("skip").addEventListener("click", skip);
  byId("finish").addEventListener("click", showEnd);
  byId("resume").addEventListener("click", () => showItem(nextOpen(state, tasks, 0)));
  byId("download").addEventListener("click", download);
  document.addEventListener("visibilitychange", clock);

  document.addEventListener("keydown", (event) => {
    if (!inItem() || event.ctrlKey || event.metaKey || event.altKey) return;
    const where = event.target.tagName;
    if (event.key === "Escape") return byId("item").focus();
    if (where === "TEXTAREA" || (event.key === "Enter" && ["BUTTON", "SUMMARY"].includes(where))) return;
    const point = points.find((one) => one.dataset.key === event.key);
    const actions = { Enter: goOn, b: goBack, s: skip, c: () => byId("comment").focus() };
    const action = point ? () => change({ score: Number(point.value), skipped: false }) : actions[event.key];
    if (!action || event.repeat) return;
    event.preventDefault();
    action();
  });
}

if (typeof document === "undefined") module.exports = { COLUMNS, counts, csv, isDone, nextOpen, voteOf, withVote };
else startPage();
