//! The table of settings fields. Links, controls and tests follow from it: to add a setting, add a
//! row.

use model::guidance::{Guidance, GuidedChannels};
use model::settings::{Method, Settings, Variance};

use super::field::{Choice, Field, Place, Value};
use super::range;
use super::settings::{
    Levels, METHOD_OPTIONS, METHODS, edit_edm, edm, guidance_schedule, levels, list, method_index,
    power, respacing, set_classes, set_levels, set_respacing, set_steps,
};

const LEVELS: [Levels; 3] = [Levels::Edm, Levels::LogSnr, Levels::Adm];
const VARIANCES: [Variance; 3] = [Variance::Learned, Variance::Small, Variance::Large];
const CHANNELS: [GuidedChannels; 2] = [GuidedChannels::Three, GuidedChannels::All];

/// What most rows have in common.
const ROW: Field = Field {
    name: "",
    id: "",
    label: "",
    help: "",
    place: Place::Nowhere,
    compared: true,
    shown: |_| true,
    linked: |_| true,
    value: Value::Switch { get: |_| false, set: |_, _| {} },
};

/// A row of guidance, which comparisons share.
const GUIDANCE: Field = Field { compared: false, ..ROW };

/// The fields, in the order in which links write them. Later fields can depend on earlier ones: the
/// options of a sampler come after the sampler.
pub static FIELDS: &[Field] = &[
    Field {
        name: "steps",
        id: "steps",
        label: "Steps",
        help: "Number of sampling steps.",
        place: Place::Steps,
        // The respacing includes the number of steps.
        linked: |s| !is_discrete(s),
        value: Value::Whole { range: range::STEPS, get: |s| s.steps, set: set_steps },
        ..ROW
    },
    Field {
        name: "levels",
        id: "schedule",
        label: "Noise levels",
        help: "Schedule of the noise levels.",
        place: Place::Levels,
        linked: |s| !is_discrete(s),
        value: Value::Choice {
            options: &[
                Choice::new("edm", "EDM"),
                Choice::new("log-snr", "Log-SNR"),
                // Links have the respacing instead.
                Choice { linked: false, ..Choice::new("adm", "ADM") },
            ],
            get: |s| position(&LEVELS, levels(&s.schedule)),
            set: |s, i| set_levels(s, LEVELS[i]),
        },
        ..ROW
    },
    Field {
        name: "respacing",
        id: "respacing",
        label: "Steps of discrete time",
        help: "A number of steps, a stride such as ddim50, or steps per section such as 10,15,20.",
        place: Place::Levels,
        shown: is_discrete,
        linked: is_discrete,
        value: Value::Text {
            examples: &["50", "7", "ddim25", "ddim100", "10,15,20"],
            get: |s| respacing(s).unwrap_or_default(),
            set: set_respacing,
        },
        ..ROW
    },
    Field {
        name: "rho",
        id: "rho",
        label: "ρ",
        help: "Exponent of the schedule: a higher one places more steps at low noise levels.",
        place: Place::Shape,
        shown: |s| levels(&s.schedule) == Levels::Edm,
        value: Value::Number {
            range: range::RHO,
            get: |s| edm(&s.schedule)[2],
            set: |s, value| edit_edm(s, |levels| levels[2] = value),
        },
        ..ROW
    },
    Field {
        name: "low",
        id: "sigma-min",
        label: "σ min",
        help: "Lowest noise level above zero.",
        place: Place::Low,
        shown: |s| !is_discrete(s),
        value: Value::Number {
            range: range::SIGMA_MIN,
            get: |s| edm(&s.schedule)[0],
            set: |s, value| edit_edm(s, |levels| levels[0] = value),
        },
        ..ROW
    },
    Field {
        name: "high",
        id: "sigma-max",
        label: "σ max",
        help: "Highest noise level, at which sampling starts.",
        place: Place::High,
        shown: |s| !is_discrete(s),
        value: Value::Number {
            range: range::SIGMA_MAX,
            get: |s| edm(&s.schedule)[1],
            set: |s, value| edit_edm(s, |levels| levels[1] = value),
        },
        ..ROW
    },
    Field {
        name: "sampler",
        id: "sampler",
        label: "Sampler",
        help: "Method that takes the steps.",
        place: Place::Sampler,
        value: Value::Choice {
            options: METHOD_OPTIONS,
            get: |s| method_index(s.method),
            set: |s, i| s.method = METHODS[i],
        },
        ..ROW
    },
    Field {
        name: "eta",
        id: "eta",
        label: "Fresh noise η",
        help: "Share of fresh noise in a DDIM step: 0 is deterministic, 1 is ancestral sampling.",
        place: Place::Options,
        shown: |s| matches!(s.method, Method::Ddim { .. }),
        value: Value::Number {
            range: range::ETA,
            get: |s| if let Method::Ddim { eta } = s.method { eta } else { 0.0 },
            set: |s, value| {
                if let Method::Ddim { eta } = &mut s.method {
                    *eta = value;
                }
            },
        },
        ..ROW
    },
    Field {
        name: "variance",
        id: "variance",
        label: "Variance of a step",
        help: "Variance of the posterior in ancestral sampling.",
        place: Place::Options,
        shown: |s| matches!(s.method, Method::Ddpm { .. }),
        value: Value::Choice {
            options: &[
                Choice::new("learned", "Learned"),
                Choice::new("small", "Small"),
                Choice::new("large", "Large"),
            ],
            get: |s| match s.method {
                Method::Ddpm { variance } => position(&VARIANCES, variance),
                _ => 0,
            },
            set: |s, i| {
                if let Method::Ddpm { variance } = &mut s.method {
                    *variance = VARIANCES[i];
                }
            },
        },
        ..ROW
    },
    Field {
        name: "order",
        id: "order",
        label: "Order",
        help: "Number of slopes that a step uses, with the current one.",
        place: Place::Options,
        shown: |s| matches!(s.method, Method::Ipndm { .. }),
        value: Value::Whole {
            range: 1..=4,
            get: |s| if let Method::Ipndm { order } = s.method { order } else { 4 },
            set: |s, value| {
                if let Method::Ipndm { order } = &mut s.method {
                    *order = value;
                }
            },
        },
        ..ROW
    },
    Field {
        name: "order",
        id: "order",
        label: "Order",
        help: "Number of denoised pictures that a step uses.",
        place: Place::Options,
        shown: |s| matches!(s.method, Method::Dpmpp { .. }),
        value: Value::Whole {
            range: 2..=3,
            get: |s| if let Method::Dpmpp { order } = s.method { order } else { 3 },
            set: |s, value| {
                if let Method::Dpmpp { order } = &mut s.method {
                    *order = value;
                }
            },
        },
        ..ROW
    },
    Field {
        name: "clip",
        id: "clip",
        label: "Clip denoised pictures to the valid range",
        help: "Clips every denoised picture before the step is taken.",
        place: Place::Options,
        value: Value::Switch { get: |s| s.clip_denoised, set: |s, clip| s.clip_denoised = clip },
        ..ROW
    },
    Field {
        name: "churn",
        id: "churn",
        label: "Churn",
        help: "Total amount of noise that is added and removed again during sampling.",
        place: Place::Shape,
        shown: takes_churn,
        value: Value::Number {
            range: range::CHURN,
            get: |s| s.churn.s_churn,
            set: |s, value| s.churn.s_churn = value,
        },
        ..ROW
    },
    Field {
        name: "churn-low",
        label: "Churn above σ",
        help: "Lowest noise level with churn.",
        value: Value::Number {
            range: range::LEVEL,
            get: |s| s.churn.s_min,
            set: |s, value| s.churn.s_min = value,
        },
        ..ROW
    },
    Field {
        name: "churn-high",
        label: "Churn up to σ",
        help: "Highest noise level with churn.",
        value: Value::Number {
            range: range::LEVEL,
            get: |s| s.churn.s_max,
            set: |s, value| s.churn.s_max = value,
        },
        ..ROW
    },
    Field {
        name: "churn-noise",
        id: "churn-noise",
        label: "Churn noise",
        help: "Standard deviation of the noise that churn adds.",
        place: Place::Shape,
        shown: takes_churn,
        value: Value::Number {
            range: range::NOISE,
            get: |s| s.churn.s_noise,
            set: |s, value| s.churn.s_noise = value,
        },
        ..ROW
    },
    Field {
        name: "silent",
        id: "silent",
        label: "Silence the time token",
        help: "Sets the time token to zero, so that the blocks do not know the noise level.",
        place: Place::Time,
        value: Value::Switch { get: |s| s.silence_time, set: |s, silent| s.silence_time = silent },
        ..ROW
    },
    Field {
        name: "classes",
        label: "Class",
        help: "Classes of the pictures, which consecutive seeds use in turn.",
        value: Value::Text {
            examples: &["0", "3,1,99999", "3:0.6_5:0.4,7"],
            get: |s| list(&s.classes),
            set: set_classes,
        },
        ..GUIDANCE
    },
    Field {
        name: "guidance",
        label: "Guidance",
        help: "Scale of classifier-free guidance; 1 means none.",
        linked: |s| s.guidance.is_some(),
        value: Value::Number {
            range: range::GUIDANCE,
            get: |s| s.guidance.map_or(1.0, |guidance| guidance.scale),
            set: |s, scale| s.guidance.get_or_insert_default().scale = scale,
        },
        ..GUIDANCE
    },
    Field {
        name: "guidance-power",
        id: "guidance-power",
        label: "Power of the schedule; 0: constant scale",
        help: "The scale rises from 1 as the noise level falls; the power says how late.",
        place: Place::Guidance,
        value: Value::Number {
            range: range::GUIDANCE_POWER,
            get: |s| power(&guidance(s)),
            set: |s, value| {
                edit_guidance(s, |guidance| guidance.schedule = guidance_schedule(value))
            },
        },
        ..GUIDANCE
    },
    Field {
        name: "guidance-channels",
        id: "guidance-channels",
        label: "Channels",
        help: "Channels that are guided.",
        place: Place::Guidance,
        value: Value::Choice {
            options: &[Choice::new("three", "First three"), Choice::new("all", "All")],
            get: |s| position(&CHANNELS, guidance(s).channels),
            set: |s, i| edit_guidance(s, |guidance| guidance.channels = CHANNELS[i]),
        },
        ..GUIDANCE
    },
    Field {
        name: "guidance-low",
        id: "guidance-low",
        label: "Above σ",
        help: "No guidance up to this noise level.",
        place: Place::Interval,
        value: Value::Number {
            range: range::LEVEL,
            get: |s| guidance(s).sigma_low,
            set: |s, value| edit_guidance(s, |guidance| guidance.sigma_low = value),
        },
        ..GUIDANCE
    },
    Field {
        name: "guidance-high",
        id: "guidance-high",
        label: "Up to σ",
        help: "No guidance above this noise level.",
        place: Place::Interval,
        value: Value::Number {
            range: range::LEVEL,
            get: |s| guidance(s).sigma_high,
            set: |s, value| edit_guidance(s, |guidance| guidance.sigma_high = value),
        },
        ..GUIDANCE
    },
];

