// The page of `nextitem playground`. Everything that comes from the server is text: it is only ever set as textContent.
"use strict";

const byId = (id) => document.getElementById(id);
const RETRY_MS = 2000;
const SEARCH_MS = 120;

const state = {
  about: null, // what the page's server says of the catalogue
  model: null, // what Triton's model offers; null while it is away
  session: [], // {item, known, features, after, choices}
  ranks: new Map(), // item -> place in the answer before
  question: 0, // the latest question; answers to earlier ones are dropped
  retry: 0,
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "onchange") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let reply, answer;
  try {
    reply = await fetch(path, options);
    answer = await reply.json();
  } catch {
    throw Object.assign(new Error("the playground has ended: start 'nextitem playground' again"), { away: true });
  }
  if (!reply.ok) throw Object.assign(new Error(answer.error), { away: Boolean(answer.away) });
  return answer;
}

// ---- the parts of an item -------------------------------------------------------------------------------------------

function swatch(entry, label) {
  // One colour a value of the first categorical feature, so that kinds of items are seen at a glance.
  const kind = entry.features[state.about.kind];
  const made = element("span", { class: kind ? "swatch" : "swatch plain", "aria-hidden": "true" }, label);
  if (kind) {
    let hash = 7;
    for (const letter of kind) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
    made.style.setProperty("--hue", String((hash * 137.508) % 360));
  }
  return made;
}

function features(entry) {
  const made = element("span", { class: "features" });
  const told = Object.entries(entry.features).filter(([, value]) => value !== "");
  made.append(...told.map(([name, value]) => element("span", {}, `${name} `, element("b", {}, value))));
  if (!told.length) made.append(entry.known ? "no features" : "not in the catalogue");
  return made;
}

const described = (entry) => Object.entries(entry.features).map(([name, value]) => `${name} ${value}`).join(", ");

// ---- catalogue ------------------------------------------------------------------------------------------------------

function hit(entry) {
  return element("li", {}, element(
    "button",
    { type: "button", class: "item", onclick: () => add(entry), "aria-label": `Add ${entry.item}, ${described(entry)}` },
    swatch(entry, ""),
    element("span", { class: "id" }, entry.item),
    features(entry),
    element("span", { class: "add", "aria-hidden": "true" }, "+"),
  ));
}

let searches = 0;
async function search() {
  const number = ++searches;
  const text = byId("search").value.trim();
  let found;
  try {
    found = await ask(`api/items?limit=60&search=${encodeURIComponent(text)}`);
  } catch (error) {
    return away(error);
  }
  if (number !== searches) return;
  byId("hits").replaceChildren(...found.map(hit));
  byId("hits").scrollTop = 0;
  byId("hits-note").textContent = found.length || !text ? "" : "No item of the catalogue matches.";
  if (text && !found.some((entry) => entry.item === text)) {
    // What no visitor has clicked before is worth a try, too.
    const stranger = { item: text, known: false, features: {} };
    if (!found.length) byId("hits").append(hit(stranger));
  }
}

let typing = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, SEARCH_MS);
});
byId("search").addEventListener("keydown", async (event) => {
  if (event.key === "Enter") {
    clearTimeout(typing);
    await search();
    byId("hits").querySelector("button")?.click();
    byId("search").select();
  } else if (event.key === "ArrowDown") {
    event.preventDefault();
    byId("hits").querySelector("button")?.focus();
  }
});
for (const id of ["hits", "next"]) {
  byId(id).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    const buttons = [...byId(id).querySelectorAll("button")];
    const place = buttons.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (place < 0 && id === "hits") byId("search").focus();
    else buttons[Math.max(0, Math.min(place, buttons.length - 1))]?.focus();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(input|select|textarea)$/i.test(document.activeElement?.tagName ?? "")) return;
  event.preventDefault();
  byId("search").focus();
});

// ---- session --------------------------------------------------------------------------------------------------------

function add(entry) {
  if (state.session.length >= state.about.max_events) return problem(`A session here has at most ${state.about.max_events} events.`);
  const last = state.session.at(-1);
  const now = performance.now() / 1000;
  // Time goes on as it does for the visitor, from one click to the next.
  const after = last ? last.after + Math.max(0.001, now - last.clicked) : 0;
  const choices = Object.fromEntries(Object.entries(state.about.choices).map(([name, values]) => [name, values[0]]));
  state.session.push({ ...entry, after, choices, clicked: now });
  showSession();
  recommend();
}

