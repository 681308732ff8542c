//! Class and guidance: the fields for classes, random classes, mixtures, the scale.

use leptos::prelude::*;
use model::classes::{find, find_all, list};
use model::guidance::{Guidance, GuidanceSchedule, GuidedChannels};
use model::label::Label;

use super::combobox::{NameField, Problem};
use super::controls::Controls;
use super::explain::Explain;
use super::state::State;
use crate::explain;
use crate::names::{Mix, caption, draw};
use crate::scene::{Game, Place, View, number, range};

/// Maximum of the guidance slider. The number field takes more.
const STRONG: f64 = 5.0;

/// The classes of the scene, as the controls show and change them.
#[derive(Clone, Copy)]
struct Labels {
    state: State,
    labels: Memo<Vec<Label>>,
    /// The classes as one class for each picture and a common second one, if they are that.
    mix: Memo<Option<Mix>>,
}

impl Labels {
    fn new(state: State) -> Self {
        let labels = Memo::new(move |_| state.scene.read().settings.classes.clone());
        Self { state, labels, mix: Memo::new(move |_| Mix::of(&labels.read())) }
    }

    fn change(self, edit: &dyn Fn(&mut Mix)) {
        let mut mix = self.mix.get_untracked().unwrap_or_default();
        edit(&mut mix);
        self.state.scene.update(|scene| scene.settings.classes = mix.labels());
    }
}

/// Builds a part of the form for each model that has classes, so that no text that was typed for
/// another model stays in it.
fn for_each_model(
    state: State,
    part: impl Fn(Labels) -> AnyView + Send + 'static,
) -> impl IntoView {
    let model = Memo::new(move |_| {
        let ready = state.ready.read();
        ready.as_ref().filter(|ready| ready.classes > 0).map(|ready| ready.sha256.clone())
    });
    move || model.get().map(|_| part(Labels::new(state)))
}

/// The field for the classes, and the button that draws some; nothing if the model has no classes.
#[component]
pub fn Names(state: State) -> impl IntoView {
    for_each_model(state, first_names)
}

/// The controls for a second class and for guidance; nothing if the model has no classes.
#[component]
pub fn Mixing(state: State) -> impl IntoView {
    for_each_model(state, mixing)
}

fn first_names(all: Labels) -> AnyView {
    let Labels { state, labels, mix } = all;
    let names = state.names;
    let first = Signal::derive(move || {
        let labels = match &*mix.read() {
            Some(mix) => mix.firsts.iter().copied().map(Label::from).collect(),
            None => labels.get(),
        };
        names.with(|names| list(names, &labels))
    });
    let take_first = Callback::new(move |text: String| {
        let labels = names.with_untracked(|names| find_all(names, &text));
        let labels = labels.map_err(|error| format!("{error}."))?;
        let plain: Option<Vec<usize>> = labels.iter().map(Label::class).collect();
        match plain {
            Some(firsts) => all.change(&|mix| mix.firsts.clone_from(&firsts)),
            // Mixtures are kept as they were typed.
            None => state.scene.update(|scene| scene.settings.classes = labels),
        }
        Ok(())
    });
    let random = move |_| {
        let count = names.read_untracked().len();
        let drawn = draw(count, untrack(|| different(state)), js_sys::Math::random);
        state.class_problem.set(None);
        all.change(&|mix| mix.firsts.clone_from(&drawn));
    };
    view! {
        <div class="names">
            <div class="with-button">
                <NameField
                    id="class" label="A picture of" value=first state problem=state.class_problem
                    example="type a name" on_change=take_first
                />
                <button type="button" class="plain" data-testid="random" on:click=random>"Random"</button>
            </div>
            <Problem id="class" problem=state.class_problem/>
        </div>
    }
    .into_any()
}

