//! Plots: the curve of noise levels, and attention maps.

use model::picture::Rgb;

use crate::protocol::Attended;

/// Returns the noise levels of a run as points in a box of `width` by `height`: the step on the
/// horizontal axis, the logarithm of the noise level on the vertical one. A level of zero is at the
/// bottom.
pub fn curve(sigmas: &[f64], width: f64, height: f64) -> Vec<[f64; 2]> {
    let positive = || sigmas.iter().copied().filter(|&sigma| sigma > 0.0).map(f64::ln);
    let high = positive().fold(f64::NEG_INFINITY, f64::max);
    let low = positive().fold(f64::INFINITY, f64::min);
    // A tenth of the height separates the lowest level above zero from zero.
    let up = |sigma: f64| match sigma {
        sigma if sigma <= 0.0 => 0.0,
        _ if high <= low => 1.0,
        sigma => 0.1 + 0.9 * (sigma.ln() - low) / (high - low),
    };
    let last = sigmas.len().saturating_sub(1).max(1) as f64;
    let point = |(i, &sigma): (usize, &f64)| [width * i as f64 / last, height * (1.0 - up(sigma))];
    sigmas.iter().enumerate().map(point).collect()
}

/// Returns points as the `d` attribute of an SVG path.
pub fn path(points: &[[f64; 2]]) -> String {
    let point = |(i, [x, y]): (usize, &[f64; 2])| {
        format!("{}{x:.2} {y:.2}", if i == 0 { "M" } else { "L" })
    };
    points.iter().enumerate().map(point).collect()
}

/// Returns points as the `d` attribute of an SVG path that is a dot at each point.
pub fn dots(points: &[[f64; 2]]) -> String {
    points.iter().map(|[x, y]| format!("M{x:.2} {y:.2}h0")).collect()
}

/// Describes what happens at a noise level, for pictures with values from -1 to 1.
pub fn phase(sigma: f64) -> &'static str {
    match sigma {
        sigma if sigma > 10.0 => {
            "Almost nothing but noise. The guess is a blur: the average of all pictures that could be \
             under it."
        }
        sigma if sigma > 1.0 => {
            "Layout and colours are being decided; the noise still hides the rest."
        }
        sigma if sigma > 0.1 => "Shapes are settled. Edges and parts appear.",
        sigma if sigma > 0.0 => "Only fine details still change.",
        _ => "No noise is left: this is the picture.",
    }
}

