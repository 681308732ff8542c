//! Everything that decides what the page shows, as one value: controls, link and PNG file are
//! three views of it.
//!
//! A link is `name=value` pairs of what differs from the start; where it is about how pictures are
//! made, from the paper's settings, whatever the page itself starts with. Each is read on its own:
//! numbers are brought into their range, and what is not understood is passed over.

use std::fmt::Display;
use std::str::FromStr;

use model::config::LinearBetas;
use model::discrete::{Respacing, Spacing};
use model::guidance::{Course, Guidance, GuidedChannels};
use model::label::Label;
use model::schedule::Schedule;
use model::settings::{Method, Settings, Variance};
use serde::{Deserialize, Serialize};

use crate::manifest::is_plain;
use crate::names::carried;
use crate::protocol::{Guide, Noise, Order, Usual};

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

/// Samplers as they are first, with their names in links.
pub const METHODS: [(Method, &str); 6] = [
    (Method::Heun, "heun"),
    (Method::Euler, "euler"),
    (Method::Ipndm { order: 4 }, "ipndm"),
    (Method::Dpmpp { order: 3 }, "dpmpp"),
    (Method::Ddim { eta: 0.0 }, "ddim"),
    (Method::Ddpm { variance: Variance::Learned }, "ddpm"),
];

/// Variances of ancestral sampling, with their names in links.
pub const VARIANCES: [(Variance, &str); 3] =
    [(Variance::Learned, "learned"), (Variance::Small, "small"), (Variance::Large, "large")];

/// Ways to lay noise levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// EDM's.
    Edm,
    /// Evenly in log-SNR.
    LogSnr,
    /// Of discrete time.
    Adm,
}

/// Those of continuous time, with their names in links.
pub const LEVELS: [(Levels, &str); 2] = [(Levels::Edm, "edm"), (Levels::LogSnr, "log-snr")];

/// Which channels are guided, with their names in links.
pub const CHANNELS: [(GuidedChannels, &str); 2] =
    [(GuidedChannels::Three, "three"), (GuidedChannels::All, "all")];

/// Classes in a link at the most: a picture each, and more than fit a page.
const CLASSES: usize = 64;

/// Numbers of pictures that make a square.
pub const COUNTS: [usize; 4] = [1, 4, 9, 16];

/// The seed that a visit without a link begins with, where there are names: a multiple of their
/// number, so that the pictures come in the order of the names.
const OPENING_SEED: u64 = 20;

/// A link to the usual scene, which is that of no class: one without anything is for a new visit.
pub const NO_CLASS: &str = "classes=none";

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

/// How a link says that pictures are made as the paper has it, where it says nothing else.
const PAPER: &str = "sampler=heun";

impl Default for Scene {
    /// What the page starts with.
    fn default() -> Self {
        let settings = Usual::default().first;
        Self {
            view: View::Form,
            model: String::new(),
            // One that shows what the first model makes when it does well.
            seed: 154,
            count: 1,
            beside: beside(&settings),
            settings,
            // Of the first model: the first of those that see the whole picture.
            block: 5,
            head: None,
            // The first token right of and below the middle.
            token: [128, 128],
            game: Game::Between,
            others: [144, 148, 151],
            sigma: 2.0,
        }
    }
}

/// What settings are compared with at first: a few steps of Euler. Class and guidance are those of
/// what it is compared with.
fn beside(settings: &Settings) -> Settings {
    let mut beside =
        Settings { method: Method::Euler, classes: Vec::new(), guidance: None, ..settings.clone() };
    set_steps(&mut beside, 6);
    beside
}

/// Where numbers may lie.
pub mod range {
    use std::ops::RangeInclusive;

