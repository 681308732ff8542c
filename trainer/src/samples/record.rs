//! The settings that pictures were generated with, as a file beside them.
//!
//! An interrupted command is continued only with the settings that it started with.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use model::generate::Settings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::atomic::write;

const VERSION: u32 = 1;

/// Everything that the pictures of an output depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub version: u32,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the weights file.
    pub weights_sha256: String,
    /// SHA-256 of the autoencoder's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_sha256: Option<String>,
    /// Sampling settings.
    pub settings: Settings,
    /// Number of classes that random ones are drawn from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_classes: Option<u32>,
    /// Batch size. Another one changes the order of sums, and so the rounding.
    pub batch: u32,
    /// Whether every thousand seeds have a folder of their own.
    pub subfolders: bool,
    /// Seeds, if the output is a single file. A folder can be extended by other seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<String>,
}

impl Record {
    /// The version that this program writes.
    pub const VERSION: u32 = VERSION;

    /// Writes the record.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        write(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Compares this record with the one in a file. Returns `false` if there is no file.
    ///
    /// # Errors
    ///
    /// If the file is not a record, or one of other settings; the error lists the differences.
    pub fn agrees_with(&self, path: &Path) -> anyhow::Result<bool> {
        let name = path.display();
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        };
        let stored: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{name}: not a record of sampling settings"))?;
        let mut differences = Vec::new();
        compare("", &stored, &serde_json::to_value(self)?, &mut differences);
        if differences.is_empty() {
            return Ok(true);
        }
        bail!("{name} has other settings:\n  {}", differences.join("\n  "))
    }
}

/// Lists the fields that differ.
fn compare(path: &str, stored: &Value, wanted: &Value, differences: &mut Vec<String>) {
    match (stored, wanted) {
        _ if stored == wanted => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<_> =
                a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let [stored, wanted] = [a, b].map(|fields| fields.get(key).unwrap_or(&Value::Null));
                compare(&path, stored, wanted, differences);
            }
        }
        _ => differences.push(format!("{path}: {} there, {} here", short(stored), short(wanted))),
    }
}

/// Returns a value as text of at most about 60 characters.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".into(),
        value => value.to_string(),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Returns seeds as text: `0-49999` or `0-3,100,7`.
pub fn seeds_text(seeds: &[u64]) -> String {
    let ranges = seeds.chunk_by(|a, b| a.checked_add(1) == Some(*b)).map(|range| match range {
        [first, .., last] => format!("{first}-{last}"),
        _ => range[0].to_string(),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            model: "m".into(),
            weights_sha256: "00".into(),
            vae_sha256: None,
            settings: Settings::default(),
            random_classes: Some(10),
            batch: 64,
            subfolders: false,
            seeds: Some("0-9".into()),
        }
    }

    #[test]
    fn differences_are_listed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("r.json");
        assert!(!record().agrees_with(&path).expect("absent"));
        record().write(&path).expect("written");
        assert!(record().agrees_with(&path).expect("its own"));
        let stored: Record =
            serde_json::from_slice(&fs::read(&path).expect("there")).expect("its own");
        assert_eq!(stored, record());

        let settings = Settings { steps: 40, ..Settings::default() };
        let other =
            Record { settings, random_classes: None, vae_sha256: Some("1".into()), ..record() };
        let error = other.agrees_with(&path).expect_err("other settings").to_string();
        for line in [
            "settings.steps: 18 there, 40 here",
            "random_classes: 10 there, none here",
            "vae_sha256: none there, \"1\" here",
        ] {
            assert!(error.contains(line), "{error}");
        }
        assert_eq!(error.lines().count(), 4, "{error}");
        fs::write(&path, "{").expect("written");
        assert!(other.agrees_with(&path).is_err());
    }

    #[test]
    fn seeds_are_written_as_ranges() {
        for text in ["0-49999", "0-3,100,7-8", "5", "18446744073709551615"] {
            assert_eq!(seeds_text(&crate::args::seeds(text).expect("seeds")), text);
        }
        assert_eq!(seeds_text(&[]), "");
    }
}
