//! Attention in windows on a GPU.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::{Input, dims, element, empty_like, grid};
use crate::kernels::differentiable::{self, Differentiable};

/// Queries of a work group, one for each unit.
pub(super) const QUERIES: usize = 64;
/// Keys and values that are in shared memory at a time.
const KEYS: usize = 16;
/// Largest head: its keys and values must fit into 16 KiB, the least that WebGPU guarantees.
const LARGEST_HEAD: usize = 128;

/// Compile-time arguments of [`attend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    /// Side of a window, in tokens.
    pub side: usize,
    /// Channels of a head.
    pub d: usize,
    /// Presence of the time token's part of queries, keys and values.
    pub time: bool,
    /// Queries of a work group.
    pub units: usize,
}

/// Computes attention for up to [`QUERIES`] tokens of one head in one window, with an online
/// softmax over the window's tokens.
#[cube(launch)]
fn attend<F: Float>(
    qkv: &[F],
    time: &[F],
    table: &[f32],
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
                let mut logit = table[offset * heads + head];
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
/// `[(2 side - 1)^2, heads]` instead of the bias. `None` if a head is too large, or on an autodiff
/// device its gradient needs more shared memory than there is.
pub(crate) fn window_attention(
    qkv: &Tensor<4>,
    time: Option<&Tensor<2>>,
    table: &Tensor<2>,
    side: usize,
) -> Option<Tensor<4>> {
    let [_, _, _, c3] = qkv.dims();
    let heads = table.dims()[1];
    let d = c3 / 3 / heads;
    let units = (side * side).min(QUERIES);
    let kernel = Attention { heads, plan: Plan { side, d, time: time.is_some(), units } };
    if d > LARGEST_HEAD {
        return None;
    }
    #[cfg(feature = "train")]
    if qkv.device().is_autodiff() && !super::attention_gradient::fits(&qkv.device(), &kernel.plan) {
        return None;
    }
    let table = Input::from(table.clone().cast(DType::F32));
    let time = match time {
        Some(time) => time.clone().cast(qkv.dtype()).into(),
        None => Input::from(qkv.clone()).absent(),
    };
    Some(differentiable::run(kernel, [qkv.clone().into(), time, table]))
}

/// Attention in windows.
///
/// Inputs: `qkv` `[B, H, W, 3 C]`, the time token's part `[B, 3 C]` or anything, and the table of the
/// position bias, `[(2 side - 1)^2, heads]` in `f32`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    pub heads: usize,
    pub plan: Plan,
}

/// The windows of a map.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    /// In all pictures.
    pub all: usize,
    /// In a row.
    pub columns: usize,
    /// In a column.
    pub rows: usize,
}

impl Attention {
    /// The windows of the map.
    pub fn windows(&self, qkv: &CubeTensor) -> Windows {
        let [b, h, w, _] = dims(qkv);
        let (rows, columns) = (h / self.plan.side, w / self.plan.side);
        Windows { all: b * rows * columns, columns, rows }
    }

    /// Work groups for the tokens of a window.
    pub fn blocks(&self) -> usize {
        (self.plan.side * self.plan.side).div_ceil(self.plan.units)
    }

    /// The factor on queries.
    pub fn scale(&self) -> f32 {
        (self.plan.d as f32).powf(-0.5)
    }
}

impl Differentiable<CubeBackend, 3> for Attention {
    /// The inputs: the attention weights are computed again.
    type Saved = [CubeTensor; 3];

    fn forward(&self, inputs: [CubeTensor; 3], _keep: bool) -> (CubeTensor, Self::Saved) {
        let [qkv, time, table] = inputs.clone();
        let [b, h, w, c3] = dims(&qkv);
        let context = empty_like(&qkv, [b, h, w, c3 / 3]);
        let windows = self.windows(&qkv);
        let (client, element) = (qkv.client.clone(), element(&qkv));
        attend::launch(
            &client,
            grid(self.blocks() * self.heads, windows.all),
            CubeDim::new_1d(self.plan.units as u32),
            qkv.into_buffer_arg(),
            time.into_buffer_arg(),
            table.into_buffer_arg(),
            context.clone().into_buffer_arg(),
            windows.all as u32,
            windows.columns as u32,
            windows.rows as u32,
            self.heads as u32,
            self.scale(),
            self.plan,
            element,
        );
        (context, inputs)
    }

    #[cfg(feature = "train")]
    fn backward(
        &self,
        inputs: [CubeTensor; 3],
        grad: CubeTensor,
        wanted: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        self.gradients(inputs, grad, wanted)
    }
}
