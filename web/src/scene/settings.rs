//! Parts of the sampling settings as links and controls need them: noise levels, samplers, labels.

use model::config::LinearBetas;
use model::discrete::{Respacing, Spacing};
use model::guidance::{Guidance, GuidanceSchedule};
use model::label::Label;
use model::schedule::Schedule;
use model::settings::{Method, Settings};

use super::field::Choice;
use super::range;

/// Kinds of schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// EDM's schedule.
    Edm,
    /// Evenly spaced in log-SNR.
    LogSnr,
    /// ADM's discrete time.
    Adm,
}

/// Maximum number of classes in a link: one per picture, and more than fit on the page.
const CLASSES: usize = 64;

/// Samplers with their initial options, in the order of the choice.
pub(super) const METHODS: [Method; 6] = [
    Method::Heun,
    Method::Euler,
    Method::Ipndm { order: 4 },
    Method::Dpmpp { order: 3 },
    Method::Ddim { eta: 0.0 },
    Method::Ddpm { variance: model::settings::Variance::Learned },
];

/// Options of the sampler, in the order of [`METHODS`].
pub(super) const METHOD_OPTIONS: &[Choice; 6] = &[
    Choice::new("heun", "Heun"),
    Choice::new("euler", "Euler"),
    Choice::new("ipndm", "iPNDM"),
    Choice::new("dpmpp", "DPM++"),
    Choice::new("ddim", "DDIM"),
    Choice::new("ddpm", "DDPM"),
];

/// Returns the position of a sampler in [`METHODS`], whatever its options are.
pub(super) fn method_index(method: Method) -> usize {
    let kind = std::mem::discriminant(&method);
    METHODS.iter().position(|known| std::mem::discriminant(known) == kind).unwrap_or(0)
}

/// Returns the name of a sampler in links.
pub fn name_of_method(method: Method) -> &'static str {
    METHOD_OPTIONS[method_index(method)].name
}

/// Returns the label of a sampler.
pub fn label_of_method(method: Method) -> &'static str {
    METHOD_OPTIONS[method_index(method)].label
}

/// Joins numbers or labels with commas.
pub(super) fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Parses labels separated by commas.
///
/// # Errors
///
/// If one of them is not a label of at least one class, or there are too many.
pub(super) fn set_classes(settings: &mut Settings, text: &str) -> Result<(), String> {
    let known = |label: &Label| {
        !label.is_none() && label.parts().iter().all(|(class, _)| range::CLASS.contains(class))
    };
    let label = |text: &str| text.parse().ok().filter(known);
    let labels: Vec<Label> = text
        .split(',')
        .map(label)
        .collect::<Option<_>>()
        .ok_or_else(|| format!("`{text}` is not a list of classes"))?;
    if labels.len() > CLASSES {
        return Err(format!("{} classes are more than the maximum of {CLASSES}", labels.len()));
    }
    settings.classes = labels;
    Ok(())
}

/// Returns the power of a guidance schedule; 0 for a constant scale.
pub(super) fn power(guidance: &Guidance) -> f64 {
    match guidance.schedule {
        GuidanceSchedule::Constant => 0.0,
        GuidanceSchedule::PowerCosine { power } => power,
    }
}

/// Returns the guidance schedule of a power.
pub(super) fn guidance_schedule(power: f64) -> GuidanceSchedule {
    if power > 0.0 { GuidanceSchedule::PowerCosine { power } } else { GuidanceSchedule::Constant }
}

/// Returns the steps and their spacing as ADM writes them; `None` unless the schedule is ADM's.
pub fn respacing(settings: &Settings) -> Option<String> {
    let Schedule::Adm { spacing, .. } = &settings.schedule else { return None };
    Some(match spacing {
        Spacing::Even => settings.steps.to_string(),
        Spacing::Ddim => format!("ddim{}", settings.steps),
        Spacing::Sections(steps) => list(steps),
    })
}

/// Sets the steps and their spacing from ADM's notation.
///
/// # Errors
///
/// If the text is not in that notation, or the spacing or the number of steps is not supported.
pub fn set_respacing(settings: &mut Settings, text: &str) -> Result<(), String> {
    let Respacing { spacing, steps } =
        text.trim().parse().map_err(|e: model::discrete::SpacingError| e.to_string())?;
    // The model's own process, where the settings came from one.
    let betas = match settings.schedule {
        Schedule::Adm { betas, .. } => betas,
        _ => LinearBetas::default(),
    };
    spacing.indices(steps, betas.steps).map_err(|error| error.to_string())?;
    if !range::STEPS.contains(&steps) {
        return Err(format!("{steps} steps are more than the maximum of {}", range::STEPS.end()));
    }
    settings.steps = steps;
    settings.schedule = Schedule::Adm { betas, spacing };
    Ok(())
}

/// Sets the number of steps. ADM's spacing becomes even if it does not support that number.
pub fn set_steps(settings: &mut Settings, steps: usize) {
    settings.steps = steps;
    if let Schedule::Adm { betas, spacing } = &mut settings.schedule
        && spacing.indices(steps, betas.steps).is_err()
    {
        *spacing = Spacing::Even;
    }
}

