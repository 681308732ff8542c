//! The parts of a link that are for the playground and are not understood.

use model::settings::Settings;

use super::link::{PANELS, named, take_setting};
use crate::playground::PointSet;

/// Returns the pairs of a link that are for the playground and were skipped, since they are not
/// understood. Long ones are shortened.
pub fn refused(link: &str) -> Option<String> {
    let known = |name: &str, text: &str| {
        if name == "data" {
            return named(&PointSet::ALL, text).is_some();
        }
        let prefix = PANELS.into_iter().find(|prefix| name.starts_with(prefix));
        prefix.is_none_or(|prefix| {
            take_setting(&mut Settings::default(), prefix, &name[prefix.len()..], text)
        })
    };
    let pairs = link.trim_start_matches('#').split('&');
    let skipped = pairs.filter(|pair| pair.split_once('=').is_some_and(|(n, t)| !known(n, t)));
    let shortened = skipped.take(3).map(|pair| pair.chars().take(40).collect::<String>());
    let list = shortened.collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Scene, View};
    use model::settings::Method;

    #[test]
    fn a_playground_has_a_link() {
        let plain = Scene { view: View::Playground, ..Scene::decode("sampler=heun") };
        assert_eq!(plain.encode(), "view=playground");
        let link =
            "view=playground&seed=3&data=moons&pa-steps=9&pa-sampler=heun&pb-rho=3&pb-churn=20";
        let scene = Scene::decode(link);
        let [a, b] = &scene.playground.panels;
        assert_eq!(
            (scene.playground.points, a.steps, a.method),
            (PointSet::Moons, 9, Method::Heun)
        );
        assert_eq!(b.churn.s_churn, 20.0);
        assert_eq!(scene.encode(), link);
        // The settings of pictures are others.
        assert_eq!(scene.settings, Settings::default());
    }

    #[test]
    fn what_a_playground_does_not_know_is_named() {
        let link =
            "#view=playground&data=cow&pa-steps=x&pb-clip=true&pa-churn=1e9&pb-levels=log-snr";
        assert_eq!(refused(link).as_deref(), Some("data=cow, pa-steps=x, pb-clip=true"));
        let known = Scene::decode("view=playground&pa-churn=1e9&pb-levels=log-snr");
        assert_eq!(Scene::decode(link), known);
        assert_eq!(known.playground.panels[0].churn.s_churn, 200.0);
        for link in ["", "#", "view=cow&seed=x&steps=-1", "data=ring&pb-steps=3", "pa-=&data"] {
            let want = link.contains("pa-=").then(|| "pa-=".to_string());
            assert_eq!(refused(link), want, "{link}");
        }
        let long = refused(&format!("data={}", "\u{202e}".repeat(5000))).expect("named");
        assert_eq!(long.chars().count(), 40);
    }
}
