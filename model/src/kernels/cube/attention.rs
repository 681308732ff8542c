//! Attention in windows on a GPU.

use burn::tensor::Tensor;
use burn_cubecl::cubecl::{self, prelude::*};

use super::{close, element, empty_like, grid, open};

/// Queries of a work group, one for each unit.
const QUERIES: usize = 64;
/// Keys and values that are in shared memory at a time.
const KEYS: usize = 16;
/// Largest head: its keys and values must fit into 16 KiB, the least that WebGPU guarantees.
const LARGEST_HEAD: usize = 128;

/// Compile-time arguments of [`attend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    /// Side of a window, in tokens.
    side: usize,
    /// Channels of a head.
    d: usize,
    /// Presence of the time token's part of queries, keys and values.
    time: bool,
    /// Queries of a work group.
    units: usize,
}

/// Computes attention for up to [`QUERIES`] tokens of one head in one window, with an online
/// softmax over the window's tokens.
#[cube(launch)]
fn attend<F: Float>(
    qkv: &[F],
    time: &[F],
    table: &[F],
    context: &mut [F],
    windows: u32,
    columns: u32,
    rows: u32,
    heads: u32,
    scale: f32,
    #[comptime] plan: Plan,
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
    let query = CUBE_POS_X as usize / heads * units + UNIT_POS as usize;
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
    let mut sum = Array::<f32>::new(d);
    #[unroll]
    for i in 0..d {
        let mut value = f32::cast_from(qkv[pixel * 3 * c + of_head + i]);
        if comptime!(plan.time) {
            value += f32::cast_from(time[b * 3 * c + of_head + i]);
        }
        q[i] = value * scale;
        sum[i] = 0.0f32;
    }
    let mut largest = f32::new(-1e30);
    let mut total = 0.0f32;

    let mut keys = Shared::<[f32]>::new_slice(comptime!(KEYS * plan.d));
    let mut values = Shared::<[f32]>::new_slice(comptime!(KEYS * plan.d));
    let mut first = 0usize;
    while first < n {
        let mut i = UNIT_POS as usize;
        while i < comptime!(KEYS * plan.d) {
            let token = first + i / d;
            let channel = i % d;
            if inside && token < n {
                let place = (b * height + top + token / side) * width + left + token % side;
                let at = place * 3 * c + c + of_head + channel;
                let mut key = f32::cast_from(qkv[at]);
                let mut value = f32::cast_from(qkv[at + c]);
                if comptime!(plan.time) {
                    let at = b * 3 * c + c + of_head + channel;
                    key += f32::cast_from(time[at]);
                    value += f32::cast_from(time[at + c]);
                }
                keys[i] = key;
                values[i] = value;
            }
            i += units;
        }
        sync_cube();
        if active {
            let mut count = n - first;
            if count > comptime!(KEYS) {
                count = comptime!(KEYS).runtime();
            }
            for j in 0..count {
                let token = first + j;
                let offset = (query_y + side - 1 - token / side) * (2 * side - 1) + query_x + side
                    - 1
                    - token % side;
                let mut logit = f32::cast_from(table[offset * heads + head]);
                #[unroll]
                for i in 0..d {
                    logit += q[i] * keys[j * d + i];
                }
                let mut shrink = 1.0f32;
                if logit > largest {
                    shrink = (largest - logit).exp();
                    largest = logit;
                }
                let weight = (logit - largest).exp();
                total = total * shrink + weight;
                #[unroll]
                for i in 0..d {
                    sum[i] = sum[i] * shrink + weight * values[j * d + i];
                }
            }
        }
        sync_cube();
        first += comptime!(KEYS);
    }
    if active {
        #[unroll]
        for i in 0..d {
            context[pixel * c + of_head + i] = F::cast_from(sum[i] / total);
        }
    }
}

/// [`crate::kernels::window_attention`] in square windows, with the table of the position bias
/// `[(2 side - 1)^2, heads]` instead of the bias. `None` if a head is too large.
pub(crate) fn window_attention(
    qkv: &Tensor<4>,
    time: Option<&Tensor<2>>,
    table: &Tensor<2>,
    side: usize,
) -> Option<Tensor<4>> {
    let [b, h, w, c3] = qkv.dims();
    let heads = table.dims()[1];
    let (c, d) = (c3 / 3, c3 / 3 / heads);
    if d > LARGEST_HEAD {
        return None;
    }
    let dtype = qkv.dtype();
    let qkv = open(qkv.clone());
    let table = open(table.clone().cast(dtype));
    let has_time = time.is_some();
    let time = time.map_or_else(|| table.clone(), |time| open(time.clone().cast(dtype)));
    let context = empty_like(&qkv, [b, h, w, c]);
    let (rows, columns, n) = (h / side, w / side, side * side);
    let units = n.min(QUERIES);
    let (client, element) = (qkv.client.clone(), element(&qkv));
    attend::launch(
        &client,
        grid(n.div_ceil(units) * heads, b * rows * columns),
        CubeDim::new_1d(units as u32),
        qkv.into_buffer_arg(),
        time.into_buffer_arg(),
        table.into_buffer_arg(),
        context.clone().into_buffer_arg(),
        (b * rows * columns) as u32,
        columns as u32,
        rows as u32,
        heads as u32,
        (d as f32).powf(-0.5),
        Plan { side, d, time: has_time, units },
        element,
    );
    Some(close(context))
}
