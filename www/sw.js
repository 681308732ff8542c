// Caches one version of the page and its weights for use without a network. The build fills in the
// version, which is a hash of all files, and the files with their hashes.
const VERSION = "";
const FILES = [];

const folder = self.registration.scope;
const name = `diffit ${folder} ${VERSION}`;

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(name);
    // If a file has another hash, it is of another version, and nothing is cached.
    await cache.addAll(FILES.map(([path, integrity]) => new Request(path, { integrity })));
  };
  event.waitUntil(keep());
});

// Runs once no page of the previous version is open.
self.addEventListener("activate", (event) => {
  const drop = async () => {
    const names = await caches.keys();
    const old = names.filter((other) => other.startsWith(`diffit ${folder} `) && other !== name);
    await Promise.all(old.map((other) => caches.delete(other)));
  };
  event.waitUntil(drop());
});

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method !== "GET" || !url.startsWith(folder)) return;
  const answer = async () => {
    const cache = await caches.open(name);
    return (await cache.match(url, { ignoreSearch: true })) ?? fetch(event.request);
  };
  event.respondWith(answer());
});
