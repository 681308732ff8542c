//! The view "Look inside": attention maps.

use leptos::ev::{KeyboardEvent, MouseEvent};
use leptos::prelude::*;
use model::picture::Rgb;
use std::sync::Arc;
use wasm_bindgen::JsCast;
use web_sys::Element;

use super::controls::Controls;
use super::engine::Engine;
use super::explain::Explain;
use super::keep::hand_over;
use super::make::Generate;
use super::picture::Picture;
use super::state::{Doing, State};
use super::survey::scans;
use crate::explain;
use crate::looks::Question;
use crate::plot;
use crate::protocol::Look;
use crate::scene::{Place, View};

/// Number of steps in the strip.
const STRIP: usize = 8;

/// Returns the selected attention, once the worker has sent it.
fn attention(state: State) -> Option<Arc<plot::Attention>> {
    state.attention.read().get(&state.look()?).cloned()
}

/// Returns the denoised picture that the attention is shown for.
fn picture(state: State) -> Option<Rgb> {
    let run = state.run.read();
    run.as_ref()?.background(state.at.get(), state.picture()).cloned()
}

/// Returns the steps of the strip.
fn strip(state: State) -> Vec<usize> {
    let Some(look) = state.look() else { return Vec::new() };
    let steps =
        state.run.read().as_ref().map_or(0, |run| run.frames.len().min(run.order.settings.steps));
    let tokens = state.ready.read().as_ref().and_then(|ready| {
        let block = ready.blocks.get(look.block)?;
        Some(block.side * block.window)
    });
    // Large maps take long to compute.
    let most = if tokens.is_some_and(|tokens| tokens > 512) { STRIP / 2 } else { STRIP };
    let count = most.min(steps);
    (0..count).map(|i| i * (steps - 1) / (count - 1).max(1)).collect()
}

/// Requests the attention that is shown: that of the selected step first, then that of the strip,
/// then that of all blocks for the map of the network, then the survey.
pub fn request(state: State, engine: Engine) {
    Effect::new(move || {
        if *state.doing.read() != Doing::Resting {
            return;
        }
        let inside = state.scene.read().view == View::Attend;
        let look = state.look().filter(|_| inside);
        let strip = if inside && state.strip.get() { strip(state) } else { Vec::new() };
        let strip = strip.into_iter().filter_map(|step| Some(Look { step, ..look? }));
        // A fast device measures all blocks without being asked to.
        let measures = state.measures.get() || (inside && state.is_fast());
        let count = state.ready.read().as_ref().map_or(0, |ready| ready.blocks.len());
        let blocks = (0..count).filter(|_| measures).filter_map(|block| state.look_at(block));
        let survey = if inside && state.survey.get() { scans(state) } else { Vec::new() };
        let tokens = look.into_iter().chain(strip).chain(blocks).map(Question::Token);
        engine.ask(tokens.chain(survey.into_iter().map(Question::Blocks)).collect());
    });
}

/// The picture with the token, and the heat map beside it.
#[component]
pub fn Attention(state: State) -> impl IntoView {
    let heat = Signal::derive(move || {
        Some(attention(state)?.heat(&picture(state)?, state.scene.read().head))
    });
    let empty = move || state.run.read().is_none();
    let there = Signal::derive(move || !state.is_gone());
    let attends = Signal::derive(move || empty() || state.look().is_some());
    let label = move || {
        let Some(attention) = attention(state) else { return "No attention map yet".into() };
        let head = state.scene.read().head;
        let evenness = 100.0 * attention.evenness(head);
        let head = head.map_or("the mean of all heads".into(), |h| format!("head {}", h + 1));
        let Look { token: [row, column], block, .. } = attention.about.look;
        format!(
            "Attention of the token in row {}, column {} of block {}, {head}; entropy: {evenness:.0} % of the maximum",
            row + 1,
            column + 1,
            block + 1,
        )
    };
    view! {
        <p class="empty" hidden=Signal::derive(move || !empty())>"Generate a picture first. Then you can see here what the model looks at in each step."</p>
        <p class="note" data-testid="gone" hidden=there>
            "The computation was started again, so the steps of these pictures are gone. Press Generate \
             to make them again and look inside."
        </p>
        <p class="note" hidden=attends>"This block has no attention. Choose another one on the map of the network."</p>
        <div class="pair" hidden=empty>
            <figure>
                <Token state/>
                <figcaption>
                    <h2>"The model's guess"</h2>
                    <p class="hint">"Click on a patch, or move the mark with the arrow keys."</p>
                </figcaption>
            </figure>
            <figure>
                <div class="frame" class:waiting=Signal::derive(move || attention(state).is_none())>
                    <Picture picture=heat label=Signal::derive(label) name="heat"/>
                </div>
                <figcaption>
                    <h2>"What this patch attends to"</h2>
                    <Legend least="not at all" most="most"/>
                    <p class="hint">"Grey: outside the window of this block."</p>
                    <Explain topic=explain::ATTENTION/>
                </figcaption>
            </figure>
        </div>
    }
}

