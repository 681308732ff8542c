//! The steps of the last run, and their attention.

use burn::tensor::Tensor;
use model::label::Label;
use model::network::AttentionMaps;
use model::{Denoiser, Model};

use super::pictures::read;
use super::{Reply, Trouble, Worker};
use crate::protocol::{Attended, Event, Look};
use crate::testing::Fault;

/// Maximum size of the attention maps that are kept, besides the last one. A map of 1024 tokens with
/// 16 heads takes 64 MiB.
const MAPS: usize = 256 << 20;

/// The inputs of the network at a step.
#[derive(Clone)]
pub struct Step {
    pub x: Tensor<4>,
    pub sigma: f64,
    pub labels: Vec<Label>,
    pub silence_time: bool,
}

impl Step {
    /// Returns the noisy picture with this number and the denoiser of its step; `None` if there is no
    /// such picture.
    pub fn picture<'a>(
        &self,
        model: &'a Model,
        picture: usize,
    ) -> Option<(Tensor<4>, Denoiser<'a>)> {
        if picture >= self.x.dims()[0] {
            return None;
        }
        let denoiser = Denoiser {
            labels: self.labels.get(picture).cloned().into_iter().collect(),
            silence_time: self.silence_time,
            ..Denoiser::new(model)
        };
        Some((self.x.clone().narrow(0, picture, 1), denoiser))
    }
}

/// The steps of a run.
#[derive(Default)]
pub struct Made {
    /// The number of the run.
    pub run: u64,
    pub steps: Vec<Step>,
}

/// The attention maps of a block at a step, which stay on the device. The page is sent single rows.
#[derive(Clone)]
pub struct Maps {
    /// The request that they were computed for. The token is ignored.
    look: Look,
    maps: AttentionMaps,
    side: usize,
}

impl Maps {
    /// Returns whether they include the answer to a request.
    fn answer(&self, look: &Look) -> bool {
        Look { token: self.look.token, ..*look } == self.look
    }

    /// Returns the size of the attention maps in bytes.
    fn bytes(&self) -> usize {
        4 * self.maps.weights.dims().iter().product::<usize>()
    }
}

impl Worker {
    /// Forgets the steps of the last run.
    pub fn forget(&self) {
        *self.made.borrow_mut() = Made::default();
        self.maps.borrow_mut().clear();
    }

    /// Computes the attention of a token and sends it to the page.
    pub async fn attend(&self, reply: Reply, look: Look) -> Result<(), Trouble> {
        if self.fault.get() == Some(Fault::Rest) {
            self.lose_device();
        }
        if self.made.borrow().run != look.run {
            reply.post(&Event::Gone { run: look.run }, None);
            return Ok(());
        }
        let Maps { maps, side, .. } = self.maps_of(look)?;
        let Some([window, row]) = look.row(side, maps.window) else {
            return Err("The block has no such token.".into());
        };
        let heads = maps.weights.dims()[2];
        // [1, windows, heads, N, N] -> [1, 1, heads, 1, N]
        let weights = maps.weights.narrow(1, window, 1).narrow(3, row, 1);
        let mut values = read(weights).await?;
        // [1, heads, N, N] -> [1, heads, 1, N]
        values.extend(read(maps.bias.narrow(2, row, 1)).await?);
        let lengths = read(maps.lengths).await?;
        let part = |i: usize| [lengths[i], lengths[i + 1], lengths[i + 2]];
        let attended =
            Attended { look, heads, side, window: maps.window, lengths: [part(0), part(3)] };
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        reply.post(&Event::Attended(attended), Some(&bytes));
        Ok(())
    }

    /// Returns the attention maps of a block at a step, by another forward pass unless they are still
    /// there: moving the token takes none.
    fn maps_of(&self, look: Look) -> Result<Maps, Trouble> {
        let mut kept = self.maps.borrow_mut();
        if let Some(place) = kept.iter().position(|maps| maps.answer(&look)) {
            let maps = kept.remove(place);
            kept.push(maps.clone());
            return Ok(maps);
        }
        let step = self.made.borrow().steps.get(look.step).cloned();
        let (Some(loaded), Some(step)) = (self.loaded.borrow().clone(), step) else {
            return Err("There is no attention yet. Make a picture first.".into());
        };
        let blocks = loaded.model.network.blocks();
        let picture = step.picture(&loaded.model, look.picture);
        let (Some(block), Some((x, denoiser))) = (blocks.get(look.block), picture) else {
            return Err("There is no such block or picture.".into());
        };
        let maps = denoiser.attention(x, &[step.sigma], look.block);
        let maps = maps.ok_or("This block has no attention.")?;
        let maps = Maps { look, maps, side: block.side };
        kept.push(maps.clone());
        while kept.len() > 1 && kept.iter().map(Maps::bytes).sum::<usize>() > MAPS {
            kept.remove(0);
        }
        Ok(maps)
    }
}
