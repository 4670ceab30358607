// What the page does beyond showing: dark and light, copying, searching, and trying methods out.
// It talks to nobody but the server that it came from.
"use strict";

const store = {
  get: (area, name) => { try { return area.getItem(name) ?? ""; } catch { return ""; } },
  set: (area, name, value) => { try { value ? area.setItem(name, value) : area.removeItem(name); } catch { /* private */ } },
};

// Before anything is drawn.
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => store.get(localStorage, "theme") || (systemIsDark.matches ? "dark" : "light");
const showTheme = () => { document.documentElement.dataset.theme = theme(); };
showTheme();
systemIsDark.addEventListener("change", showTheme);

addEventListener("DOMContentLoaded", () => {
  correctOrigin();
  themeButton();
  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", () => copy(button, button.parentElement.querySelector("code").textContent));
  });
  search();
  contents();
  token();
  document.querySelectorAll("form.try").forEach(tryOut);
  openTarget();
  addEventListener("hashchange", openTarget);
});

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Behind a proxy the server does not know how it is reached; the browser does.
function correctOrigin() {
  const base = document.body.dataset.base;
  if (!base || base === location.origin) return;
  all(".command code").forEach((code) => { code.textContent = code.textContent.replaceAll(base, location.origin); });
}

function themeButton() {
  document.getElementById("theme").addEventListener("click", () => {
    store.set(localStorage, "theme", theme() === "dark" ? "light" : "dark");
    showTheme();
  });
}

async function copy(button, text) {
  const before = button.dataset.label ??= button.textContent;
  button.textContent = await toClipboard(text) ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = before; }, 1500);
}

// Browsers offer the clipboard only to pages from a secure origin, which plain HTTP to another machine is not.
async function toClipboard(text) {
  if (navigator.clipboard) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not allowed: the old way */ }
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function search() {
  const input = document.getElementById("search");
  const methods = all(".method").map((element) => ({
    element,
    link: document.querySelector(`nav a[href="#${CSS.escape(element.id)}"]`)?.parentElement,
    text: all(".told, summary", element).map((part) => part.textContent).join(" ").toLowerCase(),
  }));
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { element, link, text } of methods) {
      element.hidden = !words.every((word) => text.includes(word));
      if (link) link.hidden = element.hidden;
    }
    for (const service of all("section.service")) {
      service.hidden = words.length > 0 && all(".method", service).every((method) => method.hidden);
    }
    for (const other of all("#start, #conventions")) other.hidden = words.length > 0;
    document.getElementById("nothing").hidden = methods.some(({ element }) => !element.hidden);
  };
  input.addEventListener("input", show);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    input.value = "";
    show();
    input.blur();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, dialog")) return;
    event.preventDefault();
    input.focus();
  });
  show();  // a browser that goes back restores what was typed
}

// The contents: open beside the page, closed above it; and the place that is being read.
function contents() {
  const menu = document.getElementById("menu");
  const isNarrow = matchMedia("(max-width: 56rem)");
  const fit = () => { menu.open = !isNarrow.matches; };
  fit();
  isNarrow.addEventListener("change", fit);
  menu.addEventListener("click", (event) => { if (isNarrow.matches && event.target.closest("a")) menu.open = false; });
  const links = new Map(all("nav a").map((link) => [link.getAttribute("href").slice(1), link]));
  const nav = menu.closest("nav");
  const visible = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) visible[isIntersecting ? "add" : "delete"](target);
    const first = observed.find((element) => visible.has(element));
    if (!first) return;
    for (const link of links.values()) link.classList.remove("here");
    const link = links.get(first.id);
    link.classList.add("here");
    const below = link.getBoundingClientRect().bottom - nav.getBoundingClientRect().bottom;
    const above = nav.getBoundingClientRect().top - link.getBoundingClientRect().top;
    if (below > 0 || above > 0) nav.scrollTop += below > 0 ? below + 80 : -above - 80;
  }, { rootMargin: "-15% 0px -55% 0px" });
  const observed = all("#start, #conventions, .method").filter((element) => links.has(element.id));
  observed.forEach((element) => observer.observe(element));
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target?.matches(".method")) return;
  target.open = true;
  target.scrollIntoView({ behavior: "instant" });
}

const tokenOf = (kind) => store.get(sessionStorage, kind);

function keepToken(kind, value) {
  store.set(sessionStorage, kind, value.trim());
  document.documentElement.classList.toggle("has-token", tokenOf("access") !== "");
}

function token() {
  const dialog = document.getElementById("token-dialog");
  const input = document.getElementById("token");
  keepToken("access", tokenOf("access"));
  document.getElementById("token-button").addEventListener("click", () => {
    input.value = tokenOf("access");
    dialog.showModal();
  });
  input.addEventListener("input", () => keepToken("access", input.value));
  document.getElementById("token-clear").addEventListener("click", (event) => forgetTokens(event.currentTarget.dataset.path));
  document.getElementById("login")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    const told = form.querySelector(".told");
    const body = JSON.stringify(Object.fromEntries(new FormData(form)));
    try {
      const answer = await fetch(form.dataset.path, { method: "POST", headers: { "content-type": "application/json" }, body });
      const found = await answer.json();
      told.textContent = answer.ok ? "Logged in." : found.message;
      if (!answer.ok) return;
      takeTokens(found);
      input.value = found.access_token;
      form.querySelector("[type=password]").value = "";
    } catch (error) {
      told.textContent = error.message;
    }
  });
}

