// Speed in the browser: ours against ONNX Runtime Web, on the same network, in the same Chromium, in
// the same run, by turns, each in a worker of its own, with one thread.
//
// Takes the built page from dist/, exports its first model with onnx_export.py (which names what it
// needs), and lets both sample with Euler from the same noise. Ours is driven by the messages that
// the page would send. Every denoised picture of one is held against that of the other.
//
//     cargo build --workspace && cargo xtask site
//     npm install --prefix target/bench onnxruntime-web playwright-core
//     node tests/bench/browser.mjs [--webgpu] [--profile FILE]
//
// --webgpu measures the two WebGPU backends too, on the program that plays a graphics processor
// (SwiftShader), where an evaluation takes seconds. --profile writes Chromium's profile of our worker,
// to be opened in its developer tools, and prints the functions where the time goes; for their names,
// give it a page built by `trunk build --release --dist FOLDER`, which is not stripped.

import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const ROOT = resolve(import.meta.dirname, "../..");
const { values: args } = parseArgs({
  options: {
    dist: { type: "string", default: join(ROOT, "dist") },
    tools: { type: "string", default: join(ROOT, "target/bench") },
    trainer: { type: "string", default: join(ROOT, "target/debug/trainer") },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    evaluations: { type: "string", default: "20" },
    rounds: { type: "string", default: "5" },
    webgpu: { type: "boolean", default: false },
    "webgpu-evaluations": { type: "string", default: "3" },
    profile: { type: "string" },
  },
});
/// The most by which the two may differ in a value of a picture.
const TOLERANCE = 1e-3;
const SEED = 0;

// What runs in the two workers.

/// Ours: the page's own worker, whose start script has a name of its own in each version.
const SCRIPT = readFileSync(join(args.dist, "index.html"), "utf8").match(/data-compute="([^"]+)"/)[1];
const OURS = `importScripts(${JSON.stringify(SCRIPT)});`;

/// ONNX Runtime's.
const THEIRS = `
let session;
const open = async (provider) => {
  importScripts(provider === "wasm" ? "../ort/ort.wasm.min.js" : "../ort/ort.webgpu.min.js");
  ort.env.wasm.wasmPaths = new URL("../ort/", location).href;
  ort.env.wasm.numThreads = 1;
  const graph = new Uint8Array(await (await fetch("./denoiser.onnx")).arrayBuffer());
  session = await ort.InferenceSession.create(graph, { executionProviders: [provider] });
  return ort.env.versions.web;
};
const sample = async ({ noise, shape, sigmas }) => {
  const x = noise.map((value) => value * sigmas[0]);
  const made = [];
  for (const [i, sigma] of sigmas.entries()) {
    const before = performance.now();
    const feeds = {
      x: new ort.Tensor("float32", x, shape),
      sigma: new ort.Tensor("float32", [sigma], [1]),
    };
    const denoised = await (await session.run(feeds)).denoised.getData();
    made.push({ milliseconds: performance.now() - before, denoised: denoised.slice() });
    const step = (sigmas[i + 1] ?? 0) - sigma;
    denoised.forEach((value, j) => { x[j] += step * (x[j] - value) / sigma; });
  }
  return made;
};
onmessage = async ({ data }) => {
  try {
    postMessage({ done: await (typeof data === "string" ? open(data) : sample(data)) });
  } catch (error) {
    postMessage({ failed: String(error?.stack ?? error) });
  }
};
`;

