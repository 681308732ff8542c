//! Decoding in overlapping tiles. A picture of 512x512 pixels has maps of 256 MiB at full
//! resolution, more than browsers allow for one GPU buffer.
//!
//! The layers at the resolution of the latent, attention among them, are cheap and are computed for
//! the whole latent. The other layers are computed tile by tile. Tiles differ slightly from the
//! whole, because group normalisation sees only the tile; they are blended linearly where they
//! overlap, so that no edges are visible.

use core::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::autoencoder::Vae;
use super::network::Step;

/// The size and overlap of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tiling {
    /// Height and width of a tile, in values of the latent.
    pub side: usize,
    /// Minimum overlap of neighbouring tiles, in values of the latent.
    pub overlap: usize,
}

impl Default for Tiling {
    /// Tiles of 256x256 pixels, whose largest map takes 64 MiB.
    fn default() -> Self {
        Self { side: 32, overlap: 8 }
    }
}

/// An invalid [`Tiling`]: the overlap is not less than the side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tiles of {0} cannot overlap by {1}: the overlap must be less than the side")]
pub struct TilingError(usize, usize);

/// The extent of a tile along one dimension of the latent.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    /// First value.
    start: usize,
    /// Number of values.
    len: usize,
    /// Blending weight of each pixel. The weights of a pixel sum to 1 over all spans.
    weights: Vec<f32>,
}

impl Tiling {
    /// Checks that the overlap is less than the side.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn validate(&self) -> Result<(), TilingError> {
        let holds = self.overlap < self.side;
        if holds { Ok(()) } else { Err(TilingError(self.side, self.overlap)) }
    }

    /// Number of tiles of a latent of the given height and width.
    pub fn tiles(&self, [h, w]: [usize; 2]) -> usize {
        self.starts(h).len() * self.starts(w).len()
    }

    /// The first value of each tile along a dimension of `n` values: as few tiles as possible,
    /// evenly spaced.
    fn starts(&self, n: usize) -> Vec<usize> {
        if n <= self.side {
            return vec![0];
        }
        let steps = (n - self.side).div_ceil(self.side - self.overlap);
        (0..=steps).map(|i| (i * (n - self.side) + steps / 2) / steps).collect()
    }

    /// The tiles along a dimension of `n` values, each of which is decoded to `factor` pixels.
    fn spans(&self, n: usize, factor: usize) -> Vec<Span> {
        let len = n.min(self.side);
        let starts = self.starts(n);
        let last = starts.len() - 1;
        // Weights rise and fall linearly over the overlaps with the neighbours.
        let mut spans: Vec<Span> = starts
            .iter()
            .enumerate()
            .map(|(i, &start)| {
                let rise = if i == 0 { 0 } else { starts[i - 1] + len - start } * factor;
                let fall = if i == last { 0 } else { start + len - starts[i + 1] } * factor;
                let weight = |pixel: usize| {
                    let ramp = |i: usize, width: usize| {
                        if i < width { (i as f32 + 0.5) / width as f32 } else { 1.0 }
                    };
                    ramp(pixel, rise).min(ramp(len * factor - 1 - pixel, fall))
                };
                Span { start, len, weights: (0..len * factor).map(weight).collect() }
            })
            .collect();
        // Normalised, because the weights of three tiles that overlap in a pixel may not sum to 1.
        let mut sums = vec![0.0; n * factor];
        for span in &spans {
            for (sum, weight) in sums[span.start * factor..].iter_mut().zip(&span.weights) {
                *sum += weight;
            }
        }
        for span in &mut spans {
            for (weight, sum) in span.weights.iter_mut().zip(&sums[span.start * factor..]) {
                *weight /= sum;
            }
        }
        spans
    }
}

