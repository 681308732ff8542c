//! Names of the attention maps' tensors in published files.

/// What the maps of attention are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Old,
    New,
}

impl Names {
    /// The maps to queries, keys and values, and that of the result.
    pub fn of_attention(self) -> [&'static str; 4] {
        match self {
            Names::Old => ["query", "key", "value", "proj_attn"],
            Names::New => ["to_q", "to_k", "to_v", "to_out.0"],
        }
    }
}
