//! The presets: settings of both panels that show one thing.

use model::schedule::Schedule;
use model::settings::{Churn, Method, Settings};

use super::{Playground, PointSet};

/// A preset.
pub struct Preset {
    /// The value of `data-testid`, after `preset-`.
    pub name: &'static str,
    /// The label.
    pub label: &'static str,
    /// What to look at.
    pub text: &'static str,
    points: PointSet,
    panels: [Panel; 2],
}

/// What presets set in a panel. Everything else is as in the paper's settings.
struct Panel {
    method: Method,
    steps: usize,
    churn: f64,
    rho: f64,
    /// The lowest level above 0 and the highest.
    levels: [f64; 2],
}

/// A panel with the usual noise levels and without churn.
const fn plain(method: Method, steps: usize) -> Panel {
    Panel { method, steps, churn: 0.0, rho: 7.0, levels: [0.002, 80.0] }
}

/// A panel without the highest and the lowest levels, at which little moves, so that the steps of a
/// comparison are not spent on them.
const fn narrow(method: Method, steps: usize) -> Panel {
    Panel { levels: [0.01, 10.0], ..plain(method, steps) }
}

/// All presets. The playground starts with the first.
pub static PRESETS: [Preset; 4] = [
    Preset {
        name: "heun",
        label: "Euler against Heun",
        text: "Both evaluate the denoiser 35 times. Euler takes 35 straight steps along the slope at \
               their start; Heun takes 18, each along the mean of the slopes at its two ends. The \
               thick lines lead from where a particle ended to where it should be. Heun needs enough \
               steps: with 9 of Euler and 5 of Heun it is the other way round.",
        points: PointSet::Spiral,
        panels: [narrow(Method::Euler, 35), narrow(Method::Heun, 18)],
    },
    Preset {
        name: "few",
        label: "Few steps",
        text: "Eleven evaluations each, one per step. iPNDM also uses the slopes of the steps before, \
               and so follows the bend that Euler misses. With few evaluations it usually comes closest \
               to the result of many steps.",
        points: PointSet::Smiley,
        panels: [plain(Method::Euler, 11), plain(Method::Ipndm { order: 4 }, 11)],
    },
    Preset {
        name: "churn",
        label: "What churn does",
        text: "The same steps, with fresh noise in B: each step first adds some (the dotted jumps, shown for \
               twenty particles), then removes more. The particles forget where they came from, and with it the errors of \
               earlier steps, so that fewer are left between the points. Heun makes smaller errors, and \
               gains little from churn.",
        points: PointSet::Ring,
        panels: [plain(Method::Euler, 40), Panel { churn: 20.0, ..plain(Method::Euler, 40) }],
    },
    Preset {
        name: "levels",
        label: "Spacing of levels",
        text: "The same method and number of steps. With ρ = 1 the noise levels are evenly spaced, and \
               nearly all steps are spent where there is only noise; ρ = 7 places them where the data \
               take shape. The marks at the slider are the levels of A and B.",
        points: PointSet::Moons,
        panels: [Panel { rho: 1.0, ..plain(Method::Heun, 18) }, plain(Method::Heun, 18)],
    },
];

impl Preset {
    /// Returns the part of the scene that the preset sets.
    pub fn playground(&self) -> Playground {
        let settings = |panel: &Panel| {
            let &Panel { method, steps, churn, rho, levels: [sigma_min, sigma_max] } = panel;
            Settings {
                method,
                steps,
                churn: Churn { s_churn: churn, ..Churn::default() },
                schedule: Schedule::Edm { sigma_min, sigma_max, rho },
                ..Settings::default()
            }
        };
        Playground { points: self.points, panels: [0, 1].map(|i| settings(&self.panels[i])) }
    }
}
