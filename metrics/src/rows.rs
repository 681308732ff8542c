//! Sets of features, in memory or in a file.

use std::ops::Range;

use crate::MetricsError;

/// Number of features that are in memory at once.
pub const BLOCK: usize = 512;

/// A set of features, one row for each image.
pub trait Rows {
    /// Returns the number of rows.
    fn len(&self) -> usize;

    /// Returns the number of values of a row.
    fn dim(&self) -> usize;

    /// Reads rows, `[range.len(), dim]`.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn read(&self, range: Range<usize>) -> Result<Vec<f32>, MetricsError>;

    /// Returns whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns the blocks of at most `size` rows that `n` rows are read in.
pub fn blocks(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(size.max(1)).map(move |start| start..n.min(start + size.max(1)))
}

/// Features in memory.
pub struct Memory {
    dim: usize,
    values: Vec<f32>,
}

impl Memory {
    /// Creates a set from its values, `[N, dim]`.
    ///
    /// # Panics
    ///
    /// If the values are no whole rows.
    pub fn new(values: Vec<f32>, dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "values are whole rows");
        Self { dim, values }
    }
}

impl Rows for Memory {
    fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<f32>, MetricsError> {
        Ok(self.values[range.start * self.dim..range.end * self.dim].to_vec())
    }
}

/// Some rows of a set.
pub struct Selected<'a> {
    /// The whole set.
    pub rows: &'a dyn Rows,
    /// Row numbers.
    pub numbers: &'a [usize],
}

impl Rows for Selected<'_> {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<f32>, MetricsError> {
        let mut values = Vec::with_capacity(range.len() * self.dim());
        for &number in &self.numbers[range] {
            values.extend(self.rows.read(number..number + 1)?);
        }
        Ok(values)
    }
}
