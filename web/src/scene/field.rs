//! The type of a row in the table of settings fields.

use std::ops::RangeInclusive;

use model::settings::Settings;

use super::range::number;

/// What a control shows for `f64::MAX`, which means no upper bound. No noise level is higher.
const OPEN_END: f64 = 1000.0;

/// A field of the sampling settings.
pub struct Field {
    /// The name in links.
    pub name: &'static str,
    /// The `id` of the control.
    pub id: &'static str,
    /// The label of the control.
    pub label: &'static str,
    /// One sentence on what the field does, shown as the control's tooltip.
    pub help: &'static str,
    /// Where the control is on the page.
    pub place: Place,
    /// Whether the settings to compare with have a value of their own, rather than sharing that of
    /// the settings they are compared with.
    pub compared: bool,
    /// Whether the control is shown for these settings.
    pub shown: fn(&Settings) -> bool,
    /// Whether a link to these settings has the field.
    pub linked: fn(&Settings) -> bool,
    /// The kind of value, with its getter and setter.
    pub value: Value,
}

/// The kind of value of a [`Field`], with its getter and setter. A setter does nothing if the
/// settings have no such value, such as DDIM's eta under another sampler.
pub enum Value {
    /// A real number.
    Number {
        /// The range that it is clamped to.
        range: RangeInclusive<f64>,
        /// Returns it.
        get: fn(&Settings) -> f64,
        /// Sets it.
        set: fn(&mut Settings, f64),
    },
    /// A whole number.
    Whole {
        /// The range that it is clamped to.
        range: RangeInclusive<usize>,
        /// Returns it.
        get: fn(&Settings) -> usize,
        /// Sets it.
        set: fn(&mut Settings, usize),
    },
    /// One of several options, by position.
    Choice {
        /// The options.
        options: &'static [Choice],
        /// Returns the position of the current one.
        get: fn(&Settings) -> usize,
        /// Selects one.
        set: fn(&mut Settings, usize),
    },
    /// On or off.
    Switch {
        /// Returns it.
        get: fn(&Settings) -> bool,
        /// Sets it.
        set: fn(&mut Settings, bool),
    },
    /// Text in a notation of its own.
    Text {
        /// Valid values. The first is the placeholder of the control.
        examples: &'static [&'static str],
        /// Returns it; empty where there is none.
        get: fn(&Settings) -> String,
        /// Sets it, or returns why it is not valid.
        set: fn(&mut Settings, &str) -> Result<(), String>,
    },
}

/// An option of a [`Value::Choice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The name in links, and in the `id` of the option.
    pub name: &'static str,
    /// The label.
    pub label: &'static str,
    /// Whether links can select it.
    pub linked: bool,
}

impl Choice {
    /// An option that links can select.
    pub const fn new(name: &'static str, label: &'static str) -> Self {
        Self { name, label, linked: true }
    }
}

/// Where a control is on the page. Controls in the same place are in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the field is for links only, or has a control that is built by hand.
    Nowhere,
    /// With the name of the sampler.
    Sampler,
    /// With the number of steps.
    Steps,
    /// With the options of the sampler.
    Options,
    /// With the kind of the schedule.
    Levels,
    /// With the upper end of the schedule.
    High,
    /// With the lower end of the schedule.
    Low,
    /// With the shape of the schedule, and churn.
    Shape,
    /// With the switch for the time token.
    Time,
    /// With the schedule and the channels of guidance.
    Guidance,
    /// With the interval of guidance.
    Interval,
}

impl Field {
    /// Returns the value as a link writes it.
    pub fn text(&self, settings: &Settings) -> String {
        match &self.value {
            // Adding zero turns -0 into 0.
            Value::Number { get, .. } => (get(settings) + 0.0).to_string(),
            Value::Whole { get, .. } => get(settings).to_string(),
            Value::Choice { options, get, .. } => options[get(settings)].name.into(),
            Value::Switch { get, .. } => get(settings).to_string(),
            Value::Text { get, .. } => get(settings),
        }
    }

    /// Sets the value from the text of a link. Numbers are clamped to their range.
    ///
    /// # Errors
    ///
    /// If the text is not valid. The settings are unchanged then.
    pub fn take(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        let invalid = || format!("`{text}` is not a value of {}", self.name);
        match &self.value {
            Value::Number { range, set, .. } => {
                set(settings, number(text, range.clone()).ok_or_else(invalid)?);
            }
            Value::Whole { range, set, .. } => {
                set(settings, number(text, range.clone()).ok_or_else(invalid)?);
            }
            Value::Choice { options, set, .. } => {
                let position = options.iter().position(|o| o.linked && o.name == text);
                set(settings, position.ok_or_else(invalid)?);
            }
            Value::Switch { set, .. } => set(settings, text.parse().map_err(|_| invalid())?),
            Value::Text { set, .. } => set(settings, text)?,
        }
        Ok(())
    }

    /// Returns the value as its control shows it.
    pub fn shown_text(&self, settings: &Settings) -> String {
        match &self.value {
            Value::Number { range, get, .. } if is_open(range) => {
                get(settings).min(OPEN_END).to_string()
            }
            _ => self.text(settings),
        }
    }

    /// Sets the value from the text of its control.
    ///
    /// # Errors
    ///
    /// If the text is not valid. The settings are unchanged then.
    pub fn enter(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        self.take(settings, text)?;
        if let Value::Number { range, get, set } = &self.value
            && is_open(range)
            && get(settings) >= OPEN_END
        {
            set(settings, f64::MAX);
        }
        Ok(())
    }

    /// Returns the smallest and the largest number that the control takes; empty texts if it is not
    /// for numbers.
    pub fn bounds(&self) -> [String; 2] {
        match &self.value {
            Value::Number { range, .. } => {
                [*range.start(), range.end().min(OPEN_END)].map(|bound| bound.to_string())
            }
            Value::Whole { range, .. } => [range.start(), range.end()].map(ToString::to_string),
            _ => Default::default(),
        }
    }
}

fn is_open(range: &RangeInclusive<f64>) -> bool {
    *range.end() == f64::MAX
}

#[cfg(test)]
mod tests {
    use crate::scene::FIELDS;
    use model::guidance::Guidance;
    use model::settings::Settings;

    #[test]
    fn an_open_end_is_shown_as_a_level_above_all_others() {
        let field = |name| FIELDS.iter().find(|field| field.name == name).expect("a field");
        let guidance = Some(Guidance::default());
        let mut settings = Settings { guidance, ..Settings::default() };
        let high = field("guidance-high");
        assert_eq!(high.shown_text(&settings), "1000");
        assert_eq!(high.bounds(), ["0", "1000"]);
        high.enter(&mut settings, "5").expect("a number");
        assert_eq!(high.shown_text(&settings), "5");
        high.enter(&mut settings, "2000").expect("a number");
        assert_eq!(settings.guidance, guidance);
        assert_eq!(field("steps").bounds(), ["1", "250"]);
        assert_eq!(field("high").bounds(), ["2", "1000"]);
    }
}
