//! What the scene takes from a model.

use leptos::prelude::*;

use super::Engine;
use super::browser::faults;
use crate::adapter::waits;
use crate::app::link::hash;
use crate::names::opening;
use crate::protocol::{Order, Usual};
use crate::scene::{View, has_settings};

impl Engine {
    /// Adapts the scene to the settings and classes of the model, which is the one to
    /// make pictures with: no file is left to be opened before.
    pub(super) fn settle(self) {
        let state = self.state;
        let Some(ready) = state.ready.get_untracked() else { return };
        let before = self.settled.get_value();
        let names = ready.card.class_names(ready.classes);
        let begins = opening(&names, &ready.card.class_groups);
        let anew = state.anew.get_untracked();
        match &before {
            None => {
                // Other noise levels than the paper's cannot be kept: the model has its own.
                let other = ready.usual.paper != Usual::default().paper;
                if other || !has_settings(&hash()) {
                    state.scene.update(|scene| scene.fit(&Usual::default(), &ready.usual));
                }
                if anew && !begins.is_empty() {
                    state.scene.update(|scene| scene.open(begins));
                    let scene = state.scene.read_untracked();
                    let Order { noises, settings, .. } = scene.order(ready.classes);
                    let evaluations = settings.method.evaluations(settings.steps);
                    let check = faults().check.unwrap_or(ready.check);
                    let wait = waits(ready.backend, check, noises.len(), evaluations);
                    state.wait.set(wait);
                    state.draws.set(scene.view != View::About && wait.is_none());
                }
            }
            Some(before) if before.sha256 != ready.sha256 => state.scene.update(|scene| {
                let known = before.card.class_names(before.classes);
                let named = !scene.settings.classes.is_empty();
                // Names that a visit begins with were not chosen: the other model has its own.
                let unchanged =
                    scene.settings.classes == opening(&known, &before.card.class_groups);
                scene.change_model((&before.usual, &known), (&ready.usual, &names));
                // If there were classes before, or the model before had none, there are some now.
                let none = scene.settings.classes.is_empty() && anew;
                if none && before.classes == 0 {
                    scene.open(begins);
                } else if anew && named && (none || unchanged) {
                    scene.settings.classes = begins;
                }
            }),
            // A visitor was asked to wait for another device.
            Some(before)
                if before.backend != ready.backend && state.wait.get_untracked().is_some() =>
            {
                state.wait.set(None);
                state.draws.set(state.scene.read_untracked().view != View::About);
            }
            Some(_) => {}
        }
        self.settled.set_value(Some(ready));
    }
}
