//! The attention of all blocks at a step.

use burn::tensor::Tensor;
use model::Denoiser;
use model::network::AttentionMaps;

use super::pictures::read;
use super::{Reply, Trouble, Worker};
use crate::protocol::{Event, Reading, Scan, Surveyed};

impl Worker {
    /// Summarises the attention of all blocks at a step by two forward passes, one with the time token
    /// and one without, and sends it to the page.
    pub async fn survey(&self, reply: Reply, scan: Scan) -> Result<(), Trouble> {
        if self.made.borrow().run != scan.run {
            reply.post(&Event::Gone { run: scan.run }, None);
            return Ok(());
        }
        let step = self.made.borrow().steps.get(scan.step).cloned();
        let (Some(loaded), Some(step)) = (self.loaded.borrow().clone(), step) else {
            return Err("There is no attention yet. Make a picture first.".into());
        };
        let Some((x, denoiser)) = step.picture(&loaded.model, scan.picture) else {
            return Err("There is no such picture.".into());
        };
        let mut passes = Vec::new();
        for silence_time in [false, true] {
            let denoiser = Denoiser { silence_time, ..denoiser.clone() };
            let summaries = denoiser.summaries(x.clone(), &[step.sigma]);
            let found: Vec<bool> = summaries.iter().map(Option::is_some).collect();
            let rows: Vec<Tensor<2>> = summaries.into_iter().flatten().collect();
            if rows.is_empty() {
                return Err("This model has no attention.".into());
            }
            // [1, 8] of each block -> [blocks, 8]
            let values = read(Tensor::cat(rows, 0)).await?;
            let mut rows = values.chunks_exact(AttentionMaps::SUMMARY).map(reading);
            let readings: Vec<Option<Reading>> =
                found.into_iter().map(|found| if found { rows.next() } else { None }).collect();
            passes.push(readings);
        }
        let blocks = passes[0].iter().zip(&passes[1]).map(|(on, off)| Some([(*on)?, (*off)?]));
        reply.post(&Event::Surveyed(Surveyed { scan, blocks: blocks.collect() }), None);
        Ok(())
    }
}

/// Names the values of a summary.
fn reading(row: &[f32]) -> Reading {
    let part = |i: usize| [row[i], row[i + 1], row[i + 2]];
    Reading { lengths: [part(0), part(3)], evenness: row[6], distance: row[7] }
}
