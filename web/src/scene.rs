//! Everything that decides what the page shows, as one value: controls, link and PNG file are
//! three views of it.
//!
//! A link is `name=value` pairs of what differs from the start. Each is read on its own: numbers
//! are brought into their range, and what is not understood is passed over.

use std::fmt::Display;
use std::str::FromStr;

use model::schedule::Schedule;
use model::settings::{Method, Settings, Variance};
use serde::{Deserialize, Serialize};

use crate::manifest::is_plain;
use crate::protocol::{Guide, Noise, Order};

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// How a picture forms.
    #[default]
    Form,
    /// What the model attends to.
    Attend,
    /// What can be done with it.
    Play,
    /// The model, the machine, the visitor's storage.
    About,
}

impl View {
    /// All of them, with their names in links.
    pub const ALL: [(View, &str); 4] = [
        (View::Form, "form"),
        (View::Attend, "attend"),
        (View::Play, "play"),
        (View::About, "about"),
    ];
}

/// What is played with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Game {
    /// From the noise of one seed to that of another.
    #[default]
    Between,
    /// Between the noises of four seeds.
    Among,
    /// From a picture of the visitor's.
    From,
    /// Parts of a picture made anew.
    Inpaint,
    /// The same seed with two settings.
    Compare,
}

impl Game {
    /// All of them, with their names in links.
    pub const ALL: [(Game, &str); 5] = [
        (Game::Between, "between"),
        (Game::Among, "among"),
        (Game::From, "from"),
        (Game::Inpaint, "inpaint"),
        (Game::Compare, "compare"),
    ];
}

/// Samplers, with their names in links.
pub const METHODS: [(Method, &str); 4] = [
    (Method::Heun, "heun"),
    (Method::Euler, "euler"),
    (Method::Ddim { eta: 1.0 }, "ddim"),
    (Method::Ddpm { variance: Variance::Learned }, "ddpm"),
];

/// Numbers of pictures that make a square.
pub const COUNTS: [usize; 4] = [1, 4, 9, 16];

/// Pictures on a side of the plane between four seeds, and on the way between two.
const SIDE: usize = 4;
const WAY: usize = 9;

/// The state of the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// What is looked at.
    pub view: View,
    /// The file of the model; empty for the first one there is.
    pub model: String,
    /// The first seed.
    pub seed: u64,
    /// Pictures, from consecutive seeds.
    pub count: usize,
    /// How pictures are made.
    pub settings: Settings,
    /// The block looked into.
    pub block: usize,
    /// The attention head; none for the mean of all.
    pub head: Option<usize>,
    /// Row and column of the token, in parts of 256 of the picture, so that it stays in its place
    /// whatever the size of the block's map.
    pub token: [u8; 2],
    /// What is played with.
    pub game: Game,
    /// The seeds at the other end, and in the other corners.
    pub others: [u64; 3],
    /// The noise level that is added to a picture to start from.
    pub sigma: f64,
    /// The settings to compare with.
    pub beside: Settings,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            view: View::Form,
            model: String::new(),
            // One that shows what the first model makes when it does well.
            seed: 154,
            count: 1,
            settings: Settings::default(),
            // Of the first model: the first of those that see the whole picture.
            block: 5,
            head: None,
            // The first token right of and below the middle.
            token: [128, 128],
            game: Game::Between,
            others: [144, 148, 151],
            sigma: 2.0,
            beside: Settings { steps: 6, method: Method::Euler, ..Settings::default() },
        }
    }
}

/// Where numbers may lie.
pub mod range {
    use std::ops::RangeInclusive;

    /// Steps; the command line takes more.
    pub const STEPS: RangeInclusive<usize> = 1..=200;
    /// The schedule's exponent.
    pub const RHO: RangeInclusive<f64> = 1.0..=20.0;
    /// Its last noise level but one.
    pub const SIGMA_MIN: RangeInclusive<f64> = 0.0001..=1.0;
    /// Its first noise level.
    pub const SIGMA_MAX: RangeInclusive<f64> = 2.0..=1000.0;
    /// Churn over all steps.
    pub const CHURN: RangeInclusive<f64> = 0.0..=200.0;
    /// Standard deviation of churn's noise.
    pub const NOISE: RangeInclusive<f64> = 0.5..=1.5;
    /// Noise levels between which there is churn.
    pub const CHURN_LEVEL: RangeInclusive<f64> = 0.0..=f64::MAX;
    /// Noise added to a picture to start from.
    pub const SIGMA: RangeInclusive<f64> = 1.5..=80.0;
    /// Blocks and heads: more than any model has, which is looked at when it is known.
    pub const PART: RangeInclusive<usize> = 0..=255;
}