    /// Steps: as many as the paper takes with its latent models; the command line takes more.
    pub const STEPS: RangeInclusive<usize> = 1..=250;
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
    /// Fresh noise of DDIM, in parts of that of ancestral sampling.
    pub const ETA: RangeInclusive<f64> = 0.0..=1.0;
    /// The scale of guidance.
    pub const GUIDANCE: RangeInclusive<f64> = 0.0..=100.0;
    /// The power of its course; 0 for none.
    pub const GUIDANCE_POWER: RangeInclusive<f64> = 0.0..=100.0;
    /// Noise levels between which there is guidance.
    pub const GUIDANCE_LEVEL: RangeInclusive<f64> = 0.0..=f64::MAX;
    /// Numbers of classes: more than any model has, which is looked at when it is known.
    pub const CLASS: RangeInclusive<usize> = 0..=99_999;
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
        match respacing(settings) {
            // It holds the steps too.
            Some(respacing) => self.put(&name("respacing"), respacing, String::new()),
            None => {
                let [sigma_min, sigma_max, rho] = edm(&settings.schedule);
                let [low, high, usual_rho] = edm(&usual.schedule);
                let levels = |settings: &Settings| name_of(&LEVELS, levels(&settings.schedule));
                self.put(&name("steps"), settings.steps, usual.steps);
                self.put(&name("levels"), levels(settings), levels(usual));
                self.put(&name("rho"), rho, usual_rho);
                self.put(&name("low"), sigma_min, low);
                self.put(&name("high"), sigma_max, high);
            }
        }
        self.put(&name("sampler"), name_of_method(settings.method), name_of_method(usual.method));
        match settings.method {
            Method::Ddim { eta } => self.put(&name("eta"), eta, 0.0),
            Method::Ddpm { variance } => {
                let usual = Variance::default();
                self.put(
                    &name("variance"),
                    name_of(&VARIANCES, variance),
                    name_of(&VARIANCES, usual),
                );
            }
            Method::Ipndm { order } | Method::Dpmpp { order } => {
                let usual = at_first(settings.method).and_then(|(method, _)| method.order());
                self.put(&name("order"), order, usual.map_or(0, |(order, _)| order));
            }
            Method::Heun | Method::Euler => {}
        }
        self.put(&name("clip"), settings.clip_denoised, usual.clip_denoised);
        let (churn, usual_churn) = (settings.churn, usual.churn);
        self.put(&name("churn"), churn.s_churn, usual_churn.s_churn);
        self.put(&name("churn-low"), churn.s_min, usual_churn.s_min);
        self.put(&name("churn-high"), churn.s_max, usual_churn.s_max);
        self.put(&name("churn-noise"), churn.s_noise, usual_churn.s_noise);
        self.put(&name("silent"), settings.silence_time, usual.silence_time);
    }

    fn put_classes(&mut self, settings: &Settings) {
        self.put("classes", list(&settings.classes), String::new());
        let Some(guidance) = &settings.guidance else { return };
        let usual = Guidance::default();
        self.0.push(format!("guidance={}", guidance.scale));
        self.put("guidance-power", power(guidance), power(&usual));
        let channels = |guidance: &Guidance| name_of(&CHANNELS, guidance.channels);
        self.put("guidance-channels", channels(guidance), channels(&usual));
        self.put("guidance-low", guidance.sigma_low, usual.sigma_low);
        self.put("guidance-high", guidance.sigma_high, usual.sigma_high);
    }
}

/// Numbers or labels with commas between them.
pub fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The power of a course of guidance; 0 for a constant one.
pub fn power(guidance: &Guidance) -> f64 {
    match guidance.course {
        Course::Constant => 0.0,
        Course::PowerCosine { power } => power,
    }
}

/// The course of a power.
pub fn course(power: f64) -> Course {
    if power > 0.0 { Course::PowerCosine { power } } else { Course::Constant }
}

/// The value of a name in a list of them.
fn named<T: Copy>(all: &[(T, &str)], name: &str) -> Option<T> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

/// The name of a value in a list that holds it.
pub fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: T) -> &'static str {
    all.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

/// A sampler as it is first, and its name, however it is adjusted.
fn at_first(method: Method) -> Option<(Method, &'static str)> {
    let kind = std::mem::discriminant(&method);
    METHODS.into_iter().find(|(known, _)| std::mem::discriminant(known) == kind)
}

/// A sampler's name in links, however it is adjusted.
pub fn name_of_method(method: Method) -> &'static str {
    at_first(method).map_or("", |(_, name)| name)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Steps and spacing in discrete time, as ADM writes them; nothing for EDM's schedule.
