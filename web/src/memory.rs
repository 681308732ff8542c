//! Whether what is wanted fits into the memory there is: estimates, made before anything is built.

use crate::scene::COUNTS;

/// Bytes that computing takes, roughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Of parameters.
    pub parameters: u64,
    /// Of the largest intermediate result.
    pub largest: u64,
}

/// So many intermediate results of about the largest size are there at once: what goes into a
/// block, queries, keys and values, what comes out, and what was not given back yet.
const AT_ONCE: u64 = 6;

impl Need {
    /// That of a network with so many parameters, of `bytes` each, for `pictures` at a time.
    /// `largest_map` is as its configuration gives it. Results are computed in `f32`.
    pub fn of(parameters: usize, bytes: u64, largest_map: u64, pictures: usize) -> Self {
        let largest = largest_map.saturating_mul(4).saturating_mul(pictures as u64);
        Self { parameters: (parameters as u64).saturating_mul(bytes), largest }
    }

    /// That of two networks of which one computes at a time.
    pub fn and(self, other: Self) -> Self {
        Self {
            parameters: self.parameters.saturating_add(other.parameters),
            largest: self.largest.max(other.largest),
        }
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.parameters.saturating_add(self.largest.saturating_mul(AT_ONCE))
    }
}

/// What is known of the memory there is; nothing where the browser does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Room {
    /// Bytes in all.
    pub total: Option<u64>,
    /// Bytes in one piece.
    pub piece: Option<u64>,
}

/// The addresses of a program in WebAssembly end here.
const ADDRESSES: u64 = 4 << 30;

/// What the program itself takes, and what is lost between pieces.
const OWN: u64 = 128 << 20;

impl Room {
    /// What the processor can compute in. `machine` is the machine's memory in GiB, as far as the
    /// browser tells (`navigator.deviceMemory`, which is at most 8 in many of them).
    pub fn of_processor(machine: Option<f64>) -> Self {
        let machine = machine.filter(|gib| *gib > 0.0 && *gib < 8.0);
        let machine = machine.map_or(u64::MAX, |gib| (gib * f64::from(1 << 30)) as u64);
        Self { total: Some(ADDRESSES.min(machine).saturating_sub(OWN)), piece: None }
    }

    /// What a graphics processor can compute in: of its memory, browsers tell only how large one
    /// piece may be.
    pub fn of_graphics(piece: Option<u64>) -> Self {
        Self { total: None, piece }
    }

    /// What is missing, as a sentence; nothing if it seems to fit.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let short = |needed: u64, there: Option<u64>| there.is_some_and(|there| needed > there);
        if short(need.total(), self.total) {
            let there = self.total.unwrap_or_default();
            return Some(format!(
                "This takes about {}, and there are {} here at the most.",
                amount(need.total()),
                amount(there)
            ));
        }
        if short(need.largest, self.piece) {
            return Some(format!(
                "This takes pieces of {} on the graphics processor, which takes no more than {} in \
                 one piece.",
                amount(need.largest),
                amount(self.piece.unwrap_or_default())
            ));
        }
        None
    }
}

/// An amount of memory for people.
fn amount(bytes: u64) -> String {
    match bytes as f64 / 1e6 {
        mb if mb >= 1000.0 => format!("{:.1} GB of memory", mb / 1e3),
        mb => format!("{mb:.0} MB of memory"),
    }
}

/// The next smaller number of pictures that makes a square.
pub fn smaller(count: usize) -> Option<usize> {
    COUNTS.into_iter().rev().find(|&smaller| smaller < count)
}

/// Whether an error says, in the words of a driver or a browser, that memory was short. A program
/// that finds no memory ends by an instruction that browsers call unreachable.
pub fn is_shortage(message: &str) -> bool {
    const WORDS: [&str; 6] = [
        "out of memory",
        "outofmemory",
        "not enough memory",
        "memory allocation",
        "allocation failed",
        "unreachable",
    ];
    let message = message.to_lowercase();
    WORDS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_models_fit_the_processor_once_and_not_with_any_number_of_pictures() {
        // As `model` counts them: the released network for 256x256, and Stable Diffusion's
        // autoencoder with tiles of 256x256.
        let model = |pictures| Need::of(561_035_232, 4, 1_179_648, pictures);
        let autoencoder = Need::of(83_653_863, 4, 256 * 256 * 256, 1);
        let room = Room::of_processor(Some(8.0));
        assert_eq!(room.lacks(model(1).and(autoencoder)), None);
        assert_eq!(room.lacks(model(32).and(autoencoder)), None);
        let sentence = room.lacks(model(128).and(autoencoder)).expect("too many");
        assert!(sentence.contains("there are 4.2 GB of memory here at the most"), "{sentence}");
        // In a small machine there is no room for it at all.
        assert!(Room::of_processor(Some(2.0)).lacks(model(1)).is_some());
        // Half as large, it has.
        let half = Need { parameters: model(1).parameters / 2, ..model(1) };
        assert_eq!(Room::of_processor(Some(2.0)).lacks(half), None);
    }

    #[test]
    fn a_graphics_processor_is_asked_for_its_largest_piece() {
        let room = Room::of_graphics(Some(128 << 20));
        let need = |largest| Need { parameters: 8 << 30, largest };
        assert_eq!(room.lacks(need(128 << 20)), None);
        assert!(room.lacks(need(129 << 20)).expect("too large").contains("135 MB of memory"));
        assert_eq!(Room::of_graphics(None).lacks(need(u64::MAX)), None);
        assert_eq!(Room::default().lacks(Need::of(usize::MAX, 8, u64::MAX, 9)), None);
    }

    #[test]
    fn numbers_of_pictures_go_down_to_one() {
        assert_eq!([64, 16, 9, 4, 1].map(smaller), [Some(16), Some(9), Some(4), Some(1), None]);
    }

    #[test]
    fn shortages_are_told_from_other_ends() {
        for message in [
            "wgpu error: Out of Memory",
            "GPUOutOfMemoryError",
            "Uncaught RuntimeError: unreachable",
            "memory allocation of 67108864 bytes failed",
            "RangeError: Array buffer allocation failed",
        ] {
            assert!(is_shortage(message), "{message}");
        }
        for message in ["", "RangeError: Maximum call stack size exceeded", "the device was lost"] {
            assert!(!is_shortage(message), "{message}");
        }
    }
}
