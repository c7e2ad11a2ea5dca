// Sends a call from the page of an API to the gateway, with the key of the developer in a header.
"use strict";

const form = document.getElementById("try-form");
const answer = document.getElementById("try-answer");
const value = (id) => document.getElementById(id).value;

function shown(text) {
  const block = document.createElement("pre");
  block.textContent = text;
  block.tabIndex = 0;
  answer.replaceChildren(block);
}

function headersOf(text) {
  const headers = new Headers();
  for (const line of text.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const at = line.indexOf(":");
    if (at < 1) throw new TypeError(`no header: ${line}`);
    headers.append(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  return headers;
}

async function send() {
  const method = value("try-method");
  const { gateway, header, prefix } = document.getElementById("try").dataset;
  const headers = headersOf(value("try-headers"));
  const key = value("try-key").trim();
  if (key) headers.set(header, prefix + key);
  const body = method === "GET" || !value("try-body") ? undefined : value("try-body");
  if (body !== undefined && !headers.has("content-type")) headers.set("content-type", "application/json");
  const path = value("try-path").trim();
  const begin = performance.now();
  const response = await fetch(gateway + (path.startsWith("/") ? path : `/${path}`), {
    method, headers, body, credentials: "omit", referrerPolicy: "no-referrer", redirect: "follow",
  });
  const text = (await response.text()).slice(0, 200000);
  const lines = [...response.headers].map(([name, one]) => `${name}: ${one}`);
  const took = Math.round(performance.now() - begin);
  shown([`HTTP ${response.status} · ${took} ms`, ...lines, "", text].join("\n"));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send().catch((error) => shown(`${error}`));
});
