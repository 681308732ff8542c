// How soon the built page shows something, and how soon it answers while a picture is computed: the
// times of first and largest contentful paint, and the durations of events from the input to the next
// frame, as for INP, with the processor of the page slowed down. The page computes on the processor, in
// a worker, which is not slowed down. A page with a single word is measured first, in the same way: what
// the browser itself takes.
//
//     cargo xtask site
//     npm install --prefix target/bench playwright-core
//     node tests/bench/interaction.mjs [--slowdown 4]

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { serve } from "../browser/serve.mjs";

const ROOT = resolve(import.meta.dirname, "../..");
const { values: args } = parseArgs({
  options: {
    dist: { type: "string", default: join(ROOT, "dist") },
    tools: { type: "string", default: join(ROOT, "target/bench") },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    slowdown: { type: "string", default: "4" },
  },
});
const { chromium } = createRequire(join(resolve(args.tools), "node_modules/"))("playwright-core");

const { server, address } = await serve(args.dist);

// The first page of a new browser, slowed down, which records its paints and events.
async function open() {
  const browser = await chromium.launch({
    executablePath: args.chromium,
    args: ["--no-sandbox", "--disable-gpu"],
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Emulation.setCPUThrottlingRate", { rate: Number(args.slowdown) });
  await page.addInitScript(record);
  return page;
}

function record() {
  window.events = [];
  window.paints = {};
  new PerformanceObserver((list) => {
    for (const { name, startTime, duration, interactionId, target } of list.getEntries()) {
      if (interactionId) window.events.push({ name, at: startTime, duration, on: target?.id || target?.dataset?.testid || target?.nodeName });
    }
  }).observe({ type: "event", durationThreshold: 16, buffered: true });
  for (const type of ["paint", "largest-contentful-paint"]) {
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.paints[entry.name || type] = Math.round(entry.startTime);
    }).observe({ type, buffered: true });
  }
}

const folder = mkdtempSync(join(tmpdir(), "blank-"));
writeFileSync(join(folder, "index.html"), "<!DOCTYPE html><title>Blank</title><p>Blank</p>");
const blank = await serve(folder);
const empty = await open();
await empty.goto(blank.address);
await empty.waitForFunction(() => window.paints["first-contentful-paint"]);
const blank_ms = await empty.evaluate(() => window.paints["first-contentful-paint"]);
await empty.context().browser().close();
blank.server.close();
rmSync(folder, { recursive: true });

const page = await open();
const state = (word) => page.waitForFunction((word) => document.querySelector("main")?.dataset.state === word, word, { timeout: 300_000 });

await page.goto(`${address}?backend=cpu#seed=1&steps=18`);
await state("ready");
const ready = await page.evaluate(() => performance.now());
const wait = (ms) => page.waitForTimeout(ms);

// While pictures are computed: views, the timeline, a name, the seed.
const interactions = [
  () => page.click("[data-testid=view-attend]"),
  () => page.click("[data-testid=view-play]"),
  () => page.click("[data-testid=view-form]"),
  () => page.focus("[data-testid=scrubber]").then(() => page.keyboard.press("ArrowLeft")),
  () => page.keyboard.press("ArrowLeft"),
  // The list of names covers the button until it is closed.
  async () => {
    await page.focus("#class");
    await page.keyboard.type("otter", { delay: 150 });
    await page.keyboard.press("Escape");
  },
  () => page.focus("#seed").then(() => page.keyboard.type("7")),
];
let computing = 0;
for (const act of interactions) {
  if ((await page.evaluate(() => document.querySelector("main").dataset.state)) === "ready") {
    await page.click("[data-testid=generate]");
    await wait(400);
  }
  computing += (await page.evaluate(() => document.querySelector("main").dataset.state)) === "generating";
  await act();
  await wait(500);
}
const { events, paints } = await page.evaluate(() => ({ events: window.events, paints: window.paints }));
events.sort((a, b) => b.duration - a.duration);
console.log(JSON.stringify({ slowdown: Number(args.slowdown), blank_ms, paints_ms: paints, ready_ms: Math.round(ready), interactions: events.length, while_computing: computing, longest_ms: events[0]?.duration, slowest: events.slice(0, 6) }, null, 2));
await page.context().browser().close();
server.close();