/// Returns sigma_min, sigma_max and rho of a schedule; EDM's defaults where it has none of its own.
pub(super) fn edm(schedule: &Schedule) -> [f64; 3] {
    let usual = || edm(&Schedule::default());
    match *schedule {
        Schedule::Edm { sigma_min, sigma_max, rho } => [sigma_min, sigma_max, rho],
        Schedule::LogSnr { sigma_min, sigma_max } => [sigma_min, sigma_max, usual()[2]],
        Schedule::Adm { .. } => usual(),
    }
}

/// Changes sigma_min, sigma_max and rho, as far as the schedule has them.
pub(super) fn edit_edm(settings: &mut Settings, edit: impl Fn(&mut [f64; 3])) {
    let mut values = edm(&settings.schedule);
    edit(&mut values);
    let [sigma_min, sigma_max, rho] = values;
    match levels(&settings.schedule) {
        Levels::Edm => settings.schedule = Schedule::Edm { sigma_min, sigma_max, rho },
        Levels::LogSnr => settings.schedule = Schedule::LogSnr { sigma_min, sigma_max },
        Levels::Adm => {}
    }
}

/// Returns the kind of a schedule.
pub fn levels(schedule: &Schedule) -> Levels {
    match schedule {
        Schedule::Edm { .. } => Levels::Edm,
        Schedule::LogSnr { .. } => Levels::LogSnr,
        Schedule::Adm { .. } => Levels::Adm,
    }
}

/// Changes the kind of the schedule and keeps sigma_min and sigma_max where both kinds have them.
pub(super) fn set_levels(settings: &mut Settings, levels: Levels) {
    let [sigma_min, sigma_max, rho] = edm(&settings.schedule);
    match levels {
        Levels::Edm => settings.schedule = Schedule::Edm { sigma_min, sigma_max, rho },
        Levels::LogSnr => settings.schedule = Schedule::LogSnr { sigma_min, sigma_max },
        Levels::Adm => {
            let steps = settings.steps.to_string();
            // Every number of steps that the page offers is valid here.
            let _ = set_respacing(settings, &steps);
        }
    }
}

/// Returns the settings for a model with `classes` classes, without what would be invalid: churn
/// where the sampler takes none, classes that the model lacks, guidance without a class, and an
/// interval of guidance that ends before it begins.
pub fn usable(settings: &Settings, classes: usize) -> Settings {
    let mut settings = settings.clone();
    if !settings.method.takes_churn() {
        settings.churn.s_churn = 0.0;
    }
    settings.classes.retain(|label| label.parts().iter().all(|(class, _)| *class < classes));
    if settings.classes.is_empty() {
        settings.guidance = None;
    }
    if let Some(guidance) = &mut settings.guidance {
        guidance.sigma_high = guidance.sigma_high.max(guidance.sigma_low);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::Scene;

    #[test]
    fn discrete_time_and_classes_have_fields_of_their_own() {
        let settings = |link: &str| Scene::decode(link).settings;
        let ddim = settings("respacing=ddim50&sampler=ddim&eta=0.5&clip=true");
        assert_eq!((ddim.steps, ddim.method), (50, Method::Ddim { eta: 0.5 }));
        assert_eq!(respacing(&ddim), Some("ddim50".into()));
        // The steps become even if the spacing does not support their number.
        assert_eq!(respacing(&settings("respacing=10,15&steps=30")), Some("30".into()));
        for link in ["respacing=ddim300", "respacing=251", "respacing=", "respacing=0", "eta=1"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        let guided = settings("classes=3,1&guidance=1.49&guidance-power=0&guidance-channels=all");
        assert_eq!(guided.classes, [3, 1].map(Label::from));
        let mixed = settings("classes=3:0.6_5:0.4,7").classes;
        assert_eq!(mixed[0].parts(), [(3, 0.6), (5, 0.4)]);
        assert_eq!(mixed[1].class(), Some(7));
        let guidance = guided.guidance.expect("the link has it");
        assert_eq!((guidance.scale, guidance.schedule), (1.49, GuidanceSchedule::Constant));
        for link in [
            "classes=1,x",
            "classes=-1",
            "classes=100000",
            "classes=1:99",
            "classes=1,",
            "guidance-power=2",
        ] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        let many = |n: usize| format!("classes={}", vec!["1"; n].join(","));
        assert_eq!(settings(&many(CLASSES)).classes.len(), CLASSES);
        assert_eq!(settings(&many(CLASSES + 1)).classes, []);
    }

    #[test]
    fn settings_fit_the_model() {
        // A model without classes ignores them, and guidance needs one.
        let scene = Scene::decode("classes=3&guidance=2");
        assert_eq!(scene.order(0).settings, Settings::default());
        assert_eq!(scene.order(9).settings, scene.settings);
        assert_eq!(Scene::decode("guidance=2").order(9).settings, Settings::default());
        let compared = Scene::decode("view=play&play=compare&classes=3&guidance=2");
        let [left, right] =
            [compared.order_beside(9), Some(compared.order(9))].map(|o| o.expect("two").settings);
        assert_eq!((left.classes, left.guidance), (right.classes, right.guidance));
        // Classes that the model lacks are left out.
        let order = Scene::decode("classes=1,9,1:0.5_9:0.5&guidance=2").order(5);
        assert_eq!(order.settings.classes, [Label::from(1)]);
        let order = Scene::decode("classes=9&guidance=2").order(5);
        assert_eq!(order.settings, Settings::default());
    }
}