/// Decodes `x` tile by tile and blends the tiles. The steps of `decode` turn `[B, h, w, c]` into
/// `[B, C, factor h, factor w]`. `on_step` is called with the number of steps done and the number
/// of all steps of all tiles.
async fn blend<E>(
    x: Tensor<4>,
    tiling: &Tiling,
    factor: usize,
    decode: &[Step<'_>],
    mut on_step: impl AsyncFnMut(usize, usize) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    let [_, h, w, _] = x.dims();
    let (rows, columns) = (tiling.spans(h, factor), tiling.spans(w, factor));
    let all = rows.len() * columns.len() * decode.len();
    let mut done = 0;
    let mut picture: Option<Tensor<4>> = None;
    let tiles = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
    for (row, column) in tiles {
        let mut tile = x.clone().narrow(1, row.start, row.len).narrow(2, column.start, column.len);
        for step in decode {
            tile = step(tile);
            done += 1;
            if on_step(done, all).await?.is_break() {
                return Ok(None);
            }
        }
        let [b, c, tile_h, tile_w] = tile.dims();
        let weights: Vec<f32> =
            row.weights.iter().flat_map(|y| column.weights.iter().map(move |x| y * x)).collect();
        let options = (&tile.device(), tile.dtype());
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [tile_h, tile_w]), options);
        let canvas = picture
            .take()
            .unwrap_or_else(|| Tensor::zeros([b, c, h * factor, w * factor], options));
        let region = {
            let (top, left) = (row.start * factor, column.start * factor);
            [0..b, 0..c, top..top + tile_h, left..left + tile_w]
        };
        let sum = canvas.clone().slice(region.clone()) + tile * weights.unsqueeze();
        picture = Some(canvas.slice_assign(region, sum));
    }
    Ok(picture)
}

