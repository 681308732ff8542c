//! The link format: `name=value` pairs, separated by `&`, of what differs from the usual scene.
//!
//! Sampling settings are compared with the paper's, whatever the page starts with, so that a link
//! keeps its meaning. Each pair is read on its own: numbers are clamped to their range, and pairs
//! that are not understood are skipped.

use std::str::FromStr;

use model::settings::Settings;

use super::fields::FIELDS;
use super::range::{self, number};
use super::{COUNTS, Field, Game, STOPS, Scene, View, beside};
use crate::manifest::is_plain;
use crate::playground::PointSet;
use crate::protocol::Usual;

/// The link to the default scene. An empty link is for a new visit, which starts with classes.
pub const NO_CLASS: &str = "classes=none";

/// The link to a scene with the paper's settings and defaults otherwise.
const PAPER: &str = "sampler=heun";

/// The name of the stop of the tour. It does not change what the rest of a link means.
const TOUR: &str = "tour";

/// Prefix of the settings to compare with.
const COMPARED: &str = "b-";

/// Prefixes of the settings of the two panels of the playground.
pub(super) const PANELS: [&str; 2] = ["pa-", "pb-"];

/// Maximum length of the name of a model's file.
const NAME: usize = 64;

/// A part of the scene other than its settings.
struct Part {
    name: &'static str,
    /// Returns the value as a link writes it.
    get: fn(&Scene) -> String,
    /// Sets the value from the text of a link, if that is valid.
    set: fn(&mut Scene, &str),
}

/// Parts that links write before the settings.
static FIRST: [Part; 4] = [
    Part {
        name: "view",
        get: |scene| name_of(&View::ALL, scene.view).into(),
        set: |scene, text| set(&mut scene.view, named(&View::ALL, text)),
    },
    Part {
        name: "model",
        get: |scene| scene.model.clone(),
        set: |scene, text| {
            if is_plain(text) && text.len() <= NAME {
                scene.model = text.into();
            }
        },
    },
    Part {
        name: "seed",
        get: |scene| scene.seed.to_string(),
        set: |scene, text| set(&mut scene.seed, parsed(text)),
    },
    Part {
        name: "count",
        get: |scene| scene.count.to_string(),
        set: |scene, text| {
            set(&mut scene.count, parsed(text).filter(|count| COUNTS.contains(count)));
        },
    },
];

/// Parts that links write after the settings, and before those to compare with.
static REST: [Part; 11] = [
    Part {
        name: "block",
        get: |scene| scene.block.to_string(),
        set: |scene, text| set(&mut scene.block, number(text, range::PART)),
    },
    Part {
        name: "head",
        get: |scene| scene.head.map_or("mean".into(), |head| head.to_string()),
        set: |scene, text| scene.head = number(text, range::PART),
    },
    Part {
        name: "row",
        get: |scene| scene.token[0].to_string(),
        set: |scene, text| set(&mut scene.token[0], number(text, 0..=255)),
    },
    Part {
        name: "column",
        get: |scene| scene.token[1].to_string(),
        set: |scene, text| set(&mut scene.token[1], number(text, 0..=255)),
    },
    Part {
        name: "play",
        get: |scene| name_of(&Game::ALL, scene.game).into(),
        set: |scene, text| set(&mut scene.game, named(&Game::ALL, text)),
    },
    Part {
        name: "seed-b",
        get: |scene| scene.others[0].to_string(),
        set: |scene, text| set(&mut scene.others[0], parsed(text)),
    },
    Part {
        name: "seed-c",
        get: |scene| scene.others[1].to_string(),
        set: |scene, text| set(&mut scene.others[1], parsed(text)),
    },
    Part {
        name: "seed-d",
        get: |scene| scene.others[2].to_string(),
        set: |scene, text| set(&mut scene.others[2], parsed(text)),
    },
    Part {
        name: "sigma",
        get: |scene| scene.sigma.to_string(),
        set: |scene, text| set(&mut scene.sigma, number(text, range::SIGMA)),
    },
    Part {
        name: "previews",
        get: |scene| scene.previews.to_string(),
        set: |scene, text| set(&mut scene.previews, parsed(text)),
    },
    Part {
        name: "data",
        get: |scene| name_of(&PointSet::ALL, scene.playground.points).into(),
        set: |scene, text| set(&mut scene.playground.points, named(&PointSet::ALL, text)),
    },
];

/// Returns the value with a name.
pub(super) fn named<T: Copy>(all: &[(T, &str)], name: &str) -> Option<T> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

/// Returns the name of a value.
pub fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: T) -> &'static str {
    all.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Returns whether links have a field with a prefix.
