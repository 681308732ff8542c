//! Validation of the recipe against the model: loss and preconditioner, augmentation labels.

use anyhow::{bail, ensure};
use model::config::{NetworkConfig, PrecondConfig};
use model::loss::LossConfig;
use serde::Serialize;

use super::{AUGMENT_LABELS, TrainConfig};

impl TrainConfig {
    /// Checks that loss and augmentation fit the model. New runs are checked; a resumed run keeps
    /// the options that it was started with.
    ///
    /// # Errors
    ///
    /// If they do not fit. The message gives both values and what to change.
    pub fn validate_fit(&self) -> anyhow::Result<()> {
        self.validate_loss()?;
        let labels = self.model.augment_labels();
        let field = match self.model.network {
            NetworkConfig::Song(_) => "augment_labels",
            NetworkConfig::Image(_) | NetworkConfig::Latent(_) => "time.augment_labels",
        };
        ensure!(
            labels == 0 || labels == AUGMENT_LABELS,
            "model.network.{field} is {labels}, but augmentation gives {AUGMENT_LABELS} \
             labels: set it to {AUGMENT_LABELS}, or to 0 for a network without augmentation labels"
        );
        Ok(())
    }

    /// Checks the loss against the preconditioner and the network's output.
    fn validate_loss(&self) -> anyhow::Result<()> {
        let precond = &self.model.precond;
        let learned_variance = matches!(
            &self.model.network,
            NetworkConfig::Latent(latent) if latent.learned_variance
        );
        let both_adm =
            matches!((&self.loss, precond), (LossConfig::Adm { .. }, PrecondConfig::Adm { .. }));
        if learned_variance && !both_adm {
            bail!(
                "loss.kind is {} and model.precond.kind is {}, but \
                 model.network.learned_variance is true, which only ADM's hybrid loss trains: set \
                 both kinds to adm, or learned_variance to false",
                kind(&self.loss),
                kind(precond)
            );
        }
        match (&self.loss, precond) {
            (
                LossConfig::Edm { sigma_data: of_loss, .. },
                PrecondConfig::Edm { sigma_data: of_model },
            ) => same("sigma_data", of_loss, of_model),
            (LossConfig::Vp { schedule: of_loss }, PrecondConfig::Vp { schedule: of_model }) => {
                same("schedule", of_loss, of_model)
            }
            (
                LossConfig::Ve { sigma_min: loss_min, sigma_max: loss_max },
                PrecondConfig::Ve { sigma_min: model_min, sigma_max: model_max },
            ) => {
                same("sigma_min", loss_min, model_min)?;
                same("sigma_max", loss_max, model_max)
            }
            (LossConfig::Adm { betas: of_loss, .. }, PrecondConfig::Adm { betas: of_model }) => {
                same("betas", of_loss, of_model)
            }
            // Other pairs share no parameters: any weighting can train any preconditioner.
            _ => Ok(()),
        }
    }
}

/// Checks that a parameter has the same value in the loss and in the preconditioner.
fn same<T: PartialEq + Serialize>(name: &str, of_loss: &T, of_model: &T) -> anyhow::Result<()> {
    ensure!(
        of_loss == of_model,
        "loss.{name} is {} and model.precond.{name} is {}: set both to the same value",
        serde_json::to_string(of_loss)?,
        serde_json::to_string(of_model)?
    );
    Ok(())
}

