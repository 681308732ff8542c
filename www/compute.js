// Starts the computing. The browser's device is kept where the program finds it, so that it can
// tell when the device is lost.
const adapter = self.GPUAdapter?.prototype;
if (adapter) {
  const requestDevice = adapter.requestDevice;
  adapter.requestDevice = async function (...wishes) {
    self.gpuDevice = await requestDevice.apply(this, wishes);
    return self.gpuDevice;
  };
}
// The hashes of the two files, which the build writes here.
const INTEGRITY = {};
const checked = (file) => fetch(file, { integrity: INTEGRITY[file] ?? "" });
(async () => {
  // The browser does not check a worker's script where it runs it, so it is checked before.
  await checked("./worker.js");
  importScripts("./worker.js");
  await wasm_bindgen({ module_or_path: checked("./worker_bg.wasm") });
})().catch((error) => {
  // What the page hears of errors are those that nobody catches.
  setTimeout(() => { throw error; });
});
