//! Numbers as pictures: the curve of noise levels, and what a token attends to.

use model::picture::Rgb;

use crate::protocol::Attended;

/// The noise levels of a run as points of a curve in a box of `width` by `height`: steps to the
/// right, the logarithm of the noise level upwards. No noise at all lies at the bottom.
pub fn curve(sigmas: &[f64], width: f64, height: f64) -> Vec<[f64; 2]> {
    let positive = || sigmas.iter().copied().filter(|&sigma| sigma > 0.0).map(f64::ln);
    let high = positive().fold(f64::NEG_INFINITY, f64::max);
    let low = positive().fold(f64::INFINITY, f64::min);
    // A tenth of the height separates the last noise from none.
    let up = |sigma: f64| match sigma {
        sigma if sigma <= 0.0 => 0.0,
        _ if high <= low => 1.0,
        sigma => 0.1 + 0.9 * (sigma.ln() - low) / (high - low),
    };
    let last = sigmas.len().saturating_sub(1).max(1) as f64;
    let point = |(i, &sigma): (usize, &f64)| [width * i as f64 / last, height * (1.0 - up(sigma))];
    sigmas.iter().enumerate().map(point).collect()
}

/// Points as the `d` of an SVG path.
pub fn path(points: &[[f64; 2]]) -> String {
    let point = |(i, [x, y]): (usize, &[f64; 2])| {
        format!("{}{x:.2} {y:.2}", if i == 0 { "M" } else { "L" })
    };
    points.iter().enumerate().map(point).collect()
}

/// Points as the `d` of an SVG path that draws nothing but its ends.
pub fn dots(points: &[[f64; 2]]) -> String {
    points.iter().map(|[x, y]| format!("M{x:.2} {y:.2}h0")).collect()
}

