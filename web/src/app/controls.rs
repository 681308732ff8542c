//! Controls of the sampling settings, made from the table of fields.

use std::rc::Rc;

use leptos::prelude::*;
use model::settings::Settings;

use super::fields::{choice_field, number_field, switch_field, text_field};
use super::state::State;
use crate::scene::{Field, Place, Slot, Value, fields_at};

/// Maximum number of options for a whole number to be a choice rather than a number field.
const FEW: usize = 4;

/// The controls of the fields in some places. Each is shown only if it applies to the settings.
#[component]
pub fn Controls(
    state: State,
    /// The places.
    places: &'static [Place],
    /// Whether the controls are for the settings to compare with.
    #[prop(optional)]
    compared: bool,
    /// The panel of the playground whose settings the controls are for.
    #[prop(optional)]
    panel: Option<usize>,
    /// Names of fields that are left out.
    #[prop(optional)]
    except: &'static [&'static str],
) -> impl IntoView {
    let slot = panel.map_or_else(|| Slot::compared(compared), Slot::Panel);
    let field = move |field: &'static Field| {
        let shown = Memo::new(move |_| (field.shown)(state.scene.read().settings_in(slot)));
        view! { <Show when=move || shown.get()>{control(field, state, slot)}</Show> }
    };
    let fields = fields_at(places).filter(|field| !except.contains(&field.name));
    fields.map(field).collect_view()
}

/// Builds the control of a field.
fn control(field: &'static Field, state: State, slot: Slot) -> AnyView {
    let id = format!("{}{}", field.id, slot.suffix());
    let texts = [field.label, field.help];
    let text = Signal::derive(move || field.shown_text(state.scene.read().settings_in(slot)));
    let enter = move |text: &str| {
        let entered = state.scene.try_maybe_update(|scene| {
            let mut entered = Ok(());
            scene.change(slot, |settings| entered = field.enter(settings, text));
            (entered.is_ok(), entered)
        });
        entered.unwrap_or(Ok(()))
    };
    let change = move |change: &dyn Fn(&mut Settings)| {
        state.scene.update(|scene| scene.change(slot, change));
    };
    match &field.value {
        Value::Whole { range, get, set } if range.clone().count() <= FEW => {
            let (start, get, set) = (*range.start(), *get, *set);
            let options = range.clone().map(|n| [n.to_string(), n.to_string()]).collect();
            let chosen = Signal::derive(move || {
                get(state.scene.read().settings_in(slot)).checked_sub(start)
            });
            let choose = Rc::new(move |i: usize| change(&|settings| set(settings, start + i)));
            choice_field(id, texts, options, chosen, choose)
        }
        Value::Number { .. } | Value::Whole { .. } => {
            // Invalid input is replaced by the current value.
            let take = move |text: &str| enter(text).unwrap_or_default();
            number_field(id, texts, text, field.bounds(), Box::new(take))
        }
        Value::Choice { options, get, set } => {
            let (get, set) = (*get, *set);
            let options = options.iter().map(|o| [o.name.to_string(), o.label.to_string()]);
            let chosen = Signal::derive(move || Some(get(state.scene.read().settings_in(slot))));
            let choose = Rc::new(move |i: usize| change(&|settings| set(settings, i)));
            choice_field(id, texts, options.collect(), chosen, choose)
        }
        Value::Switch { get, set } => {
            let (get, set) = (*get, *set);
            let on = Signal::derive(move || get(state.scene.read().settings_in(slot)));
            let take = move |on: bool| change(&|settings| set(settings, on));
            switch_field(id, texts, on, Box::new(take))
        }
        Value::Text { examples, .. } => {
            let placeholder = examples.first().copied().unwrap_or_default();
            let take = move |text: &str| enter(text).map_err(|error| format!("{error}."));
            text_field(id, texts, text, placeholder, Box::new(take))
        }
    }
}
