//! Settings in PNG files, as scenes.

use model::picture::Origin;

use super::{COUNTS, Scene, View};

impl Scene {
    /// Returns the scene of a PNG file: that of its link if it was saved by the page, otherwise one
    /// with its settings and seeds.
    pub fn from_origin(origin: &Origin) -> Self {
        let mut scene = match &origin.page {
            Some(link) => Self::decode(link),
            None => {
                let settings = origin.settings.clone();
                let seed = origin.seeds.first().copied().unwrap_or_default();
                let enough = COUNTS.into_iter().find(|&count| count >= origin.seeds.len());
                let count = enough.unwrap_or(COUNTS[COUNTS.len() - 1]);
                let scene = Self { seed, count, settings, ..Self::default() };
                // The command line accepts more than the page does, whose links clamp numbers.
                Self::decode(&scene.encode())
            }
        };
        scene.tour = 0;
        // These views do not make pictures.
        if matches!(scene.view, View::Attend | View::Playground | View::Train | View::About) {
            scene.view = View::Form;
        }
        scene
    }
}

/// Reduces the origin of several pictures to that of one of them, if it comes from a seed of its
/// own.
pub fn keep_one(origin: &mut Origin, picture: usize) {
    let (Some(&seed), Some(link)) = (origin.seeds.get(picture), &origin.page) else { return };
    let scene = Scene::decode(link);
    if scene.view != View::Play {
        origin.seeds = vec![seed];
        origin.page = Some(Scene { seed, count: 1, ..scene }.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::settings::Settings;

    fn origin(seeds: Vec<u64>, page: Option<&str>) -> Origin {
        Origin {
            model: "a model".into(),
            weights_sha256: "00".into(),
            vae_sha256: None,
            seeds,
            settings: Settings { steps: 1000, ..Settings::default() },
            page: page.map(String::from),
        }
    }

    #[test]
    fn a_file_brings_back_its_scene() {
        let page = origin(vec![5], Some("view=attend&seed=5&steps=6&tour=4"));
        assert_eq!(Scene::from_origin(&page), Scene::decode("seed=5&steps=6"));
        let native = Scene::from_origin(&origin((30..36).collect(), None));
        assert_eq!((native.seed, native.count, native.settings.steps), (30, 9, 250));
        let mut wide = origin(vec![5], None);
        wide.settings.churn.s_noise = 4.0;
        let wide = Scene::from_origin(&wide);
        assert_eq!((wide.settings.churn.s_noise, wide.seed), (1.5, 5));
        assert_eq!(Scene::decode(&wide.encode()), wide);
        let many = Scene::from_origin(&origin((0..99).collect(), None));
        assert_eq!((many.seed, many.count), (0, 16));
        assert_eq!(Scene::from_origin(&origin(Vec::new(), None)).seed, 0);
    }

    #[test]
    fn one_of_several_pictures_has_a_link_of_its_own() {
        let mut one = origin(vec![5, 6, 7, 8], Some("seed=5&count=4&steps=6"));
        keep_one(&mut one, 2);
        assert_eq!((one.seeds, one.page.as_deref()), (vec![7], Some("seed=7&steps=6")));
        let between = origin(vec![5; 9], Some("view=play&seed=5"));
        let mut same = between.clone();
        keep_one(&mut same, 2);
        keep_one(&mut same, 99);
        assert_eq!(same, between);
    }
}