/// Returns the `kind` of a loss or a preconditioner, as in JSON.
fn kind(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value["kind"].as_str().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::Options;
    use serde_json::{Value, json};

    fn fit(preset: &str, values: Value) -> Result<(), String> {
        let preset = TrainConfig::preset(preset).expect("a preset");
        let mut options = Options::new("preset", &preset).expect("JSON");
        options.add("test", values);
        let config = options.config().expect("each option is valid");
        config.validate_fit().map_err(|error| error.to_string())
    }

    #[test]
    fn every_preset_fits() {
        for (name, _) in model::preset::all() {
            assert_eq!(fit(name, json!({})), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_loss_of_the_same_kind_needs_the_same_parameters() {
        for (preset, values, loss, model) in [
            (
                "tiny",
                json!({"loss": {"sigma_data": 0.4}}),
                "loss.sigma_data is 0.4",
                "model.precond.sigma_data is 0.5",
            ),
            (
                "tiny",
                json!({"model": {"precond": {"kind": "edm", "sigma_data": 0.25}}}),
                "loss.sigma_data is 0.5",
                "model.precond.sigma_data is 0.25",
            ),
            (
                "tiny",
                json!({
                    "loss": {"kind": "vp", "schedule": {"beta_d": 20.0}},
                    "model": {"precond": {"kind": "vp"}},
                }),
                "loss.schedule is {\"beta_d\":20.0,",
                "model.precond.schedule is {\"beta_d\":19.9,",
            ),
            (
                "tiny",
                json!({
                    "loss": {"kind": "ve", "sigma_max": 50.0},
                    "model": {"precond": {"kind": "ve"}},
                }),
                "loss.sigma_max is 50.0",
                "model.precond.sigma_max is 100.0",
            ),
            (
                "tiny",
                json!({
                    "loss": {"kind": "ve", "sigma_min": 0.01},
                    "model": {"precond": {"kind": "ve"}},
                }),
                "loss.sigma_min is 0.01",
                "model.precond.sigma_min is 0.02",
            ),
            (
                "latent-tiny",
                json!({"loss": {"betas": {"steps": 6}}}),
                "loss.betas is {\"steps\":6,",
                "model.precond.betas is {\"steps\":1000,",
            ),
        ] {
            let error = fit(preset, values.clone()).expect_err(&values.to_string());
            assert!(error.contains(loss) && error.contains(model), "{values}: {error}");
            assert!(error.contains("set both to the same value"), "{values}: {error}");
        }
    }

    #[test]
    fn matching_parameters_and_other_kinds_fit() {
        for (preset, values) in [
            (
                "tiny",
                json!({"loss": {"kind": "edm", "p_mean": 0.2, "p_std": 1.3, "sigma_data": 0.5}}),
            ),
            ("tiny", json!({"loss": {"kind": "vp"}, "model": {"precond": {"kind": "vp"}}})),
            ("tiny", json!({"loss": {"kind": "ve"}, "model": {"precond": {"kind": "ve"}}})),
            ("tiny", json!({"loss": {"kind": "adm"}, "model": {"precond": {"kind": "adm"}}})),
            (
                "tiny",
                json!({"loss": {"sigma_data": 0.4}, "model": {"precond": {"sigma_data": 0.4}}}),
            ),
            ("tiny", json!({"loss": {"kind": "vp"}})),
            ("tiny", json!({"model": {"precond": {"kind": "vp"}}})),
            (
                "latent-tiny",
                json!({
                    "loss": {"betas": {"steps": 6}},
                    "model": {"precond": {"betas": {"steps": 6}}},
                }),
            ),
            (
                "latent-tiny",
                json!({
                    "loss": {"kind": "edm", "p_mean": -1.2, "p_std": 1.2, "sigma_data": 0.5},
                    "model": {
                        "network": {"learned_variance": false},
                        "precond": {"kind": "edm", "sigma_data": 0.5},
                    },
                }),
            ),
        ] {
            assert_eq!(fit(preset, values.clone()), Ok(()), "{values}");
        }
    }

    #[test]
    fn a_learned_variance_needs_adm_s_loss() {
        let edm = json!({"kind": "edm", "p_mean": -1.2, "p_std": 1.2, "sigma_data": 0.5});
        for (values, loss, precond) in [
            (json!({"loss": edm}), "loss.kind is edm", "model.precond.kind is adm"),
            (
                json!({"model": {"precond": {"kind": "vp"}}}),
                "loss.kind is adm",
                "model.precond.kind is vp",
            ),
        ] {
            let error = fit("latent-tiny", values.clone()).expect_err(&values.to_string());
            for part in [loss, precond, "learned_variance", "set both kinds to adm"] {
                assert!(error.contains(part), "{values}: {error:?} does not say {part:?}");
            }
        }
    }

    #[test]
    fn augmentation_labels_are_all_or_none() {
        let labels =
            |n| fit("tiny", json!({"model": {"network": {"time": {"augment_labels": n}}}}));
        assert_eq!([labels(0), labels(9)], [Ok(()), Ok(())]);
        for n in [1, 8, 10, 12] {
            let error = labels(n).expect_err("a mismatch");
            assert!(error.contains(&format!("augment_labels is {n}")), "{error}");
            assert!(error.contains("gives 9 labels: set it to 9"), "{error}");
        }
    }
}
