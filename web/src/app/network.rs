//! The map of the network.

use leptos::prelude::*;

use super::state::State;
use crate::map::Map;
use crate::protocol::Block;
use crate::scene::View;

/// Size of the lines' coordinate system, which is stretched to the size of the map.
const SIZE: [f64; 2] = [100.0, 100.0];

const IN_ROWS: &str = "One guess is one pass through these blocks, from left to right. Lower rows see the picture coarser \
     and as a whole; dashed lines carry details past them. Press a block to look inside.";
const IN_A_COLUMN: &str = "One guess is one pass through these blocks, from the first to the last. Press a block to look \
     inside.";

/// The blocks of the network, with the share of the time token at the selected step where it was
/// measured. A click on a block opens the attention view.
///
/// Signals of the same types keep the program small, where closures would each be another type.
#[component]
pub fn Network(state: State) -> impl IntoView {
    let blocks = Memo::new(move |_| {
        state.ready.read().as_ref().map_or(Vec::new(), |ready| ready.blocks.clone())
    });
    let none = Signal::derive(move || blocks.read().is_empty());
    // The blocks with attention, and how many of them were measured at the selected step.
    let count = Memo::new(move |_| {
        let blocks = blocks.read();
        let measured = (0..blocks.len()).filter(|&block| state.time_share(block).is_some());
        [blocks.iter().filter(|block| block.window > 0).count(), measured.count()]
    });
    let progress = Signal::derive(move || {
        let [all, measured] = count.get();
        if state.run.read().is_none() {
            "Once there is a picture, you can see how much each block depends on the noise level."
                .into()
        } else if measured == all {
            String::new()
        } else if state.is_gone() {
            "Generate once more to see how much each block depends on the noise level.".into()
        } else if measured > 0 {
            format!("Measured: {measured} of {all} blocks.")
        } else {
            "How much does each block depend on the noise level? That takes one more pass for each."
                .into()
        }
    });
    let unmeasured = Signal::derive(move || count.get()[1] == 0);
    let measures = Signal::derive(move || {
        let [all, measured] = count.get();
        state.measures.get() || measured == all || state.is_gone() || state.run.read().is_none()
    });
    view! {
        <section class="card network" aria-labelledby="network" hidden=none>
            <h2 id="network">"The network"</h2>
            {move || drawing(state, &blocks.read())}
            <p class="hint">{progress}</p>
            <button
                type="button" class="plain small" data-testid="measure" hidden=measures
                on:click=move |_| state.measures.set(true)
            >"Measure all blocks"</button>
            <p class="hint filled" hidden=unmeasured>
                <i aria-hidden="true"></i>
                "Filled: the part of its queries, keys and values that a block takes from the time token, \
                 which says how much noise is left. Move the slider above to see it change."
            </p>
        </section>
    }
}

/// The map of these blocks, with its explanation.
fn drawing(state: State, blocks: &[Block]) -> AnyView {
    let map = Map::new(blocks);
    let (name, about) = if map.is_some() { ("net", IN_ROWS) } else { ("net column", IN_A_COLUMN) };
    let rows = map.as_ref().map_or(0, |map| map.rows.len());
    let place = |i: usize| map.as_ref().map_or([0.5; 2], |map| map.places[i]);
    let tiles: Vec<AnyView> =
        blocks.iter().enumerate().map(|(i, block)| tile(state, i, block, place(i))).collect();
    view! {
        <p class="hint">{about}</p>
        <div
            class=name style=("--slots", (blocks.len() + 2).to_string()) style=("--rows", rows.to_string())
        >
            {map.map(|map| lines(&map))}
            {tiles}
        </div>
    }
    .into_any()
}

/// A block, and its place on the map, as parts of the width and of the height.
fn tile(state: State, i: usize, block: &Block, place: [f64; 2]) -> AnyView {
    let Block { part, side, window } = block.clone();
    let share = Memo::new(move |_| state.time_share(i));
    let label = Signal::derive(move || {
        let share = match share.get() {
            _ if window == 0 => ", without attention".into(),
            Some(share) => format!(", {:.0} % from the time token", 100.0 * share),
            None => String::new(),
        };
        format!("Block {}, {part}, {side} by {side} tokens{share}", i + 1)
    });
    let current = Signal::derive(move || {
        let inside = state.scene.read().view == View::Attend;
        (inside && state.block() == i).then(|| "true".to_string())
    });
    let filled = Signal::derive(move || percent(share.get().unwrap_or(0.0).into()));
    let [left, top] = place.map(percent);
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
            <span aria-hidden="true">{(i + 1).to_string()}</span>
        </button>
    }
    .into_any()
}

/// The lines between the blocks, the labels of the rows, and the two ends.
fn lines(map: &Map) -> AnyView {
    let count = map.rows.len() as f64;
    let rows = map.rows.iter().enumerate().map(|(i, side)| {
        text_at("side-of", format!("{side} × {side}"), [0.0, (i as f64 + 0.5) / count])
    });
    let ends = ["noise", "guess"].into_iter().zip(map.ends);
    let ends = ends.map(|(name, place)| text_at("end", name.into(), place));
    let texts: Vec<AnyView> = rows.chain(ends).collect();
    view! {
        <svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
            <path class="skip" d=map.skip_path(SIZE)/>
            <path d=map.path(SIZE)/>
        </svg>
        {texts}
    }
    .into_any()
}

/// A text at a place of the map.
fn text_at(name: &'static str, text: String, place: [f64; 2]) -> AnyView {
    let [left, top] = place.map(percent);
    view! { <span class=name style:left=left style:top=top>{text}</span> }.into_any()
}

/// Formats a part of a whole.
fn percent(part: f64) -> String {
    format!("{:.2}%", 100.0 * part)
}