impl Vae {
    /// Decodes latents in tiles, or returns `None` if `on_step` cancelled.
    ///
    /// `on_step` is called after each layer of each tile with the number of layers done and their
    /// total number. Like the callback of a sampler, it is asynchronous. If one tile covers the
    /// whole latent, the result is that of [`Vae::decode`].
    ///
    /// # Shapes
    ///
    /// - latents: `[B, latent channels, h, w]`
    /// - output: `[B, C, factor h, factor w]`
    ///
    /// # Errors
    ///
    /// The errors of `on_step`.
    ///
    /// # Panics
    ///
    /// If the tiling is not valid.
    pub async fn decode_tiled<E>(
        &self,
        latents: Tensor<4>,
        tiling: &Tiling,
        on_step: impl AsyncFnMut(usize, usize) -> Result<ControlFlow<()>, E>,
    ) -> Result<Option<Tensor<4>>, E> {
        tiling.validate().expect("a valid tiling");
        let decode = self.network.finish_decoding();
        blend(self.start_decoding(latents), tiling, self.config.factor(), &decode, on_step).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::noise::start_noise;
    use crate::kernels::upsample_nearest;
    use crate::vae::VaeConfig;
    use burn::tensor::Device;
    use core::convert::Infallible;
    use proptest::prelude::*;

    fn noise(seed: u64, shape: [usize; 4]) -> Tensor<4> {
        let values = start_noise(seed, shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    async fn continue_always(_: usize, _: usize) -> Result<ControlFlow<()>, Infallible> {
        Ok(ControlFlow::Continue(()))
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().expect("f32")
    }

    proptest! {
        #[test]
        fn tiles_cover_everything_and_weights_sum_to_one(
            n in 1usize..200, side in 1usize..40, overlap in 0usize..40, factor in 1usize..9,
        ) {
            prop_assume!(overlap < side);
            let spans = Tiling { side, overlap }.spans(n, factor);
            let mut sums = vec![0.0; n * factor];
            for span in &spans {
                prop_assert!(span.start + span.len <= n && span.len == n.min(side));
                prop_assert_eq!(span.weights.len(), span.len * factor);
                for (i, weight) in span.weights.iter().enumerate() {
                    prop_assert!(*weight > 0.0 && *weight <= 1.0);
                    sums[span.start * factor + i] += weight;
                }
            }
            prop_assert!(sums.iter().all(|sum| (sum - 1.0f32).abs() < 1e-5));
            for pair in spans.windows(2) {
                prop_assert!(pair[1].start > pair[0].start);
                prop_assert!(pair[0].start + pair[0].len >= pair[1].start + overlap);
            }
        }

        /// A decoder without a receptive field beyond one value is not affected by tiling.
        #[test]
        fn pointwise_decoder_is_not_affected_by_tiling(
            h in 1usize..20, w in 1usize..20, side in 1usize..9, overlap in 0usize..9,
        ) {
            prop_assume!(overlap < side);
            let decode = |x: Tensor<4>| upsample_nearest(x).permute([0, 3, 1, 2]);
            let latents = noise(1, [2, h, w, 3]);
            let whole = decode(latents.clone());
            let tiling = Tiling { side, overlap };
            let steps: [Step; 1] = [Box::new(decode)];
            let tiled = pollster::block_on(blend(latents, &tiling, 2, &steps, continue_always));
            let tiled = tiled.expect("infallible").expect("not cancelled");
            for (a, b) in values(tiled).into_iter().zip(values(whole)) {
                prop_assert!((a - b).abs() <= 1e-6 * b.abs());
            }
        }
    }

    /// A decoder with a small receptive field differs only next to the edges of tiles.
    #[test]
    fn tiles_are_exact_away_from_edges() {
        let vae = Vae::new(VaeConfig::tiny(), 3, &Device::flex()).expect("a valid configuration");
        let weight = noise(7, [2, 2, 3, 3]);
        let bias = Tensor::zeros([2], &Device::flex());
        let decode = |x: Tensor<4>| {
            let x = crate::kernels::conv3x3(upsample_nearest(x), weight.clone(), bias.clone(), 1);
            x.permute([0, 3, 1, 2])
        };
        let latents = noise(2, [1, 6, 14, 2]);
        let whole = values(decode(latents.clone()));
        let tiling = Tiling { side: 8, overlap: 2 };
        let steps: [Step; 1] = [Box::new(decode)];
        let tiled = pollster::block_on(blend(latents, &tiling, 2, &steps, continue_always));
        let tiled = values(tiled.expect("infallible").expect("not cancelled"));
        // Two tiles, of columns 0 to 8 and 6 to 14: the first ends at pixel 16, the second begins
        // at pixel 12.
        for (i, (a, b)) in tiled.iter().zip(&whole).enumerate() {
            let column = i % 28;
            assert!([12, 15].contains(&column) || (a - b).abs() < 1e-5, "{column}: {a} {b}");
        }
        assert!(tiled.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 1e-3));
        // With a single tile, the result is that of `decode`, bit for bit.
        let latents = noise(3, [1, 4, 8, 5]);
        let tiling = Tiling { side: 8, overlap: 2 };
        assert_eq!(tiling.tiles([8, 5]), 1);
        let one = pollster::block_on(vae.decode_tiled(latents.clone(), &tiling, continue_always));
        let one = one.expect("infallible").expect("not cancelled");
        assert_eq!(values(one), values(vae.decode(latents)));
    }

    /// With the actual decoder, normalisation over a tile differs from that over the whole, so the
    /// pictures differ slightly. These latents have the statistics of noise everywhere.
    #[test]
    fn tiled_decoding_is_close_to_decoding() {
        let vae = Vae::new(VaeConfig::tiny(), 3, &Device::flex()).expect("a valid configuration");
        let latents = noise(2, [1, 4, 24, 24]);
        let whole = values(vae.decode(latents.clone()));
        let tiling = Tiling { side: 16, overlap: 6 };
        assert_eq!(tiling.tiles([24, 24]), 4);
        let tiled = pollster::block_on(vae.decode_tiled(latents, &tiling, continue_always));
        let tiled = values(tiled.expect("infallible").expect("not cancelled"));
        let square = |x: f32| f64::from(x).powi(2);
        let spread: f64 = whole.iter().map(|&x| square(x)).sum();
        let off: f64 = whole.iter().zip(&tiled).map(|(a, b)| square(a - b)).sum();
        let part = (off / spread).sqrt();
        assert!(part < 0.06, "the difference is {part} of the picture in norm");
    }

    #[test]
    fn decoding_can_be_cancelled() {
        let vae = Vae::new(VaeConfig::tiny(), 3, &Device::flex()).expect("a valid configuration");
        let mut seen = Vec::new();
        let tiling = Tiling { side: 4, overlap: 1 };
        let result = pollster::block_on(vae.decode_tiled(
            noise(2, [1, 4, 7, 7]),
            &tiling,
            async |done, all| {
                seen.push((done, all));
                Ok::<_, Infallible>(if done == 2 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            },
        ));
        assert!(result.expect("infallible").is_none());
        // Four tiles; for each, two blocks at each of three resolutions, two doublings, the head.
        assert_eq!(seen, [(1, 36), (2, 36)]);
        let error =
            Tiling { side: 4, overlap: 4 }.validate().expect_err("an overlap as large as the side");
        assert!(error.to_string().contains("tiles of 4 cannot overlap by 4"));
    }
}