// A login that is tried out is a login.
function takeTokens(found) {
  if (typeof found?.access_token === "string") keepToken("access", found.access_token);
  if (typeof found?.refresh_token === "string") keepToken("refresh", found.refresh_token);
}

// Forgets the tokens, and ends their session where there is a path that does so; an API key or an old token has none.
async function forgetTokens(path) {
  const bearer = tokenOf("refresh") || tokenOf("access");
  ["access", "refresh"].forEach((kind) => keepToken(kind, ""));
  if (path === undefined || bearer === "") return;
  const headers = { authorization: `Bearer ${bearer}`, "content-type": "application/json" };
  await fetch(path, { method: "POST", headers, body: "{}", keepalive: true }).catch(() => undefined);
}

// The request that a form describes.
function requestOf(form) {
  const query = new URLSearchParams();
  const headers = {};
  let path = form.dataset.path;
  for (const input of all("[data-in]", form)) {
    const { in: place, type } = input.dataset;
    if (place === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    if (!input.value) continue;
    if (place === "header") headers[input.name] = input.value;
    if (place !== "query") continue;
    const each = type.startsWith("list of ") ? input.value.split(",").map((value) => value.trim()) : [input.value];
    each.forEach((value) => query.append(input.name, value));
  }
  let body = form.querySelector("[data-in=body]")?.value;
  if (body?.trim()) headers["content-type"] = "application/json";
  const file = form.querySelector("[data-in=raw]")?.files[0];
  if (file) { body = file; headers["content-type"] = file.type || "application/octet-stream"; }
  const bearer = form.dataset.bearer.split(" ").map(tokenOf).find(Boolean);
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  return { url: path + (query.size ? `?${query}` : ""), method: form.dataset.method, headers, body: body || undefined };
}

// A curl command that does the same; the token stays a variable.
function curlOf({ url, method, headers, body }) {
  const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  const parts = ["curl", ...(method === "GET" ? [] : ["-X", method]), quoted(location.origin + url)];
  for (const [name, value] of Object.entries(headers)) {
    if (name === "authorization") parts.push('-H "Authorization: Bearer $TOKEN"');
    else parts.push("-H", quoted(`${name}: ${value}`));
  }
  if (body instanceof File) parts.push("--data-binary", quoted(`@${body.name}`));
  else if (body) parts.push("-d", quoted(body));
  return parts.join(" ");
}

function tryOut(form) {
  const [stop, curl, answer] = [".stop", ".curl", ".answer"].map((selector) => form.querySelector(selector));
  const [status, output] = [answer.querySelector(".status"), answer.querySelector("pre code")];
  let running;
  curl.addEventListener("click", () => copy(curl, curlOf(requestOf(form))));
  stop.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running?.abort();
    const mine = running = new AbortController();
    stop.hidden = false;
    answer.hidden = false;
    status.replaceChildren("Waiting …");
    output.textContent = "";
    const started = performance.now();
    try {
      const { url, ...request } = requestOf(form);
      const response = await fetch(url, { ...request, signal: mine.signal, cache: "no-store" });
      const [code, took, type, id] = ["b", "span", "span", "code"].map((tag) => document.createElement(tag));
      code.className = response.ok ? "good" : "bad";
      code.textContent = `${response.status} ${response.statusText}`.trim();
      took.textContent = `${Math.round(performance.now() - started)} ms`;
      type.textContent = response.headers.get("content-type") ?? "";
      id.textContent = response.headers.get("x-request-id") ?? "";
      id.title = "The request's id in the logs";
      status.replaceChildren(code, took, type, id);
      await show(response, output);
    } catch (error) {
      if (running === mine) status.append(error.name === "AbortError" ? " Stopped." : ` ${error.message}`);
    }
    if (running === mine) stop.hidden = true;
  });
}

// Shows JSON indented, lines as they come, and offers other bytes as a file.
async function show(response, output) {
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("application/json")) {
    const text = await response.text();
    try {
      const found = JSON.parse(text);
      takeTokens(found);
      output.textContent = JSON.stringify(found, null, 2);
    } catch {
      output.textContent = text;
    }
  } else if (/^text\/|ndjson|\+json/.test(type)) {
    const decoder = new TextDecoder();
    for (let reader = response.body.getReader(), piece = await reader.read(); !piece.done; piece = await reader.read()) {
      output.append(decoder.decode(piece.value, { stream: true }));
      output.parentElement.scrollTop = output.parentElement.scrollHeight;
    }
  } else {
    const blob = await response.blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "answer";
    link.textContent = `Save ${blob.size} bytes`;
    output.replaceChildren(link);
  }
}
