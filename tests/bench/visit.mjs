// How long a first visit to the built page takes from the navigation to the model, to the first step of
// its pictures, and to the finished pictures, on the processor, each time in a new browser.
//
//     cargo xtask site
//     npm install --prefix target/bench playwright-core
//     node tests/bench/visit.mjs [--runs 5] [--delay 0] [--rate 0]
//
// `--delay` is the time in milliseconds that each answer of the network takes at least, `--rate` the rate
// of the network in kilobytes per second, if any.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { serve } from "../browser/serve.mjs";

const ROOT = resolve(import.meta.dirname, "../..");
const { values: args } = parseArgs({
  options: {
    dist: { type: "string", default: join(ROOT, "dist") },
    tools: { type: "string", default: join(ROOT, "target/bench") },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    runs: { type: "string", default: "5" },
    delay: { type: "string", default: "0" },
    rate: { type: "string", default: "0" },
  },
});
const { chromium } = createRequire(join(resolve(args.tools), "node_modules/"))("playwright-core");
const [delay, rate] = [Number(args.delay), Number(args.rate)];
const { server, address } = await serve(args.dist, { delay, rate });

function record() {
  window.times = {};
  const look = () => {
    const state = document.querySelector("main")?.dataset.state;
    const status = document.querySelector("[data-testid=status]")?.textContent ?? "";
    const reach = (name) => { window.times[name] ??= Math.round(performance.now()); };
    if (["ready", "generating"].includes(state)) reach("model");
    if (/^Evaluation/.test(status)) reach("first_step");
    if (/^Done/.test(status)) reach("pictures");
  };
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document, all);
}

const runs = [];
for (let run = 0; run < Number(args.runs); run++) {
  const browser = await chromium.launch({
    executablePath: args.chromium,
    args: ["--no-sandbox", "--disable-gpu"],
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.addInitScript(record);
  await page.goto(`${address}?backend=cpu`);
  await page.waitForFunction(() => window.times.pictures, null, { timeout: 300_000 });
  runs.push(await page.evaluate(() => window.times));
  await browser.close();
}
server.close();
const median = (name) => {
  const values = runs.map((run) => run[name]).sort((a, b) => a - b);
  return values[Math.floor(values.length / 2)];
};
const names = ["model", "first_step", "pictures"];
console.log(JSON.stringify({
  delay,
  rate,
  median_ms: Object.fromEntries(names.map((name) => [name, median(name)])),
  runs_ms: runs,
}));
