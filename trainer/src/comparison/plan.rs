//! The plan of a comparison: which networks are trained, how, and how they are evaluated.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A plan: a JSON file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Title of the tables and plots.
    pub title: String,
    /// What is compared and why, in Markdown.
    #[serde(default)]
    pub description: String,
    /// Options of all networks, which override those of the presets.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Networks in the order of the tables.
    pub networks: Vec<PlannedNetwork>,
    /// Name of the network that the others are compared with.
    pub reference: String,
    /// Seeds. Every network is trained once with each.
    pub seeds: Vec<u64>,
    /// Number of noise levels at which the trained networks are evaluated.
    #[serde(default = "default_levels")]
    pub levels: usize,
    /// Number of images between two measurements of the validation loss while training.
    #[serde(default)]
    pub validate_every: Option<u64>,
    /// Name of the published metric, such as FID.
    #[serde(default)]
    pub published: Option<String>,
}

/// A network of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedNetwork {
    /// Name in tables, plots and paths.
    pub name: String,
    /// Preset of the model and the recipe.
    pub preset: String,
    /// Options that override those of the plan.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Published value of the metric.
    #[serde(default)]
    pub published: Option<f64>,
}

/// EDM's training distribution is resolved well by this many levels.
fn default_levels() -> usize {
    16
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no valid plan.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let context = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(context)?;
        let plan: Self = serde_json::from_str(&text).with_context(context)?;
        plan.validate().with_context(context)?;
        Ok(plan)
    }

    /// Checks everything but the recipes.
    fn validate(&self) -> anyhow::Result<()> {
        ensure!(!self.seeds.is_empty(), "`seeds` is empty; use [0], or several for error bars");
        ensure!((1..=1_000).contains(&self.levels), "`levels` must be from 1 to 1000");
        ensure!(self.validate_every != Some(0), "`validate_every` must not be 0");
        let seeds: BTreeSet<u64> = self.seeds.iter().copied().collect();
        ensure!(seeds.len() == self.seeds.len(), "`seeds` contains a seed twice");
        let mut names = BTreeSet::new();
        for network in &self.networks {
            let name = &network.name;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._+ ".contains(c);
            ensure!(
                !name.is_empty() && !name.starts_with('.') && name.chars().all(plain),
                "network `{name}`: a name has letters, digits, spaces, and - . _ +"
            );
            // Names are parts of paths, which some systems compare without case.
            ensure!(names.insert(name.to_lowercase()), "network `{name}`: this name is used twice");
        }
        ensure!(
            self.networks.iter().any(|network| network.name == self.reference),
            "`reference`: no network is named `{}`",
            self.reference
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(edit: impl FnOnce(&mut Value)) -> Result<Plan, String> {
        let mut plan = json!({
            "title": "Two",
            "options": { "batch": 8 },
            "networks": [
                { "name": "E", "preset": "t4-e", "published": 1.95 },
                { "name": "D", "preset": "t4-d", "options": { "clip": 1.0 } },
            ],
            "reference": "E",
            "seeds": [0, 1],
        });
        edit(&mut plan);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("plan.json");
        std::fs::write(&path, plan.to_string()).expect("written");
        Plan::read(&path).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn plans_are_read() {
        let plan = read(|_| ()).expect("valid");
        assert_eq!((plan.levels, plan.networks[0].published), (16, Some(1.95)));
        let again = serde_json::to_string(&plan).expect("plain data");
        assert_eq!(serde_json::from_str::<Plan>(&again).expect("its own"), plan);
    }

    #[test]
    fn invalid_plans_are_errors_that_name_the_file_and_the_field() {
        type Edit = fn(&mut Value);
        let cases: [(Edit, &str); 8] = [
            (|plan| plan["seeds"] = json!([]), "`seeds` is empty"),
            (|plan| plan["seeds"] = json!([1, 1]), "a seed twice"),
            (|plan| plan["reference"] = json!("F"), "no network is named `F`"),
            (|plan| plan["networks"][1]["name"] = json!("e"), "used twice"),
            (|plan| plan["networks"][1]["name"] = json!("../x"), "letters, digits"),
            (|plan| plan["levels"] = json!(0), "`levels`"),
            (|plan| plan["validate_every"] = json!(0), "`validate_every`"),
            (|plan| plan["sedes"] = json!(1), "sedes"),
        ];
        for (edit, message) in cases {
            let error = read(edit).expect_err("invalid");
            assert!(error.contains(message) && error.contains("plan.json"), "{error}");
        }
    }
}
