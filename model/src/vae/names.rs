//! Names of the attention layer's tensors in published files.

/// A naming scheme of the attention layer's linear maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// The names of older versions of diffusers.
    Old,
    /// The names of newer versions of diffusers.
    New,
}

impl Names {
    /// The names of the maps to queries, keys and values, and of the output map.
    pub fn attention(self) -> [&'static str; 4] {
        match self {
            Names::Old => ["query", "key", "value", "proj_attn"],
            Names::New => ["to_q", "to_k", "to_v", "to_out.0"],
        }
    }
}
