// Caches one version of the page and its weights for use without a network. The build fills in the
// version, which is a hash of all files, and the files with their hashes.
const VERSION = "";
const FILES = [];

const folder = self.registration.scope;
const name = `diffit ${folder} ${VERSION}`;

// A worker has the policy of its own script's answer, not that of the page. Hosts that read `_headers`
// send it; for others it is added here.
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";

// Loads a file. If it has another hash, it is of another version: the browser may have kept it from
// there, and otherwise nothing is cached.
async function load(path, integrity) {
  const answer = await fetch(path, { integrity }).catch(() => fetch(path, { integrity, cache: "reload" }));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  // Browsers refuse to open a page from an answer that was redirected.
  return answer.redirected ? copy(answer) : answer;
}

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(name);
    // The page has two addresses, and is loaded once: by the one that hosts do not redirect.
    const page = FILES.find(([path]) => path === "./");
    const put = async ([path, integrity]) => {
      if (path === "index.html" && page) return;
      const answer = await load(path, integrity);
      if (path === "./") await cache.put("index.html", answer.clone());
      await cache.put(path, answer);
    };
    await Promise.all(FILES.map(put));
  };
  event.waitUntil(keep());
});

// The visitor asks for the new version, whose turn would otherwise come once all pages are closed.
self.addEventListener("message", (event) => {
  if (event.data === "activate") self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  const drop = async () => {
    const names = await caches.keys();
    const old = names.filter((other) => other.startsWith(`diffit ${folder} `) && other !== name);
    await Promise.all(old.map((other) => caches.delete(other)));
  };
  event.waitUntil(drop());
});

self.addEventListener("fetch", (event) => {
  const { method, url, destination, cache: mode } = event.request;
  if (method !== "GET" || !url.startsWith(folder)) return;
  const answer = async () => {
    const cache = await caches.open(name);
    // The program found the copy in the cache to be damaged. The browser's own requests have a destination.
    if (mode === "reload" && !destination) await cache.delete(url, { ignoreSearch: true });
    const found = (await cache.match(url, { ignoreSearch: true })) ?? (await fetch(event.request));
    return destination === "worker" ? copy(found, { "Content-Security-Policy": POLICY }) : found;
  };
  event.respondWith(answer());
});

// Returns a copy of an answer, with more headers.
function copy(answer, more = {}) {
  const headers = new Headers(answer.headers);
  for (const [header, value] of Object.entries(more)) headers.set(header, value);
  return new Response(answer.body, { status: answer.status, headers });
}
