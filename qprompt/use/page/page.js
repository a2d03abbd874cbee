import * as ort from "./ort.wasm.min.mjs";
import { preprocess } from "./pixels.js";

const SHOWN = 10; // classes of each prompt
const GLYPH = 0.75; // of the side, as in the images that the tiny CLIP was trained on

ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

const fetched = async (file) => {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}`);
  return response;
};
const about = await (await fetched("prompts.json")).json();

// The numbers of a NumPy file of float32: 10 bytes and a header come before them.
async function readNpy(file) {
  const buffer = await (await fetched(file)).arrayBuffer();
  return new Float32Array(buffer, 10 + new DataView(buffer).getUint16(8, true));
}

const sessions = {}; // prompts share the towers that they have in common
for (const { tower, classes } of about.prompts) {
  for (const file of [tower, classes]) {
    sessions[file] ??= file.endsWith(".npy")
      ? await readNpy(file)
      : await ort.InferenceSession.create(file);
  }
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const exps = logits.map((logit) => Math.exp(logit - highest));
  const total = exps.reduce((sum, x) => sum + x, 0);
  return exps.map((x) => x / total);
}

// By a matrix of class features or, where they depend on the image, a graph.
async function computeLogits(features, classes) {
  if (classes instanceof ort.InferenceSession) {
    return [...(await classes.run({ features })).logits.data];
  }
  const width = features.data.length;
  const dot = (row) => features.data.reduce((sum, x, i) => sum + x * classes[row * width + i], 0);
  return about.labels.map((_, row) => dot(row));
}

// The probabilities of the classes by each prompt, for pixels as of ImageData.
async function classify(pixels) {
  const image = new ort.Tensor("float32", preprocess(pixels, about), [1, 3, ...about.size]);
  const features = {};
  const results = [];
  for (const { tower, classes } of about.prompts) {
    features[tower] ??= (await sessions[tower].run({ images: image })).features;
    results.push(softmax(await computeLogits(features[tower], sessions[classes])));
  }
  return results;
}

async function decode(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

const element = (name, text = "", children = []) => {
  const made = document.createElement(name);
  made.append(text, ...children);
  return made;
};

function show(results) {
  const highest = about.labels.map((_, i) => Math.max(...results.map((row) => row[i])));
  let shown = about.labels.map((_, i) => i);
  if (shown.length > SHOWN) {
    shown = shown.sort((a, b) => highest[b] - highest[a]).slice(0, SHOWN);
  }
  const sections = about.prompts.map(({ title, bytes }, number) => {
    const probabilities = results[number];
    const rows = shown.map((i) => {
      const meter = element("meter");
      meter.value = probabilities[i];
      const share = element("b", `${(100 * probabilities[i]).toFixed(1)}%`);
      const row = element("li", "", [element("span", about.labels[i]), share, meter]);
      row.classList.toggle("best", probabilities[i] === Math.max(...probabilities));
      return row;
    });
    const size = element("small", `${bytes.toLocaleString("en")} bytes`);
    return element("section", "", [element("h2", title, [size]), element("ol", "", rows)]);
  });
  document.querySelector("#prompts").replaceChildren(...sections);
}

const canvas = document.querySelector("#canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const side = canvas.width;

function clear() {
  pen.fillStyle = "black";
  pen.fillRect(0, 0, side, side);
  Object.assign(pen, { strokeStyle: "white", lineWidth: side / 12, lineCap: "round", lineJoin: "round" });
  show(about.prompts.map(() => about.labels.map(() => 0)));
}

// What was drawn, moved to the middle and scaled.
function drawing() {
  const { data } = pen.getImageData(0, 0, side, side);
  const ink = [...data.keys()].filter((i) => i % 4 === 0 && data[i] > 0).map((i) => i / 4);
  const xs = ink.map((i) => i % side);
  const ys = ink.map((i) => Math.floor(i / side));
  const bounds = (places) => places.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x + 1)], [side, 0]);
  const [[left, right], [top, bottom]] = [bounds(xs), bounds(ys)];
  const scale = (GLYPH * side) / Math.max(right - left, bottom - top);
  const [width, height] = [scale * (right - left), scale * (bottom - top)];
  const context = new OffscreenCanvas(side, side).getContext("2d");
  context.fillRect(0, 0, side, side);
  context.drawImage(
    canvas, left, top, right - left, bottom - top, (side - width) / 2, (side - height) / 2, width, height,
  );
  return context.getImageData(0, 0, side, side);
}

async function open(blob) {
  const pixels = await decode(blob);
  const scale = side / Math.max(pixels.width, pixels.height);
  clear();
  const bitmap = await createImageBitmap(pixels);
  pen.drawImage(bitmap, 0, 0, scale * pixels.width, scale * pixels.height);
  show(await classify(pixels));
}

function report(error) {
  document.querySelector("#about").textContent = `This did not work: ${error.message}`;
}

const place = (event) => {
  const { left, top } = canvas.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
};
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pen.beginPath();
  pen.moveTo(...place(event));
  pen.lineTo(...place(event));
  pen.stroke();
});
canvas.addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  pen.lineTo(...place(event));
  pen.stroke();
});
canvas.addEventListener("pointerup", () => classify(drawing()).then(show).catch(report));
document.querySelector("#clear").addEventListener("click", clear);
document.querySelector("#file").addEventListener("change", (event) => {
  for (const file of event.target.files) open(file).catch(report);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
addEventListener("dragleave", () => document.body.classList.remove("dragged"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragged");
  for (const file of event.dataTransfer.files) open(file).catch(report);
});

clear();
document.querySelector("#about").textContent = `CLIP (${about.backbone}): draw a character, or drop an image. Nothing leaves this computer.`;
export { classify, decode }; // for tests
