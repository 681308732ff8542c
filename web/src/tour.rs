//! The tour: six stops that explain the page, each a link to a scene.

use crate::scene::{STOPS, Scene, View};

/// A stop of the tour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stop {
    /// The title.
    pub title: &'static str,
    /// The explanation, a few sentences.
    pub text: &'static str,
    /// The view that it explains. The style sheet highlights a part of it.
    pub view: View,
    /// The step that is selected, as a part of the way from the first to the last one; `None` for
    /// the one that was selected before.
    pub at: Option<f64>,
}

/// The stops.
pub static TOUR: [Stop; STOPS] = [
    Stop {
        title: "Noise",
        text: "It starts with noise: a random number for each colour of each pixel. No picture is \
               hidden in it. The seed decides which numbers they are, so the same seed gives the \
               same picture.",
        view: View::Form,
        at: Some(0.0),
    },
    Stop {
        title: "The guess",
        text: "The model can do one thing: look at a noisy picture and guess the clean one. With \
               this much noise it can only guess a blur, the average of all the pictures that \
               could be under it.",
        view: View::Form,
        at: Some(0.25),
    },
    Stop {
        title: "Steps",
        text: "The noisy picture is moved a little towards the guess, so that less noise is left, \
               and the model guesses again. Press play: a dozen such steps lead from noise to a \
               picture. The curve shows the noise that is left.",
        view: View::Form,
        at: None,
    },
    Stop {
        title: "Attention",
        text: "To guess one patch, the model looks at others: an eye says where the other eye \
               belongs. Click on a patch of the left picture. The right one is bright where the \
               model looks to guess that patch.",
        view: View::Attend,
        at: Some(0.5),
    },
    Stop {
        title: "The time token",
        text: "Early steps settle the layout, late ones only details, so attention has to change \
               on the way. DiffiT tells every query, key and value how much noise is left: that \
               is the time token, and the bars show its share. Silence it, generate again, and \
               see what is lost.",
        view: View::Attend,
        at: Some(0.5),
    },
    Stop {
        title: "Make your own",
        text: "Type a name, add a second one to mix them, or take one at random. Then press \
               Generate. The address of the page is a link to what you see. In the view Train, a \
               model learns pictures of your own.",
        view: View::Form,
        at: None,
    },
];

/// Returns the stop of a scene, if it is on the tour.
pub fn stop(scene: &Scene) -> Option<&'static Stop> {
    TOUR.get(scene.tour.checked_sub(1)?)
}

/// Returns the scene of a stop, counted from 1: the present one in the stop's view. At 0 the tour is
/// over.
pub fn scene(scene: &Scene, tour: usize) -> Scene {
    let mut scene = Scene { tour, ..scene.clone() };
    if let Some(stop) = stop(&scene) {
        scene.view = stop.view;
    }
    scene
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_is_a_link_to_a_scene() {
        let visit = Scene::decode("seed=20&count=4&steps=12&classes=3");
        for (i, stop) in TOUR.iter().enumerate() {
            let there = scene(&visit, i + 1);
            assert_eq!(super::stop(&there), Some(stop));
            assert_eq!(there.view, stop.view);
            assert_eq!(Scene::decode(&there.address()), there);
            // The pictures stay.
            assert_eq!(there.order(9), visit.order(9));
            assert!(stop.text.len() < 320, "{}: {} letters", stop.title, stop.text.len());
            assert!(stop.at.is_none_or(|at| (0.0..=1.0).contains(&at)));
        }
        assert_eq!(super::stop(&scene(&visit, 0)), None);
        assert_eq!(super::stop(&scene(&visit, STOPS + 1)), None);
    }
}