/// The page around both: starts workers and asks them.
const PAGE = `<!doctype html><title>Speed</title><link rel="icon" href="data:,"><script>
const failed = (error) => new Error(error.message ?? "a worker did not start");
const startOurs = (backend) => new Promise((done, fail) => {
  const worker = self.ours = new Worker("./page/ours.js");
  worker.onerror = (error) => fail(failed(error));
  worker.onmessage = ({ data: [text] }) => {
    const event = JSON.parse(text);
    if (event === "Hello") {
      const base = new URL("./page/", location).href;
      const start = { base, model: null, wish: backend, plain: true, fault: null, memory: null };
      worker.postMessage([JSON.stringify({ Start: start })]);
    }
    if (event.Failed) fail(new Error(event.Failed.message));
    if (event.Ready) done({ ...event.Ready, card: undefined });
  };
});
const askOurs = (steps, seed) => new Promise((done, fail) => {
  const made = [];
  ours.onerror = (error) => fail(failed(error));
  ours.onmessage = ({ data: [text, bytes] }) => {
    const event = JSON.parse(text);
    if (event.Failed ?? event.TooMuch) fail(new Error(text));
    if (event.Evaluated) made.push({ ...event.Evaluated, bytes: Array.from(bytes) });
    if (event.Done) done(made);
  };
  const settings = { steps, method: "euler" };
  const order = { noises: [{ Seed: seed }], settings, guide: null };
  ours.postMessage([JSON.stringify({ Generate: { run: 1, order } })]);
});
const askTheirs = (message) => new Promise((done, fail) => {
  theirs.onerror = (error) => fail(failed(error));
  theirs.onmessage = ({ data }) => data.failed ? fail(new Error(data.failed)) : done(data.done);
  theirs.postMessage(message);
});
const startTheirs = (provider) => {
  self.theirs = new Worker("./bench/theirs.js");
  return askTheirs(provider);
};
const sampleTheirs = async (shape, sigmas) => {
  const noise = new Float32Array(await (await fetch("./bench/noise.f32")).arrayBuffer());
  const made = await askTheirs({ noise, shape, sigmas });
  return made.map((one) => ({ ...one, denoised: Array.from(one.denoised) }));
};
</script>`;

const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };

/// Serves the built page, ONNX Runtime, and what is above; returns the address.
const serve = () => new Promise((done) => {
  const texts = { "/": PAGE, "/page/ours.js": OURS, "/bench/theirs.js": THEIRS };
  const folders = {
    page: args.dist,
    ort: join(args.tools, "node_modules/onnxruntime-web/dist"),
    bench: args.tools,
  };
  const server = createServer((request, response) => {
    const path = request.url.split("?")[0];
    const [, place, ...rest] = path.split("/");
    const file = join(folders[place] ?? "", ...rest);
    const type = path === "/" ? "text/html" : TYPES[extname(path)] ?? "application/octet-stream";
    if (texts[path]) {
      response.writeHead(200, { "content-type": type }).end(texts[path]);
    } else if (folders[place] && !rest.includes("..") && existsSync(file)) {
      createReadStream(file).pipe(response.writeHead(200, { "content-type": type }));
    } else {
      response.writeHead(404).end();
    }
  });
  server.listen(0, "127.0.0.1", () => done(`http://127.0.0.1:${server.address().port}/`));
});

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

/// By how much values [C, H, W] miss those that the bytes [H, W, C] can stand for. A byte is
/// `value * 127.5 + 128` without its fraction, clipped: what lies between two bytes is not seen, but
/// among thousands of values some lie at a border.
const missed = (values, bytes) => {
  const [channels, pixels] = [3, bytes.length / 3];
  let most = 0;
  bytes.forEach((byte, i) => {
    const value = values[i % channels * pixels + Math.floor(i / channels)] * 127.5 + 128;
    const below = byte === 0 ? 0 : byte - value;
    const above = byte === 255 ? 0 : value - (byte + 1);
    most = Math.max(most, below / 127.5, above / 127.5);
  });
  return most;
};

/// Measures a pair, by turns: `count` evaluations in each of `rounds`, the first of each left out.
const measure = async (page, backend, provider, rounds, count) => {
  const ready = await page.evaluate((backend) => startOurs(backend), backend);
  if (ready.backend !== backend) throw new Error(`ours computes with ${ready.backend}`);
  const version = await page.evaluate((provider) => startTheirs(provider), provider);
  const [width, height] = ready.size;
  const times = { ours: [], theirs: [] };
  let most = 0;
  // The first round warms up: both programs are compiled again, better, while they run.
  for (let round = 0; round <= rounds; round++) {
    const ours = await page.evaluate(([steps, seed]) => askOurs(steps, seed), [count + 1, SEED]);
    const sigmas = ours.map(({ sigma }) => sigma);
    const theirs = await page.evaluate(([shape, sigmas]) => sampleTheirs(shape, sigmas),
      [[1, 3, height, width], sigmas]);
    for (const [i, { milliseconds, bytes }] of ours.entries()) {
      most = Math.max(most, missed(theirs[i].denoised, bytes.slice(bytes.length / 2)));
      if (!(most <= TOLERANCE)) {
        throw new Error(`the pictures differ by ${most} at noise level ${sigmas[i]}`);
      }
      if (round > 0 && i > 0) {
        times.ours.push(milliseconds);
        times.theirs.push(theirs[i].milliseconds);
      }
    }
  }
  await page.evaluate(() => { ours.terminate(); theirs.terminate(); });
  const [ours, theirs] = [times.ours, times.theirs].map(median);
  const row = (name, value) => console.log(`  ${name.padEnd(50)}${value}`);
  const ms = (time) => `${time.toFixed(1)} ms`;
  console.log(`\n${backend}: median of ${times.ours.length} evaluations of one picture`);
  row("ours, as the page reports it", ms(ours));
  row(`ONNX Runtime Web ${version}, ${provider}`, ms(theirs));
  row("ours is so many times as fast", (theirs / ours).toFixed(2));
  row("largest difference seen in the pictures", most.toExponential(1));
};