fn is_of(prefix: &str, field: &Field) -> bool {
    match prefix {
        "" => true,
        COMPARED => field.compared,
        // A panel of the playground has no pictures to clip and no network.
        _ => field.compared && !matches!(field.name, "clip" | "silent"),
    }
}

/// Appends the fields of settings that differ from the usual ones.
fn put_settings(pairs: &mut Vec<String>, prefix: &str, settings: &Settings, usual: &Settings) {
    for field in FIELDS.iter().filter(|field| is_of(prefix, field)) {
        let text = |settings: &Settings| (field.linked)(settings).then(|| field.text(settings));
        if let Some(value) = text(settings).filter(|_| text(settings) != text(usual)) {
            pairs.push(format!("{prefix}{}={value}", field.name));
        }
    }
}

/// Sets a field of settings, if there is one of this name and the text is valid. Returns whether it
/// did.
pub(super) fn take_setting(settings: &mut Settings, prefix: &str, name: &str, text: &str) -> bool {
    let fields = FIELDS.iter().filter(|field| field.name == name && is_of(prefix, field));
    let taken: Vec<_> = fields.map(|field| field.take(settings, text)).collect();
    taken.iter().any(Result::is_ok)
}

/// Returns whether a link is that of a new visit: it is empty, apart from a stop of the tour.
pub fn is_new(link: &str) -> bool {
    let mut pairs = link.trim_start_matches('#').split('&');
    pairs.all(|pair| pair.is_empty() || pair.split('=').next() == Some(TOUR))
}

/// Returns whether a link has sampling settings, which then are not to be replaced by those that a
/// model's card recommends.
pub fn has_settings(link: &str) -> bool {
    let mut pairs = link.trim_start_matches('#').split('&');
    pairs.any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name != "classes" && FIELDS.iter().any(|field| field.name == name)
    })
}

impl Scene {
    /// Returns the scene that links are relative to: the default one with the paper's settings.
    fn plain() -> Self {
        let paper = Usual::default().paper;
        Self { beside: beside(&paper), settings: paper, ..Self::default() }
    }

    /// Returns the link, without its `#`. It is empty for the default scene.
    pub fn encode(&self) -> String {
        let mut pairs = self.pairs();
        if self.tour > 0 {
            pairs.push(format!("{TOUR}={}", self.tour));
        }
        pairs.join("&")
    }

    /// Returns the link for the page's address, without its `#`. Unlike [`Scene::encode`], it is never
    /// that of a new visit, which starts with classes.
    pub fn address(&self) -> String {
        let link = self.encode();
        match (is_new(&link), link.as_str()) {
            (false, _) => link,
            (true, "") => NO_CLASS.into(),
            (true, tour) => format!("{NO_CLASS}&{tour}"),
        }
    }

    /// Returns the pairs of the link, without the stop of the tour.
    fn pairs(&self) -> Vec<String> {
        let scene = Self { tour: 0, ..self.clone() };
        if scene == Self::default() {
            return Vec::new();
        }
        let usual = Self::plain();
        if scene == usual {
            return vec![PAPER.into()];
        }
        let mut pairs = Vec::new();
        let put = |pairs: &mut Vec<String>, part: &Part| {
            let value = (part.get)(self);
            if value != (part.get)(&usual) {
                pairs.push(format!("{}={value}", part.name));
            }
        };
        FIRST.iter().for_each(|part| put(&mut pairs, part));
        put_settings(&mut pairs, "", &self.settings, &usual.settings);
        REST.iter().for_each(|part| put(&mut pairs, part));
        put_settings(&mut pairs, COMPARED, &self.beside, &usual.beside);
        for (panel, prefix) in PANELS.into_iter().enumerate() {
            let [own, usual] = [self, &usual].map(|scene| &scene.playground.panels[panel]);
            put_settings(&mut pairs, prefix, own, usual);
        }
        pairs
    }

