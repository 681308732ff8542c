//! Multiply-adds of a forward pass. Each module with matrix products has a `macs` method that
//! mirrors its forward pass.

use core::iter::Sum;
use core::ops::Add;

use crate::config::check::product;

/// Multiply-adds for one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// Multiply-adds in linear maps and convolutions, the number that papers usually report.
    pub weights: u64,
    /// Multiply-adds in the two matrix products of attention, `Q Kᵀ` and `A V`.
    pub attention: u64,
}

impl Macs {
    /// Multiply-adds in linear maps and convolutions, given as factors. They are multiplied in
    /// `u64`, because the count of a large network overflows the 32-bit `usize` of WebAssembly.
    pub(crate) fn weights(factors: &[usize]) -> Self {
        Self { weights: product(factors), attention: 0 }
    }

    /// Multiply-adds in attention, given as factors.
    pub(crate) fn attention(factors: &[usize]) -> Self {
        Self { weights: 0, attention: product(factors) }
    }

    /// Total of both.
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.attention)
    }
}

impl Add for Macs {
    type Output = Macs;

    fn add(self, other: Macs) -> Macs {
        Macs {
            weights: self.weights.saturating_add(other.weights),
            attention: self.attention.saturating_add(other.attention),
        }
    }
}

impl Sum for Macs {
    fn sum<I: Iterator<Item = Macs>>(iter: I) -> Macs {
        iter.fold(Macs::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_do_not_overflow() {
        // Counts beyond 32 bits and beyond 64 bits.
        assert_eq!(Macs::weights(&[1 << 16, 1 << 17]).total(), 1 << 33);
        let most = Macs::attention(&[usize::MAX, usize::MAX]);
        assert_eq!((most + most).total(), u64::MAX);
    }
}
