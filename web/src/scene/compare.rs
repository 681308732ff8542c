//! Two settings that are compared: how the second ones follow the first, and how they differ.

use model::settings::Settings;

use super::fields::FIELDS;
use super::{Place, Scene, Slot, set_steps};

impl Scene {
    /// Changes the settings in a place.
    ///
    /// What the two have in common besides sampler, steps and time token stays in common: noise
    /// levels, churn and clipping of the settings to compare with follow those of the settings until
    /// they are changed themselves.
    pub fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Settings)) {
        if slot != Slot::Pictures {
            change(self.settings_in_mut(slot));
            return;
        }
        let before = self.settings.clone();
        change(&mut self.settings);
        let (now, beside) = (&self.settings, &mut self.beside);
        if beside.schedule == before.schedule && now.schedule != before.schedule {
            beside.schedule = now.schedule.clone();
            // Not every spacing supports every number of steps.
            set_steps(beside, beside.steps);
        }
        if beside.churn == before.churn {
            beside.churn = now.churn;
        }
        if beside.clip_denoised == before.clip_denoised {
            beside.clip_denoised = now.clip_denoised;
        }
    }
}

/// Describes what settings have of their own compared with others, besides sampler and steps: each
/// field with its value.
pub fn differences(own: &Settings, other: &Settings) -> Vec<String> {
    let differs = |field: &&super::Field| {
        let basic = matches!(field.place, Place::Sampler | Place::Steps | Place::Nowhere);
        let same = field.shown_text(own) == field.shown_text(other);
        field.compared && !basic && (field.shown)(own) && !same
    };
    let text = |field: &super::Field| match field.shown_text(own).as_str() {
        "true" => format!("{}: on", field.label),
        "false" => format!("{}: off", field.label),
        value => format!("{} {value}", field.label),
    };
    FIELDS.iter().filter(differs).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::set_respacing;
    use model::schedule::Schedule;

    fn edm(sigma_max: f64) -> Schedule {
        Schedule::Edm { sigma_min: 0.002, sigma_max, rho: 7.0 }
    }

    #[test]
    fn what_is_compared_has_the_noise_levels_of_the_form() {
        let mut scene = Scene::decode("view=play&play=compare");
        scene.change(Slot::Pictures, |settings| {
            settings.schedule = edm(40.0);
            settings.churn.s_churn = 5.0;
            settings.clip_denoised = true;
        });
        let beside = scene.order_beside(0).expect("a comparison").settings;
        assert_eq!(beside.schedule, edm(40.0));
        assert!(beside.clip_denoised && scene.beside.churn.s_churn == 5.0);
        // Sampler and steps are what is compared.
        scene.change(Slot::Pictures, |settings| settings.steps = 30);
        assert_eq!(scene.beside.steps, 6);
        // What was changed on the left stays as it is.
        scene.change(Slot::Beside, |beside| beside.schedule = edm(60.0));
        assert_eq!(scene.settings.schedule, edm(40.0));
        scene.change(Slot::Pictures, |settings| settings.schedule = edm(20.0));
        assert_eq!((&scene.beside.schedule, &scene.settings.schedule), (&edm(60.0), &edm(20.0)));
        assert_eq!(Scene::decode(&scene.encode()), scene);
    }

    #[test]
    fn a_spacing_that_the_left_side_does_not_support_becomes_even() {
        let mut scene = Scene::default();
        scene.change(Slot::Pictures, |settings| {
            set_respacing(settings, "10,15").expect("a spacing")
        });
        assert_eq!(scene.beside.steps, 6);
        assert_eq!(scene.beside.validate(), Ok(()));
        let order = Scene { view: super::super::View::Play, ..scene };
        let order = Scene { game: super::super::Game::Compare, ..order };
        let beside = order.order_beside(0).expect("a comparison").settings;
        assert!(matches!(beside.schedule, Schedule::Adm { .. }));
    }

    #[test]
    fn differences_are_named() {
        let mut scene = Scene::default();
        assert_eq!(differences(&scene.beside, &scene.settings), [""; 0]);
        scene.change(Slot::Beside, |beside| {
            beside.schedule = edm(60.0);
            beside.silence_time = true;
        });
        assert_eq!(
            differences(&scene.beside, &scene.settings),
            ["σ max 60", "Silence the time token: on"]
        );
        assert_eq!(
            differences(&scene.settings, &scene.beside),
            ["σ max 80", "Silence the time token: off"]
        );
    }
}
