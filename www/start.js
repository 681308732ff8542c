// Starts the page. The build writes the addresses into the attributes of this script's element.
const { js, wasm } = document.querySelector("script[data-js]").dataset;
try {
  const { default: init } = await import(new URL(js, document.baseURI));
  await init({ module_or_path: new URL(wasm, document.baseURI) });
} catch (error) {
  const place = document.getElementById("app");
  place.setAttribute("role", "alert");
  place.textContent =
    "This page could not be started. It needs a browser with WebAssembly (SIMD), such as a current " +
    "Chrome, Edge, Firefox or Safari. If yours is one, reload the page.";
  throw error;
}
