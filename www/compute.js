// Starts the worker. The WebGPU device is recorded in a global variable, so that the worker can find
// out when it is lost.
const adapter = self.GPUAdapter?.prototype;
if (adapter) {
  const requestDevice = adapter.requestDevice;
  adapter.requestDevice = async function (...wishes) {
    self.gpuDevice = await requestDevice.apply(this, wishes);
    return self.gpuDevice;
  };
}
// The hashes of the two files, filled in by the build.
const INTEGRITY = {};
const checked = (file) => fetch(file, { integrity: INTEGRITY[file] ?? "" });
(async () => {
  // importScripts has no integrity check, so the script is fetched and checked first.
  await checked("./worker.js");
  importScripts("./worker.js");
  const worker = await wasm_bindgen({ module_or_path: checked("./worker_bg.wasm") });
  // Constructors of the program, once; web/build.rs says why it is done here.
  worker.__wasm_call_ctors();
})().catch((error) => {
  // The page is notified of uncaught errors only.
  setTimeout(() => { throw error; });
});
