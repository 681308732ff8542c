// Starts a worker. There are two programs: one for graphics processors, and one for processors, which
// is much smaller and also trains. The page asks for the second one by the worker's name; without a
// graphics processor it is used in any case. The WebGPU device is recorded in a global variable, so that the worker can find
// out when it is lost.
const adapter = self.GPUAdapter?.prototype;
if (adapter) {
  const requestDevice = adapter.requestDevice;
  adapter.requestDevice = async function (...wishes) {
    self.gpuDevice = await requestDevice.apply(this, wishes);
    return self.gpuDevice;
  };
}
// What the graphics processor is given to do; the page shows it for an evaluation.
self.gpuWork = [0, 0, 0, 0];
const sleepy = navigator.userAgent.includes("Firefox/");
const counted = [
  ["GPUComputePassEncoder", "dispatchWorkgroups"],
  ["GPUQueue", "writeBuffer"],
  ["GPUBuffer", "mapAsync"],
  ["GPUQueue", "submit"],
];
counted.forEach(([type, name], i) => {
  const prototype = self[type]?.prototype;
  const method = prototype?.[name];
  if (!method) return;
  prototype[name] = function (...args) {
    self.gpuWork[i] += 1;
    const result = method.apply(this, args);
    if (name === "mapAsync" && sleepy) keepAwake(result);
    return result;
  };
});
const queue = self.GPUQueue?.prototype;
if (queue && sleepy) {
  const { onSubmittedWorkDone } = queue;
  queue.onSubmittedWorkDone = function () {
    const result = onSubmittedWorkDone.call(this);
    keepAwake(result);
    return result;
  };
}

// Firefox looks for finished work every 100 ms, and when it is given some: so it is given none, often.
// https://bugzilla.mozilla.org/show_bug.cgi?id=1870699
async function keepAwake(reading) {
  let waiting = true;
  const done = () => { waiting = false; };
  reading.then(done, done);
  while (waiting) {
    self.gpuDevice?.queue.submit([]);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
// The hashes of the files and the sizes of the programs, filled in by the build.
const INTEGRITY = {};
const SIZES = {};
const checked = (file) => fetch(file, { integrity: INTEGRITY[file] ?? "" });

// Tells the page about the progress. The page gives up a worker that is silent for long.
const tell = (loaded, total) => {
  self.postMessage([JSON.stringify({ event: { Program: { loaded, total } } })]);
};

// Loads the program, reports the progress to the page, and checks the hash. With `integrity`, the
// browser would hand out nothing before the whole file is there, so there would be no progress.
async function program(file) {
  const hash = INTEGRITY[file];
  const total = SIZES[file] ?? 1;
  if (!hash || !self.crypto?.subtle) {
    // Without TLS there is no way to compute a hash here.
    const waiting = setInterval(tell, 10000, 0, total);
    return checked(file).finally(() => clearInterval(waiting));
  }
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: ${response.status}`);
  const bytes = new Uint8Array(total);
  const reader = response.body.getReader();
  for (let loaded = 0, shown = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    // A file that is too long throws here.
    bytes.set(value, loaded);
    loaded += value.length;
    if (loaded >= shown + total / 100 || loaded === total) {
      shown = loaded;
      tell(loaded, total);
    }
  }
  const found = new Uint8Array(await crypto.subtle.digest("SHA-384", bytes));
  if (`sha384-${btoa(String.fromCharCode(...found))}` !== hash) throw new Error(`${file}: wrong hash`);
  return bytes;
}

// What the program will ask for first, the list of models and the model, is downloaded while the program
// itself still is: behind `#model=`, this script's address names the model, or nothing for the first one.
// The program takes each answer once.
const ahead = new Map();
self.takeAhead = (url) => {
  const answer = ahead.get(url);
  ahead.delete(url);
  return answer;
};

// Starts a download that does not wait for somebody to read it.
function fetchAhead(name) {
  const { href } = new URL(`weights/${name}`, self.location);
  const answer = fetch(href).then((answer) => {
    if (!answer.ok || !answer.body) return answer;
    const reader = answer.body.getReader();
    const pump = async (controller) => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        controller.enqueue(value);
      }
    };
    const body = new ReadableStream({
      start(controller) {
        pump(controller).catch((error) => controller.error(error));
      },
    });
    return new Response(body, { status: answer.status, headers: answer.headers });
  });
  ahead.set(href, answer);
  return answer;
}

async function fetchModelAhead(wanted) {
  const { models } = await (await fetchAhead("manifest.json")).clone().json();
  const { file } = models.find(({ file }) => file === wanted) ?? models[0];
  if (/^[\w-][\w.-]*$/.test(file)) await fetchAhead(file);
}

// Returns whether the browser has a graphics processor to offer.
const hasAdapter = async () => {
  try {
    return (await navigator.gpu?.requestAdapter()) != null;
  } catch {
    return false;
  }
};

(async () => {
  const name = self.name !== "cpu" && (await hasAdapter()) ? "worker" : "cpu";
  // importScripts has no integrity check, so the script is fetched and checked first.
  await checked(`./${name}.js`);
  importScripts(`./${name}.js`);
  // Not before: nothing that arrives is read until the script is there. The program reports what goes
  // wrong when it takes the answer.
  const wanted = /^#model=([\w.-]*)$/.exec(self.location.hash)?.[1];
  if (wanted !== undefined) fetchModelAhead(wanted).catch(() => {});
  const worker = await wasm_bindgen({ module_or_path: program(`./${name}_bg.wasm`) });
  // Constructors of the program, once; web/build.rs says why it is done here.
  worker.__wasm_call_ctors();
})().catch((error) => {
  // The page is notified of uncaught errors only.
  setTimeout(() => { throw error; });
});