/// The attention of one token in one block, for one picture at one step: a row of the attention map
/// and of the relative position bias for each head.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// The request, and sizes.
    pub about: Attended,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Attention {
    /// Reads the bytes that the worker sent. Returns `None` if their number does not match the sizes.
    pub fn new(about: Attended, bytes: &[u8]) -> Option<Self> {
        let Attended { look, heads, side, window, .. } = about;
        look.row(side, window)?;
        let row = heads * window * window;
        if heads == 0 || bytes.len() != 4 * 2 * row {
            return None;
        }
        let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let mut weights: Vec<f32> = bytes.chunks_exact(4).map(value).collect();
        let bias = weights.split_off(row);
        Some(Self { about, weights, bias })
    }

    /// Returns the attention weights to the tokens of the window, row by row: of one head, or the
    /// mean of all.
    pub fn weights(&self, head: Option<usize>) -> Vec<f32> {
        self.mean(&self.weights, head)
    }

    /// Returns the relative position bias to the tokens of the window.
    pub fn bias(&self, head: Option<usize>) -> Vec<f32> {
        self.mean(&self.bias, head)
    }

    /// Returns the row of one head, or the mean of the rows of all heads. A head that the block does
    /// not have stands for its last one.
    fn mean(&self, rows: &[f32], head: Option<usize>) -> Vec<f32> {
        let Attended { heads, window, .. } = self.about;
        let heads = match head {
            Some(head) => head.min(heads - 1)..head.min(heads - 1) + 1,
            None => 0..heads,
        };
        let (n, count) = (window * window, heads.len() as f32);
        let mut mean = vec![0.0; n];
        for head in heads {
            for (mean, value) in mean.iter_mut().zip(&rows[head * n..(head + 1) * n]) {
                *mean += value / count;
            }
        }
        mean
    }

    /// Draws the attention weights as a heat map over the picture in grey. Places outside the window
    /// are dimmed.
    pub fn heat(&self, picture: &Rgb, head: Option<usize>) -> Rgb {
        let Attended { look, side, window, .. } = self.about;
        let weights = self.weights(head);
        let most = weights.iter().fold(1e-9f32, |most, &weight| most.max(weight));
        let corner = look.token.map(|t| t / window * window);
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

    /// Draws the relative position bias to the tokens of the window.
    pub fn bias_picture(&self, head: Option<usize>) -> Rgb {
        let window = self.about.window;
        let bias = self.bias(head);
        let least = bias.iter().fold(f32::INFINITY, |m, &b| m.min(b));
        let most = bias.iter().fold(f32::NEG_INFINITY, |m, &b| m.max(b));
        let part = |b: f32| if most > least { (b - least) / (most - least) } else { 0.0 };
        let bytes = bias.iter().flat_map(|&b| colour(part(b))).collect();
        Rgb { width: window, height: window, bytes }
    }

    /// Returns the entropy of the attention weights as a fraction of its maximum: 1 for equal
    /// weights, 0 for a single token.
    pub fn evenness(&self, head: Option<usize>) -> f32 {
        let weights = self.weights(head);
        let entropy: f32 = weights.iter().filter(|&&w| w > 0.0).map(|&w| -w * w.ln()).sum();
        let most = (weights.len() as f32).ln();
        if most > 0.0 { entropy / most } else { 0.0 }
    }

    /// Returns the time token's share of queries, keys and values, by vector norm.
    pub fn time_share(&self) -> [f32; 3] {
        time_share(self.about.lengths)
    }
}

/// Returns the time token's share of queries, keys and values from the norms of the two parts.
pub fn time_share([space, time]: [[f32; 3]; 2]) -> [f32; 3] {
    [0, 1, 2].map(|i| time[i] / (space[i] + time[i]).max(f32::MIN_POSITIVE))
}

/// Returns the colour of a value from 0 to 1: from dark violet over orange to pale yellow, with rising
/// lightness.
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

    /// Two heads, a map of 4x4 tokens, windows of 2x2, and the token in row 3 and column 2. The
    /// values of weights and bias are numbered.
    fn attention() -> Attention {
        let look = Look { run: 1, step: 0, picture: 0, block: 0, token: [3, 2] };
        let lengths = [[3.0, 1.0, 0.0], [1.0, 1.0, 0.0]];
        let about = Attended { look, heads: 2, side: 4, window: 2, lengths };
        let values = (0..8).chain(1000..1008);
        let bytes: Vec<u8> = values.flat_map(|i| (i as f32).to_le_bytes()).collect();
        assert_eq!(Attention::new(about.clone(), &bytes[4..]), None);
        let outside = Look { token: [4, 0], ..look };
        assert_eq!(Attention::new(Attended { look: outside, ..about.clone() }, &bytes), None);
        for (heads, window) in [(0, 2), (2, 0), (2, 3)] {
            assert_eq!(Attention::new(Attended { heads, window, ..about.clone() }, &bytes), None);
        }
        Attention::new(about, &bytes).expect("two rows for each head")
    }

    #[test]
    fn each_head_has_a_row() {
        let attention = attention();
        assert_eq!(attention.weights(Some(0)), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(attention.weights(Some(1)), [4.0, 5.0, 6.0, 7.0]);
        assert_eq!(attention.weights(None), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(attention.weights(Some(7)), attention.weights(Some(1)));
        assert_eq!(attention.bias(Some(1)), [1004.0, 1005.0, 1006.0, 1007.0]);
        assert_eq!(attention.time_share(), [0.25, 0.5, 0.0]);
    }

    #[test]
    fn heat_covers_the_window_of_the_token() {
        let picture = Rgb { width: 8, height: 8, bytes: vec![255; 192] };
        let heat = attention().heat(&picture, None);
        let pixel = |y: usize, x: usize| &heat.bytes[3 * (8 * y + x)..][..3];
        assert_eq!(pixel(0, 0), [76; 3]);
        assert_eq!(pixel(7, 3), [76; 3]);
        // The last token of the window has the greatest weight.
        assert!(pixel(7, 7)[0] > 240 && pixel(7, 7)[2] < pixel(7, 7)[0]);
        assert_eq!(attention().bias_picture(None).bytes.len(), 12);
    }

    #[test]
    fn colours_rise_in_lightness() {
        let lightness = |i: i16| colour(f32::from(i) / 20.0).map(u32::from).iter().sum::<u32>();
        assert!((0..20).all(|i| lightness(i) <= lightness(i + 1)));
        assert_eq!(colour(f32::NAN), colour(0.0));
        assert_eq!(colour(9.0), colour(1.0));
    }

    #[test]
    fn the_legend_has_the_colours_of_the_map() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../www/views.css");
        let css = std::fs::read_to_string(path).expect("the style sheet");
        let stops: Vec<String> = (0..=5)
            .map(|i| {
                let [r, g, b] = colour(i as f32 / 5.0);
                format!("#{r:02x}{g:02x}{b:02x}")
            })
            .collect();
        let gradient = format!("linear-gradient(to right, {})", stops.join(", "));
        assert!(css.contains(&gradient), "the style sheet has no {gradient}");
    }

    #[test]
    fn every_noise_level_has_a_phase() {
        let phases = [80.0, 5.0, 0.5, 0.02, 0.0].map(phase);
        for (i, one) in phases.iter().enumerate() {
            assert!(phases[..i].iter().all(|other| other != one), "{one}");
        }
    }

    #[test]
    fn evenness_goes_from_none_to_all() {
        let mut attention = attention();
        attention.weights.fill(0.25);
        assert!((attention.evenness(None) - 1.0).abs() < 1e-6);
        attention.weights.fill(0.0);
        assert_eq!(attention.evenness(None), 0.0);
    }
}