pub fn respacing(settings: &Settings) -> Option<String> {
    let Schedule::Adm { spacing, .. } = &settings.schedule else { return None };
    Some(match spacing {
        Spacing::Even => settings.steps.to_string(),
        Spacing::Ddim => format!("ddim{}", settings.steps),
        Spacing::Sections(steps) => list(steps),
    })
}

/// Takes steps of discrete time, written as ADM does.
///
/// # Errors
///
/// If it is not so written, or there are no such steps.
pub fn set_respacing(settings: &mut Settings, text: &str) -> Result<(), String> {
    let Respacing { spacing, steps } =
        text.trim().parse().map_err(|e: model::discrete::SpacingError| e.to_string())?;
    let betas = LinearBetas::default();
    spacing.indices(steps, betas.steps).map_err(|error| error.to_string())?;
    if !range::STEPS.contains(&steps) {
        return Err(format!("{steps} steps are more than the {} taken here", range::STEPS.end()));
    }
    settings.steps = steps;
    settings.schedule = Schedule::Adm { betas, spacing };
    Ok(())
}

/// Takes another number of steps; in discrete time evenly, where the spacing has no such number.
pub fn set_steps(settings: &mut Settings, steps: usize) {
    settings.steps = steps;
    if let Schedule::Adm { betas, spacing } = &mut settings.schedule
        && spacing.indices(steps, betas.steps).is_err()
    {
        *spacing = Spacing::Even;
    }
}

/// Lowest and highest noise level and rho of EDM's schedule, or what they would be in it.
pub fn edm(schedule: &Schedule) -> [f64; 3] {
    let usual = || edm(&Schedule::default());
    match *schedule {
        Schedule::Edm { sigma_min, sigma_max, rho } => [sigma_min, sigma_max, rho],
        Schedule::LogSnr { sigma_min, sigma_max } => [sigma_min, sigma_max, usual()[2]],
        Schedule::Adm { .. } => usual(),
    }
}

/// How noise levels are laid.
pub fn levels(schedule: &Schedule) -> Levels {
    match schedule {
        Schedule::Edm { .. } => Levels::Edm,
        Schedule::LogSnr { .. } => Levels::LogSnr,
        Schedule::Adm { .. } => Levels::Adm,
    }
}

/// Lays noise levels otherwise, between the same ends where there are any.
pub fn set_levels(settings: &mut Settings, levels: Levels) {
    let [sigma_min, sigma_max, rho] = edm(&settings.schedule);
    match levels {
        Levels::Edm => settings.schedule = Schedule::Edm { sigma_min, sigma_max, rho },
        Levels::LogSnr => settings.schedule = Schedule::LogSnr { sigma_min, sigma_max },
        Levels::Adm => {
            let steps = settings.steps.to_string();
            // Any number of steps that can be chosen here fits.
            let _ = set_respacing(settings, &steps);
        }
    }
}

/// The settings, for a model of so many classes, without what makes no sense: churn where the
/// sampler takes none, classes that the model knows nothing of, guidance without one.
fn usable(settings: &Settings, classes: usize) -> Settings {
    let mut settings = settings.clone();
    if !settings.method.takes_churn() {
        settings.churn.s_churn = 0.0;
    }
    settings.classes.retain(|label| label.parts().iter().all(|(class, _)| *class < classes));
    if settings.classes.is_empty() {
        settings.guidance = None;
    }
    if let Some(guidance) = &mut settings.guidance {
        guidance.sigma_high = guidance.sigma_high.max(guidance.sigma_low);
    }
    settings
}