function remove(place) {
  state.session.splice(place, 1);
  showSession();
  recommend();
  const left = byId("events").querySelectorAll(".remove");
  (left[Math.min(place, left.length - 1)] ?? byId("search")).focus();
}

function choice(event, place, name, values) {
  const select = element("select", {
    "aria-label": `${name} of event ${place + 1}`,
    onchange: () => {
      event.choices[name] = select.value;
      recommend();
    },
  }, ...[...new Set([...values, event.choices[name]])].map((value) => element("option", { value }, value)));
  select.value = event.choices[name];
  return select;
}

function showSession() {
  const columns = Object.entries(state.about.choices);
  byId("events").replaceChildren(...state.session.map((event, place) => element(
    "li", {},
    element(
      "div", { class: "item" },
      swatch(event, String(place + 1)),
      element("span", { class: "id" }, event.item),
      features(event),
      ...(columns.length < 2 ? [] : [element(
        "span", { class: "choices" },
        ...columns.map(([name, values]) => element("label", {}, `${name} `, choice(event, place, name, values))),
      )]),
      element(
        "span", { class: "controls" },
        ...columns.filter(() => columns.length === 1).map(([name, values]) => choice(event, place, name, values)),
        element("button", {
          type: "button", class: "remove", "aria-label": `Remove event ${place + 1}, ${event.item}`,
          onclick: () => remove(place),
        }, "×"),
      ),
    ),
  )));
  byId("events").scrollTop = byId("events").scrollHeight;
  byId("empty").hidden = state.session.length > 0;
  byId("clear").hidden = state.session.length === 0;
}

byId("clear").addEventListener("click", () => {
  state.session = [];
  showSession();
  recommend();
  byId("search").focus();
});
byId("real").addEventListener("click", async () => {
  try {
    const events = await ask("api/session");
    const now = performance.now() / 1000;
    const usual = Object.fromEntries(Object.entries(state.about.choices).map(([name, values]) => [name, values[0]]));
    state.session = events.map((event) => ({ ...event, choices: { ...usual, ...event.choices }, clicked: now }));
  } catch (error) {
    return away(error);
  }
  showSession();
  recommend();
});

// ---- recommendations ------------------------------------------------------------------------------------------------

function move(item, place) {
  if (!state.ranks.size) return ["", "", ""];
  const before = state.ranks.get(item);
  if (before === undefined) return ["new", "new", "new"];
  const steps = before - place;
  if (steps === 0) return ["", "", ""];
  return steps > 0 ? ["up", `▲ ${steps}`, `up ${steps}`] : ["down", `▼ ${-steps}`, `down ${-steps}`];
}

function recommendation(entry, place, best) {
  const [kind, mark, spoken] = move(entry.item, place);
  // Scores are on the scale of logarithms: e to the difference is how much less likely than the first.
  const share = entry.score === null ? 0 : Math.exp(entry.score - best);
  const fill = element("i");
  const seen = state.session.some((event) => event.item === entry.item);
  fill.style.setProperty("--share", `${(share * 100).toFixed(1)}%`);
  const score = entry.score === null ? "–" : entry.score.toFixed(2);
  return element("li", {}, element(
    "button",
    {
      type: "button", class: kind === "new" ? "item arrived" : "item", onclick: () => add(entry), "data-item": entry.item,
      "aria-label": [`${place + 1}: ${entry.item}`, described(entry), `score ${score}`, spoken, seen ? "seen" : "", "add to the session"]
        .filter(Boolean).join(", "),
    },
    swatch(entry, String(place + 1)),
    element("span", { class: seen ? "id seen" : "id" }, entry.item),
    features(entry),
    element("span", { class: `move ${kind}` }, mark),
    element("span", { class: "score" }, score),
    element("span", { class: "bar", title: "How likely beside the first, if scores are logarithms" }, fill),
  ));
}

