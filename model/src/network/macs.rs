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
    /// The product of these factors, in linear maps and convolutions. In `u64`: the count of a large
    /// network does not fit into the 32 bits that WebAssembly's `usize` has.
    pub(crate) fn weights(factors: &[usize]) -> Self {
        Self { weights: product(factors), attention: 0 }
    }

    /// The product of these factors, in attention.
    pub(crate) fn attention(factors: &[usize]) -> Self {
        Self { weights: 0, attention: product(factors) }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.weights.saturating_add(self.attention)
    }
}

/// The product of sizes, at most [`u64::MAX`].
pub(crate) fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64))
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
        // More than 32 bits hold, and more than 64.
        assert_eq!(Macs::weights(&[1 << 16, 1 << 17]).total(), 1 << 33);
        let most = Macs::attention(&[usize::MAX, usize::MAX]);
        assert_eq!((most + most).total(), u64::MAX);
    }
}