/// Takes up one field of settings. Whether there is such a field.
fn set_setting(settings: &mut Settings, name: &str, value: &str) -> bool {
    let mut nowhere = [0.0; 3];
    let [sigma_min, sigma_max, rho] = match &mut settings.schedule {
        Schedule::Edm { sigma_min, sigma_max, rho } => [sigma_min, sigma_max, rho],
        Schedule::LogSnr { sigma_min, sigma_max } => [sigma_min, sigma_max, &mut nowhere[2]],
        Schedule::Adm { .. } => nowhere.each_mut(),
    };
    match name {
        "levels" => {
            if let Some(levels) = named(&LEVELS, value) {
                set_levels(settings, levels);
            }
        }
        "rho" => set(rho, number(value, range::RHO)),
        "low" => set(sigma_min, number(value, range::SIGMA_MIN)),
        "high" => set(sigma_max, number(value, range::SIGMA_MAX)),
        "steps" => {
            if let Some(steps) = number(value, range::STEPS) {
                set_steps(settings, steps);
            }
        }
        "respacing" => {
            // What cannot be understood is passed over.
            let _ = set_respacing(settings, value);
        }
        "sampler" => set(&mut settings.method, named(&METHODS, value)),
        "order" => {
            if let Some((_, orders)) = settings.method.order()
                && let Some(order) = number(value, orders)
            {
                settings.method = settings.method.of_order(order);
            }
        }
        "eta" => {
            if let Method::Ddim { eta } = &mut settings.method {
                set(eta, number(value, range::ETA));
            }
        }
        "variance" => {
            if let Method::Ddpm { variance } = &mut settings.method {
                set(variance, named(&VARIANCES, value));
            }
        }
        "clip" => set(&mut settings.clip_denoised, value.parse().ok()),
        "churn" => set(&mut settings.churn.s_churn, number(value, range::CHURN)),
        "churn-low" => set(&mut settings.churn.s_min, number(value, range::CHURN_LEVEL)),
        "churn-high" => set(&mut settings.churn.s_max, number(value, range::CHURN_LEVEL)),
        "churn-noise" => set(&mut settings.churn.s_noise, number(value, range::NOISE)),
        "silent" => set(&mut settings.silence_time, value.parse().ok()),
        _ => return false,
    }
    true
}

/// Takes up class or guidance. Fields of guidance come after its scale.
fn set_class(settings: &mut Settings, name: &str, value: &str) {
    if name == "classes" {
        let known = |label: &Label| {
            !label.is_none() && label.parts().iter().all(|(class, _)| range::CLASS.contains(class))
        };
        let label = |text: &str| text.parse().ok().filter(known);
        let labels: Option<Vec<Label>> = value.split(',').map(label).collect();
        set(&mut settings.classes, labels.filter(|labels| labels.len() <= CLASSES));
    } else if name == "guidance" {
        if let Some(scale) = number(value, range::GUIDANCE) {
            settings.guidance.get_or_insert_default().scale = scale;
        }
    } else if let Some(guidance) = &mut settings.guidance {
        match name {
            "guidance-power" => {
                set(&mut guidance.course, number(value, range::GUIDANCE_POWER).map(course));
            }
            "guidance-channels" => set(&mut guidance.channels, named(&CHANNELS, value)),
            "guidance-low" => set(&mut guidance.sigma_low, number(value, range::GUIDANCE_LEVEL)),
            "guidance-high" => set(&mut guidance.sigma_high, number(value, range::GUIDANCE_LEVEL)),
            _ => {}
        }
    }
}

impl Scene {
    /// What links are read from: the start, but pictures made as the paper has it. So a link means
    /// the same whatever the page starts with.
    fn plain() -> Self {
        let paper = Usual::default().paper;
        Self { beside: beside(&paper), settings: paper, ..Self::default() }
    }

