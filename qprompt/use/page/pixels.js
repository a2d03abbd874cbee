// From pixels to what the image tower takes, as Pillow and torchvision compute it: resize the
// shorter side, crop the centre, normalise. Pixels are {data, width, height} with four bytes each.

const WEIGHT_BITS = 22; // Pillow multiplies bytes by fixed-point weights

// a width of 1 is that of a source pixel; Keys' cubic convolution with a = -1/2
const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (x) => {
      x = Math.abs(x);
      if (x < 1) return 1 - 2.5 * x * x + 1.5 * x * x * x;
      return x < 2 ? 2 - 4 * x + 2.5 * x * x - 0.5 * x * x * x : 0;
    },
  },
};

// For each of `to` pixels: the first of the source pixels that it is a sum of, and their weights.
function resamplingKernels(from, to, { support, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // shrinking averages over all that a pixel covers
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const stop = Math.min(from, Math.trunc(centre + support * stretch + 0.5));
    const raw = [];
    for (let x = start; x < stop; x++) raw.push(weight((x - centre + 0.5) / stretch));
    const total = raw.reduce((sum, w) => sum + w, 0);
    const fixed = (w) => Math.trunc((w / total) * 2 ** WEIGHT_BITS + (w < 0 ? -0.5 : 0.5));
    return { start, weights: raw.map(fixed) };
  });
}

// Resample the rows, and turn the image over its diagonal: twice gives both directions.
function resampleRows({ data, width, height }, to, filter) {
  const kernels = resamplingKernels(width, to, filter);
  const resampled = new Uint8ClampedArray(4 * to * height);
  for (let y = 0; y < height; y++) {
    kernels.forEach(({ start, weights }, x) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** (WEIGHT_BITS - 1);
        weights.forEach((w, i) => (sum += w * data[4 * (y * width + start + i) + channel]));
        resampled[4 * (x * height + y) + channel] = Math.floor(sum / 2 ** WEIGHT_BITS);
      }
    });
  }
  return { data: resampled, width: height, height: to };
}

const roundHalfToEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

// Returns the numbers of a (3, height, width) tensor.
export function preprocess(pixels, { resize, size, interpolation, mean, std }) {
  const filter = FILTERS[interpolation];
  const shorter = Math.min(pixels.width, pixels.height);
  const scaled = (side) => Math.trunc((resize * side) / shorter);
  const turned = resampleRows(pixels, scaled(pixels.width), filter);
  const { data, width, height } = resampleRows(turned, scaled(pixels.height), filter);
  const [rows, columns] = size;
  const top = roundHalfToEven((height - rows) / 2);
  const left = roundHalfToEven((width - columns) / 2);
  const tensor = new Float32Array(3 * rows * columns);
  for (let channel = 0, i = 0; channel < 3; channel++) {
    for (let y = top; y < top + rows; y++) {
      for (let x = left; x < left + columns; x++) {
        tensor[i++] = (data[4 * (y * width + x) + channel] / 255 - mean[channel]) / std[channel];
      }
    }
  }
  return tensor;
}