/// A number out of a text, brought into its range; nothing where it is none.
pub fn number<T: FromStr + PartialOrd + Copy>(
    text: &str,
    range: std::ops::RangeInclusive<T>,
) -> Option<T> {
    let number: T = text.trim().parse().ok()?;
    // What is no number is not equal to itself.
    #[expect(clippy::eq_op)]
    let is_number = number == number;
    let (low, high) = range.into_inner();
    is_number.then(|| {
        if number < low {
            low
        } else if number > high {
            high
        } else {
            number
        }
    })
}

/// Writes a name and a value where the value is not the usual one.
struct Pairs(Vec<String>);

impl Pairs {
    fn put<T: PartialEq + Display>(&mut self, name: &str, value: T, usual: T) {
        if value != usual {
            self.0.push(format!("{name}={value}"));
        }
    }

    fn put_settings(&mut self, prefix: &str, settings: &Settings, usual: &Settings) {
        let name = |name: &str| format!("{prefix}{name}");
        let method = |settings: &Settings| name_of(&METHODS, settings.method);
        let [sigma_min, sigma_max, rho] = edm(&settings.schedule);
        let [low, high, usual_rho] = edm(&usual.schedule);
        self.put(&name("steps"), settings.steps, usual.steps);
        self.put(&name("sampler"), method(settings), method(usual));
        self.put(&name("rho"), rho, usual_rho);
        self.put(&name("low"), sigma_min, low);
        self.put(&name("high"), sigma_max, high);
        let (churn, usual_churn) = (settings.churn, usual.churn);
        self.put(&name("churn"), churn.s_churn, usual_churn.s_churn);
        self.put(&name("churn-low"), churn.s_min, usual_churn.s_min);
        self.put(&name("churn-high"), churn.s_max, usual_churn.s_max);
        self.put(&name("churn-noise"), churn.s_noise, usual_churn.s_noise);
        self.put(&name("silent"), settings.silence_time, usual.silence_time);
    }
}

/// The value of a name in a list of them.
fn named<T: Copy>(all: &[(T, &str)], name: &str) -> Option<T> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

/// The name of a value in a list that holds it.
pub fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: T) -> &'static str {
    all.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Lowest and highest noise level and rho of EDM's schedule, the only one that links tell of.
pub fn edm(schedule: &Schedule) -> [f64; 3] {
    match *schedule {
        Schedule::Edm { sigma_min, sigma_max, rho } => [sigma_min, sigma_max, rho],
        Schedule::Adm { .. } => edm(&Schedule::default()),
    }
}

/// The settings without churn where the sampler has noise of its own.
fn usable(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if let Method::Ddim { .. } | Method::Ddpm { .. } = settings.method {
        settings.churn.s_churn = 0.0;
    }
    settings
}

/// Takes up one field of settings.
fn set_setting(settings: &mut Settings, name: &str, value: &str) {
    let Schedule::Edm { sigma_min, sigma_max, rho } = &mut settings.schedule else { return };
    match name {
        "steps" => set(&mut settings.steps, number(value, range::STEPS)),
        "sampler" => set(&mut settings.method, named(&METHODS, value)),
        "rho" => set(rho, number(value, range::RHO)),
        "low" => set(sigma_min, number(value, range::SIGMA_MIN)),
        "high" => set(sigma_max, number(value, range::SIGMA_MAX)),
        "churn" => set(&mut settings.churn.s_churn, number(value, range::CHURN)),
        "churn-low" => set(&mut settings.churn.s_min, number(value, range::CHURN_LEVEL)),
        "churn-high" => set(&mut settings.churn.s_max, number(value, range::CHURN_LEVEL)),
        "churn-noise" => set(&mut settings.churn.s_noise, number(value, range::NOISE)),
        "silent" => set(&mut settings.silence_time, value.parse().ok()),
        _ => {}
    }
}