    /// Reads a link, with or without its `#`.
    pub fn decode(link: &str) -> Self {
        let (mut scene, mut tour) = (Self::plain(), 0);
        let pairs = link.trim_start_matches('#').split('&');
        for pair in pairs.clone() {
            let Some((name, text)) = pair.split_once('=') else { continue };
            if name == TOUR {
                set(&mut tour, number(text, 0..=STOPS));
            } else if let Some(part) = FIRST.iter().chain(&REST).find(|part| part.name == name) {
                (part.set)(&mut scene, text);
            } else if let Some(name) = name.strip_prefix(COMPARED) {
                take_setting(&mut scene.beside, COMPARED, name, text);
            } else if let Some(panel) = PANELS.iter().position(|prefix| name.starts_with(prefix)) {
                let settings = &mut scene.playground.panels[panel];
                take_setting(settings, PANELS[panel], &name[PANELS[panel].len()..], text);
            } else {
                take_setting(&mut scene.settings, "", name, text);
            }
        }
        // A link without any valid pair is the default scene.
        if scene == Self::plain() && !pairs.clone().any(|pair| pair == PAPER) {
            scene = Self::default();
        }
        scene.tour = tour;
        scene
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::Playground;
    use crate::scene::settings::{edm, usable};
    use crate::scene::strategies::settings;
    use model::label::Label;
    use model::schedule::Schedule;
    use model::settings::Method;
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

    /// Links as the page wrote them before there was a table of fields. They are read and written
    /// again byte for byte.
    #[test]
    fn links_of_earlier_versions_are_unchanged() {
        for link in [
            "sampler=heun",
            "seed=5&count=4&steps=6",
            "view=play&model=others.safetensors&seed=1&steps=9&levels=log-snr&low=0.01&high=50\
             &sampler=dpmpp&order=2&clip=true&play=compare&seed-b=2&seed-c=3&seed-d=4&sigma=3.5\
             &b-steps=7&b-rho=3&b-sampler=heun&b-churn=4&b-silent=true",
            "steps=20&rho=5&sampler=euler&churn=40&churn-low=0.05&churn-high=50&churn-noise=1.003\
             &silent=true&block=2&head=1&row=7&column=9",
            "respacing=ddim50&sampler=ddim&eta=0.5&clip=true&classes=3:0.6_5:0.4,7&guidance=4.4",
            "respacing=10,15,20&sampler=ddpm&variance=large&classes=1&guidance=1&guidance-power=0\
             &guidance-channels=all&guidance-low=0.2&guidance-high=9&b-respacing=4",
            "seed=20&count=4&steps=12&sampler=ipndm&classes=2,3,4,1",
        ] {
            assert_eq!(Scene::decode(link).encode(), link);
        }
    }

    /// Links were made before the page started with other settings than the paper's.
    #[test]
    fn a_link_keeps_its_meaning() {
        let paper = Settings::default();
        let scene = Scene::decode("seed=5&count=4");
        assert_eq!((scene.seed, scene.count, &scene.settings), (5, 4, &paper));
        assert_eq!(scene.encode(), "seed=5&count=4");
        let few = Scene::decode("steps=6").settings;
        assert_eq!(few, Settings { steps: 6, ..paper.clone() });
        // The page's first settings are written, and so are the paper's if all else is usual.
        assert_ne!(Scene::default().settings, paper);
        let other = Scene { seed: 7, ..Scene::default() };
        assert_eq!(other.encode(), "seed=7&steps=12&sampler=ipndm");
        let plain = Scene { settings: paper.clone(), ..Scene::default() };
        assert_eq!(plain.encode(), "sampler=heun");
        assert_eq!(Scene::decode("sampler=heun"), plain);
        // They stay the paper's once the model is known, and become those of a discrete-time model.
        let usual = Usual::default();
        let ddim = Settings { steps: 50, method: Method::Ddim { eta: 0.0 }, ..paper.clone() };
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
    fn a_link_with_settings_is_told_from_others() {
        for link in ["steps=6", "#seed=7&steps=12&sampler=ipndm", "classes=2&guidance=3"] {
            assert!(has_settings(link), "{link}");
        }
        // The settings of a comparison and of the playground are others.
        for link in ["", "#", "seed=7&count=4", "classes=2,3", NO_CLASS, "b-steps=6", "stepsize=3"]
        {
            assert!(!has_settings(link), "{link}");
        }
    }

    #[test]
    fn the_tour_changes_nothing_else_in_a_link() {
        let tour = Scene { tour: 3, ..Scene::default() };
        assert_eq!((Scene::decode("#tour=3"), tour.encode().as_str()), (tour.clone(), "tour=3"));
        assert_eq!(Scene::decode("tour=99").tour, STOPS);
        assert_eq!(Scene::decode("tour=x").tour, 0);
        for link in ["seed=5&steps=6&tour=2", "sampler=heun&tour=1", "view=attend&head=2&tour=4"] {
            let scene = Scene::decode(link);
            assert_eq!(scene.encode(), link);
            let (without, _) = link.rsplit_once('&').expect("two pairs");
            assert_eq!(Scene { tour: 0, ..scene }, Scene::decode(without));
        }
        // A visit that starts on the tour is a new one; the page's own address is not.
        assert!(is_new("") && is_new("#tour=1") && !is_new("seed=5&tour=1") && !is_new(NO_CLASS));
        assert_eq!(tour.address(), "classes=none&tour=3");
        assert_eq!(Scene::default().address(), NO_CLASS);
        assert_eq!(Scene::decode("seed=5").address(), "seed=5");
    }

    #[test]
    fn a_link_can_switch_previews_off() {
        let without = Scene { previews: false, ..Scene::decode("seed=5") };
        assert_eq!(without.encode(), "seed=5&previews=false");
        assert_eq!(Scene::decode("#seed=5&previews=false"), without);
        // Links of earlier versions, and what makes no sense.
        for link in ["seed=5", "seed=5&previews=true", "seed=5&previews=0", "seed=5&previews="] {
            assert_eq!(Scene::decode(link), Scene::decode("seed=5"), "{link}");
        }
        // The order differs in nothing else, and neither does what is compared with it.
        let scene = Scene { view: View::Play, game: Game::Compare, ..without };
        let with = Scene { previews: true, ..scene.clone() };
        for (off, on) in [
            (scene.order(5), with.order(5)),
            (scene.order_beside(5).expect("two"), with.order_beside(5).expect("two")),
        ] {
            assert!(!off.previews && on.previews);
            assert_eq!(crate::protocol::Order { previews: true, ..off }, on);
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
        // Comparisons share class and guidance.
        assert_eq!(Scene::decode("b-classes=1&b-guidance=3"), Scene::default());
    }

    #[test]
    fn hostile_links_are_skipped() {
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
        fn playgrounds()(
            points in 0..PointSet::ALL.len(), panels in [settings(true), settings(true)],
        ) -> Playground {
            let usual = Settings::default();
            let panels = panels.map(|panel| Settings {
                clip_denoised: usual.clip_denoised, silence_time: usual.silence_time, ..panel
            });
            Playground { points: PointSet::ALL[points].0, panels }
        }
    }

    prop_compose! {
        fn scenes()(
            view in 0..View::ALL.len(), model in "([a-z0-9][a-z0-9.-]{0,60})?", game in 0usize..5,
            seed: u64, others: [u64; 3], count in 0usize..4,
            settings in settings(false), beside in settings(true), playground in playgrounds(),
            classes in proptest::option::of(proptest::collection::vec(labels(), 0..=12)),
            block in range::PART, head in proptest::option::of(range::PART), token: [u8; 2],
            sigma in range::SIGMA, previews: bool, tour in 0..=STOPS,
        ) -> Scene {
            let classes: Vec<Label> = classes.unwrap_or_else(|| settings.classes.clone());
            Scene {
                view: View::ALL[view].0, model, game: Game::ALL[game].0, seed, others,
                count: COUNTS[count], settings: Settings { classes, ..settings },
                beside, block, head, token, sigma, previews, tour, playground,
            }
        }
    }

    /// Names of fields and parts, some of them of the settings to compare with.
    fn name() -> impl Strategy<Value = String> {
        let parts = FIRST.iter().chain(&REST).map(|part| part.name);
        let names: Vec<&str> = parts.chain(FIELDS.iter().map(|field| field.name)).collect();
        let prefixes = [&["", COMPARED][..], &PANELS].concat();
        (proptest::sample::select(names), proptest::sample::select(prefixes))
            .prop_map(|(name, prefix)| format!("{prefix}{name}"))
    }

    proptest! {
        #[test]
        fn a_scene_survives_its_link(scene in scenes()) {
            let link = scene.encode();
            prop_assert!(link.len() < 3000, "{} letters", link.len());
            prop_assert_eq!(Scene::decode(&scene.address()), scene.clone());
            prop_assert_eq!(Scene::decode(&link), scene);
        }

        #[test]
        fn any_text_gives_a_scene(text: String) {
            Scene::decode(&text);
        }

        #[test]
        fn any_values_give_a_usable_scene(
            pairs in proptest::collection::vec(
                (name(),
                 "(-?[0-9]{0,25}(\\.[0-9]{0,9})?(e-?[0-9]{1,4})?|NaN|-?inf|true|ddim[0-9]{0,3}|ddpm\
                   |heun|ipndm|dpmpp|log-snr\
                   |[0-9]{1,2}(,[0-9]{1,3}){0,4}|.{0,9})"), 0..12),
        ) {
            let link: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let scene = Scene::decode(&link.join("&"));
            let order = scene.order(5);
            prop_assert_eq!(order.settings.validate(), Ok(()));
            prop_assert_eq!(usable(&scene.beside, 5).validate(), Ok(()));
            for panel in scene.exploration().panels {
                prop_assert_eq!(panel.validate(), Ok(()));
            }
            prop_assert!((1..=16).contains(&order.noises.len()));
            prop_assert_eq!(Scene::decode(&scene.encode()), scene);
        }
    }
}
