//! The view "Play": interpolation, sampling from a picture, inpainting, comparison.

use leptos::prelude::*;

use super::controls::Controls;
use super::engine::Engine;
use super::explain::Explain;
use super::fields::{Choice, Number};
use super::make::{Generate, HowMade, Previews, Seed};
use super::names::{Mixing, Names};
use super::paint::GuidePicture;
use super::state::State;
use crate::explain;
use crate::scene::{Game, Place, range};

/// The form.
#[component]
pub fn Play(state: State, engine: Engine) -> impl IntoView {
    let games = [
        (Game::Between, "between", "Blend two"),
        (Game::Among, "among", "Blend four"),
        (Game::From, "from", "Redraw"),
        (Game::Inpaint, "inpaint", "Repaint"),
        (Game::Compare, "compare", "Compare"),
    ];
    let game = Memo::new(move |_| state.scene.read().game);
    let other = move |i: usize, id: &'static str, label: &'static str| {
        view! {
            <Number
                id=id label=label range=0..=u64::MAX
                value=Signal::derive(move || state.scene.read().others[i])
                on_change=move |seed| state.scene.update(|scene| scene.others[i] = seed)
            />
        }
    };
    let starts_from = move || state.picture_size().is_some();
    let needs = || {
        view! {
            <p class="hint" data-testid="needs-autoencoder">
                "This model makes latents. To start from a picture, it needs the autoencoder that encodes \
                 pictures: open its file too."
            </p>
        }
    };
    let fields = move || {
        match game.get() {
        Game::Between => view! {
            {other(0, "seed-b", "Second seed")}
            <Walk state/>
            <Explain topic=explain::BETWEEN/>
        }.into_any(),
        Game::Among => view! {
            <div class="fields">
                {other(0, "seed-b", "Top right")}
                {other(1, "seed-c", "Bottom left")}
                {other(2, "seed-d", "Bottom right")}
            </div>
            <Explain topic=explain::AMONG/>
        }.into_any(),
        Game::From => view! {
            <Show when=starts_from fallback=needs><GuidePicture state paints=false/></Show>
            <div class="field">
                <label for="sigma">{Signal::derive(move || format!("Noise added: {:.1}", state.scene.read().sigma))}</label>
                // The slider is logarithmic.
                <input
                    type="range" id="sigma" step="0.01"
                    min=range::SIGMA.start().ln().to_string() max=range::SIGMA.end().ln().to_string()
                    prop:value=Signal::derive(move || state.scene.read().sigma.ln().to_string())
                    on:input:target=move |e| {
                        let sigma: f64 = e.target().value().parse().map_or(2.0, f64::exp);
                        let sigma = (sigma * 100.0).round() / 100.0;
                        state.scene.update(|scene| scene.sigma = sigma.clamp(*range::SIGMA.start(), *range::SIGMA.end()));
                    }
                />
            </div>
            <Explain topic=explain::FROM/>
        }.into_any(),
        Game::Inpaint => view! {
            <Show when=starts_from fallback=needs><GuidePicture state paints=true/></Show>
            <Explain topic=explain::INPAINT/>
        }.into_any(),
        Game::Compare => view! {
            <div class="two">
                <fieldset>
                    <legend>"Left"</legend>
                    <Side state compared=true/>
                </fieldset>
                <fieldset>
                    <legend>"Right"</legend>
                    <Side state/>
                </fieldset>
            </div>
            <Explain topic=explain::COMPARE/>
        }.into_any(),
    }
    };
    view! {
        <div class="card make">
            <Choice
                id="game" label="What to do" options=games value=game
                on_change=move |game| {
                    state.scene.update(|scene| scene.game = game);
                }
            />
            <Names state/>
            <Mixing state/>
            <Previews state/>
            <Seed state/>
            {fields}
            <Generate state engine/>
        </div>
    }
}

/// A slider over the pictures between two seeds.
#[component]
fn Walk(state: State) -> impl IntoView {
    let count = move || state.run.read().as_ref().map_or(0, |run| run.order.noises.len());
    view! {
        <div class="field" hidden=Signal::derive(move || count() < 2)>
            <label for="walk">"Position between the seeds"</label>
            <input
                type="range" id="walk" min="0" step="1" max=Signal::derive(move || count().saturating_sub(1).to_string())
                prop:value=Signal::derive(move || state.picture().to_string())
                on:input:target=move |e| state.enlarged.set(e.target().value().parse().ok())
            />
        </div>
    }
}

/// The settings of one side of a comparison. The noise levels of the left side follow those of the
/// right one until they are changed.
#[component]
fn Side(
    state: State,
    /// Whether it is the left side.
    #[prop(optional)]
    compared: bool,
) -> impl IntoView {
    view! {
        <HowMade state compared=compared/>
        <Controls state places=&[Place::Time] compared=compared/>
        <details class="fine">
            <summary>"Noise levels"</summary>
            <Controls state places=&[Place::Options, Place::Levels, Place::High, Place::Low, Place::Shape] compared=compared/>
        </details>
    }
}
