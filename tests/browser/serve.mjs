// A web server for the built page, on this machine.

import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".jpg": "image/jpeg",
};

/// The size of the parts of a slow answer.
const PART = 16 << 10;

/// Serves a folder. Returns the server, which the caller closes, and its address. Each answer takes
/// `delay` milliseconds at least; all together arrive at `rate` kilobytes per second, if it is not 0.
export async function serve(folder, { delay = 0, rate = 0 } = {}) {
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  // The time until which the line is taken.
  let taken = 0;
  const send = async (response, bytes) => {
    if (delay) await wait(delay);
    if (!rate) return response.end(bytes);
    for (let at = 0; at < bytes.length; at += PART) {
      const part = bytes.subarray(at, at + PART);
      taken = Math.max(taken, performance.now()) + part.length / rate;
      await wait(taken - performance.now());
      response.write(part);
    }
    response.end();
  };
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    const file = join(folder, path === "/" ? "index.html" : path);
    if (!existsSync(file)) return response.writeHead(404).end();
    const bytes = readFileSync(file);
    const kind = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { "Content-Type": kind, "Content-Length": bytes.length });
    send(response, bytes);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, address: `http://127.0.0.1:${server.address().port}/` };
}
