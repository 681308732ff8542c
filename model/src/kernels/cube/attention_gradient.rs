//! Gradients of attention in windows on a GPU.
//!
//! With the attention weights `P` of a head and the gradient `G` of its output, the gradient of the
//! logits is `S = P (G Vᵀ - m)`, where `m` is the sum over each row of `P G Vᵀ`; then `dQ = S K`,
//! `dK = Sᵀ Q` and `dV = Pᵀ G`. Neither matrix is stored: one kernel goes over the keys of each query,
//! twice, and writes the logarithm of the softmax's denominator, `m` and `dQ`; another goes over the
//! queries of each key. The first also sums `S` over the pairs of tokens with the same offset, in
//! shared memory, which is a part of the gradient of the table of the position bias.

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::attention::{Attention, Plan};
use super::sums::Sums;
use super::{element, empty, empty_like, grid};

/// Tokens that are in shared memory at a time, if they fit.
const TILE: usize = 16;

/// Bytes of shared memory beside two tiles: the table, or the statistics of queries.
fn beside(plan: &Plan, tile: usize) -> usize {
    4 * (2 * plan.side - 1).pow(2).max(2 * tile)
}

/// The largest tile that fits into this many bytes of shared memory; 0 if none does.
fn tile(plan: &Plan, bytes: usize) -> usize {
    let fits = |&tile: &usize| 8 * tile * plan.d + beside(plan, tile) <= bytes;
    [TILE, TILE / 2, TILE / 4].into_iter().find(fits).unwrap_or(0)
}

/// Returns whether a device has the shared memory for the gradient.
pub(super) fn fits(device: &Device, plan: &Plan) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => tile(plan, shared_memory(&device.client())) > 0,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// Bytes of shared memory that a work group can have.
fn shared_memory(client: &Client) -> usize {
    client.properties().hardware.max_shared_memory_size
}

/// Reads a value of queries, keys and values, and adds the time token's part.
#[cube]
fn value_at<F: Float>(
    qkv: &[F],
    time: &[F],
    pixel: usize,
    picture: usize,
    channel: usize,
    channels: usize,
    #[comptime] has_time: bool,
) -> f32 {
    let mut value = f32::cast_from(qkv[pixel * channels + channel]);
    if comptime!(has_time) {
        value += f32::cast_from(time[picture * channels + channel]);
    }
    value
}

