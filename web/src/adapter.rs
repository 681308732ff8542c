//! The choice of backend and precision.

use serde::{Deserialize, Serialize};

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The graphics processor, through WebGPU.
    WebGpu,
    /// The processor.
    Cpu,
}

impl Backend {
    /// Reads the backend that a query asks for: `?backend=webgpu` or `?backend=cpu`.
    pub fn wish(query: &str) -> Option<Self> {
        let pairs = query.trim_start_matches('?').split('&');
        let wish = pairs.filter_map(|pair| pair.strip_prefix("backend=")).next_back()?;
        match wish {
            "webgpu" => Some(Backend::WebGpu),
            "cpu" => Some(Backend::Cpu),
            _ => None,
        }
    }
}

/// A graphics processor, as the browser describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// The name, if the browser reports it.
    pub name: String,
    /// Whether it is emulated in software, which is about a hundred times slower than the CPU
    /// backend.
    pub software: bool,
    /// Whether it has the feature `timestamp-query`, which the runtime requires.
    pub timestamps: bool,
    /// Whether it has the feature `shader-f16`.
    pub halves: bool,
}

/// The precision of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// 16 bits.
    F16,
    /// 32 bits.
    F32,
}

impl Numbers {
    /// Returns the bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            Numbers::F16 => 2,
            Numbers::F32 => 4,
        }
    }
}

/// Maximum deviation from the known answer in 16 bits.
pub const HALF_TOLERANCE: f32 = 3e-2;

/// Returns whether a model in 16 bits is accurate enough. `missed` is its deviation from the known
/// answer; `None` if it could not be computed.
pub fn halves_suffice(missed: Option<f32>) -> bool {
    missed.is_some_and(|missed| missed <= HALF_TOLERANCE)
}

/// The chosen backend, with a note for the visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// The reason, if it is not the backend that the visitor would expect.
    pub note: Option<String>,
}

/// Chooses the backend. `found` is the graphics processor, or the reason why there is none.
pub fn choose(wish: Option<Backend>, found: &Result<Adapter, String>) -> Choice {
    let cpu = |why: &str| Choice {
        backend: Backend::Cpu,
        note: Some(format!("{why} The pictures are computed on your processor instead.")),
    };
    match (wish, found) {
        (Some(Backend::Cpu), _) => Choice { backend: Backend::Cpu, note: None },
        (_, Err(why)) => cpu(why),
        (_, Ok(Adapter { timestamps: false, .. })) => {
            cpu("Your graphics processor lacks a required feature (timestamp-query).")
        }
        (Some(Backend::WebGpu), Ok(_)) => Choice { backend: Backend::WebGpu, note: None },
        (None, Ok(Adapter { software: true, .. })) => {
            cpu("This browser's WebGPU runs without a graphics processor, which is very slow.")
        }
        (None, Ok(_)) => Choice { backend: Backend::WebGpu, note: None },
    }
}

/// Pictures that the self-check evaluates at a time: one for each noise level and label of the known
/// answer.
const CHECKED: f64 = 4.0;

/// Maximum estimated time of the first pictures of a visit, in milliseconds, for them to be made
/// without a click.
const PATIENCE: f64 = 30_000.0;

/// Returns the estimated time of the first pictures of a visit in milliseconds if they wait for a
/// click, since they would take long; `None` if they are made at once. `check` is the time of the
/// self-check. On a graphics processor most of that is the compilation of kernels, which says nothing
/// about the time of an evaluation, so pictures are made at once.
pub fn waits(backend: Backend, check: f64, pictures: usize, evaluations: usize) -> Option<f64> {
    let estimate = check / CHECKED * (pictures * evaluations) as f64;
    (backend == Backend::Cpu && estimate > PATIENCE).then_some(estimate)
}

/// Returns whether an adapter is emulated in software, by its descriptions.
pub fn is_software(fallback: bool, descriptions: &[&str]) -> bool {
    const KNOWN: [&str; 5] = ["swiftshader", "llvmpipe", "lavapipe", "softpipe", "basic render"];
    let named = |text: &&str| {
        let text = text.to_lowercase();
        KNOWN.iter().any(|known| text.contains(known))
    };
    fallback || descriptions.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_is_read_from_the_query() {
        assert_eq!(Backend::wish("?backend=cpu"), Some(Backend::Cpu));
        assert_eq!(Backend::wish("?a=1&backend=webgpu"), Some(Backend::WebGpu));
        for query in ["", "?", "?backend=", "?backend=CPU;x", "?xbackend=cpu", "?backend"] {
            assert_eq!(Backend::wish(query), None, "{query}");
        }
    }

    #[test]
    fn every_adapter_leads_somewhere() {
        let good = Adapter { name: "A".into(), software: false, timestamps: true, halves: false };
        let software = Adapter { software: true, ..good.clone() };
        let old = Adapter { timestamps: false, ..good.clone() };
        let none = Err("This browser has no WebGPU.".to_string());
        let chosen = |wish, found: &Result<Adapter, String>| {
            let choice = choose(wish, found);
            (choice.backend, choice.note.is_some())
        };
        let (gpu, cpu) = (Backend::WebGpu, Backend::Cpu);
        assert_eq!(chosen(None, &Ok(good.clone())), (gpu, false));
        assert_eq!(chosen(None, &Ok(software.clone())), (cpu, true));
        assert_eq!(chosen(None, &Ok(old.clone())), (cpu, true));
        assert_eq!(chosen(None, &none), (cpu, true));
        assert_eq!(chosen(Some(gpu), &Ok(software)), (gpu, false));
        assert_eq!(chosen(Some(gpu), &Ok(old)), (cpu, true));
        assert_eq!(chosen(Some(gpu), &none), (cpu, true));
        assert_eq!(chosen(Some(cpu), &Ok(good)), (cpu, false));
    }

    #[test]
    fn halves_are_used_where_they_are_exact_enough() {
        assert!(halves_suffice(Some(0.0)) && halves_suffice(Some(HALF_TOLERANCE)));
        for missed in [None, Some(0.04), Some(f32::NAN), Some(f32::INFINITY)] {
            assert!(!halves_suffice(missed), "{missed:?}");
        }
        assert_eq!([Numbers::F16, Numbers::F32].map(Numbers::bytes), [2, 4]);
    }

    #[test]
    fn a_slow_device_waits_for_a_click() {
        let (gpu, cpu) = (Backend::WebGpu, Backend::Cpu);
        // Four pictures in twelve evaluations, as the page starts with.
        assert_eq!(waits(cpu, 250.0, 4, 12), None);
        assert_eq!(waits(cpu, 5000.0, 4, 12), Some(60_000.0));
        assert_eq!(waits(cpu, 5000.0, 1, 12), None);
        assert_eq!(waits(gpu, 5000.0, 4, 12), None);
        assert_eq!(waits(cpu, f64::NAN, 4, 12), None);
    }

    #[test]
    fn software_adapters_are_recognised() {
        assert!(is_software(true, &[]));
        assert!(is_software(false, &["google", "SwiftShader Device (Subzero)"]));
        assert!(is_software(false, &["Microsoft Basic Render Driver"]));
        assert!(!is_software(false, &["nvidia", "ampere", ""]));
    }
}
