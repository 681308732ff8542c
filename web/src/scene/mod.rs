//! The state of the page as one value. The controls, the link and the settings in PNG files are
//! views of it.

mod compare;
mod field;
mod fields;
mod link;
mod metadata;
mod models;
pub mod range;
mod refused;
mod settings;
#[cfg(test)]
mod strategies;

use model::label::Label;
use model::settings::{Method, Settings};
use serde::{Deserialize, Serialize};

use crate::playground::{Exploration, Playground};
use crate::protocol::{Guide, Noise, Order, Usual};

pub use compare::differences;
pub use field::{Choice, Field, Place, Value};
pub use fields::{FIELDS, fields_at};
pub use link::{NO_CLASS, has_settings, is_new, name_of};
pub use metadata::keep_one;
pub use range::number;
pub use refused::refused;
pub use settings::{
    Levels, label_of_method, levels, name_of_method, respacing, set_respacing, set_steps, usable,
};

/// The views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// How a picture forms.
    #[default]
    Form,
    /// Attention maps.
    Attend,
    /// Interpolation, inpainting, comparison.
    Play,
    /// Samplers in the plane.
    Playground,
    /// Training a very small model.
    Train,
    /// The model, the machine, the stored files.
    About,
}

impl View {
    /// All views, with their names in links.
    pub const ALL: [(View, &str); 6] = [
        (View::Form, "form"),
        (View::Attend, "attend"),
        (View::Play, "play"),
        (View::Playground, "playground"),
        (View::Train, "train"),
        (View::About, "about"),
    ];
}

/// The modes of the view [`View::Play`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Game {
    /// Interpolation between the noise of two seeds.
    #[default]
    Between,
    /// Interpolation between the noise of four seeds.
    Among,
    /// Sampling that starts from a picture.
    From,
    /// Inpainting.
    Inpaint,
    /// The same seed with two settings.
    Compare,
}

impl Game {
    /// All modes, with their names in links.
    pub const ALL: [(Game, &str); 5] = [
        (Game::Between, "between"),
        (Game::Among, "among"),
        (Game::From, "from"),
        (Game::Inpaint, "inpaint"),
        (Game::Compare, "compare"),
    ];
}

/// Number of stops of the tour.
pub const STOPS: usize = 6;

/// Numbers of pictures that fill a square.
pub const COUNTS: [usize; 4] = [1, 4, 9, 16];

/// Side of the grid of an interpolation between four seeds.
const SIDE: usize = 4;

/// Number of pictures of an interpolation between two seeds.
const WAY: usize = 9;

/// The state of the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// The view.
    pub view: View,
    /// The file of the model; empty for the first one of the list.
    pub model: String,
    /// The first seed.
    pub seed: u64,
    /// Number of pictures, which have consecutive seeds.
    pub count: usize,
    /// The sampling settings.
    pub settings: Settings,
    /// The block whose attention is shown.
    pub block: usize,
    /// The attention head; `None` for the mean of all heads.
    pub head: Option<usize>,
    /// Row and column of the token, in 256ths of the picture, so that the place is the same for
    /// blocks of any resolution.
    pub token: [u8; 2],
    /// The mode of the view [`View::Play`].
    pub game: Game,
    /// The other seeds of an interpolation.
    pub others: [u64; 3],
    /// The noise level that is added to a picture that sampling starts from.
    pub sigma: f64,
    /// The settings to compare with.
    pub beside: Settings,
    /// Whether the pictures on the way are shown. The finished ones do not depend on it.
    pub previews: bool,
    /// The stop of the tour, counted from 1; 0 without it.
    pub tour: usize,
    /// What the view [`View::Playground`] shows, besides the seed.
    pub playground: Playground,
}

/// The place of sampling settings in the scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Those of the pictures.
    Pictures,
    /// Those to compare with.
    Beside,
    /// Those of a panel of the playground, 0 or 1.
    Panel(usize),
}

impl Slot {
    /// The settings, or those to compare with.
    pub fn compared(compared: bool) -> Self {
        if compared { Slot::Beside } else { Slot::Pictures }
    }

    /// Returns the end of the `id`s of the controls.
    pub fn suffix(self) -> &'static str {
        match self {
            Slot::Pictures => "",
            Slot::Beside => "-b",
            Slot::Panel(0) => "-panel-a",
            Slot::Panel(_) => "-panel-b",
        }
    }
}

impl Default for Scene {
    /// The scene that the page starts with.
    fn default() -> Self {
        let settings = Usual::default().first;
        Self {
            view: View::Form,
            model: String::new(),
            // A seed for which the first model makes a good picture.
            seed: 154,
            count: 1,
            beside: beside(&settings),
            settings,
            // In the first model, the first block whose window is the whole map.
            block: 5,
            head: None,
            // The first token right of and below the centre.
            token: [128, 128],
            game: Game::Between,
            others: [144, 148, 151],
            sigma: 2.0,
            previews: true,
            tour: 0,
            playground: Playground::default(),
        }
    }
}

/// Returns the initial settings to compare with: six steps of Euler, without class and guidance,
/// which comparisons share.
fn beside(settings: &Settings) -> Settings {
    let mut beside =
        Settings { method: Method::Euler, classes: Vec::new(), guidance: None, ..settings.clone() };
    set_steps(&mut beside, 6);
    beside
}

