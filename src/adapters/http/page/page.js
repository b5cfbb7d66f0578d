"use strict";
// Asks /status.json every two seconds. What it tells are counts since the start of the process; what happened lately is
// the difference between two answers: rates and percentiles are over the answers of the last ten seconds.
(() => {
  const EVERY = 2000; // ms between an answer and the next question
  const PATIENCE = 5000; // ms to wait for an answer
  const WINDOW = 10; // seconds that rates and percentiles are over
  const CHART = 120; // seconds that the chart is over

  const at = (id) => document.getElementById(id);
  const put = (id, text) => { if (at(id).textContent !== text) at(id).textContent = text; };

  // ---- figures ----

  const number = (value) => value === null ? "–" : Math.round(value).toLocaleString("en");
  const rate = (value) => value === null ? "–" : value === 0 ? "0" : value < 10 ? value.toFixed(1) : number(value);
  const seconds = (value) =>
    value === null ? "–"
      : value < 0.001 ? `${(value * 1e6).toFixed(0)} µs`
        : value < 1 ? `${(value * 1e3).toPrecision(3)} ms`
          : value < 120 ? `${value.toPrecision(3)} s`
            : value < 7200 ? `${(value / 60).toFixed(0)} min` : `${(value / 3600).toFixed(1)} h`;
  const age = (value) =>
    value < 120 ? `${value} s`
      : value < 7200 ? `${Math.floor(value / 60)} min`
        : value < 172800 ? `${Math.floor(value / 3600)} h` : `${Math.floor(value / 86400)} d`;
  const bytes = (value) =>
    value < 1024 ? `${value} B` : value < 1048576 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / 1048576).toFixed(1)} MiB`;
  const clock = (text) => text.slice(11, 19);

  const outcome = (state, name) => Object.values(state.events).reduce((sum, table) => sum + (table[name] ?? 0), 0);
  const settled = (state) => ["processed", "duplicate", "skipped", "dead_lettered"].reduce((sum, name) => sum + outcome(state, name), 0);
  const checked = (state) => state.dedup.hits + state.dedup.misses;

  // How much a count grows per second between two answers; null without an earlier one.
  const perSecond = (count, before, now) =>
    before ? Math.max(0, count(now.state) - count(before.state)) * 1000 / (now.time - before.time) : null;

  // The buckets of what happened between two answers, or since the start if nothing did.
  function lately(before, now) {
    if (!before || now.count <= before.count) return { ...now, fresh: false };
    const earlier = new Map(before.buckets);
    const buckets = now.buckets.map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)]);
    return { of: now.of, count: now.count - before.count, buckets, fresh: true };
  }

  // The value that a share of all stays below: linear within its bucket, as histogram_quantile of Prometheus has it.
  function percentile(share, { count, buckets }) {
    if (count === 0) return "–";
    const wanted = share * count;
    let low = 0, below = 0;
    for (const [bound, upTo] of buckets) {
      const high = Number(bound.replace("+Inf", "Infinity"));
      if (upTo >= wanted && high === Infinity) return `> ${seconds(low)}`;
      if (upTo >= wanted) return seconds(low + (high - low) * (upTo === below ? 1 : (wanted - below) / (upTo - below)));
      low = high;
      below = upTo;
    }
    return "–";
  }

  // ---- tables ----

  // Rows of cells, [text, class] each; the first is the row's header. Only what changed is touched, so that focus,
  // selections and screen readers are left alone.
  function rows(body, list, header = true) {
    while (body.rows.length > list.length) body.deleteRow(-1);
    list.forEach((cells, index) => {
      const row = body.rows[index] ?? body.insertRow();
      cells.forEach(([text, style = ""], column) => {
        let cell = row.cells[column];
        if (!cell) {
          cell = document.createElement(column === 0 && header ? "th" : "td");
          if (cell.tagName === "TH") cell.scope = "row";
          row.append(cell);
        }
        if (cell.textContent !== text) cell.textContent = text;
        if (cell.className !== style) cell.className = style;
      });
    });
  }

  function either(list, none) {
    const empty = at(list).rows.length === 0;
    at(none).hidden = !empty;
    at(list).closest(".wide").hidden = empty;
  }

  // ---- the parts of the page ----

  const NAMES = {
    processing: "received to acknowledged", commit_to_publish: "committed to published", "dedup check": "dedup: check",
    "dedup record": "dedup: record", "target publish": "target: publish",
  };
  const TROUBLED = ["source", "target", "dedup", "dead_letter"];

  // What the verdict says, and how it looks.
  function verdict(state) {
    const service = state.reasons.find((reason) => reason.dependency === "service");
    if (!state.alive) return ["not alive", "bad"];
    if (service) return [service.error, "waiting"];
    return state.ready ? ["ready", "good"] : ["not ready", "bad"];
  }

  function told(state) {
    const [text, look] = verdict(state);
    at("verdict").dataset.state = look;
    put("verdict-text", text);
    document.title = `${text} – ${state.service}`;
    put("about", `one replica, version ${state.version}, up for ${age(state.uptime_seconds)}`);
    const lines = state.reasons.map((reason) => `${reason.dependency}: ${reason.error} (since ${clock(reason.since)} UTC)`)
      .concat(state.silent.map((actor) => `actor ${actor.actor} makes no progress for ${actor.seconds} s`));
    const list = at("reasons");
    while (list.children.length > lines.length) list.lastChild.remove();
    lines.forEach((line, index) => {
      const item = list.children[index] ?? list.appendChild(document.createElement("li"));
      if (item.textContent !== line) item.textContent = line;
    });
    list.hidden = lines.length === 0;
    // Read out only when it changes; the figures are for looking at.
    put("announce", `${text}${state.ready ? "" : `: ${state.reasons.map((reason) => reason.dependency).join(", ")}`}`);
  }

  const started = (state) => !state.reasons.some((reason) => reason.error === "starting");

  // How a dependency looks, and what is said of it: during the start only what fails is known.
  const standing = ({ up }, running) => !up ? ["down", "down"] : running ? ["up", "up"] : ["unknown", "not yet known"];

  function stages(state, before, now) {
    const setting = new Map(state.settings.map((one) => [one.key, one.value]));
    const running = started(state);
    for (const name of TROUBLED) {
      const [look, text] = standing(state.dependencies.find((dependency) => dependency.name === name), running);
      stage(name, look, text);
    }
    const paused = state.paused.length > 0;
    stage("flight", paused ? "paused" : running ? "up" : "unknown", paused ? `intake paused: ${state.paused.join(", ")}` : running ? "taking in" : "starting");
    put("source-name", setting.get("source.stream") ?? "");
    put("target-name", setting.get("target.stream") ?? "");
    put("dead_letter-name", setting.get("dead_letter.stream") ?? "");
    put("dedup-name", setting.get("dedup.store") === "memory" ? "in memory" : "Redis");
    put("pending", number(state.source.pending));
    put("lag", seconds(state.source.lag_seconds));
    put("flight-messages", number(state.in_flight.messages));
    put("flight-bytes", bytes(state.in_flight.bytes));
    put("hits", number(state.dedup.hits));
    put("hit-ratio", checked(state) === 0 ? "–" : `${(100 * state.dedup.hits / checked(state)).toFixed(1)} %`);
    put("published", number(outcome(state, "processed")));
    put("publish-errors", number(state.target.publish_errors));
    put("dead", number(outcome(state, "dead_lettered")));
    const flows = { "rate-in": settled, "rate-checked": checked };
    for (const [id, count] of Object.entries(flows)) put(id, rate(perSecond(count, before, now)));
    put("rate-dead", rate(perSecond((one) => outcome(one, "dead_lettered"), before, now)));
    const published = perSecond((one) => outcome(one, "processed"), before, now);
    put("rate-published", rate(published));
    document.body.classList.toggle("moving", published > 0);
  }

  function stage(name, look, text) {
    const element = at(`stage-${name}`);
    element.dataset.state = look;
    const standing = element.querySelector(".standing");
    if (standing.textContent !== text) standing.textContent = text;
  }

  function tables(state, before) {
    const shown = state.latencies.filter((latency) => latency.of in NAMES && latency.count > 0);
    const parts = shown.map((now) => lately(before?.state.latencies.find((one) => one.of === now.of), now));
    rows(at("latencies"), parts.map((part) => [
      [NAMES[part.of] + (part.fresh ? "" : "\u00a0*")],
      ...[0.5, 0.95, 0.99].map((share) => [percentile(share, part), "number"]), [number(part.count), "number"],
    ]));
    either("latencies", "no-latency");
    put("latency-span", `Of the last ${WINDOW} s; those with * since the start`);
    rows(at("events"), Object.entries(state.events).map(([table, ends]) => [
      [table], ...["processed", "duplicate", "skipped", "dead_lettered"].map((end) => [number(ends[end] ?? 0), "number"]),
    ]));
    rows(at("letters"), state.dead_letters.map((one) => [[one.reason], [one.table], [number(one.count), "number"]]));
    either("letters", "no-dead");
    rows(at("dependencies"), state.dependencies.map((one) => {
      const [look, text] = standing(one, started(state));
      return [[one.name], [text, look], [number(one.consecutive_failures), "number"]];
    }));
    rows(at("troubles"), state.troubles.map((one) => [
      [`${clock(one.last)} UTC`], [`${one.what}: ${one.with}`], [one.error], [`${number(one.times)} ×`, "number"],
    ]), false);
    either("troubles", "no-troubles");
    rows(at("settings"), state.settings.map((one) => [
      [one.key], [one.value], [one.origin === "default" ? "default" : `● ${one.origin}`],
    ]));
  }

  function counters(state) {
    const worth = {
      "redelivered": state.source.redelivered, "published late": state.target.late,
      "known to the target": state.target.duplicates, "target lost data": state.target.regressions,
      "dedup calls failed": state.dedup.errors, "dedup bypassed": state.dedup.bypassed,
      "without a record": state.dedup.unrecorded, "actors built again": state.actor_restarts,
      "NATS reconnects": state.nats_reconnects,
    };
    const alarming = ["target lost data", "actors built again"];
    const list = at("counters");
    Object.entries(worth).forEach(([name, count], index) => {
      const entry = list.children[index] ?? list.appendChild(document.createElement("div"));
      const [term, value] = entry.children.length ? entry.children : ["dt", "dd"].map((tag) => entry.appendChild(document.createElement(tag)));
      term.textContent = name;
      value.textContent = number(count);
      value.className = count > 0 && alarming.includes(name) ? "bad" : "";
    });
  }

  function chart(answers) {
    const points = answers.slice(1).map((now, index) => ({
      time: now.time, value: perSecond((one) => outcome(one, "processed"), answers[index], now),
    }));
    const high = Math.max(1, ...points.map((point) => point.value));
    const last = answers[answers.length - 1].time;
    const place = ({ time, value }) => `${(600 - (last - time) * 0.6 / CHART).toFixed(1)},${(57 - 54 * value / high).toFixed(1)}`;
    at("chart").firstElementChild.setAttribute("points", points.map(place).join(" "));
    put("chart-high", points.length ? rate(Math.max(...points.map((point) => point.value))) : "–");
  }

  // ---- asking ----

  let answers = []; // of the last two minutes, the oldest first
  let timer = null;

  function show(state) {
    const now = { time: performance.now(), state };
    // A process that has started anew counts from zero.
    if (answers.length > 0 && answers[0].state.started !== state.started) answers = [];
    answers = answers.filter((one) => now.time - one.time <= CHART * 1000).concat(now);
    const before = answers.find((one) => one !== now && now.time - one.time <= WINDOW * 1000);
    told(state);
    stages(state, before, now);
    tables(state, before);
    counters(state);
    chart(answers);
    at("offline").hidden = true;
    document.body.classList.remove("stale");
  }

  function missing() {
    const last = answers[answers.length - 1];
    document.body.classList.add("stale");
    document.body.classList.remove("moving");
    at("verdict").dataset.state = "bad";
    put("verdict-text", "no answer");
    put("announce", "no answer from the service");
    document.title = "no answer – daisi-cdc-consumer";
    at("offline").hidden = false;
    put("offline", `The service does not answer: it has ended, or this page cannot reach it. ${last ? `What is shown is as of ${clock(last.state.now)} UTC.` : ""}`);
  }

  async function ask() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.json());
    } catch (error) {
      console.warn("no answer", error);
      missing();
    }
    clearTimeout(timer);
    timer = setTimeout(ask, EVERY);
  }

  document.addEventListener("visibilitychange", ask);
  ask();
})();
