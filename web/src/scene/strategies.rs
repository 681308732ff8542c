//! Random settings for property tests, made from the table of fields.

use model::settings::Settings;
use proptest::prelude::*;

use super::{FIELDS, Field, Value};

/// A value of a field: the text of a link, or the position of an option.
#[derive(Clone, Debug)]
enum Drawn {
    Text(String),
    Position(usize),
}

fn value(field: &Field) -> BoxedStrategy<Drawn> {
    match &field.value {
        // A range without an upper bound: `f64::MAX` has 309 digits in a link.
        Value::Number { range, .. } if *range.end() == f64::MAX => {
            prop_oneof![Just(f64::MAX), 0.0..1e3].prop_map(|x| Drawn::Text(x.to_string())).boxed()
        }
        Value::Number { range, .. } => {
            let ends = [*range.start(), *range.end()];
            prop_oneof![range.clone(), proptest::sample::select(ends.to_vec())]
                .prop_map(|x| Drawn::Text(x.to_string()))
                .boxed()
        }
        Value::Whole { range, .. } => {
            range.clone().prop_map(|n| Drawn::Text(n.to_string())).boxed()
        }
        Value::Choice { options, .. } => (0..options.len()).prop_map(Drawn::Position).boxed(),
        Value::Switch { .. } => any::<bool>().prop_map(|on| Drawn::Text(on.to_string())).boxed(),
        Value::Text { examples, .. } => proptest::sample::select(examples.to_vec())
            .prop_map(|text| Drawn::Text(text.into()))
            .boxed(),
    }
}

/// Settings with random values in random fields of the table.
pub fn settings(compared: bool) -> impl Strategy<Value = Settings> {
    let fields: Vec<&Field> = FIELDS.iter().filter(|field| field.compared || !compared).collect();
    let values: Vec<_> = fields.iter().map(|field| proptest::option::of(value(field))).collect();
    values.prop_map(move |values| {
        let mut settings = Settings::default();
        for (field, value) in fields.iter().zip(values) {
            match (&field.value, value) {
                (_, None) => {}
                (Value::Choice { set, .. }, Some(Drawn::Position(i))) => set(&mut settings, i),
                (_, Some(Drawn::Text(text))) => {
                    field.take(&mut settings, &text).expect("a value of the field");
                }
                (_, Some(Drawn::Position(_))) => unreachable!("only choices have positions"),
            }
        }
        settings
    })
}
