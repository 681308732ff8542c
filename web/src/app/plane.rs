//! A panel of the playground: the plane with its particles, and the numbers.

use leptos::prelude::*;

use super::state::State;
use crate::playground::draw::{Axis, view_box};
use crate::playground::track::{Track, distance, percent, progress};
use crate::scene::{Slot, label_of_method};

/// The plane of a panel at a place on the axis of noise levels. `scenery` are the points of the data
/// and the arrows, which both panels share.
pub fn plane(
    state: State,
    of: usize,
    at: RwSignal<f64>,
    axis: Memo<Axis>,
    scenery: [Memo<String>; 2],
) -> AnyView {
    let [data, field] = scenery;
    let places = Memo::new(move |_| {
        let explored = state.explored.read();
        explored.as_ref().map_or(Vec::new(), |tracks| tracks[of].places(&axis.get()))
    });
    let passed = Memo::new(move |_| progress(&places.read(), at.get()));
    // The trails change only where a knot is passed.
    let done = Memo::new(move |_| passed.get().0);
    let paths = move |draw: &dyn Fn(&Track) -> [String; 2]| {
        state.explored.read().as_ref().map_or_else(Default::default, |tracks| draw(&tracks[of]))
    };
    let trails = Memo::new(move |_| paths(&|track| track.trails(done.get())));
    let heads = Memo::new(move |_| {
        let (done, part) = passed.get();
        paths(&|track| track.heads(done, part))
    });
    let ended = Memo::new(move |_| at.get() >= 1.0);
    let errors = Memo::new(move |_| {
        let draw = |track: &Track| [track.errors(), String::new()];
        if ended.get() { paths(&draw) } else { Default::default() }
    });

    let name = ["A", "B"][of];
    let title = move || {
        let scene = state.scene.read();
        let settings = scene.settings_in(Slot::Panel(of));
        format!("{name}: {}, {} steps", label_of_method(settings.method), settings.steps)
    };
    let outcome = move || state.explored.read().as_ref().map(|tracks| tracks[of].outcome.clone());
    let evaluations = move || outcome().map_or("…".into(), |o| o.evaluations.to_string());
    let from_exact = move || outcome().map_or("…".into(), |o| distance(o.distance));
    let off = move || outcome().map_or("…".into(), |o| percent(o.off));
    let fresh = move || outcome().is_some_and(|o| o.random);
    let label = move || {
        format!(
            "{}: {} particles on their way from noise to data. {} evaluations; the end points are {} from \
             the exact ones on average; {} are off the data.",
            title(),
            crate::playground::PARTICLES,
            evaluations(),
            from_exact(),
            off()
        )
    };
    let id = |what: &str| format!("{what}-{}", name.to_lowercase());
    view! {
        <figure class="card panel">
            <svg class="plane" viewBox=view_box() role="img" aria-label=label data-testid=id("plane")>
                <path class="glow" d=data/>
                <path class="data" d=data/>
                <path class="field" d=field/>
                <path class="trail" d=move || trails.read()[0].clone()/>
                <path class="jump" d=move || trails.read()[1].clone()/>
                <path class="trail" d=move || heads.read()[0].clone()/>
                <path class="error" d=move || errors.read()[0].clone()/>
                <path class="particle" d=move || heads.read()[1].clone()/>
            </svg>
            <figcaption>
                <h3>{title}</h3>
                <dl>
                    <div><dt>"Evaluations"</dt><dd data-testid=id("evaluations")>{evaluations}</dd></div>
                    <div title="Mean distance of the end points to those of 200 steps of Heun from the same noise.">
                        <dt>"From the exact end points"</dt>
                        <dd>
                            <span data-testid=id("distance")>{from_exact}</span>
                            <span hidden=move || !fresh()>" (fresh noise leads elsewhere)"</span>
                        </dd>
                    </div>
                    <div title="Share of the end points that are farther than three standard deviations from every point of the data. Of exact samples, 1 % are.">
                        <dt>"Off the data"</dt><dd data-testid=id("off")>{off}</dd>
                    </div>
                </dl>
            </figcaption>
        </figure>
    }
    .into_any()
}
