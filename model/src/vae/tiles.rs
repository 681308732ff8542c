//! Decoding in overlapping tiles. A picture of 512x512 pixels has maps of 256 MiB at its full
//! resolution, which is more than browsers let a graphics processor have in one piece.
//!
//! What comes at the resolution of the latent, attention among it, is cheap and is done for the
//! whole. The rest is done for tiles, which differ a little from the whole: normalisation sees the
//! tile alone. Where they overlap, they are blended linearly, so that the difference makes no edge.

use core::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::autoencoder::Vae;
use super::network::Step;

/// How latents are cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tiling {
    /// Height and width of a tile, in values of the latent.
    pub side: usize,
    /// By how much neighbours overlap at the least.
    pub overlap: usize,
}

impl Default for Tiling {
    /// Tiles of 256x256 pixels, whose largest map has 64 MiB.
    fn default() -> Self {
        Self { side: 32, overlap: 8 }
    }
}

/// Why latents cannot be cut like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tiles of {0} cannot overlap by {1}: the overlap is to be less than the side")]
pub struct TilingError(usize, usize);

/// One tile along one side of the latent.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    /// Its first value.
    start: usize,
    /// Number of values.
    len: usize,
    /// How much each of its pixels counts. Over all spans, the weights of a pixel add up to 1.
    weights: Vec<f32>,
}

impl Tiling {
    /// Checks that tiles make progress.
    ///
    /// # Errors
    ///
    /// If they do not.
    pub fn validate(&self) -> Result<(), TilingError> {
        let holds = self.overlap < self.side;
        if holds { Ok(()) } else { Err(TilingError(self.side, self.overlap)) }
    }

    /// Number of tiles of a latent of the given height and width.
    pub fn tiles(&self, [h, w]: [usize; 2]) -> usize {
        self.starts(h).len() * self.starts(w).len()
    }

    /// Where the tiles of a side of `n` start: as few as do, evenly spread.
    fn starts(&self, n: usize) -> Vec<usize> {
        if n <= self.side {
            return vec![0];
        }
        let steps = (n - self.side).div_ceil(self.side - self.overlap);
        (0..=steps).map(|i| (i * (n - self.side) + steps / 2) / steps).collect()
    }

    /// The tiles along a side of `n` values, each of which becomes `factor` pixels.
    fn spans(&self, n: usize, factor: usize) -> Vec<Span> {
        let len = n.min(self.side);
        let starts = self.starts(n);
        let last = starts.len() - 1;
        // Weights rise and fall along the overlap with the neighbours.
        let mut spans: Vec<Span> = starts
            .iter()
            .enumerate()
            .map(|(i, &start)| {
                let rise = if i == 0 { 0 } else { starts[i - 1] + len - start } * factor;
                let fall = if i == last { 0 } else { start + len - starts[i + 1] } * factor;
                let weight = |pixel: usize| {
                    let ramp = |place: usize, width: usize| {
                        if place < width { (place as f32 + 0.5) / width as f32 } else { 1.0 }
                    };
                    ramp(pixel, rise).min(ramp(len * factor - 1 - pixel, fall))
                };
                Span { start, len, weights: (0..len * factor).map(weight).collect() }
            })
            .collect();
        // Of three tiles that meet in a pixel, the weights need not add up to 1 by themselves.
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

/// Decodes `x` tile by tile with `decode`, whose steps turn `[B, h, w, c]` into
/// `[B, C, factor h, factor w]`. `on_step` is called with the number of steps done and that of all
/// steps of all tiles.
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
        let place = {
            let (top, left) = (row.start * factor, column.start * factor);
            [0..b, 0..c, top..top + tile_h, left..left + tile_w]
        };
        let sum = canvas.clone().slice(place.clone()) + tile * weights.unsqueeze();
        picture = Some(canvas.slice_assign(place, sum));
    }
    Ok(picture)
}

impl Vae {
    /// The pictures of latents, decoded in tiles, or `None` if `on_step` broke off. It is told after
    /// each layer of each tile how many are done, and of how many; like that of a sampler it may wait.
    /// Where one tile holds the whole latent, the result is that of [`Vae::decode`].
    ///
    /// # Shapes
    ///
    /// - latents: `[B, latent channels, h, w]`
    /// - output: `[B, C, factor h, factor w]`
    ///
    /// # Errors
    ///
    /// What `on_step` fails with.
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