/// What a block attended to, for one picture at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps {
    /// What was looked at, and its sizes.
    pub about: Attended,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Maps {
    /// Takes up what the worker sent; `None` if it is not as much as it should be.
    pub fn new(about: Attended, bytes: &[u8]) -> Option<Self> {
        let Attended { heads, side, window, .. } = about;
        if heads == 0 || window == 0 || side % window != 0 {
            return None;
        }
        let n = window * window;
        let weights = (side / window).pow(2) * heads * n * n;
        if bytes.len() != 4 * (weights + heads * n * n) {
            return None;
        }
        let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let mut weights_and_bias: Vec<f32> = bytes.chunks_exact(4).map(value).collect();
        let bias = weights_and_bias.split_off(weights);
        Some(Self { about, weights: weights_and_bias, bias })
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        4 * (self.weights.len() + self.bias.len())
    }

    /// The token, row and column, at a place in 256ths of the picture.
    pub fn token(&self, place: [u8; 2]) -> [usize; 2] {
        place.map(|place| usize::from(place) * self.about.side / 256)
    }

    /// The weights with which a token takes up each of the others of its window, row after row:
    /// those of one head, or the mean of all.
    pub fn weights(&self, token: [usize; 2], head: Option<usize>) -> Vec<f32> {
        let Attended { heads, side, window, .. } = self.about;
        let first = (token[0] / window * (side / window) + token[1] / window) * heads;
        self.rows(&self.weights, first, token, head)
    }

    /// The relative position bias from a token to each of the others of its window.
    pub fn bias(&self, token: [usize; 2], head: Option<usize>) -> Vec<f32> {
        self.rows(&self.bias, 0, token, head)
    }

    /// Row `token` of a matrix for each head, the first of which is number `first`.
    fn rows(
        &self,
        matrices: &[f32],
        first: usize,
        token: [usize; 2],
        head: Option<usize>,
    ) -> Vec<f32> {
        let Attended { heads, window, .. } = self.about;
        let n = window * window;
        let row = token[0] % window * window + token[1] % window;
        let heads = match head {
            Some(head) => head.min(heads - 1)..head.min(heads - 1) + 1,
            None => 0..heads,
        };
        let count = heads.len() as f32;
        let mut mean = vec![0.0; n];
        for head in heads {
            let start = ((first + head) * n + row) * n;
            for (mean, value) in mean.iter_mut().zip(&matrices[start..start + n]) {
                *mean += value / count;
            }
        }
        mean
    }

    /// The picture in grey, with the weights of a token over it as heat. What lies outside its
    /// window is faint.
    pub fn heat(&self, picture: &Rgb, place: [u8; 2], head: Option<usize>) -> Rgb {
        let Attended { side, window, .. } = self.about;
        let token = self.token(place);
        let weights = self.weights(token, head);
        let most = weights.iter().fold(1e-9f32, |most, &weight| most.max(weight));
        let corner = token.map(|t| t / window * window);
        let mut bytes = Vec::with_capacity(picture.bytes.len());
        for (i, pixel) in picture.bytes.chunks_exact(3).enumerate() {
            let [y, x] = [i / picture.width, i % picture.width];
            let at = [y * side / picture.height, x * side / picture.width];
            let inside = (0..2).all(|d| (corner[d]..corner[d] + window).contains(&at[d]));
            let grey = pixel.iter().map(|&byte| f32::from(byte)).sum::<f32>() / 3.0;
            if inside {
                let heat = weights[(at[0] - corner[0]) * window + at[1] - corner[1]] / most;
                let colour = colour(heat);
                bytes.extend(colour.map(|c| (0.25 * grey + 0.75 * f32::from(c)) as u8));
            } else {
                bytes.extend([(0.2 * grey + 25.0) as u8; 3]);
            }
        }
        Rgb { width: picture.width, height: picture.height, bytes }
    }

    /// The relative position bias from a token to its window, from least to most.
    pub fn bias_picture(&self, token: [usize; 2], head: Option<usize>) -> Rgb {
        let window = self.about.window;
        let bias = self.bias(token, head);
        let least = bias.iter().fold(f32::INFINITY, |m, &b| m.min(b));
        let most = bias.iter().fold(f32::NEG_INFINITY, |m, &b| m.max(b));
        let part = |b: f32| if most > least { (b - least) / (most - least) } else { 0.0 };
        let bytes = bias.iter().flat_map(|&b| colour(part(b))).collect();
        Rgb { width: window, height: window, bytes }
    }

    /// How evenly a token attends: 1 if to all of its window alike, 0 if to one token only
    /// (the entropy of its weights, in parts of what it could be).
    pub fn evenness(&self, token: [usize; 2], head: Option<usize>) -> f32 {
        let weights = self.weights(token, head);
        let entropy: f32 = weights.iter().filter(|&&w| w > 0.0).map(|&w| -w * w.ln()).sum();
        let most = (weights.len() as f32).ln();
        if most > 0.0 { entropy / most } else { 0.0 }
    }

    /// The time token's share of queries, keys and values, by length.
    pub fn time_share(&self) -> [f32; 3] {
        let [space, time] = self.about.lengths;
        [0, 1, 2].map(|i| time[i] / (space[i] + time[i]).max(f32::MIN_POSITIVE))
    }
}

