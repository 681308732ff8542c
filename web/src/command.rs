//! The command that makes the page's pictures on the command line.

use model::classes::list;
use model::guidance::{GuidanceSchedule, GuidedChannels};
use model::schedule::Schedule;
use model::settings::{Method, Settings, Variance};

use crate::protocol::{Noise, Order};
use crate::scene::{name_of_method, respacing};

/// Returns the arguments of `trainer` that make the pictures of an order with the weights in `file`,
/// by the names of the model's classes. Returns `None` if the command line cannot make them: pictures
/// between seeds, from another picture, or without the time token.
pub fn arguments(order: &Order, file: &str, names: &[String]) -> Option<Vec<String>> {
    let seeds: Vec<u64> = order.noises.iter().filter_map(seed).collect();
    let settings = &order.settings;
    if order.guide.is_some() || settings.silence_time || seeds.len() < order.noises.len() {
        return None;
    }
    let mut args = vec!["sample".to_string()];
    let mut put = |flag: &str, value: String| args.extend([format!("--{flag}"), value]);
    put("weights", file.into());
    put("seeds", consecutive(&seeds));
    if !settings.classes.is_empty() {
        put("class", list(names, &settings.classes));
    }
    if let Some(guidance) = settings.guidance.filter(|_| !settings.classes.is_empty()) {
        put("guidance", guidance.scale.to_string());
        let power = match guidance.schedule {
            GuidanceSchedule::Constant => 0.0,
            GuidanceSchedule::PowerCosine { power } => power,
        };
        put("guidance-power", power.to_string());
        let all = guidance.channels == GuidedChannels::All;
        put("guidance-channels", if all { "all" } else { "three" }.into());
        if guidance.sigma_low > 0.0 {
            put("guidance-min", guidance.sigma_low.to_string());
        }
        if guidance.sigma_high < f64::MAX {
            put("guidance-max", guidance.sigma_high.to_string());
        }
    }
    put("sampler", name_of_method(settings.method).into());
    method(settings, &mut put);
    levels(settings, &mut put);
    if settings.churn.s_churn > 0.0 {
        let churn = settings.churn;
        put("churn", churn.s_churn.to_string());
        put("churn-min", churn.s_min.to_string());
        if churn.s_max < f64::MAX {
            put("churn-max", churn.s_max.to_string());
        }
        put("churn-noise", churn.s_noise.to_string());
    }
    if settings.clip_denoised {
        args.push("--clip-denoised".into());
    }
    Some(args)
}

/// Returns the whole command, as a shell reads it.
pub fn command(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:".contains(c);
        if argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    let words: Vec<String> = quoted.collect();
    format!("cargo run --release -p trainer -- {}", words.join(" "))
}

fn seed(noise: &Noise) -> Option<u64> {
    if let Noise::Seed(seed) = noise { Some(*seed) } else { None }
}

/// Formats seeds, which are consecutive up to an overflow, as a list of ranges.
fn consecutive(seeds: &[u64]) -> String {
    let mut ranges: Vec<[u64; 2]> = Vec::new();
    for &seed in seeds {
        match ranges.last_mut() {
            Some([_, last]) if last.checked_add(1) == Some(seed) => *last = seed,
            _ => ranges.push([seed; 2]),
        }
    }
    let range = |[first, last]: &[u64; 2]| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// Adds the options of the sampler.
fn method(settings: &Settings, put: &mut impl FnMut(&str, String)) {
    match settings.method {
        Method::Ipndm { order } | Method::Dpmpp { order } => put("order", order.to_string()),
        Method::Ddim { eta } => put("eta", eta.to_string()),
        Method::Ddpm { variance } => {
            let name = match variance {
                Variance::Learned => "learned",
                Variance::Small => "small",
                Variance::Large => "large",
            };
            put("variance", name.into());
        }
        Method::Heun | Method::Euler => {}
    }
}

/// Adds the steps and the noise levels.
fn levels(settings: &Settings, put: &mut impl FnMut(&str, String)) {
    if let Some(respacing) = respacing(settings) {
        put("respacing", respacing);
        return;
    }
    put("steps", settings.steps.to_string());
    let usual = Schedule::default();
    match settings.schedule {
        Schedule::Edm { sigma_min, sigma_max, rho } if settings.schedule != usual => {
            put("sigma-min", sigma_min.to_string());
            put("sigma-max", sigma_max.to_string());
            put("rho", rho.to_string());
        }
        Schedule::LogSnr { sigma_min, sigma_max } => {
            put("levels", "log-snr".into());
            put("sigma-min", sigma_min.to_string());
            put("sigma-max", sigma_max.to_string());
        }
        _ => {}
    }
}

/// Returns the element that shows a page with this address inside another page, without its frame.
pub fn embedding(address: &str) -> String {
    let (page, scene) = address.split_once('#').unwrap_or((address, ""));
    let address = match page.split_once('?') {
        None => format!("{page}?embed#{scene}"),
        Some((_, query)) if query.split('&').any(|word| word == "embed") => address.into(),
        Some((page, query)) => format!("{page}?embed&{query}#{scene}"),
    };
    let address = address.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<iframe src=\"{address}\" title=\"DiffiT\" width=\"960\" height=\"640\" loading=\"lazy\"></iframe>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_can_be_embedded() {
        let source = |address| {
            let element = embedding(address);
            let (_, rest) = element.split_once("src=\"").expect("a source");
            rest.split('"').next().expect("an end").to_string()
        };
        assert_eq!(source("https://a.b/c/#seed=1"), "https://a.b/c/?embed#seed=1");
        assert_eq!(
            source("https://a.b/?backend=cpu#seed=1&steps=2"),
            "https://a.b/?embed&amp;backend=cpu#seed=1&amp;steps=2"
        );
        assert_eq!(source("https://a.b/?embed#seed=1"), "https://a.b/?embed#seed=1");
        assert_eq!(source("https://a.b/"), "https://a.b/?embed#");
    }
    use crate::scene::Scene;

    fn written(link: &str) -> Option<String> {
        let names: Vec<String> = ["otter", "red heart", "o'clock"].map(String::from).into();
        let order = Scene::decode(link).order(names.len());
        Some(command(&arguments(&order, "a.safetensors", &names)?))
    }

    #[test]
    fn a_command_can_be_pasted() {
        let start = "cargo run --release -p trainer -- sample --weights a.safetensors";
        assert_eq!(
            written("seed=20&count=4&steps=12&sampler=ipndm&classes=0,1").as_deref(),
            Some(&*format!(
                "{start} --seeds 20-23 --class 'otter, red heart' --sampler ipndm --order 4 --steps 12"
            ))
        );
        let quoted = written("seed=1&classes=2").expect("a command");
        assert!(quoted.contains(r"--class 'o'\''clock'"), "{quoted}");
        // Around the last seed there are two ranges.
        let last = written("seed=18446744073709551614&count=4").expect("a command");
        assert!(last.contains("--seeds 18446744073709551614-18446744073709551615,0-1 "), "{last}");
        for link in ["view=play", "view=play&play=from", "silent=true", "view=play&play=inpaint"] {
            assert_eq!(written(link), None, "{link}");
        }
    }
}