    /// As a link has it, behind its `#`. A scene that is the usual one gives nothing.
    pub fn encode(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let usual = Self::plain();
        if *self == usual {
            return PAPER.into();
        }
        let mut pairs = Pairs(Vec::new());
        pairs.put("view", name_of(&View::ALL, self.view), name_of(&View::ALL, usual.view));
        pairs.put("model", &self.model, &usual.model);
        pairs.put("seed", self.seed, usual.seed);
        pairs.put("count", self.count, usual.count);
        pairs.put_settings("", &self.settings, &usual.settings);
        pairs.put_classes(&self.settings);
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
        let mut scene = Self::plain();
        let pairs = link.trim_start_matches('#').split('&');
        for pair in pairs.clone() {
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
                    Some(name) => {
                        set_setting(&mut scene.beside, name, value);
                    }
                    None if set_setting(&mut scene.settings, name, value) => {}
                    None => set_class(&mut scene.settings, name, value),
                },
            }
        }
        // A link that says nothing is the start.
        if scene == Self::plain() && !pairs.clone().any(|pair| pair == PAPER) {
            return Self::default();
        }
        scene
    }

    /// Takes up what is usual for a model, where it still is what was for the one before: the
    /// settings to begin with, or the paper's; and its guidance as long as there is no class, when it
    /// changes nothing.
    pub fn fit(&mut self, before: &Usual, usual: &Usual) {
        if self.settings == before.first {
            self.settings = usual.first.clone();
        } else if self.settings == before.paper {
            self.settings = usual.paper.clone();
        } else if self.settings.classes.is_empty() {
            self.settings.guidance = usual.first.guidance;
        }
        if self.beside == beside(&before.first) {
            self.beside = beside(&usual.first);
        } else if self.beside == beside(&before.paper) {
            self.beside = beside(&usual.paper);
        }
    }

    /// Begins a visit with labels. What was chosen already stays.
    pub fn open(&mut self, labels: Vec<Label>) {
        let usual = Self::default();
        if labels.is_empty() || !self.settings.classes.is_empty() {
            return;
        }
        if self.seed == usual.seed {
            self.seed = OPENING_SEED;
        }
        if self.count == usual.count {
            let enough = COUNTS.into_iter().find(|&count| count >= labels.len());
            self.count = enough.unwrap_or(usual.count);
        }
        self.settings.classes = labels;
    }

    /// Goes over to another model: to what is usual for it, where it still is what was for the one
    /// before, and to its classes of the same names.
    pub fn change_model(&mut self, before: (&Usual, &[String]), now: (&Usual, &[String])) {
        let (classes, guidance) =
            (std::mem::take(&mut self.settings.classes), self.settings.guidance);
        let usual = guidance == before.0.first.guidance;
        self.settings.guidance = before.0.first.guidance;
        self.fit(before.0, now.0);
        self.settings.classes = carried(&classes, before.1, now.1);
        if !usual {
            self.settings.guidance = guidance;
        }
    }

    /// What to make, with a model of so many classes.
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
        Order { noises, settings, guide }
    }

    /// What to make for comparison.
    pub fn order_beside(&self, classes: usize) -> Option<Order> {
        let compares = self.view == View::Play && self.game == Game::Compare;
        compares.then(|| {
            let order = self.order(classes);
            let Settings { classes, guidance, .. } = order.settings;
            let beside = usable(&self.beside, 0);
            Order { settings: Settings { classes, guidance, ..beside }, ..order }
        })
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
        scene.settings = Settings { steps: 6, ..Settings::default() };
        scene.head = Some(2);
        assert_eq!(scene.encode(), "view=attend&seed=7&count=4&steps=6&head=2");
        assert_eq!(Scene::decode("#view=attend&seed=7&count=4&steps=6&head=2"), scene);
    }

    /// Links were made before the page started with other settings than the paper's.
    #[test]
    fn a_link_means_what_it_meant() {
        let paper = Settings::default();
        let scene = Scene::decode("seed=5&count=4");
        assert_eq!((scene.seed, scene.count, &scene.settings), (5, 4, &paper));
        assert_eq!(scene.encode(), "seed=5&count=4");
        let few = Scene::decode("steps=6").settings;
        assert_eq!(few, Settings { steps: 6, ..paper.clone() });
        // What the page starts with is said, and so are the paper's settings where all else is usual.
        assert_ne!(Scene::default().settings, paper);
        let other = Scene { seed: 7, ..Scene::default() };
        assert_eq!(other.encode(), "seed=7&steps=12&sampler=ipndm");
        let plain = Scene { settings: paper.clone(), ..Scene::default() };
        assert_eq!(plain.encode(), "sampler=heun");
        assert_eq!(Scene::decode("sampler=heun"), plain);
        // They stay the paper's when the model is there, and become those of a model of discrete time.
        let usual = Usual::default();
        let ddim = Settings { steps: 50, method: METHODS[4].0, ..paper.clone() };
        let adm = Usual { first: ddim.clone(), paper: ddim };
        for (link, model, want) in [
            ("", &usual, &usual.first),
            ("", &adm, &adm.first),
            ("seed=5", &usual, &paper),
            ("seed=5", &adm, &adm.paper),
            ("seed=5&steps=9", &adm, &Settings { steps: 9, ..paper.clone() }),
        ] {
            let mut scene = Scene::decode(link);
            scene.fit(&Usual::default(), model);
            assert_eq!(&scene.settings, want, "{link}");
        }
    }

    #[test]
    fn every_field_is_kept_within_its_range() {
        let settings = |link: &str| Scene::decode(link).settings;
        assert_eq!(settings("steps=0").steps, 1);
        assert_eq!(settings("steps=99999").steps, 250);
        for link in ["steps=-3", "steps=1e3", "sampler=dpm", "silent=1", "order=2", "levels=adm"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
            assert_eq!(settings(&format!("seed=5&{link}")), Settings::default(), "{link}");
        }
        assert_eq!(settings("sampler=ipndm").method, Method::Ipndm { order: 4 });
        assert_eq!(settings("sampler=ipndm&order=2").method, Method::Ipndm { order: 2 });
        assert_eq!(settings("sampler=ipndm&order=9").method, Method::Ipndm { order: 4 });
        assert_eq!(settings("sampler=dpmpp&order=0").method, Method::Dpmpp { order: 2 });
        let even = settings("levels=log-snr&low=0.01&rho=3").schedule;
        assert_eq!(even, Schedule::LogSnr { sigma_min: 0.01, sigma_max: 80.0 });
        let levels = edm(&settings("low=0&high=inf&rho=NaN").schedule);
        assert_eq!(levels, [0.0001, 1000.0, 7.0]);
        for link in ["count=3", "count=17", "seed=-1", "seed=18446744073709551616", "row=256x"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        assert_eq!(Scene::decode("seed=18446744073709551615").seed, u64::MAX);
        assert_eq!(Scene::decode("sigma=1e9").sigma, 80.0);
    }

    #[test]
    fn discrete_time_and_classes_have_fields_of_their_own() {
        let settings = |link: &str| Scene::decode(link).settings;
        let ddim = settings("respacing=ddim50&sampler=ddim&eta=0.5&clip=true");
        assert_eq!((ddim.steps, ddim.method), (50, Method::Ddim { eta: 0.5 }));
        assert_eq!(respacing(&ddim), Some("ddim50".into()));
        // Where the spacing has no such number of steps, they are even.
        assert_eq!(respacing(&settings("respacing=10,15&steps=30")), Some("30".into()));
        for link in ["respacing=ddim300", "respacing=251", "respacing=", "respacing=0", "eta=1"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        let guided = settings("classes=3,1&guidance=1.49&guidance-power=0&guidance-channels=all");
        assert_eq!(guided.classes, [3, 1].map(Label::from));
        let mixed = settings("classes=3:0.6_5:0.4,7").classes;
        assert_eq!(mixed[0].parts(), [(3, 0.6), (5, 0.4)]);
        assert_eq!(mixed[1].class(), Some(7));
        let guidance = guided.guidance.expect("it is asked for");
        assert_eq!((guidance.scale, guidance.course), (1.49, Course::Constant));
        for link in [
            "classes=1,x",
            "classes=-1",
            "classes=100000",
            "classes=1:99",
            "classes=1,",
            "guidance-power=2",
        ] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        // A model without classes has nothing to do with them, and guidance needs one.
        let scene = Scene::decode("classes=3&guidance=2");
        assert_eq!(scene.order(0).settings, Settings::default());
        assert_eq!(scene.order(9).settings, scene.settings);
        assert_eq!(Scene::decode("guidance=2").order(9).settings, Settings::default());
        let compared = Scene::decode("view=play&play=compare&classes=3&guidance=2");
        let [left, right] =
            [compared.order_beside(9), Some(compared.order(9))].map(|o| o.expect("two").settings);
        assert_eq!((left.classes, left.guidance), (right.classes, right.guidance));
    }

    #[test]
    fn what_a_model_begins_with_is_taken_until_something_else_is_chosen() {
        let usual = Usual::default();
        let first = Settings { steps: 50, method: METHODS[4].0, ..Settings::default() };
        let discrete = Usual { first: first.clone(), paper: first };
        let mut scene = Scene { seed: 3, ..Scene::default() };
        scene.fit(&usual, &discrete);
        assert_eq!((&scene.settings, scene.beside.steps), (&discrete.first, 6));
        scene.settings.steps = 20;
        scene.fit(&discrete, &usual);
        assert_eq!((scene.settings.steps, &scene.beside), (20, &Scene::default().beside));
        // Guidance waits for a class.
        let guidance = Some(Guidance::default());
        let guided = Settings { guidance, ..usual.first.clone() };
        scene.fit(&usual, &Usual { first: guided, ..usual.clone() });
        assert_eq!((scene.settings.steps, scene.settings.guidance), (20, guidance));
        scene.settings.classes = vec![3.into()];
        scene.fit(&usual, &usual);
        assert_eq!(scene.settings.guidance, guidance);
    }

    #[test]
    fn a_visit_begins_with_names_and_a_link_without_them_has_none() {
        let four: Vec<Label> = [7, 3, 9, 1].map(Label::from).into();
        let mut scene = Scene::default();
        scene.open(four.clone());
        let want = format!("seed={OPENING_SEED}&count=4&steps=12&sampler=ipndm&classes=7,3,9,1");
        assert_eq!(scene.encode(), want);
        assert_eq!(Scene::decode(&scene.encode()), scene);
        // The pictures come in the order of the names.
        let order = scene.order(10);
        let seeds: Vec<u64> = order.noises.iter().map(Noise::seed).collect();
        assert_eq!(order.settings.labels_of(&seeds), four);
        // Links that say nothing of classes mean what they meant: no class, and all else as usual.
        for link in [NO_CLASS, "count=1", "seed=154"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        assert_eq!(Scene::decode("steps=6").settings.classes, []);
        assert_eq!((Scene::decode("steps=6").seed, Scene::decode("steps=6").count), (154, 1));
        // What was chosen before the model was there stays.
        let mut early = Scene { seed: 5, count: 9, ..Scene::default() };
        early.open(four.clone());
        assert_eq!((early.seed, early.count, &early.settings.classes), (5, 9, &four));
        early.open(vec![2.into()]);
        assert_eq!(early.settings.classes, four);
        let mut none = Scene::default();
        none.open(Vec::new());
        assert_eq!(none, Scene::default());
    }

    #[test]
    fn another_model_keeps_what_makes_sense() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (emoji, cifar) = (names(&["otter", "ship", "dog"]), names(&["dog", "ship"]));
        let (usual, paper) = (Usual::default(), Settings::default());
        let guidance = Some(Guidance::default());
        let first = Settings { steps: 50, method: METHODS[4].0, guidance, ..paper.clone() };
        let discrete = Usual { first: first.clone(), paper: first.clone() };
        let mut scene = Scene::decode("seed=3&count=4&classes=0,1,2");
        scene.change_model((&usual, &emoji), (&discrete, &cifar));
        assert_eq!((scene.seed, scene.count), (3, 4));
        assert_eq!(scene.settings, Settings { classes: vec![1.into(), 0.into()], ..first.clone() });
        // Back, with steps and guidance of one's own.
        scene.settings.steps = 20;
        let own = Guidance { scale: 2.0, ..Guidance::default() };
        scene.settings.guidance = Some(own);
        scene.change_model((&discrete, &cifar), (&usual, &emoji));
        assert_eq!((scene.settings.steps, scene.settings.guidance), (20, Some(own)));
        assert_eq!(scene.settings.classes, [1, 2].map(Label::from));
        scene.change_model((&usual, &emoji), (&usual, &[]));
        assert_eq!(scene.settings.classes, []);
        // Classes that a model lacks are not asked of it.
        let order = Scene::decode("classes=1,9,1:0.5_9:0.5&guidance=2").order(5);
        assert_eq!(order.settings.classes, [Label::from(1)]);
        assert_eq!(Scene::decode("classes=9&guidance=2").order(5).settings, paper);
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

    fn settings() -> impl Strategy<Value = Settings> {
        let method = prop_oneof![
            Just(Method::Heun),
            Just(Method::Euler),
            (1usize..=4).prop_map(|order| Method::Ipndm { order }),
            (2usize..=3).prop_map(|order| Method::Dpmpp { order }),
            range::ETA.prop_map(|eta| Method::Ddim { eta }),
            (0usize..3).prop_map(|i| Method::Ddpm { variance: VARIANCES[i].0 }),
        ];
        let edm = (range::STEPS, range::SIGMA_MIN, range::SIGMA_MAX, range::RHO).prop_map(
            |(steps, sigma_min, sigma_max, rho)| {
                (steps, Schedule::Edm { sigma_min, sigma_max, rho })
            },
        );
        let even = (range::STEPS, range::SIGMA_MIN, range::SIGMA_MAX).prop_map(
            |(steps, sigma_min, sigma_max)| (steps, Schedule::LogSnr { sigma_min, sigma_max }),
        );
        let spacing = prop_oneof!["[1-9][0-9]?", "ddim(10|20|25|50|100)", "[1-9],[1-9][0-9],[1-9]"];
        let adm = spacing.prop_map(|text| {
            let mut settings = Settings::default();
            set_respacing(&mut settings, &text).expect("few enough");
            (settings.steps, settings.schedule)
        });
        let churn = (range::CHURN, 0.0..1e3, 0.0..1e3, range::NOISE);
        (method, prop_oneof![edm, even, adm], churn, any::<[bool; 2]>()).prop_map(
            |(method, (steps, schedule), (s_churn, s_min, s_max, s_noise), [silent, clip])| {
                Settings {
                    steps,
                    method,
                    schedule,
                    churn: model::settings::Churn { s_churn, s_min, s_max, s_noise },
                    clip_denoised: clip,
                    silence_time: silent,
                    ..Settings::default()
                }
            },
        )
    }

    prop_compose! {
        fn guidance()(
            scale in range::GUIDANCE, power in prop_oneof![Just(0.0), 0.1..100.0f64],
            all: bool, sigma_low in 0.0..1e3, sigma_high in prop_oneof![Just(f64::MAX), 0.0..1e3],
        ) -> Guidance {
            let channels = CHANNELS[usize::from(all)].0;
            Guidance { scale, course: course(power), channels, sigma_low, sigma_high }
        }
    }

    fn labels() -> impl Strategy<Value = Label> {
        let part = (range::CLASS, -4i32..=8)
            .prop_map(|(class, eighths)| (class, f64::from(eighths) / 8.0));
        prop_oneof![
            range::CLASS.prop_map(Label::from),
            proptest::collection::vec(part, 1..=2)
                .prop_map(|parts| Label::mixture(parts).expect("moderate")),
        ]
    }

    prop_compose! {
        fn scenes()(
            view in 0usize..4, model in "([a-z0-9][a-z0-9.-]{0,60})?", game in 0usize..5, seed: u64, others: [u64; 3], count in 0usize..4,
            settings in settings(), beside in settings(), block in range::PART,
            classes in proptest::collection::vec(labels(), 0..=12),
            guidance in proptest::option::of(guidance()),
            head in proptest::option::of(range::PART), token: [u8; 2], sigma in range::SIGMA,
        ) -> Scene {
            Scene {
                view: View::ALL[view].0,
                model, game: Game::ALL[game].0, seed, others,
                count: COUNTS[count], settings: Settings { classes, guidance, ..settings },
                beside, block, head, token, sigma,
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
                   |silent|block|head|row|column|play|seed-b|sigma|respacing|eta|variance|clip|classes\
                   |order|levels\
                   |guidance|guidance-power|guidance-channels|guidance-low|guidance-high)",
                 "(-?[0-9]{0,25}(\\.[0-9]{0,9})?(e-?[0-9]{1,4})?|NaN|-?inf|true|ddim[0-9]{0,3}|ddpm\
                   |heun|ipndm|dpmpp|log-snr\
                   |[0-9]{1,2}(,[0-9]{1,3}){0,4}|.{0,9})"), 0..12),
        ) {
            let link: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let scene = Scene::decode(&link.join("&"));
            let order = scene.order(5);
            prop_assert_eq!(order.settings.validate(), Ok(()));
            prop_assert_eq!(usable(&scene.beside, 5).validate(), Ok(()));
            prop_assert!((1..=16).contains(&order.noises.len()));
            prop_assert_eq!(Scene::decode(&scene.encode()), scene);
        }
    }
}