/// Returns the fields of these places, place after place.
pub fn fields_at(places: &[Place]) -> impl Iterator<Item = &'static Field> {
    places.iter().flat_map(|&place| FIELDS.iter().filter(move |field| field.place == place))
}

fn is_discrete(settings: &Settings) -> bool {
    levels(&settings.schedule) == Levels::Adm
}

fn takes_churn(settings: &Settings) -> bool {
    settings.method.takes_churn()
}

fn position<T: PartialEq>(all: &[T], value: T) -> usize {
    all.iter().position(|known| *known == value).unwrap_or(0)
}

fn guidance(settings: &Settings) -> Guidance {
    settings.guidance.unwrap_or_default()
}

fn edit_guidance(settings: &mut Settings, edit: impl Fn(&mut Guidance)) {
    if let Some(guidance) = &mut settings.guidance {
        edit(guidance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::strategies::settings;
    use proptest::prelude::*;

    #[test]
    fn every_row_is_complete() {
        let mut ids = std::collections::BTreeMap::new();
        for field in FIELDS {
            let Field { name, id, label, help, place, .. } = field;
            assert!(!name.is_empty() && !name.starts_with("b-"), "{name}");
            assert!(!label.is_empty() && help.ends_with('.'), "{name}");
            assert_eq!(*place == Place::Nowhere, id.is_empty(), "{name}");
            // Two rows share a name only if they share a control, one at a time.
            assert!(id.is_empty() || *ids.entry(id).or_insert(name) == name, "{id}");
        }
        for (i, field) in FIELDS.iter().enumerate() {
            for other in FIELDS[i + 1..].iter().filter(|other| other.name == field.name) {
                for method in METHODS {
                    let settings = Settings { method, ..Settings::default() };
                    assert!(!((field.shown)(&settings) && (other.shown)(&settings)));
                }
            }
        }
        assert_eq!(METHODS.len(), METHOD_OPTIONS.len());
    }

    #[test]
    fn options_are_selected_by_position_and_by_name() {
        for field in FIELDS {
            let Value::Choice { options, get, set } = &field.value else { continue };
            for (i, option) in options.iter().enumerate() {
                let mut settings = Settings::default();
                if field.name == "variance" {
                    settings.method = METHODS[5];
                }
                settings.guidance = Some(Guidance::default());
                let before = settings.clone();
                set(&mut settings, i);
                assert_eq!((get(&settings), field.text(&settings)), (i, option.name.to_string()));
                let mut named = before;
                assert_eq!(field.take(&mut named, option.name).is_ok(), option.linked);
                assert_eq!(named == settings, option.linked, "{}={}", field.name, option.name);
            }
        }
    }

    #[test]
    fn what_is_not_valid_changes_nothing() {
        for field in FIELDS {
            for text in ["", "x", "NaN", "-", "1e", "TRUE", "adm", "\u{202e}"] {
                let mut settings = Settings::default();
                assert!(field.take(&mut settings, text).is_err(), "{}={text}", field.name);
                assert_eq!(settings, Settings::default());
            }
        }
    }

    proptest! {
        /// The texts of all fields, in the order of the table, bring the settings back.
        #[test]
        fn settings_survive_their_texts(settings in settings(false)) {
            let mut again = Settings::default();
            for field in FIELDS.iter().filter(|field| (field.linked)(&settings)) {
                let text = field.text(&settings);
                let taken = field.take(&mut again, &text);
                prop_assert!(taken.is_ok() || text.is_empty(), "{}={text}", field.name);
            }
            prop_assert_eq!(again, settings);
        }
    }
}