impl Scene {
    /// Returns the settings, or those to compare with.
    pub fn settings_of(&self, compared: bool) -> &Settings {
        self.settings_in(Slot::compared(compared))
    }

    /// Returns the settings in a place.
    pub fn settings_in(&self, slot: Slot) -> &Settings {
        match slot {
            Slot::Pictures => &self.settings,
            Slot::Beside => &self.beside,
            Slot::Panel(panel) => &self.playground.panels[panel.min(1)],
        }
    }

    /// Returns the settings in a place, to be changed.
    pub fn settings_in_mut(&mut self, slot: Slot) -> &mut Settings {
        match slot {
            Slot::Pictures => &mut self.settings,
            Slot::Beside => &mut self.beside,
            Slot::Panel(panel) => &mut self.playground.panels[panel.min(1)],
        }
    }

    /// Returns the request for what the playground shows.
    pub fn exploration(&self) -> Exploration {
        let Playground { points, panels } = &self.playground;
        let panels = [0, 1].map(|panel| usable(&panels[panel], 0));
        Exploration { points: *points, seed: self.seed, panels }
    }

    /// Returns the order for the worker, for a model with `classes` classes.
    pub fn order(&self, classes: usize) -> Order {
        let settings = usable(&self.settings, classes);
        let [b, c, d] = self.others;
        let part = |i: usize, n: usize| i as f64 / (n - 1) as f64;
        let (noises, guide) = match (self.view, self.game) {
            (View::Play, Game::Between) => {
                let noise = |i| Noise::Between([self.seed, b], part(i, WAY));
                ((0..WAY).map(noise).collect(), None)
            }
            (View::Play, Game::Among) => {
                let noise = |i: usize| {
                    let at = [part(i % SIDE, SIDE), part(i / SIDE, SIDE)];
                    Noise::Among([self.seed, b, c, d], at)
                };
                ((0..SIDE * SIDE).map(noise).collect(), None)
            }
            (View::Play, Game::From) => {
                (self.seeds(), Some(Guide { sigma: self.sigma, keep: false }))
            }
            (View::Play, Game::Inpaint) => {
                let sigma = settings.schedule.sigmas(settings.steps)[0];
                (self.seeds(), Some(Guide { sigma, keep: true }))
            }
            (View::Play, Game::Compare) => (vec![Noise::Seed(self.seed)], None),
            _ => (self.seeds(), None),
        };
        Order { noises, settings, guide, previews: self.previews }
    }

    /// Returns the order for the settings to compare with, in a comparison.
    pub fn order_beside(&self, classes: usize) -> Option<Order> {
        let compares = self.view == View::Play && self.game == Game::Compare;
        compares.then(|| {
            let order = self.order(classes);
            let Settings { classes, guidance, .. } = order.settings;
            let beside = usable(&self.beside, 0);
            Order { settings: Settings { classes, guidance, ..beside }, ..order }
        })
    }

    /// Continues from a denoised picture at a noise level with other noise: four pictures of this class.
    pub fn branch(&mut self, sigma: f64, class: Option<Label>) {
        (self.view, self.game, self.count) = (View::Play, Game::From, COUNTS[1]);
        let sigma = (100.0 * sigma).round() / 100.0;
        self.sigma = sigma.clamp(*range::SIGMA.start(), *range::SIGMA.end());
        self.settings.classes = class.into_iter().collect();
    }

    /// Returns the noise of consecutive seeds.
    fn seeds(&self) -> Vec<Noise> {
        (0..self.count as u64).map(|i| Noise::Seed(self.seed.wrapping_add(i))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_starts_from_a_guess() {
        let mut scene = Scene { seed: 3, ..Scene::default() };
        scene.settings.classes = [4, 5].map(Label::from).into();
        scene.branch(9.7245, Some(Label::from(5)));
        let order = scene.order(10);
        assert_eq!(order.guide, Some(Guide { sigma: 9.72, keep: false }));
        assert_eq!(order.noises, [3, 4, 5, 6].map(Noise::Seed));
        assert_eq!(order.settings.classes, [Label::from(5)]);
        scene.branch(0.0, None);
        assert!(scene.sigma == *range::SIGMA.start() && scene.settings.classes.is_empty());
    }

    #[test]
    fn games_make_what_they_say() {
        let play =
            |game| Scene { view: View::Play, game, seed: 1, others: [2, 3, 4], ..Scene::default() };
        let noises = play(Game::Between).order(5).noises;
        assert_eq!(noises.first(), Some(&Noise::Between([1, 2], 0.0)));
        assert_eq!(noises.last(), Some(&Noise::Between([1, 2], 1.0)));
        let noises = play(Game::Among).order(5).noises;
        assert_eq!(noises[3], Noise::Among([1, 2, 3, 4], [1.0, 0.0]));
        assert_eq!(noises[12], Noise::Among([1, 2, 3, 4], [0.0, 1.0]));
        assert_eq!(play(Game::From).order(5).guide, Some(Guide { sigma: 2.0, keep: false }));
        assert_eq!(play(Game::Inpaint).order(5).guide, Some(Guide { sigma: 80.0, keep: true }));
        let compare = play(Game::Compare);
        assert_eq!(compare.order_beside(5).map(|o| o.settings), Some(compare.beside.clone()));
        assert_eq!(Scene::default().order_beside(5), None);
        let last = Scene { seed: u64::MAX, count: 4, ..Scene::default() };
        assert_eq!(last.order(5).noises[1], Noise::Seed(0));
    }
}
