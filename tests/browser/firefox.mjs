// The main path of the built page in Firefox, which computes on the processor: the picture of a seed is
// that of the command line, and the other views work. `cargo xtask firefox` runs it.
//
//     apt-get install firefox-esr
//     npm install --prefix target/bench puppeteer-core pngjs

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { serve } from "./serve.mjs";

const ROOT = resolve(import.meta.dirname, "../..");
const { values: args } = parseArgs({
  options: {
    dist: { type: "string", default: join(ROOT, "dist") },
    tools: { type: "string", default: join(ROOT, "target/bench") },
    trainer: { type: "string", default: join(ROOT, "target/debug/trainer") },
    firefox: { type: "string", default: "/usr/bin/firefox-esr" },
  },
});
const need = (path, how) => assert(existsSync(path), `${path} is missing: ${how}`);
need(join(args.dist, "index.html"), "cargo xtask site");
need(args.trainer, "cargo build --workspace");
need(args.firefox, "apt-get install firefox-esr");
const modules = join(resolve(args.tools), "node_modules/");
need(join(modules, "puppeteer-core"), "npm install --prefix target/bench puppeteer-core pngjs");
const load = createRequire(modules);
const { default: puppeteer } = load("puppeteer-core");
const { PNG } = load("pngjs");

const { server, address } = await serve(args.dist);

const SETTINGS = { seed: 9, steps: 4, sampler: "euler" };
const folder = mkdtempSync(join(tmpdir(), "firefox-"));
const output = join(folder, "native.png");
const { seed, steps, sampler } = SETTINGS;
execFileSync(args.trainer, [
  "sample", "--weights", join(ROOT, "www/weights/tiny-emoji.safetensors"), "--output", output,
  "--seeds", String(seed), "--steps", String(steps), "--sampler", sampler,
]);
const native = PNG.sync.read(readFileSync(output));

const browser = await puppeteer.launch({ browser: "firefox", executablePath: args.firefox, headless: true });
try {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  const LIMIT = { timeout: 300_000 };
  const wait = (test, ...values) => page.waitForFunction(test, LIMIT, ...values);
  const text = (id) => page.evaluate((id) => document.querySelector(`[data-testid=${id}]`).textContent, id);
  const says = (id, words) =>
    wait((id, words) => document.querySelector(`[data-testid=${id}]`)?.textContent.includes(words), id, words);

  await page.goto(`${address}#seed=${seed}&steps=${steps}&sampler=${sampler}`);
  await wait(() => document.querySelector("[data-testid=canvas]") && document.querySelector("main").dataset.state === "ready");
  await says("level", "After");
  const made = await page.evaluate(() => {
    const canvas = document.querySelector("[data-testid=canvas]");
    const { width, height } = canvas;
    return { width, height, data: [...canvas.getContext("2d").getImageData(0, 0, width, height).data] };
  });
  assert.deepEqual([made.width, made.height], [native.width, native.height]);
  const most = made.data.reduce((most, value, i) => Math.max(most, Math.abs(value - native.data[i])), 0);
  assert(most <= 1, `the picture is ${most} levels off that of the command line`);

  await page.click("[data-testid=view-attend]");
  await wait(() => document.querySelector("[data-testid=heat]")?.ariaLabel.includes("entropy"));
  await page.click("[data-testid=open-survey]");
  await says("survey-said", "Most in block");
  await page.click("[data-testid=view-playground]");
  await says("verdict", "times closer");
  await page.click("[data-testid=view-about]");
  assert.match(await text("device"), /processor/);
  assert.match(await text("check"), /passed/);
  assert.deepEqual(errors, []);
  console.log(`${await browser.version()}: the picture is at most ${most} level off; all views work`);
} finally {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true });
}
