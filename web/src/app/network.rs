//! The map of the network.

use leptos::prelude::*;

use super::state::State;
use crate::map::Map;
use crate::protocol::Block;
use crate::scene::View;

/// Size of the lines' coordinate system, which is stretched to the size of the map.
const SIZE: [f64; 2] = [100.0, 100.0];

/// The blocks of the network, with the share of the time token at the selected step where it was
/// measured. A click on a block opens the attention view.
#[component]
pub fn Network(state: State) -> impl IntoView {
    let blocks = Memo::new(move |_| {
        state.ready.read().as_ref().map_or(Vec::new(), |ready| ready.blocks.clone())
    });
    let map = Memo::new(move |_| Map::new(&blocks.read()));
    let drawing = move || {
        let (blocks, map) = (blocks.get(), map.get());
        let slots = (blocks.len() + 2).to_string();
        let rows = map.as_ref().map_or(0, |map| map.rows.len());
        let name = if map.is_some() { "net" } else { "net column" };
        let tiles: Vec<AnyView> = blocks
            .iter()
            .enumerate()
            .map(|(i, block)| tile(state, i, block, map.as_ref().map(|map| map.places[i])))
            .collect();
        view! {
            <div class=name style=("--slots", slots) style=("--rows", rows.to_string())>
                {map.map(lines)}
                {tiles}
            </div>
        }
    };
    let shown = move || state.frame().map(|frame| frame.sigma);
    let attentive = move || blocks.read().iter().filter(|block| block.window > 0).count();
    let measured = move || {
        let all = 0..blocks.read().len();
        all.filter(|&block| state.time_share(block).is_some()).count()
    };
    let about = move || match map.read().is_some() {
        true => {
            "One guess is one pass through these blocks, from left to right. Lower rows see the \
             picture coarser and as a whole; dashed lines carry details past them. Press a block to \
             look inside."
        }
        false => {
            "One guess is one pass through these blocks, from the first to the last. Press a block to \
             look inside."
        }
    };
    let level = move || {
        match (shown(), measured()) {
        (None, _) => "With a picture, you can see here how much each block depends on the noise.".into(),
        (Some(_), 0) if state.is_gone() => "Generate once more to see how much each block depends on the noise.".into(),
        (Some(_), 0) => "How much does each block depend on the amount of noise? That takes one more pass for each.".into(),
        (Some(_), n) if n < attentive() => format!("Measured: {n} of {} blocks.", attentive()),
        (Some(_), _) => String::new(),
    }
    };
    let done = move || measured() >= attentive();
    let measuring = move || state.measures.get() || shown().is_none() || state.is_gone() || done();
    view! {
        <section class="card network" aria-labelledby="network" hidden=move || blocks.read().is_empty()>
            <h2 id="network">"The network"</h2>
            <p class="hint">{about}</p>
            {drawing}
            <p class="hint" data-testid="level-of-map">{level}</p>
            <button
                type="button" class="plain small" data-testid="measure" hidden=measuring
                on:click=move |_| state.measures.set(true)
            >"Measure all blocks"</button>
            <p class="hint filled" hidden=move || measured() == 0>
                <i aria-hidden="true"></i>
                "Filled: the part of its queries, keys and values that a block takes from the time token, \
                 which says how much noise is left. Move the slider above to see it change."
            </p>
        </section>
    }
}

/// A block, at a place of the map or in a column.
fn tile(state: State, i: usize, block: &Block, place: Option<[f64; 2]>) -> AnyView {
    let Block { part, side, window } = block.clone();
    let share = Memo::new(move |_| state.time_share(i));
    let text = move || match share.get() {
        _ if window == 0 => String::from(", without attention"),
        Some(share) => format!(", {:.0} % from the time token", 100.0 * share),
        None => String::new(),
    };
    let label = move || format!("Block {}, {part}, {side} by {side} tokens{}", i + 1, text());
    let current = move || {
        let scene = state.scene.read();
        (scene.view == View::Attend && state.block() == i).then_some("true")
    };
    let percent = |part: f64| format!("{:.2}%", 100.0 * part);
    let [left, top] = place.map_or_else(Default::default, |place| place.map(percent));
    let filled = move || format!("{:.1}%", 100.0 * share.get().unwrap_or(0.0));
    view! {
        <button
            type="button" class="block" aria-label=label aria-current=current disabled={window == 0}
            style:left=left style:top=top style=("--share", filled)
            on:click=move |_| state.scene.update(|scene| {
                scene.block = i;
                scene.view = View::Attend;
            })
        >
            <i aria-hidden="true"></i>
            <span aria-hidden="true">{i + 1}</span>
        </button>
    }
    .into_any()
}

/// The lines between the blocks, the labels of the rows, and the two ends.
fn lines(map: Map) -> AnyView {
    let top = |row: usize| format!("{:.2}%", 100.0 * (row as f64 + 0.5) / map.rows.len() as f64);
    let rows: Vec<_> = map
        .rows
        .iter()
        .enumerate()
        .map(|(i, side)| view! { <span class="side-of" style:top=top(i)>{format!("{side} × {side}")}</span> })
        .collect();
    let ends = ["noise", "guess"].into_iter().zip(map.ends).map(|(name, [x, y])| {
        let [left, top] = [x, y].map(|part| format!("{:.2}%", 100.0 * part));
        view! { <span class="end" style:left=left style:top=top>{name}</span> }
    });
    view! {
        <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
            <path class="skip" d=map.skip_path(SIZE)/>
            <path d=map.path(SIZE)/>
        </svg>
        {rows}
        {ends.collect_view()}
    }
    .into_any()
}
