//! Recipes merged from several sources: a preset, then a file, then flags, each overriding the one
//! before.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::{Map, Value};

use crate::config::TrainConfig;

/// Options from several sources. Later sources override earlier ones.
pub struct Options {
    /// The name of each source, and its options as JSON.
    layers: Vec<(String, Value)>,
}

impl Options {
    /// Starts with a complete recipe.
    ///
    /// # Errors
    ///
    /// If it cannot be serialised.
    pub fn new(source: &str, config: &TrainConfig) -> anyhow::Result<Self> {
        Ok(Self { layers: vec![(source.into(), serde_json::to_value(config)?)] })
    }

    /// Adds a JSON object that overrides the options so far. Nested objects are merged.
    pub fn add(&mut self, source: &str, values: Value) {
        self.layers.push((source.into(), values));
    }

    /// Returns the merged recipe.
    ///
    /// # Errors
    ///
    /// If an option is unknown or invalid. The message names it.
    pub fn config(&self) -> anyhow::Result<TrainConfig> {
        let mut whole = Value::Object(Map::new());
        for (_, values) in &self.layers {
            merge(&mut whole, values);
        }
        let config: TrainConfig = serde_json::from_value(whole).with_context(|| {
            let sources: Vec<&str> = self.layers.iter().map(|(source, _)| &**source).collect();
            format!("invalid options from {}", sources.join(", "))
        })?;
        config.validate()?;
        Ok(config)
    }

    /// Returns whether an option has the value of the first source, since no other source has it.
    pub fn is_of_preset(&self, field: &str) -> bool {
        self.layers.iter().skip(1).all(|(_, values)| values.get(field).is_none())
    }

    /// Returns the path, the value and the source of every option, in the order of the recipe.
    ///
    /// # Errors
    ///
    /// As [`Options::config`].
    pub fn explained(&self) -> anyhow::Result<Vec<(String, String, &str)>> {
        let config = serde_json::to_value(self.config()?)?;
        let mut leaves = Vec::new();
        flatten("", &config, &mut leaves);
        let rows = leaves.into_iter().map(|(path, value)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            let source = self.layers.iter().rev().find(|(_, v)| v.pointer(&pointer).is_some());
            // Options that no source sets have the default of this version.
            (path, value.to_string(), source.map_or("default", |(source, _)| source))
        });
        Ok(rows.collect())
    }
}

/// Returns a line such as `adam.lr: 0.001 -> 0.0005` for each option in which a recipe differs from an
/// earlier one.
///
/// # Errors
///
/// If a recipe cannot be serialised.
pub fn changes(old: &TrainConfig, new: &TrainConfig) -> anyhow::Result<Vec<String>> {
    let (old, new) = (leaves(old)?, leaves(new)?);
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    // Options without a value are left out of a recipe.
    let show = |value: Option<&Value>| value.map_or("none".into(), Value::to_string);
    let line =
        |path: &String| format!("{path}: {} -> {}", show(old.get(path)), show(new.get(path)));
    Ok(changed.map(line).collect())
}

/// Returns the value of every option of a recipe, by its path.
fn leaves(config: &TrainConfig) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut leaves = Vec::new();
    flatten("", &serde_json::to_value(config)?, &mut leaves);
    Ok(leaves.into_iter().collect())
}

/// Merges `over` into `base`, field by field.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        // The fields of an object depend on its `kind`: an object of another kind is replaced.
        (Value::Object(base), Value::Object(over)) if !other_kind(base, over) => {
            for (field, value) in over {
                merge(base.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Returns whether both objects have a `kind`, and these differ.
fn other_kind(base: &Map<String, Value>, over: &Map<String, Value>) -> bool {
    over.get("kind").is_some_and(|kind| base.get("kind").is_some_and(|old| old != kind))
}

/// Collects the path and the value of every leaf.
fn flatten(path: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{field}"), value, leaves);
            }
        }
        leaf => leaves.push((path.to_string(), leaf.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options() -> Options {
        let preset = TrainConfig::preset("tiny").expect("a preset");
        Options::new("preset tiny", &preset).expect("JSON")
    }

    #[test]
    fn later_sources_override_earlier_ones() {
        let mut options = options();
        options.add("a.json", json!({"batch": 64, "adam": {"lr": 0.1}}));
        options.add("flags", json!({"adam": {"lr": 0.2}}));
        let config = options.config().expect("valid");
        assert_eq!((config.batch, config.adam.lr, config.adam.eps), (64, 0.2, 1e-8));
        let explained = options.explained().expect("valid");
        let source = |path: &str| {
            let row = explained.iter().find(|row| row.0 == path).expect("listed");
            (row.1.as_str(), row.2)
        };
        assert_eq!(source("batch"), ("64", "a.json"));
        assert_eq!(source("adam.lr"), ("0.2", "flags"));
        assert_eq!(source("adam.betas"), ("[0.9,0.999]", "preset tiny"));
        assert!(options.is_of_preset("data") && !options.is_of_preset("batch"));
    }

    #[test]
    fn changed_options_are_listed_with_both_values() {
        let old = TrainConfig::preset("tiny").expect("a preset");
        assert!(changes(&old, &old).expect("plain data").is_empty());
        let mut new = TrainConfig { clip: Some(1.5), duration: 9, ..old.clone() };
        new.adam.lr = 1e-4;
        let found = changes(&old, &new).expect("plain data");
        let want = ["adam.lr: 0.0005 -> 0.0001", "clip: none -> 1.5", "duration: 3000 -> 9"];
        assert_eq!(found, want);
        assert_eq!(changes(&new, &old).expect("plain data")[1], "clip: 1.5 -> none");
    }

    #[test]
    fn unknown_and_invalid_options_are_named() {
        for (values, message) in [
            (json!({"bacth": 3}), "bacth"),
            (json!({"adam": {"lr": "fast"}}), "fast"),
            (json!({"batch": 0}), "batch"),
            (json!({"micro_batch": 5}), "micro_batch"),
            (json!({"augment": 2.0}), "augment"),
            (json!({"label_dropout": -1.0}), "label_dropout"),
            (json!({"lr_decay": 1.5}), "lr_decay"),
            (json!({"muon_lr": 0.1}), "the optimizer is Adam"),
            (json!({"optimizer": "muon", "muon_lr": 0.0}), "muon_lr"),
            (json!({"optimizer": "sgd"}), "sgd"),
            (json!({"validation": {"images": 0}}), "validation.images"),
            (json!({"ema_profiles": {"snapshot_every": 5}}), "use --ema-profiles 0.05,0.1"),
            (json!({"ema_profiles": {"stds": [0.05, 0.3]}}), "0.3, not within 0.001 to 0.28"),
            (json!({"ema_profiles": {"stds": [0.05, 0.05]}}), "0.05 twice"),
            (json!({"ema_profiles": {"stds": [0.1], "snapshot_every": 0}}), "snapshot_every is 0"),
            (json!({"loss": {"p_std": -1.0}}), "p_std"),
            (json!({"loss": {"kind": "adm", "betas": {"steps": 0}}}), "steps"),
            (json!({"model": {"network": {"resolution": 31}}}), "resolution 31"),
        ] {
            let mut options = options();
            options.add("a.json", values.clone());
            let error = format!("{:#}", options.config().expect_err("wrong"));
            assert!(error.contains(message), "{values}: {error}");
        }
    }
}