impl Scene {
    /// As a link has it, behind its `#`. A scene that is the usual one gives nothing.
    pub fn encode(&self) -> String {
        let usual = Self::default();
        let mut pairs = Pairs(Vec::new());
        pairs.put("view", name_of(&View::ALL, self.view), name_of(&View::ALL, usual.view));
        pairs.put("model", &self.model, &usual.model);
        pairs.put("seed", self.seed, usual.seed);
        pairs.put("count", self.count, usual.count);
        pairs.put_settings("", &self.settings, &usual.settings);
        pairs.put("block", self.block, usual.block);
        pairs.put("head", self.head.map_or("mean".into(), |head| head.to_string()), "mean".into());
        pairs.put("row", self.token[0], usual.token[0]);
        pairs.put("column", self.token[1], usual.token[1]);
        pairs.put("play", name_of(&Game::ALL, self.game), name_of(&Game::ALL, usual.game));
        for (i, name) in ["seed-b", "seed-c", "seed-d"].into_iter().enumerate() {
            pairs.put(name, self.others[i], usual.others[i]);
        }
        pairs.put("sigma", self.sigma, usual.sigma);
        pairs.put_settings("b-", &self.beside, &usual.beside);
        pairs.0.join("&")
    }

    /// Reads a link, with or without its `#`.
    pub fn decode(link: &str) -> Self {
        let mut scene = Self::default();
        for pair in link.trim_start_matches('#').split('&') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            match name {
                "view" => set(&mut scene.view, named(&View::ALL, value)),
                "model" => {
                    let plain = is_plain(value) && value.len() <= 64;
                    set(&mut scene.model, plain.then(|| value.into()));
                }
                "seed" => set(&mut scene.seed, value.parse().ok()),
                "count" => {
                    let count = value.parse().ok().filter(|count| COUNTS.contains(count));
                    set(&mut scene.count, count);
                }
                "block" => set(&mut scene.block, number(value, range::PART)),
                "head" => scene.head = number(value, range::PART),
                "row" => set(&mut scene.token[0], number(value, 0..=255)),
                "column" => set(&mut scene.token[1], number(value, 0..=255)),
                "play" => set(&mut scene.game, named(&Game::ALL, value)),
                "seed-b" => set(&mut scene.others[0], value.parse().ok()),
                "seed-c" => set(&mut scene.others[1], value.parse().ok()),
                "seed-d" => set(&mut scene.others[2], value.parse().ok()),
                "sigma" => set(&mut scene.sigma, number(value, range::SIGMA)),
                name => match name.strip_prefix("b-") {
                    Some(name) => set_setting(&mut scene.beside, name, value),
                    None => set_setting(&mut scene.settings, name, value),
                },
            }
        }
        scene
    }

    /// What to make.
    pub fn order(&self) -> Order {
        let settings = usable(&self.settings);
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
                let [_, sigma_max, _] = edm(&settings.schedule);
                (self.seeds(), Some(Guide { sigma: sigma_max, keep: true }))
            }
            (View::Play, Game::Compare) => (vec![Noise::Seed(self.seed)], None),
            _ => (self.seeds(), None),
        };
        Order { noises, settings, guide }
    }

    /// What to make for comparison.
    pub fn order_beside(&self) -> Option<Order> {
        let compares = self.view == View::Play && self.game == Game::Compare;
        compares.then(|| Order { settings: usable(&self.beside), ..self.order() })
    }

    /// The noise of consecutive seeds.
    fn seeds(&self) -> Vec<Noise> {
        (0..self.count as u64).map(|i| Noise::Seed(self.seed.wrapping_add(i))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_link_is_short_and_readable() {
        assert_eq!(Scene::default().encode(), "");
        let mut scene = Scene { seed: 7, count: 4, view: View::Attend, ..Scene::default() };
        scene.settings.steps = 6;
        scene.head = Some(2);
        assert_eq!(scene.encode(), "view=attend&seed=7&count=4&steps=6&head=2");
        assert_eq!(Scene::decode("#view=attend&seed=7&count=4&steps=6&head=2"), scene);
    }

    #[test]
    fn every_field_is_kept_within_its_range() {
        let settings = |link: &str| Scene::decode(link).settings;
        assert_eq!(settings("steps=0").steps, 1);
        assert_eq!(settings("steps=99999").steps, 200);
        assert_eq!(settings("steps=-3"), Settings::default());
        assert_eq!(settings("steps=1e3"), Settings::default());
        assert_eq!(settings("sampler=dpm"), Settings::default());
        assert_eq!(settings("silent=1"), Settings::default());
        let levels = edm(&settings("low=0&high=inf&rho=NaN").schedule);
        assert_eq!(levels, [0.0001, 1000.0, 7.0]);
        for link in ["count=3", "count=17", "seed=-1", "seed=18446744073709551616", "row=256x"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        assert_eq!(Scene::decode("seed=18446744073709551615").seed, u64::MAX);
        assert_eq!(Scene::decode("sigma=1e9").sigma, 80.0);
    }

    #[test]
    fn hostile_links_are_passed_over() {
        for link in [
            "view=<script>alert(1)</script>",
            "#&&&===",
            "seed",
            "=",
            "seed==5",
            "%73eed=5",
            "constructor=1&__proto__=2",
            "view=form%00",
            "\u{202e}seed=5",
        ] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
    }

    #[test]
    fn games_make_what_they_say() {
        let play =
            |game| Scene { view: View::Play, game, seed: 1, others: [2, 3, 4], ..Scene::default() };
        let noises = play(Game::Between).order().noises;
        assert_eq!(noises.first(), Some(&Noise::Between([1, 2], 0.0)));
        assert_eq!(noises.last(), Some(&Noise::Between([1, 2], 1.0)));
        let noises = play(Game::Among).order().noises;
        assert_eq!(noises[3], Noise::Among([1, 2, 3, 4], [1.0, 0.0]));
        assert_eq!(noises[12], Noise::Among([1, 2, 3, 4], [0.0, 1.0]));
        assert_eq!(play(Game::From).order().guide, Some(Guide { sigma: 2.0, keep: false }));
        assert_eq!(play(Game::Inpaint).order().guide, Some(Guide { sigma: 80.0, keep: true }));
        let compare = play(Game::Compare);
        assert_eq!(compare.order_beside().map(|o| o.settings), Some(compare.beside.clone()));
        assert_eq!(Scene::default().order_beside(), None);
        let last = Scene { seed: u64::MAX, count: 4, ..Scene::default() };
        assert_eq!(last.order().noises[1], Noise::Seed(0));
    }

    fn settings() -> impl Strategy<Value = Settings> {
        let schedule = (range::SIGMA_MIN, range::SIGMA_MAX, range::RHO);
        let churn = (range::CHURN, 0.0..1e3, 0.0..1e3, range::NOISE);
        (range::STEPS, any::<bool>(), schedule, churn, any::<bool>()).prop_map(
            |(
                steps,
                euler,
                (sigma_min, sigma_max, rho),
                (s_churn, s_min, s_max, s_noise),
                silent,
            )| {
                Settings {
                    steps,
                    method: if euler { Method::Euler } else { Method::Heun },
                    schedule: Schedule::Edm { sigma_min, sigma_max, rho },
                    churn: model::settings::Churn { s_churn, s_min, s_max, s_noise },
                    silence_time: silent,
                    ..Settings::default()
                }
            },
        )
    }

    prop_compose! {
        fn scenes()(
            view in 0usize..4, model in "([a-z0-9][a-z0-9.-]{0,60})?", game in 0usize..5, seed: u64, others: [u64; 3], count in 0usize..4,
            settings in settings(), beside in settings(), block in range::PART,
            head in proptest::option::of(range::PART), token: [u8; 2], sigma in range::SIGMA,
        ) -> Scene {
            Scene {
                view: View::ALL[view].0,
                model, game: Game::ALL[game].0, seed, others,
                count: COUNTS[count], settings, beside, block, head, token, sigma,
            }
        }
    }

    proptest! {
        #[test]
        fn a_scene_survives_its_link(scene in scenes()) {
            let link = scene.encode();
            prop_assert!(link.len() < 2000, "{} letters", link.len());
            prop_assert_eq!(Scene::decode(&link), scene);
        }

        /// Whatever is made of a link, what comes out can be used.
        #[test]
        fn any_text_gives_a_usable_scene(text: String) {
            Scene::decode(&text);
        }

        #[test]
        fn any_values_give_a_usable_scene(
            pairs in proptest::collection::vec(
                ("(b-)?(view|model|seed|count|steps|sampler|rho|low|high|churn|churn-low|churn-high|churn-noise\
                   |silent|block|head|row|column|play|seed-b|sigma)",
                 "(-?[0-9]{0,25}(\\.[0-9]{0,9})?(e-?[0-9]{1,4})?|NaN|-?inf|true|ddim|ddpm|.{0,9})"), 0..12),
        ) {
            let link: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let scene = Scene::decode(&link.join("&"));
            let order = scene.order();
            prop_assert_eq!(order.settings.validate(), Ok(()));
            prop_assert_eq!(usable(&scene.beside).validate(), Ok(()));
            prop_assert!((1..=16).contains(&order.noises.len()));
            prop_assert_eq!(Scene::decode(&scene.encode()), scene);
        }
    }
}