/// From dark over violet and orange to pale yellow: rises in lightness throughout.
pub fn colour(heat: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 6] = [
        [16.0, 12.0, 40.0],
        [72.0, 26.0, 108.0],
        [156.0, 42.0, 104.0],
        [226.0, 88.0, 56.0],
        [250.0, 164.0, 46.0],
        [252.0, 246.0, 182.0],
    ];
    let place = if heat.is_nan() { 0.0 } else { heat.clamp(0.0, 1.0) } * 5.0;
    let i = (place as usize).min(4);
    let part = place - i as f32;
    [0, 1, 2].map(|c| (STOPS[i][c] * (1.0 - part) + STOPS[i + 1][c] * part) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Look;

    #[test]
    fn the_curve_falls_from_corner_to_corner() {
        let points = curve(&[80.0, 1.0, 0.0125, 0.0], 90.0, 100.0);
        let want = [[0.0, 0.0], [30.0, 45.0], [60.0, 90.0], [90.0, 100.0]];
        for (point, want) in points.iter().zip(want) {
            assert!((point[0] - want[0]).abs() < 1e-9 && (point[1] - want[1]).abs() < 1e-9);
        }
        assert_eq!(path(&points[..2]), "M0.00 0.00L30.00 45.00");
        assert_eq!(dots(&points[..2]), "M0.00 0.00h0M30.00 45.00h0");
        for sigmas in [&[][..], &[0.0], &[3.0], &[3.0, 0.0], &[3.0, 3.0]] {
            assert!(curve(sigmas, 1.0, 1.0).iter().flatten().all(|x| x.is_finite()));
        }
    }

    /// Two heads over a map of 4x4 tokens in windows of 2x2; weight and bias values are numbered.
    fn maps() -> Maps {
        let look = Look { step: 0, picture: 0, block: 0 };
        let lengths = [[3.0, 1.0, 0.0], [1.0, 1.0, 0.0]];
        let about = Attended { look, heads: 2, side: 4, window: 2, lengths };
        let values = (0..4 * 2 * 16).chain(1000..1000 + 2 * 16);
        let bytes: Vec<u8> = values.flat_map(|i| (i as f32).to_le_bytes()).collect();
        assert_eq!(Maps::new(about.clone(), &bytes[4..]), None);
        Maps::new(about, &bytes).expect("as many as there should be")
    }

    #[test]
    fn a_token_finds_its_row() {
        let maps = maps();
        assert_eq!(maps.token([0, 255]), [0, 3]);
        assert_eq!(maps.token([128, 128]), [2, 2]);
        // Token (3, 0) is number 2 of window 2; window 2 has matrices 4 and 5.
        let row = |head: f32| {
            (0..4).map(|j| (4.0 + head) * 16.0 + 2.0 * 4.0 + j as f32).collect::<Vec<_>>()
        };
        assert_eq!(maps.weights([3, 0], Some(0)), row(0.0));
        assert_eq!(maps.weights([3, 0], Some(1)), row(1.0));
        assert_eq!(maps.weights([3, 0], None), row(0.5));
        // A head that this block does not have is its last.
        assert_eq!(maps.weights([3, 0], Some(7)), row(1.0));
        assert_eq!(maps.bias([3, 0], Some(1)), [1024.0, 1025.0, 1026.0, 1027.0]);
        assert_eq!(maps.time_share(), [0.25, 0.5, 0.0]);
    }

    #[test]
    fn heat_covers_the_window_of_the_token() {
        let picture = Rgb { width: 8, height: 8, bytes: vec![255; 192] };
        let heat = maps().heat(&picture, [128, 128], None);
        let pixel = |y: usize, x: usize| &heat.bytes[3 * (8 * y + x)..][..3];
        assert_eq!(pixel(0, 0), [76; 3]);
        assert_eq!(pixel(7, 3), [76; 3]);
        // The last token of the window has the greatest weight.
        assert!(pixel(7, 7)[0] > 240 && pixel(7, 7)[2] < pixel(7, 7)[0]);
        assert_eq!(maps().bias_picture([0, 0], None).bytes.len(), 12);
    }

    #[test]
    fn colours_rise_in_lightness() {
        let lightness = |i: i16| colour(f32::from(i) / 20.0).map(u32::from).iter().sum::<u32>();
        assert!((0..20).all(|i| lightness(i) <= lightness(i + 1)));
        assert_eq!(colour(f32::NAN), colour(0.0));
        assert_eq!(colour(9.0), colour(1.0));
    }

    #[test]
    fn evenness_goes_from_none_to_all() {
        let mut maps = maps();
        maps.weights.fill(0.25);
        assert!((maps.evenness([0, 0], None) - 1.0).abs() < 1e-6);
        maps.weights.fill(0.0);
        assert_eq!(maps.evenness([0, 0], None), 0.0);
    }
}