async function recommend() {
  const number = ++state.question;
  if (!state.session.length) return showNothing();
  const wanted = Number.parseInt(byId("top-k").value, 10);
  if (!state.model || !(wanted >= 1)) return;
  const question = {
    events: state.session.map(({ item, after, choices }) => ({ item, after, choices })),
    top_k: Math.min(wanted, state.model.top_k),
  };
  if (state.model.options.includes("exclude_seen")) question.exclude_seen = byId("exclude-seen").checked;
  let answer;
  try {
    answer = await ask("api/recommend", question);
  } catch (error) {
    if (number === state.question) away(error);
    return;
  }
  if (number !== state.question) return;
  problem("");
  showAnswer(answer);
}

function showNothing() {
  state.ranks = new Map();
  byId("next").replaceChildren();
  byId("waiting").hidden = false;
  byId("details").hidden = true;
  for (const id of ["latency", "unknown", "said"]) byId(id).textContent = "";
  byId("latency").removeAttribute("title");
}

function showAnswer(answer) {
  const focused = [...byId("next").querySelectorAll("button")].indexOf(document.activeElement);
  const best = Math.max(...answer.items.map((entry) => entry.score ?? -Infinity));
  byId("next").replaceChildren(...answer.items.map((entry, place) => recommendation(entry, place, best)));
  byId("next").classList.remove("old");
  // Whoever adds by the keyboard goes on where they were.
  if (focused >= 0) byId("next").querySelectorAll("button")[Math.min(focused, answer.items.length - 1)]?.focus();
  state.ranks = new Map(answer.items.map((entry, place) => [entry.item, place]));
  byId("waiting").hidden = true;
  byId("details").hidden = false;
  const count = state.session.length;
  const events = `${count} event${count === 1 ? "" : "s"}`;
  byId("latency").textContent = `answered in ${answer.took_ms.toFixed(1)} ms`;
  byId("latency").title = "From this machine to Triton and back";
  const unknown = answer.unknown_events;
  byId("unknown").textContent = !unknown ? "" : unknown === count ? "The model knows none of these items." :
    `${unknown} of ${events} ${unknown === 1 ? "shows an item" : "show items"} that the model does not know.`;
  const first = answer.items.length ? `, first ${answer.items[0].item}` : "";
  byId("said").textContent = `${answer.items.length} recommendations for ${events}${first}`;
  byId("sent").textContent = written(answer.sent);
}

function written(sent) {
  // A line a column: the shape in which a request travels.
  const lines = Object.entries(sent.events).map(([name, values]) => `    ${JSON.stringify(name)}: ${JSON.stringify(values)}`);
  const rest = Object.entries(sent).filter(([name]) => name !== "events")
    .map(([name, value]) => `,\n  ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return `{\n  "events": {\n${lines.join(",\n")}\n  }${rest.join("")}\n}`;
}

for (const id of ["top-k", "exclude-seen"]) byId(id).addEventListener("input", recommend);

// ---- the server -----------------------------------------------------------------------------------------------------

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
  byId("next").classList.toggle("old", Boolean(text));
}

function showServer(text, kind) {
  byId("server-text").textContent = text;
  byId("server").className = kind;
}

function away(error) {
  const message = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  problem(error.away ? `${message}. This page goes on by itself once it answers.` : `${message}.`);
  if (!error.away) return;
  state.model = null;
  showServer("Triton is away", "away");
  clearTimeout(state.retry);
  state.retry = setTimeout(connect, RETRY_MS);
}

async function connect() {
  try {
    if (!state.about) {
      state.about = await ask("api/catalogue");
      byId("catalogue-size").textContent = `${state.about.items.toLocaleString("en")} items`;
      byId("real").hidden = state.about.sessions === 0;
      await search();
    }
    state.model = await ask("api/model");
  } catch (error) {
    away(error);
    if (!error.away) state.retry = setTimeout(connect, RETRY_MS);
    return;
  }
  const protocol = { grpc: "gRPC", http: "HTTP" }[state.about.protocol];
  showServer(`Triton at ${state.about.url}, ${protocol}`, "ready");
  byId("top-k").max = String(state.model.top_k);
  if (Number(byId("top-k").value) > state.model.top_k) byId("top-k").value = String(state.model.top_k);
  const strikes = state.model.options.includes("exclude_seen");
  byId("exclude-seen").disabled = !strikes;
  byId("exclude-seen").parentElement.title = strikes ? "" : "The served model cannot: export it again with this version";
  problem("");
  recommend();
}

connect();
