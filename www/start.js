// Starts the page. The build writes the addresses of the program into the attributes of this script's
// element, and the hashes of its files into links.
// Inside another page: `?embed`.
const embedded = new URLSearchParams(location.search).has("embed");
document.documentElement.toggleAttribute("data-embed", embedded);
document.getElementById("whole").addEventListener("click", (event) => {
  const whole = new URL(location.href);
  whole.searchParams.delete("embed");
  event.currentTarget.href = whole;
});
// The program is started once something is on the screen, since to start it takes longer than to show
// the page. Browsers do not paint a page in the background.
const painted = new Promise((resolve) => {
  requestAnimationFrame(() => setTimeout(resolve));
  setTimeout(resolve, 500);
});
// The worker loads its program while the page loads its own. The page takes the worker and what it has
// said until then (`engine/browser.rs`), unless the address asks for something else than the program for
// processors.
function startWorker() {
  const query = new URLSearchParams(location.search);
  const backend = query.getAll("backend").at(-1);
  const other = ["backend", "weights", "vae"].some((name) => query.has(name));
  if (other && backend !== "cpu") return;
  const script = document.documentElement.dataset.compute ?? "./compute.js";
  const model = new URLSearchParams(location.hash.slice(1)).get("model") ?? "";
  const worker = new Worker(`${script}#model=${encodeURIComponent(model)}`, { name: "cpu" });
  const heard = [];
  worker.onmessage = worker.onerror = (event) => {
    event.preventDefault();
    heard.push(event);
  };
  window.firstWorker = { worker, heard };
}
const { js, wasm } = document.querySelector("script[data-js]").dataset;
const address = (file) => new URL(file, document.baseURI);
const integrity = (file) => document.querySelector(`link[href$="${file}"]`)?.integrity ?? "";
try {
  await painted;
  startWorker();
  const { default: init } = await import(address(js));
  const module = fetch(address(wasm), { integrity: integrity(wasm) });
  await init({ module_or_path: module });
} catch (error) {
  window.firstWorker?.worker.terminate();
  // The recording stays.
  const place = document.getElementById("loading") ?? document.getElementById("app");
  place.setAttribute("role", "alert");
  place.textContent =
    "This page could not be started. It needs a browser with WebAssembly SIMD, such as a current " +
    "Chrome, Edge, Firefox or Safari. If you use one of these, reload the page.";
  throw error;
}
// Resolves once the page has a model, or has given up. Files for later are not to delay it.
function modelIsThere() {
  const app = document.getElementById("app");
  const loads = () => ["starting", "loading", "checking"].includes(app.querySelector("main")?.dataset.state);
  return new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      if (loads()) return;
      observer.disconnect();
      resolve();
    });
    observer.observe(app, { subtree: true, attributeFilter: ["data-state"] });
    if (!loads()) resolve();
  });
}
// With the files that the build has listed, the page works without the network from now on. Browsers
// offer that on secure addresses only.
const keeper = navigator.serviceWorker;
if (keeper && "offline" in document.documentElement.dataset) {
  // The first version replaces none.
  const replaces = keeper.controller !== null;
  let asked = false;
  const offer = (take) => {
    const note = document.getElementById("update");
    note.hidden = !replaces;
    note.querySelector("button").onclick = take;
  };
  const found = (next) => offer(() => {
    asked = true;
    next.postMessage("activate");
  });
  keeper.addEventListener("controllerchange", () => {
    // In another tab, the visitor may have work that a reload would end.
    const reload = () => location.reload();
    if (asked) reload();
    else offer(reload);
  });
  const watch = (registration) => {
    if (registration.waiting) found(registration.waiting);
    registration.addEventListener("updatefound", () => {
      const next = registration.installing;
      next.addEventListener("statechange", () => {
        if (next.state === "installed") found(next);
      });
    });
  };
  modelIsThere().then(() => keeper.register("./sw.js")).then(watch).catch(() => {});
}