/// Chromium's profile of our worker.
const profile = async (page, count, file) => {
  const session = await page.context().newCDPSession(page);
  const answers = new Map();
  let worker, last = 0;
  session.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => {
    if (targetInfo.url.endsWith("/ours.js")) worker = sessionId;
  });
  session.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, result, error } = JSON.parse(message);
    const { done, fail } = answers.get(id) ?? {};
    if (error) fail?.(new Error(error.message)); else done?.(result);
  });
  await session.send("Target.setAutoAttach",
    { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  await page.evaluate(() => startOurs("cpu"));
  const ask = (method, params = {}) => new Promise((done, fail) => {
    answers.set(++last, { done, fail });
    const message = JSON.stringify({ id: last, method, params });
    session.send("Target.sendMessageToTarget", { sessionId: worker, message }).catch(fail);
  });
  await page.evaluate(([steps, seed]) => askOurs(steps, seed), [count + 1, SEED]);
  await ask("Profiler.enable");
  await ask("Profiler.setSamplingInterval", { interval: 200 });
  await ask("Profiler.start");
  await page.evaluate(([steps, seed]) => askOurs(steps, seed), [count, SEED]);
  const { profile: found } = await ask("Profiler.stop");
  writeFileSync(file, JSON.stringify(found));
  const self = new Map(), names = new Map();
  for (const { id, callFrame } of found.nodes) names.set(id, callFrame.functionName || "(no name)");
  found.samples.forEach((id, i) => {
    self.set(names.get(id), (self.get(names.get(id)) ?? 0) + found.timeDeltas[i] / 1000);
  });
  console.log(`\nself time of our worker for an evaluation (mean of ${count}), in ms; ${file}`);
  for (const [name, time] of [...self].sort((a, b) => b[1] - a[1]).slice(0, 40)) {
    console.log(`${(time / count).toFixed(2).padStart(8)}  ${name.slice(0, 150)}`);
  }
};

const { models } = JSON.parse(readFileSync(join(args.dist, "weights/manifest.json")));
const weights = join(args.dist, "weights", models[0].file);
const exporting = [join(import.meta.dirname, "onnx_export.py"), "--weights", weights];
exporting.push("--trainer", args.trainer, "--out", args.tools, "--seed", String(SEED));
process.stdout.write(execFileSync("python3", exporting, { stdio: ["ignore", "pipe", "inherit"] }));

const { chromium } = createRequire(join(resolve(args.tools), "node_modules/"))("playwright-core");
const flags = ["--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"];
if (args.webgpu) flags.push("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader");
const browser = await chromium.launch({ executablePath: args.chromium, args: flags });
try {
  const page = await browser.newPage();
  page.on("console", (message) => console.error(`${message.type()}: ${message.text()}`));
  page.setDefaultTimeout(0);
  await page.goto(await serve());
  const cpu = readFileSync("/proc/cpuinfo", "utf8");
  const name = cpu.match(/model name\s*: (.*)/)?.[1] ?? "a processor without a name";
  const wide = ["avx2", "avx512f", "amx_tile"].filter((flag) => cpu.includes(` ${flag}`));
  console.log(`${name} (${wide.join(", ")}); Chromium ${browser.version()}; ${models[0].file}`);
  if (args.profile) {
    await profile(page, Number(args.evaluations), args.profile);
  } else {
    const [rounds, count] = [Number(args.rounds), Number(args.evaluations)];
    await measure(page, "cpu", "wasm", rounds, count);
    if (args.webgpu) {
      await measure(page, "webgpu", "webgpu", 1, Number(args["webgpu-evaluations"]));
    }
  }
} finally {
  await browser.close();
}
process.exit();
