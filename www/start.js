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
const { js, wasm } = document.querySelector("script[data-js]").dataset;
const address = (file) => new URL(file, document.baseURI);
const integrity = (file) => document.querySelector(`link[href$="${file}"]`)?.integrity ?? "";
try {
  await painted;
  const { default: init } = await import(address(js));
  const module = fetch(address(wasm), { integrity: integrity(wasm) });
  await init({ module_or_path: module });
} catch (error) {
  // The recording stays.
  const place = document.getElementById("loading") ?? document.getElementById("app");
  place.setAttribute("role", "alert");
  place.textContent =
    "This page could not be started. It needs a browser with WebAssembly SIMD, such as a current " +
    "Chrome, Edge, Firefox or Safari. If you use one of these, reload the page.";
  throw error;
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
  keeper.register("./sw.js").then(watch).catch(() => {});
}