    async fn go_on(_: usize, _: usize) -> Result<ControlFlow<()>, Infallible> {
        Ok(ControlFlow::Continue(()))
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().expect("f32")
    }

    proptest! {
        #[test]
        fn tiles_cover_everything_and_their_weights_are_one(
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

        /// What looks at one place alone comes out of tiles as it does of the whole.
        #[test]
        fn a_local_decoder_does_not_see_the_tiles(
            h in 1usize..20, w in 1usize..20, side in 1usize..9, overlap in 0usize..9,
        ) {
            prop_assume!(overlap < side);
            let decode = |x: Tensor<4>| upsample_nearest(x).permute([0, 3, 1, 2]);
            let latents = noise(1, [2, h, w, 3]);
            let whole = decode(latents.clone());
            let tiling = Tiling { side, overlap };
            let steps: [Step; 1] = [Box::new(decode)];
            let tiled = pollster::block_on(blend(latents, &tiling, 2, &steps, go_on));
            let tiled = tiled.expect("infallible").expect("not broken off");
            for (a, b) in values(tiled).into_iter().zip(values(whole)) {
                prop_assert!((a - b).abs() <= 1e-6 * b.abs());
            }
        }
    }

    /// A decoder that looks a little around itself: it differs only where a tile ends and what
    /// lies behind its end is in reach.
    #[test]
    fn away_from_seams_tiles_are_exact() {
        let vae = Vae::new(VaeConfig::tiny(), 3, &Device::flex()).expect("small");
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
        let tiled = pollster::block_on(blend(latents, &tiling, 2, &steps, go_on));
        let tiled = values(tiled.expect("infallible").expect("not broken off"));
        // Two tiles, of the columns 0 to 8 and 6 to 14: the first ends at pixel 16, the second
        // begins at pixel 12.
        for (i, (a, b)) in tiled.iter().zip(&whole).enumerate() {
            let column = i % 28;
            assert!([12, 15].contains(&column) || (a - b).abs() < 1e-5, "{column}: {a} {b}");
        }
        assert!(tiled.iter().zip(&whole).any(|(a, b)| (a - b).abs() > 1e-3));
        // One tile for everything is the whole, to the last bit.
        let latents = noise(3, [1, 4, 8, 5]);
        let tiling = Tiling { side: 8, overlap: 2 };
        assert_eq!(tiling.tiles([8, 5]), 1);
        let one = pollster::block_on(vae.decode_tiled(latents.clone(), &tiling, go_on));
        let one = one.expect("infallible").expect("not broken off");
        assert_eq!(values(one), values(vae.decode(latents)));
    }

    /// The real decoder: normalisation over a tile is not that over the whole, and so the pictures
    /// differ, but little. Here the latents have the statistics of noise everywhere.
    #[test]
    fn tiles_of_the_decoder_come_close_to_the_whole() {
        let vae = Vae::new(VaeConfig::tiny(), 3, &Device::flex()).expect("small");
        let latents = noise(2, [1, 4, 24, 24]);
        let whole = values(vae.decode(latents.clone()));
        let tiling = Tiling { side: 16, overlap: 6 };
        assert_eq!(tiling.tiles([24, 24]), 4);
        let tiled = pollster::block_on(vae.decode_tiled(latents, &tiling, go_on));
        let tiled = values(tiled.expect("infallible").expect("not broken off"));
        let square = |x: f32| f64::from(x).powi(2);
        let spread: f64 = whole.iter().map(|&x| square(x)).sum();
        let off: f64 = whole.iter().zip(&tiled).map(|(a, b)| square(a - b)).sum();
        let part = (off / spread).sqrt();
        assert!(part < 0.06, "the difference has {part} of the size of the picture");
    }

    #[test]
    fn decoding_can_be_broken_off() {
        let vae = Vae::new(VaeConfig::tiny(), 3, &Device::flex()).expect("small");
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
        let error = Tiling { side: 4, overlap: 4 }.validate().expect_err("no progress");
        assert!(error.to_string().contains("tiles of 4 cannot overlap by 4"));
    }
}
