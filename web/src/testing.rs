//! Faults that the browser tests inject through the query of the page's address.
//!
//! The page ignores them unless its `<html>` element has the attribute [`MARK`]. The built page does
//! not have it; the server of the tests adds it to `index.html` (`tests/support/server.rs`). So no
//! link can make the published page fail, and the tests run the same programs that are
//! published, without another build.

use serde::{Deserialize, Serialize};

/// The attribute of the `<html>` element that allows faults.
pub const MARK: &str = "data-testing";

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The device is lost before this evaluation, counted from 1.
    Device(usize),
    /// Memory runs out when more than this number of pictures are made at a time.
    Memory(usize),
    /// The device is lost at rest, when attention is requested for the first time.
    Rest,
    /// The worker ends after this number of training steps.
    Training(usize),
}

/// The faults in a query.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The fault of `?fault=3` or `?fault=rest`, which lose the device, of `?fault=memory4`, which
    /// uses up memory, or of `?fault=train20`, which ends training.
    pub fault: Option<Fault>,
    /// The memory limit of `?memory=20000000`, in bytes.
    pub memory: Option<u64>,
    /// Whether `?software` takes a graphics processor that is emulated in software for a real one.
    pub software: bool,
    /// The time in milliseconds after which `?silence=2000` gives up a silent worker.
    pub silence: Option<u64>,
    /// The time of the self-check that `?check=60000` pretends, in milliseconds.
    pub check: Option<f64>,
}

impl Faults {
    /// Reads the faults of a query; none unless the page is marked for tests.
    pub fn read(query: &str, marked: bool) -> Self {
        if !marked {
            return Self::default();
        }
        let value = |name: &str| {
            let pairs = query.trim_start_matches('?').split('&');
            pairs.filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name)
        };
        let fault = value("fault").and_then(|(_, value)| {
            if let Some(pictures) = value.strip_prefix("memory") {
                return pictures.parse().ok().map(Fault::Memory);
            }
            if let Some(steps) = value.strip_prefix("train") {
                return steps.parse().ok().map(Fault::Training);
            }
            if value == "rest" {
                return Some(Fault::Rest);
            }
            value.parse().ok().map(Fault::Device)
        });
        let number = |name: &str| value(name).map(|(_, number)| number);
        Self {
            fault,
            software: query.trim_start_matches('?').split('&').any(|pair| pair == "software"),
            memory: number("memory").and_then(|bytes| bytes.parse().ok()),
            silence: number("silence").and_then(|time| time.parse().ok()),
            check: number("check").and_then(|time| time.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_the_query() {
        let fault = |query| Faults::read(query, true).fault;
        assert_eq!(fault("?backend=cpu&fault=3"), Some(Fault::Device(3)));
        assert_eq!(fault("?fault=memory4"), Some(Fault::Memory(4)));
        assert_eq!(fault("?fault=rest"), Some(Fault::Rest));
        assert_eq!(fault("?fault=train20"), Some(Fault::Training(20)));
        for query in ["", "?fault=", "?fault=memory", "?fault=train", "?fault=x", "?default=3"] {
            assert_eq!(Faults::read(query, true), Faults::default(), "{query}");
        }
        assert_eq!(Faults::read("?fault=2&memory=10000", true).memory, Some(10_000));
        assert_eq!(Faults::read("?silence=2000", true).silence, Some(2000));
        assert_eq!(Faults::read("?check=6e4", true).check, Some(60_000.0));
        assert!(Faults::read("?a=1&software", true).software);
        assert!(!Faults::read("?software", false).software);
    }

    #[test]
    fn the_published_page_has_no_faults() {
        assert_eq!(Faults::read("?fault=3&memory=10000", false), Faults::default());
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../www/index.html");
        assert!(!std::fs::read_to_string(page).expect("the page").contains(MARK));
    }
}