/// The legend of a heat map.
#[component]
fn Legend(least: &'static str, most: &'static str) -> impl IntoView {
    view! {
        <p class="legend"><span>{least}</span><i class="heat" aria-hidden="true"></i><span>{most}</span></p>
    }
}

/// The picture, with a movable mark on the token.
#[component]
fn Token(state: State) -> impl IntoView {
    let side = move || {
        let block = state.scene.read().block;
        let ready = state.ready.read();
        let blocks = ready.as_ref().map(|ready| &ready.blocks);
        blocks.and_then(|b| b.get(block.min(b.len() - 1))).map_or(1, |block| block.side)
    };
    let token = move || state.scene.read().token.map(|place| usize::from(place) * side() / 256);
    let set = move |token: [usize; 2]| {
        let side = untrack(side);
        // The centre of the token.
        let place = token.map(|t| ((t.min(side - 1) * 256 + 128) / side) as u8);
        state.scene.update(|scene| scene.token = place);
    };
    let click = move |event: MouseEvent| {
        let Some(frame) = event.current_target().and_then(|t| t.dyn_into::<Element>().ok()) else {
            return;
        };
        let place = frame.get_bounding_client_rect();
        let part = |at: f64, start: f64, size: f64| {
            (((at - start) / size).clamp(0.0, 0.999) * untrack(side) as f64) as usize
        };
        set([
            part(f64::from(event.client_y()), place.y(), place.height()),
            part(f64::from(event.client_x()), place.x(), place.width()),
        ]);
    };
    let press = move |event: KeyboardEvent| {
        let [row, column] = untrack(token);
        let to = match event.key().as_str() {
            "ArrowUp" => [row.saturating_sub(1), column],
            "ArrowDown" => [row + 1, column],
            "ArrowLeft" => [row, column.saturating_sub(1)],
            "ArrowRight" => [row, column + 1],
            "Home" => [untrack(side) / 2; 2],
            _ => return,
        };
        event.prevent_default();
        set(to);
    };
    let percent = move |place: usize| format!("{}%", 100.0 * place as f64 / side() as f64);
    let label = move || {
        let [row, column] = token();
        format!(
            "Token in row {} and column {} of {} by {}: arrow keys move it",
            row + 1,
            column + 1,
            side(),
            side()
        )
    };
    let looked_at = move || match state.captions().get(state.picture()) {
        Some(name) => format!("The denoiser's guess: {name}"),
        None => "The denoiser's guess".into(),
    };
    view! {
        <div class="frame">
            <div class="token-area" role="application" tabindex="0" aria-label=label data-testid="token" on:click=click on:keydown=press>
                <Picture picture=Signal::derive(move || picture(state)) label=Signal::derive(looked_at) name="looked-at"/>
                <span
                    class="mark" aria-hidden="true"
                    style:top=Signal::derive(move || percent(token()[0])) style:left=Signal::derive(move || percent(token()[1]))
                    style:width=Signal::derive(move || percent(1)) style:height=Signal::derive(move || percent(1))
                />
            </div>
        </div>
    }
}