fn mixing(all: Labels) -> AnyView {
    let Labels { state, mix, .. } = all;
    let names = state.names;
    let second = Signal::derive(move || {
        let second = mix.read().as_ref().and_then(|mix| mix.second);
        names.with(|names| list(names, &second.map(Label::from).into_iter().collect::<Vec<_>>()))
    });
    let second_problem = RwSignal::new(None);
    let take_second = Callback::new(move |text: String| {
        let class = match text.trim() {
            "" => None,
            text => {
                let class = names.with_untracked(|names| find(names, text));
                Some(class.map_err(|error| format!("{error}."))?)
            }
        };
        all.change(&|mix| {
            if mix.second.is_none() {
                mix.percent = 50.0;
            }
            mix.second = class;
        });
        Ok(())
    });
    // A second class needs a first one. Mixtures of more classes have to be typed.
    let alone = Signal::derive(move || mix.read().as_ref().is_none_or(|mix| mix.firsts.is_empty()));
    let unmixed =
        Signal::derive(move || mix.read().as_ref().is_none_or(|mix| mix.second.is_none()));
    let percent =
        Signal::derive(move || mix.read().as_ref().map_or(0.0, |mix| mix.percent).to_string());
    let said = Signal::derive(move || {
        let mix = mix.get().unwrap_or_default();
        let name = |class: Option<usize>| names.with(|names| caption(names, &Label::from(class)));
        let part = format!("{:.0} % {}", mix.percent, name(mix.second));
        match mix.firsts[..] {
            [first] => format!("{:.0} % {}, {part}", 100.0 - mix.percent, name(Some(first))),
            _ => part,
        }
    });
    view! {
        <section class="names" aria-label="Mixture and guidance">
            <div class="mixing" hidden=alone>
                <NameField
                    id="second" label="Mixed with" value=second state problem=second_problem
                    example="nothing" on_change=take_second
                />
                <Problem id="second" problem=second_problem/>
                <div class="field" hidden=unmixed>
                    <label for="mix">"Mix: "{said}</label>
                    <input
                        type="range" id="mix" min="0" max="100" step="1" aria-valuetext=said
                        prop:value=percent
                        on:input:target=move |e| {
                            if let Some(percent) = number(&e.target().value(), 0.0..=100.0) {
                                all.change(&|mix| mix.percent = percent);
                            }
                        }
                    />
                </div>
            </div>
            <Guide state/>
            <Explain topic=explain::CLASS/>
            <Explain topic=explain::GUIDANCE/>
        </section>
    }
    .into_any()
}

/// Returns how many of the pictures can have different classes.
fn different(state: State) -> usize {
    let scene = state.scene.read();
    match (scene.view, scene.game) {
        // All of them have the class of the first seed.
        (View::Play, Game::Between | Game::Among | Game::Compare) => 1,
        _ => scene.count,
    }
}

/// The guidance scale; 1 means no guidance.
#[component]
fn Guide(state: State) -> impl IntoView {
    let get = move || state.scene.read().settings.guidance;
    let scale = move || get().map_or(1.0, |guidance| guidance.scale);
    let first = move || {
        let ready = state.ready.read_untracked();
        // The model's usual guidance, or a constant scale for all channels.
        ready.as_ref().and_then(|ready| ready.usual.first.guidance).unwrap_or(Guidance {
            schedule: GuidanceSchedule::Constant,
            channels: GuidedChannels::All,
            ..Guidance::default()
        })
    };
    let set = move |scale: f64| {
        state.scene.update(|scene| match &mut scene.settings.guidance {
            Some(guidance) => guidance.scale = scale,
            None if scale == 1.0 => {}
            none => *none = Some(Guidance { scale, ..first() }),
        });
    };
    let value = Signal::derive(move || scale().to_string());
    let free = Signal::derive(move || get().is_none());
    let named = Signal::derive(move || !state.scene.read().settings.classes.is_empty());
    view! {
        <div class="slider">
            <label for="guidance-scale">"Guidance"</label>
            <input
                type="range" id="guidance" min="1" max=STRONG step="0.1" aria-label="Guidance, 1 for none"
                prop:value=value
                on:input:target=move |e| {
                    if let Some(scale) = number(&e.target().value(), range::GUIDANCE) {
                        set(scale);
                    }
                }
            />
            <input
                type="number" id="guidance-scale" step="any" inputmode="decimal"
                min=range::GUIDANCE.start().to_string() max=range::GUIDANCE.end().to_string()
                prop:value=value
                on:change:target=move |e| {
                    if let Some(scale) = number(&e.target().value(), range::GUIDANCE) {
                        set(scale);
                    }
                    e.target().set_value(&value.get_untracked());
                }
            />
        </div>
        <div hidden=free>
            <p class="hint" hidden=named>"Guidance has no effect without a class."</p>
            <GuidanceDetails state/>
        </div>
    }
}

/// The schedule, the channels and the interval of guidance.
#[component]
fn GuidanceDetails(state: State) -> impl IntoView {
    view! {
        <details class="fine">
            <summary data-testid="fine">"Schedule, channels, interval of guidance"</summary>
            <Controls state places=&[Place::Guidance]/>
            <div class="fields"><Controls state places=&[Place::Interval]/></div>
        </details>
    }
}