/// Computes the gradient of up to `plan.units` queries of one head in one window, the logarithm of
/// the denominator of their softmax and the sum `m`, and their part of the gradient of the table.
#[cube(launch)]
fn query_gradient<F: Float>(
    qkv: &[F],
    time: &[F],
    table: &[f32],
    grad: &[F],
    dqkv: &mut [F],
    statistics: &mut [f32],
    table_parts: &mut [f32],
    windows: u32,
    columns: u32,
    rows: u32,
    heads: u32,
    scale: f32,
    #[comptime] plan: Plan,
    #[comptime] tile: usize,
    #[define(F)] _dtype: ElemType,
) {
    let side = comptime!(plan.side);
    let d = comptime!(plan.d);
    let n = comptime!(plan.side * plan.side);
    let units = comptime!(plan.units);
    let offsets = comptime!((2 * plan.side - 1) * (2 * plan.side - 1));
    let heads = heads as usize;
    let columns = columns as usize;
    let rows = rows as usize;
    let c = heads * d;

    let head = CUBE_POS_X as usize % heads;
    let block = CUBE_POS_X as usize / heads;
    let query = block * units + UNIT_POS as usize;
    let window = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let inside = window < windows as usize;
    let mut b = window / (rows * columns);
    if !inside {
        b = 0;
    }
    let top = window / columns % rows * side;
    let left = window % columns * side;
    let width = columns * side;
    let height = rows * side;
    let of_head = head * d;
    let active = inside && query < n;

    let query_y = query / side;
    let query_x = query % side;
    let mut pixel = 0usize;
    if active {
        pixel = (b * height + top + query_y) * width + left + query_x;
    }
    let mut q = Array::<f32>::new(d);
    let mut gradient = Array::<f32>::new(d);
    let mut sum = Array::<f32>::new(d);
    #[unroll]
    for i in 0..d {
        q[i] = value_at(qkv, time, pixel, b, of_head + i, 3 * c, comptime!(plan.time)) * scale;
        gradient[i] = f32::cast_from(grad[pixel * c + of_head + i]);
        sum[i] = 0.0f32;
    }

    let mut keys = Shared::<[f32]>::new_slice(comptime!(tile * plan.d));
    let mut values = Shared::<[f32]>::new_slice(comptime!(tile * plan.d));
    let mut table_sums =
        Shared::<[f32]>::new_slice(comptime!((2 * plan.side - 1) * (2 * plan.side - 1)));
    let mut i = UNIT_POS as usize;
    while i < offsets {
        table_sums[i] = 0.0f32;
        i += units;
    }

    let mut largest = f32::new(-1e30);
    let mut total = 0.0f32;
    let mut product = 0.0f32;
    let mut denominator = 0.0f32;
    let mut mean = 0.0f32;
    // The first time for the statistics, the second one for the gradients.
    #[unroll]
    for pass in 0..2usize {
        let mut first = 0usize;
        while first < n {
            let mut i = UNIT_POS as usize;
            while i < comptime!(tile * plan.d) {
                let token = first + i / d;
                if inside && token < n {
                    let place = (b * height + top + token / side) * width + left + token % side;
                    let at = of_head + i % d;
                    keys[i] = value_at(qkv, time, place, b, c + at, 3 * c, comptime!(plan.time));
                    values[i] =
                        value_at(qkv, time, place, b, 2 * c + at, 3 * c, comptime!(plan.time));
                }
                i += units;
            }
            sync_cube();
            let mut count = n - first;
            if count > tile {
                count = comptime!(tile).runtime();
            }
            for j in 0..count {
                let token = first + j;
                let offset = (query_y + side - 1 - token / side) * (2 * side - 1) + query_x + side
                    - 1
                    - token % side;
                let mut weight = 0.0f32;
                if active {
                    let mut logit = table[offset * heads + head];
                    let mut along = 0.0f32;
                    #[unroll]
                    for i in 0..d {
                        logit += q[i] * keys[j * d + i];
                        along += gradient[i] * values[j * d + i];
                    }
                    if comptime!(pass == 0) {
                        let mut shrink = 1.0f32;
                        if logit > largest {
                            shrink = (largest - logit).exp();
                            largest = logit;
                        }
                        weight = (logit - largest).exp();
                        total = total * shrink + weight;
                        product = product * shrink + weight * along;
                    } else {
                        weight = (logit - denominator).exp() * (along - mean);
                        #[unroll]
                        for i in 0..d {
                            sum[i] += weight * keys[j * d + i];
                        }
                    }
                }
                if comptime!(pass == 1) {
                    // The offsets of a work group's queries from one token all differ.
                    if active {
                        table_sums[offset] += weight;
                    }
                    sync_cube();
                }
            }
            sync_cube();
            first += tile;
        }
        if comptime!(pass == 0) {
            denominator = largest + total.ln();
            mean = product / total;
        }
    }
    if active {
        #[unroll]
        for i in 0..d {
            dqkv[pixel * 3 * c + of_head + i] = F::cast_from(sum[i] * scale);
        }
        let place = 2 * ((window * heads + head) * n + query);
        statistics[place] = denominator;
        statistics[place + 1] = mean;
    }
    if inside {
        let part = window * comptime!((plan.side * plan.side).div_ceil(plan.units)) + block;
        let mut i = UNIT_POS as usize;
        while i < offsets {
            table_parts[(part * offsets + i) * heads + head] = table_sums[i];
            i += units;
        }
    }
}

