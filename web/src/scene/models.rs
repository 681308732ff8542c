//! How the scene adapts to the model: initial settings, initial classes, change of model.

use model::label::Label;

use super::{COUNTS, Scene, beside};
use crate::names::carried;
use crate::protocol::Usual;

/// The initial seed for a model with classes: a multiple of their number, so that the pictures are in
/// the order of the classes.
const OPENING_SEED: u64 = 20;

impl Scene {
    /// Replaces the settings that are usual for the previous model by those of another, if they were
    /// not changed: the initial ones or the paper's. Guidance is replaced as long as there is no
    /// class, since it has no effect then.
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

    /// Sets the labels of a new visit, unless there are some, and a seed and a number of pictures for
    /// them, unless these were changed.
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

    /// Adapts the scene to another model: settings as in [`Scene::fit`], and classes by name. Each
    /// model is given by its usual settings and the names of its classes.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Noise;
    use crate::scene::NO_CLASS;
    use model::guidance::Guidance;
    use model::settings::{Method, Settings};

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
        // Links without classes keep their meaning: no class, and defaults otherwise.
        for link in [NO_CLASS, "count=1", "seed=154"] {
            assert_eq!(Scene::decode(link), Scene::default(), "{link}");
        }
        assert_eq!(Scene::decode("steps=6").settings.classes, []);
        assert_eq!((Scene::decode("steps=6").seed, Scene::decode("steps=6").count), (154, 1));
        // A choice that was made before the model was loaded is kept.
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
    fn what_a_model_begins_with_is_taken_until_something_else_is_chosen() {
        let usual = Usual::default();
        let first =
            Settings { steps: 50, method: Method::Ddim { eta: 0.0 }, ..Settings::default() };
        let discrete = Usual { first: first.clone(), paper: first };
        let mut scene = Scene { seed: 3, ..Scene::default() };
        scene.fit(&usual, &discrete);
        assert_eq!((&scene.settings, scene.beside.steps), (&discrete.first, 6));
        scene.settings.steps = 20;
        scene.fit(&discrete, &usual);
        assert_eq!((scene.settings.steps, &scene.beside), (20, &Scene::default().beside));
        // Guidance without a class is replaced; with one it is kept.
        let guidance = Some(Guidance::default());
        let guided = Settings { guidance, ..usual.first.clone() };
        scene.fit(&usual, &Usual { first: guided, ..usual.clone() });
        assert_eq!((scene.settings.steps, scene.settings.guidance), (20, guidance));
        scene.settings.classes = vec![3.into()];
        scene.fit(&usual, &usual);
        assert_eq!(scene.settings.guidance, guidance);
    }

    #[test]
    fn another_model_keeps_what_makes_sense() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (emoji, cifar) = (names(&["otter", "ship", "dog"]), names(&["dog", "ship"]));
        let (usual, paper) = (Usual::default(), Settings::default());
        let guidance = Some(Guidance::default());
        let first =
            Settings { steps: 50, method: Method::Ddim { eta: 0.0 }, guidance, ..paper.clone() };
        let discrete = Usual { first: first.clone(), paper: first.clone() };
        let mut scene = Scene::decode("seed=3&count=4&classes=0,1,2");
        scene.change_model((&usual, &emoji), (&discrete, &cifar));
        assert_eq!((scene.seed, scene.count), (3, 4));
        assert_eq!(scene.settings, Settings { classes: vec![1.into(), 0.into()], ..first.clone() });
        // Back to the first model, with other steps and guidance.
        scene.settings.steps = 20;
        let own = Guidance { scale: 2.0, ..Guidance::default() };
        scene.settings.guidance = Some(own);
        scene.change_model((&discrete, &cifar), (&usual, &emoji));
        assert_eq!((scene.settings.steps, scene.settings.guidance), (20, Some(own)));
        assert_eq!(scene.settings.classes, [1, 2].map(Label::from));
        scene.change_model((&usual, &emoji), (&usual, &[]));
        assert_eq!(scene.settings.classes, []);
    }
}
