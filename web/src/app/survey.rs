//! The survey of all blocks at several noise levels, in the view "Look inside".

use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::Element;

use super::state::State;
use crate::protocol::{Block, Scan};
use crate::survey::{Quantity, Table, most, shade, sigma_text, steps, tables, verdict};

/// Returns the requests of the survey.
pub fn scans(state: State) -> Vec<Scan> {
    let Some((run, count)) = state.run.read().as_ref().and_then(|run| {
        run.finished?;
        Some((run.number, run.frames.len().min(run.order.settings.steps)))
    }) else {
        return Vec::new();
    };
    let picture = state.picture();
    steps(count).into_iter().map(|step| Scan { run, step, picture }).collect()
}

/// The tables of the survey. They are filled row by row while they are open.
#[component]
pub fn Survey(state: State) -> impl IntoView {
    let chosen = RwSignal::new(Quantity::Time);
    let blocks = Memo::new(move |_| {
        state.ready.read().as_ref().map_or(Vec::new(), |ready| ready.blocks.clone())
    });
    let sigmas = Memo::new(move |_| {
        let run = state.run.read();
        let frames = run.as_ref().map_or(&[][..], |run| &run.frames);
        let sigma = |scan: Scan| frames.get(scan.step).map(|frame| frame.sigma);
        scans(state).into_iter().filter_map(sigma).collect::<Vec<f64>>()
    });
    let filled = Memo::new(move |_| {
        let surveyed = state.surveyed.read();
        let of = |scan: &Scan| surveyed.get(scan).map(|surveyed| surveyed.blocks.clone());
        let levels: Vec<_> = scans(state).iter().map(of).collect();
        tables(chosen.get(), &levels, &blocks.read())
    });
    let said = Signal::derive(move || {
        let tables = filled.read();
        match verdict(chosen.get(), &tables, &sigmas.read()) {
            Some(text) => text,
            None => {
                let done = tables[0].iter().filter(|row| !row.is_empty()).count();
                format!("Measuring: {done} of {} noise levels.", tables[0].len())
            }
        }
    });
    let buttons: Vec<AnyView> = Quantity::ALL
        .into_iter()
        .map(|quantity| {
            let pressed = Signal::derive(move || (chosen.get() == quantity).to_string());
            view! {
                <button type="button" class="plain small" aria-pressed=pressed on:click=move |_| chosen.set(quantity)>
                    {quantity.label()}
                </button>
            }
            .into_any()
        })
        .collect();
    let drawn = move || {
        let filled = filled.read();
        let both = chosen.get().has_both();
        let shown = if both { &filled[..] } else { &filled[..1] };
        let most = most(shown);
        let names =
            if both { ["With the time token", "Without it"] } else { [chosen.get().label(), ""] };
        let (sigmas, blocks) = (sigmas.read(), blocks.read());
        let draw =
            |(table, name): (&Table, &'static str)| grid(name, table, &sigmas, &blocks, most);
        shown.iter().zip(names).map(draw).collect::<Vec<AnyView>>()
    };
    view! {
        <details class="strip survey" on:toggle:target=move |e| {
            let open = e.target().dyn_into::<Element>().is_ok_and(|details| details.has_attribute("open"));
            state.survey.set(open);
        }>
            <summary data-testid="open-survey">"All blocks at all noise levels"</summary>
            <div class="buttons" role="group" aria-label="What the table shows">{buttons}</div>
            <p class="hint">{move || chosen.get().about()}</p>
            <p data-testid="survey-said">{said}</p>
            <div class="tables">{drawn}</div>
        </details>
    }
}

/// A table: a row for each noise level, a column for each block.
fn grid(name: &'static str, table: &Table, sigmas: &[f64], blocks: &[Block], most: f32) -> AnyView {
    let head: Vec<AnyView> = blocks
        .iter()
        .enumerate()
        .map(|(i, block)| {
            let title = format!("{}, {} × {} tokens", block.part, block.side, block.side);
            view! { <th scope="col" title=title>{(i + 1).to_string()}</th> }.into_any()
        })
        .collect();
    let row = |(row, sigma): (&Vec<Option<f32>>, &f64)| {
        let cells: Vec<AnyView> =
            (0..blocks.len()).map(|i| cell(row.get(i).copied().flatten(), most)).collect();
        view! { <tr><th scope="row">{sigma_text(*sigma)}</th>{cells}</tr> }.into_any()
    };
    let rows: Vec<AnyView> = table.iter().zip(sigmas).map(row).collect();
    view! {
        <div class="scrolls" tabindex="0" role="region" aria-label=name>
            <table>
                <caption>{name}</caption>
                <thead><tr><th scope="col">"σ \\ block"</th>{head}</tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}

/// A cell, in percent.
fn cell(value: Option<f32>, most: f32) -> AnyView {
    let Some(value) = value else { return view! { <td></td> }.into_any() };
    let (background, dark) = shade(value, most);
    let text = if dark { "#000" } else { "#fff" };
    view! {
        <td style:background=background style:color=text>{format!("{:.0}", 100.0 * value)}</td>
    }
    .into_any()
}