/// Computes the gradients of up to `plan.units` keys, and their values, of one head in one window.
#[cube(launch)]
fn key_gradient<F: Float>(
    qkv: &[F],
    time: &[F],
    table: &[f32],
    grad: &[F],
    statistics: &[f32],
    dqkv: &mut [F],
    windows: u32,
    columns: u32,
    rows: u32,
    heads: u32,
    scale: f32,
    #[comptime] plan: Plan,
    #[comptime] tile: usize,
    #[define(F)] _dtype: ElemType,
) {
    let side = comptime!(plan.side);
    let d = comptime!(plan.d);
    let n = comptime!(plan.side * plan.side);
    let units = comptime!(plan.units);
    let heads = heads as usize;
    let columns = columns as usize;
    let rows = rows as usize;
    let c = heads * d;

    let head = CUBE_POS_X as usize % heads;
    let token = CUBE_POS_X as usize / heads * units + UNIT_POS as usize;
    let window = (CUBE_POS_Y + CUBE_POS_Z * CUBE_COUNT_Y) as usize;
    let inside = window < windows as usize;
    let mut b = window / (rows * columns);
    if !inside {
        b = 0;
    }
    let top = window / columns % rows * side;
    let left = window % columns * side;
    let width = columns * side;
    let height = rows * side;
    let of_head = head * d;
    let active = inside && token < n;

    let token_y = token / side;
    let token_x = token % side;
    let mut pixel = 0usize;
    if active {
        pixel = (b * height + top + token_y) * width + left + token_x;
    }
    let mut key = Array::<f32>::new(d);
    let mut value = Array::<f32>::new(d);
    let mut key_sum = Array::<f32>::new(d);
    let mut value_sum = Array::<f32>::new(d);
    #[unroll]
    for i in 0..d {
        let at = of_head + i;
        key[i] = value_at(qkv, time, pixel, b, c + at, 3 * c, comptime!(plan.time));
        value[i] = value_at(qkv, time, pixel, b, 2 * c + at, 3 * c, comptime!(plan.time));
        key_sum[i] = 0.0f32;
        value_sum[i] = 0.0f32;
    }

    let mut queries = Shared::<[f32]>::new_slice(comptime!(tile * plan.d));
    let mut gradients = Shared::<[f32]>::new_slice(comptime!(tile * plan.d));
    let mut softmax = Shared::<[f32]>::new_slice(comptime!(2 * tile));
    let mut first = 0usize;
    while first < n {
        let mut i = UNIT_POS as usize;
        while i < comptime!(tile * plan.d) {
            let query = first + i / d;
            if inside && query < n {
                let place = (b * height + top + query / side) * width + left + query % side;
                let at = of_head + i % d;
                queries[i] = value_at(qkv, time, place, b, at, 3 * c, comptime!(plan.time)) * scale;
                gradients[i] = f32::cast_from(grad[place * c + at]);
            }
            i += units;
        }
        let mut i = UNIT_POS as usize;
        while i < comptime!(2 * tile) {
            if inside && first + i / 2 < n {
                softmax[i] = statistics[2 * ((window * heads + head) * n + first) + i];
            }
            i += units;
        }
        sync_cube();
        if active {
            let mut count = n - first;
            if count > tile {
                count = comptime!(tile).runtime();
            }
            for j in 0..count {
                let query = first + j;
                let offset =
                    (query / side + side - 1 - token_y) * (2 * side - 1) + query % side + side
                        - 1
                        - token_x;
                let mut logit = table[offset * heads + head];
                let mut along = 0.0f32;
                #[unroll]
                for i in 0..d {
                    logit += queries[j * d + i] * key[i];
                    along += gradients[j * d + i] * value[i];
                }
                let weight = (logit - softmax[2 * j]).exp();
                let change = weight * (along - softmax[2 * j + 1]);
                #[unroll]
                for i in 0..d {
                    value_sum[i] += weight * gradients[j * d + i];
                    key_sum[i] += change * queries[j * d + i];
                }
            }
        }
        sync_cube();
        first += tile;
    }
    if active {
        #[unroll]
        for i in 0..d {
            let place = pixel * 3 * c + c + of_head + i;
            dqkv[place] = F::cast_from(key_sum[i]);
            dqkv[place + c] = F::cast_from(value_sum[i]);
        }
    }
}

impl Attention {
    /// Computes the gradients of the inputs.
    pub fn gradients(
        &self,
        [qkv, time, table]: [CubeTensor; 3],
        grad: CubeTensor,
        [_, of_time, of_table]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let &Self { heads, plan } = self;
        let windows = self.windows(&qkv);
        let tile = tile(&plan, shared_memory(&qkv.client));
        let parts = windows.all * self.blocks();
        let offsets = (2 * plan.side - 1).pow(2);
        let dqkv = empty_like(&qkv, qkv.meta.shape().clone());
        let statistics = empty(&qkv, [windows.all, heads, plan.side * plan.side, 2], DType::F32);
        let table_parts = empty(&table, [parts, offsets, heads], DType::F32);
        let (client, element) = (qkv.client.clone(), element(&qkv));
        let groups = || grid(self.blocks() * heads, windows.all);
        query_gradient::launch(
            &client,
            groups(),
            CubeDim::new_1d(plan.units as u32),
            qkv.clone().into_buffer_arg(),
            time.clone().into_buffer_arg(),
            table.clone().into_buffer_arg(),
            grad.clone().into_buffer_arg(),
            dqkv.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            table_parts.clone().into_buffer_arg(),
            windows.all as u32,
            windows.columns as u32,
            windows.rows as u32,
            heads as u32,
            self.scale(),
            plan,
            tile,
            element,
        );
        key_gradient::launch(
            &client,
            groups(),
            CubeDim::new_1d(plan.units as u32),
            qkv.clone().into_buffer_arg(),
            time.clone().into_buffer_arg(),
            table.clone().into_buffer_arg(),
            grad.into_buffer_arg(),
            statistics.into_buffer_arg(),
            dqkv.clone().into_buffer_arg(),
            windows.all as u32,
            windows.columns as u32,
            windows.rows as u32,
            heads as u32,
            self.scale(),
            plan,
            tile,
            element,
        );
        let dtable = of_table.then(|| {
            let dtable = empty_like(&table, table.meta.shape().clone());
            Sums { batch: 1, rows: parts }.into_one(table_parts, dtable)
        });
        let dtime = (of_time && plan.time).then(|| {
            let shape = qkv.meta.shape();
            let dtime = empty_like(&time, time.meta.shape().clone());
            Sums { batch: shape[0], rows: shape[1] * shape[2] }.into_one(dqkv.clone(), dtime)
        });
        [Some(dqkv), dtime, dtable]
    }
}
