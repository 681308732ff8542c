//! The mask of an inpainting: strokes of a square brush, and rectangles.

/// A byte per pixel: 1 where the picture is to be painted anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    bytes: Vec<u8>,
}

impl Mask {
    /// An empty mask.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, bytes: vec![0; width * height] }
    }

    /// Returns the bytes, row by row.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of pixels to be painted anew.
    pub fn count(&self) -> usize {
        self.bytes.iter().filter(|&&byte| byte == 1).count()
    }

    /// Empties the mask.
    pub fn clear(&mut self) {
        self.bytes.fill(0);
    }

    /// Sets the pixels of a rectangle, given by left, top, width and height. Parts outside the mask
    /// are ignored.
    pub fn fill(&mut self, [left, top, width, height]: [usize; 4], byte: u8) {
        if self.width == 0 {
            return;
        }
        let (left, right) = (left.min(self.width), (left + width).min(self.width));
        for row in self.bytes.chunks_exact_mut(self.width).skip(top).take(height) {
            row[left..right].fill(byte);
        }
    }

    /// Draws a line from one pixel to another, both given by column and row, with a square brush of
    /// `brush` pixels a side. Pointer events can be many pixels apart.
    pub fn stroke(&mut self, from: [usize; 2], to: [usize; 2], brush: usize, byte: u8) {
        let steps = from[0].abs_diff(to[0]).max(from[1].abs_diff(to[1]));
        for step in 0..=steps {
            let place = [0, 1].map(|i| {
                let (from, to) = (from[i] as f64, to[i] as f64);
                (from + (to - from) * step as f64 / steps.max(1) as f64).round() as usize
            });
            let [left, top] = place.map(|at| at.saturating_sub(brush / 2));
            self.fill([left, top, brush, brush], byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(mask: &Mask) -> Vec<[usize; 2]> {
        let places = mask.bytes().iter().enumerate().filter(|(_, byte)| **byte == 1);
        places.map(|(i, _)| [i % mask.width, i / mask.width]).collect()
    }

    #[test]
    fn strokes_have_no_gaps() {
        for (from, to) in
            [([0, 0], [31, 0]), ([2, 30], [2, 1]), ([0, 0], [31, 20]), ([30, 3], [4, 31])]
        {
            let mut mask = Mask::new(32, 32);
            mask.stroke(from, to, 1, 1);
            let mut places = painted(&mask);
            assert!(places.contains(&from) && places.contains(&to));
            assert_eq!(places.len(), from[0].abs_diff(to[0]).max(from[1].abs_diff(to[1])) + 1);
            // Along the longer side, each pixel touches the next one.
            let longer = usize::from(from[0].abs_diff(to[0]) < from[1].abs_diff(to[1]));
            places.sort_by_key(|place| place[longer]);
            for pair in places.windows(2) {
                assert!((0..2).all(|i| pair[0][i].abs_diff(pair[1][i]) <= 1), "{pair:?}");
            }
        }
    }

    #[test]
    fn a_stroke_is_as_wide_as_the_brush_and_ends_at_the_edge() {
        let mut mask = Mask::new(8, 8);
        mask.stroke([1, 4], [7, 4], 4, 1);
        assert_eq!(mask.count(), 4 * 8);
        mask.stroke([7, 7], [7, 7], 2, 1);
        assert_eq!(mask.count(), 4 * 8 + 4);
        mask.stroke([7, 4], [1, 4], 4, 0);
        assert_eq!(painted(&mask), [[6, 6], [7, 6], [6, 7], [7, 7]]);
        mask.clear();
        mask.fill([6, 6, 100, 100], 1);
        mask.fill([100, 0, 1, 1], 1);
        assert_eq!(mask.count(), 4);
        Mask::new(0, 0).stroke([0, 0], [3, 3], 2, 1);
    }
}