/// The controls: block, head, time token, position bias.
#[component]
pub fn AttentionControls(state: State, engine: Engine) -> impl IntoView {
    let blocks = move || {
        let names =
            state.ready.read().as_ref().map(|ready| ready.blocks.clone()).unwrap_or_default();
        names.into_iter().enumerate().map(|(i, block)| {
            let window = match block.window {
                0 => "no attention".to_string(),
                window => format!("window {window}"),
            };
            let text = format!("{}: {}, {} × {}, {window}", i + 1, block.part, block.side, block.side);
            view! { <option value=i.to_string() selected=Signal::derive(move || state.block() == i)>{text}</option> }
        }).collect_view()
    };
    // The selected attention, or until the worker has sent it, the one before.
    let shown = Memo::new(move |last: Option<&Option<Arc<plot::Attention>>>| {
        let look = state.look()?;
        let selected = state.attention.read().get(&look).cloned();
        selected.or_else(|| last.cloned().flatten())
    });
    let count = Memo::new(move |_| shown.read().as_ref().map_or(1, |shown| shown.about.heads));
    let heads = move || {
        let heads = count.get();
        let chosen = move |head| state.scene.read().head == head;
        std::iter::once(None)
            .chain((0..heads).map(Some))
            .map(|head| {
                let (value, text) = match head {
                    None => ("mean".into(), "mean of all".into()),
                    Some(head) => (head.to_string(), format!("head {}", head + 1)),
                };
                view! { <option value=value selected=Signal::derive(move || chosen(head))>{text}</option> }
            })
            .collect_view()
    };
    let silent = move || state.scene.read().settings.silence_time;
    let silent_now =
        move || state.run.read().as_ref().is_some_and(|run| run.order.settings.silence_time);
    let shares = move || {
        let share = shown.read().as_ref().map_or([0.0; 3], |shown| shown.time_share());
        ["Query", "Key", "Value"].into_iter().zip(share).map(|(name, share)| view! {
            <div class="share">
                <span>{name}</span>
                <meter min="0" max="1" value=share.to_string() aria-label=format!("{name}: share of the time token")/>
                <span>{format!("{:.0} %", 100.0 * share)}</span>
            </div>
        }).collect_view()
    };
    let bias =
        Signal::derive(move || Some(attention(state)?.bias_picture(state.scene.read().head)));
    view! {
        <div class="card make rest">
            <h2>"Attention of a block"</h2>
            <div class="field">
                <label for="block">"Block"</label>
                <select id="block" on:change:target=move |e| {
                    let block = e.target().value().parse().unwrap_or(0);
                    state.scene.update(|scene| scene.block = block);
                }>{blocks}</select>
            </div>
            <div class="field">
                <label for="head">"Head"</label>
                <select id="head" on:change:target=move |e| {
                    let head = e.target().value().parse().ok();
                    state.scene.update(|scene| scene.head = head);
                }>{heads}</select>
            </div>
            <section class="apart" aria-labelledby="share">
                <h3 id="share">"Share of the time token"</h3>
                <div data-testid="shares">{shares}</div>
                <Explain topic=explain::TIME/>
                <Controls state places=&[Place::Time]/>
                <Show when=move || silent() != silent_now()>
                    <p class="hint">"Generate again to see the effect on the picture."</p>
                </Show>
            </section>
            <section class="apart" aria-labelledby="bias">
                <h3 id="bias">"Relative position bias"</h3>
                <div class="bias"><Picture picture=bias label="Relative position bias from the marked token to its window" name="bias"/></div>
                <Legend least="less" most="more"/>
                <Explain topic=explain::BIAS/>
            </section>
            <Generate state engine/>
        </div>
    }
}

/// The heat maps of several steps.
#[component]
pub fn Strip(state: State) -> impl IntoView {
    let steps = Memo::new(move |_| strip(state));
    let heat = move |step: usize| {
        let look = Look { step, ..state.look()? };
        let attention = state.attention.read().get(&look).cloned()?;
        let run = state.run.read();
        let guess = run.as_ref()?.background(step, look.picture)?;
        Some(attention.heat(guess, state.scene.read().head))
    };
    let sigma = move |step: usize| {
        let run = state.run.read();
        run.as_ref().and_then(|run| run.frames.get(step)).map_or(0.0, |frame| frame.sigma)
    };
    let complete = move || steps.get().into_iter().all(|step| heat(step).is_some());
    let save = move |_| {
        let pictures: Vec<Rgb> = untrack(|| steps.get().into_iter().filter_map(heat).collect());
        let origin = state
            .run
            .read_untracked()
            .as_ref()
            .zip(state.ready.get_untracked())
            .map(|(run, ready)| run.origin(&ready));
        let origin = origin.map(|mut origin| {
            origin.page = Some(state.scene.read_untracked().encode());
            origin
        });
        if let Ok(png) = Rgb::grid(&pictures, pictures.len()).enlarged(4).to_png(origin.as_ref()) {
            hand_over(&png, "diffit-attention.png", "image/png");
        }
    };
    view! {
        <details class="strip" on:toggle:target=move |e| {
            let open = e.target().dyn_into::<Element>().is_ok_and(|details| details.has_attribute("open"));
            state.strip.set(open);
        }>
            <summary data-testid="open-strip">"The same token at several noise levels"</summary>
            <div class="row" data-testid="along">
                {move || steps.get().into_iter().map(|step| view! {
                    <figure>
                        <div class="frame tiny" class:waiting=Signal::derive(move || heat(step).is_none())>
                            <Picture
                                picture=Signal::derive(move || heat(step)) name="along-one"
                                label=Signal::derive(move || format!("Attention at noise level {:.3}", sigma(step)))
                            />
                        </div>
                        <figcaption>{Signal::derive(move || format!("σ {:.2}", sigma(step)))}</figcaption>
                    </figure>
                }).collect_view()}
            </div>
            <button type="button" class="plain small" data-testid="save-strip" disabled=Signal::derive(move || !complete()) on:click=save>"Save as PNG"</button>
        </details>
    }
}
