// Starts the page. The build writes the addresses of the program into the attributes of this script's
// element, and the hashes of its files into links.
const { js, wasm } = document.querySelector("script[data-js]").dataset;
const address = (file) => new URL(file, document.baseURI);
const integrity = (file) => document.querySelector(`link[href$="${file}"]`)?.integrity ?? "";
try {
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
// With the files that the build has listed, the page works without the network from now on.
if ("offline" in document.documentElement.dataset) {
  navigator.serviceWorker?.register("./sw.js").catch(() => {});
}
