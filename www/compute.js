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
importScripts("./worker.js");
wasm_bindgen({ module_or_path: "./worker_bg.wasm" }).catch((error) => {
  // What the page hears of errors are those that nobody catches.
  setTimeout(() => { throw error; });
});
