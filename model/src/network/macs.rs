//! Multiply-adds of a forward pass, counted by walking the network as its forward pass does.

use core::iter::Sum;
use core::ops::Add;

/// Multiply-adds for one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// In linear maps and convolutions: what papers usually print.
    pub weights: u64,
    /// In the two matrix products of attention, `Q Kᵀ` and `A V`.
    pub attention: u64,
}

impl Macs {
    pub(crate) fn weights(count: usize) -> Self {
        Self { weights: count as u64, attention: 0 }
    }

    pub(crate) fn attention(count: usize) -> Self {
        Self { weights: 0, attention: count as u64 }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.weights + self.attention
    }
}

impl Add for Macs {
    type Output = Macs;

    fn add(self, other: Macs) -> Macs {
        Macs { weights: self.weights + other.weights, attention: self.attention + other.attention }
    }
}

impl Sum for Macs {
    fn sum<I: Iterator<Item = Macs>>(iter: I) -> Macs {
        iter.fold(Macs::default(), Add::add)
    }
}
