//! Memory estimates, made before a model is built or pictures are made.

use crate::scene::COUNTS;

/// An estimate of the memory that a computation takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// The parameters.
    pub parameters: u64,
    /// The largest intermediate result.
    pub largest: u64,
}

/// Number of intermediate results of about the largest size that are in memory at once: the input of
/// a block, queries, keys and values, the output, and buffers that are not freed yet.
const AT_ONCE: u64 = 6;

impl Need {
    /// The estimate for a network with `parameters` of `bytes` each, for `pictures` at a time.
    /// `largest_map` comes from the network's configuration. Results are in `f32`.
    pub fn of(parameters: usize, bytes: u64, largest_map: u64, pictures: usize) -> Self {
        let largest = largest_map.saturating_mul(4).saturating_mul(pictures as u64);
        Self { parameters: (parameters as u64).saturating_mul(bytes), largest }
    }

    /// The estimate for two networks that do not compute at the same time.
    pub fn and(self, other: Self) -> Self {
        Self {
            parameters: self.parameters.saturating_add(other.parameters),
            largest: self.largest.max(other.largest),
        }
    }

    /// Returns the total.
    pub fn total(self) -> u64 {
        self.parameters.saturating_add(self.largest.saturating_mul(AT_ONCE))
    }
}

/// The available memory, as far as the browser reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Room {
    /// Total bytes.
    pub total: Option<u64>,
    /// Bytes of the largest buffer.
    pub piece: Option<u64>,
}

/// The address space of a WebAssembly program.
const ADDRESSES: u64 = 4 << 30;

/// Memory for the program itself and fragmentation.
const OWN: u64 = 128 << 20;

impl Room {
    /// The memory for computing on the processor. `machine` is the machine's memory in GiB, if the
    /// browser reports it (`navigator.deviceMemory`, which many browsers limit to 8).
    pub fn of_processor(machine: Option<f64>) -> Self {
        let machine = machine.filter(|gib| *gib > 0.0 && *gib < 8.0);
        let machine = machine.map_or(u64::MAX, |gib| (gib * f64::from(1 << 30)) as u64);
        Self { total: Some(ADDRESSES.min(machine).saturating_sub(OWN)), piece: None }
    }

    /// The memory for computing on a graphics processor, of which browsers report only the maximum
    /// size of a buffer.
    pub fn of_graphics(piece: Option<u64>) -> Self {
        Self { total: None, piece }
    }

    /// Returns a message if the memory is not enough for an estimate.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let short = |needed: u64, there: Option<u64>| there.is_some_and(|there| needed > there);
        if short(need.total(), self.total) {
            let there = self.total.unwrap_or_default();
            return Some(format!(
                "This takes about {}; at most {} are available.",
                amount(need.total()),
                amount(there)
            ));
        }
        if short(need.largest, self.piece) {
            return Some(format!(
                "This takes buffers of {} on the graphics processor, which supports at most {} per \
                 buffer.",
                amount(need.largest),
                amount(self.piece.unwrap_or_default())
            ));
        }
        None
    }
}

/// Formats an amount of memory.
fn amount(bytes: u64) -> String {
    match bytes as f64 / 1e6 {
        mb if mb >= 1000.0 => format!("{:.1} GB of memory", mb / 1e3),
        mb => format!("{mb:.0} MB of memory"),
    }
}

/// Returns the next smaller number of pictures that fills a square.
pub fn smaller(count: usize) -> Option<usize> {
    COUNTS.into_iter().rev().find(|&smaller| smaller < count)
}

/// Returns whether an error message of a driver or a browser means that memory ran out.
///
/// A program that cannot allocate memory ends with an `unreachable` instruction, about which the page
/// gets no other message than the browser's. A panic ends the program in the same way, but has sent
/// its own message before: that one can contain the word "unreachable" for other reasons.
pub fn is_shortage(message: &str) -> bool {
    const SHORTAGE: [&str; 5] = [
        "out of memory",
        "outofmemory",
        "not enough memory",
        "memory allocation",
        "allocation failed",
    ];
    /// The messages of Chromium, Firefox and Safari about the instruction.
    const TRAP: [&str; 3] =
        ["runtimeerror: unreachable", "unreachable executed", "unreachable code should not be"];
    let message = message.to_lowercase();
    let contains = |words: &[&str]| words.iter().any(|words| message.contains(words));
    contains(&SHORTAGE) || (!message.contains("panicked at") && contains(&TRAP))
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
        assert!(sentence.contains("at most 4.2 GB of memory are available"), "{sentence}");
        // A small machine does not have enough memory for it.
        assert!(Room::of_processor(Some(2.0)).lacks(model(1)).is_some());
        // It has enough for half of the parameters.
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
            "The computation stopped (Uncaught RuntimeError: unreachable).",
            "RuntimeError: unreachable executed",
            "RuntimeError: Unreachable code should not be executed (evaluating 'x')",
            "memory allocation of 67108864 bytes failed",
            "RangeError: Array buffer allocation failed",
        ] {
            assert!(is_shortage(message), "{message}");
        }
        for message in [
            "",
            "RangeError: Maximum call stack size exceeded",
            "the device was lost",
            // A panic by `unreachable!()`.
            "The computation stopped unexpectedly (panicked at src/a.rs:1:1:\ninternal error: entered \
             unreachable code).",
            "panicked at src/a.rs:1:1:\nRuntimeError: unreachable",
            "the server is unreachable",
        ] {
            assert!(!is_shortage(message), "{message}");
        }
    }
}
