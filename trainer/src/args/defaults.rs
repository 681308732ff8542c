//! Defaults of the recipe in the help of `trainer train`.

use clap::{Arg, Command};
use serde_json::Value;

use crate::config::TrainConfig;

/// Preset whose values the help shows.
const PRESET: &str = "tiny-emoji";

/// Text at the end of the help of `trainer train`.
pub const NOTE: &str = "The defaults of options of the recipe are those of the preset tiny-emoji. \
`trainer train --preset NAME --dry-run` prints the options of another preset.";

/// Flags that set an option of the recipe: the flag, the place of the option in the recipe, and its
/// value if a recipe does not contain it.
const OPTIONS: [(&str, &str, &str); 19] = [
    ("data", "/data", "emoji"),
    ("resize", "/resize", "false"),
    ("skip_bad", "/skip_bad", "false"),
    ("augment", "/augment", "0"),
    ("duration", "/duration", ""),
    ("seed", "/seed", ""),
    ("class_vectors", "/class_vectors", ""),
    ("batch", "/batch", ""),
    ("gradient_checkpointing", "/gradient_checkpointing", ""),
    ("precision", "/precision", ""),
    ("lr", "/adam/lr", ""),
    ("lr_ramp", "/lr_ramp", ""),
    ("lr_decay", "/lr_decay", ""),
    ("lr_decay_shape", "/lr_decay_shape", "linear"),
    ("weight_decay", "/adam/weight_decay", "0"),
    ("optimizer", "/optimizer", ""),
    ("label_dropout", "/label_dropout", ""),
    ("immiscible", "/immiscible", ""),
    ("validate", "/validation/images", "0"),
];

/// Returns the command line with the defaults of the recipe in the help of `trainer train`.
pub fn shown(command: Command) -> Command {
    let preset = TrainConfig::preset(PRESET).and_then(|config| serde_json::to_value(config).ok());
    let preset = preset.unwrap_or_default();
    command.mut_subcommand("train", |train| {
        train.mut_args(|arg| match OPTIONS.iter().find(|of| of.0 == arg.get_id().as_str()) {
            Some((_, place, absent)) => {
                let value = match preset.pointer(place) {
                    None | Some(Value::Null) => (*absent).to_string(),
                    Some(Value::String(text)) => text.clone(),
                    Some(value) => value.to_string(),
                };
                with_default(arg, &value)
            }
            None => arg,
        })
    })
}

/// Adds the default to the help of a flag, as clap does for defaults that it knows.
fn with_default(arg: Arg, value: &str) -> Arg {
    let short = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let long = arg.get_long_help().map_or_else(|| short.clone(), ToString::to_string);
    let default = format!("[default: {value}]");
    arg.help(format!("{short} {default}")).long_help(format!("{long}\n\n{default}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn command(name: &str) -> Command {
        let mut all = shown(crate::args::Args::command());
        // Headings and global flags are set when a command is built.
        all.build();
        all.find_subcommand(name).expect("a command").clone()
    }

    const LARGE: [&str; if cfg!(feature = "metrics") { 3 } else { 2 }] = [
        "train",
        "sample",
        #[cfg(feature = "metrics")]
        "evaluate",
    ];

    #[test]
    fn flags_of_large_commands_are_below_headings() {
        for name in LARGE {
            let command = command(name);
            let mut headings = Vec::new();
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                if ["help", "version"].contains(&id) {
                    continue;
                }
                let heading = arg.get_help_heading();
                headings.push(heading.unwrap_or_else(|| panic!("{name}: {id} has no heading")));
            }
            headings.sort_unstable();
            headings.dedup();
            assert!(headings.len() >= 6, "{name}: {headings:?}");
        }
    }

    #[test]
    fn every_flag_with_a_value_has_a_default_in_its_help() {
        for name in LARGE {
            for arg in command(name).get_arguments() {
                let takes_value = arg.get_action().takes_values() && !arg.is_required_set();
                let known =
                    !arg.get_default_values().is_empty() && !arg.is_hide_default_value_set();
                let text = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
                let said = text.unwrap_or_default().to_lowercase().contains("default");
                assert!(!takes_value || known || said, "{name}: {} has no default", arg.get_id());
            }
        }
    }

    /// The values are those that a run without flags has.
    #[test]
    fn defaults_are_those_of_the_preset() {
        let config = TrainConfig::preset(PRESET).expect("a preset");
        let help = command("train").render_long_help().to_string();
        let of = |flag: &str| {
            let from = help.find(&format!("--{flag} ")).or(help.find(&format!("--{flag}\n")));
            let from = from.or(help.find(&format!("--{flag}["))).expect("a flag");
            let text = &help[from..];
            let default = text.split("[default: ").nth(1).expect("a default");
            default.split(']').next().expect("an end").to_string()
        };
        assert_eq!(of("batch"), config.batch.to_string());
        assert_eq!(of("duration"), config.duration.to_string());
        assert_eq!(of("lr").parse::<f64>(), Ok(config.adam.lr));
        assert_eq!(of("lr-ramp"), config.lr_ramp.to_string());
        assert_eq!(of("class-vectors"), "components");
        assert_eq!(of("weight-decay").parse::<f64>(), Ok(config.adam.weight_decay));
        assert_eq!(of("validate"), "0");
        for (flag, place, absent) in OPTIONS {
            let value = serde_json::to_value(&config).expect("plain data");
            assert!(value.pointer(place).is_some() || !absent.is_empty(), "{flag}: no {place}");
        }
        assert!(help.contains("preset tiny-emoji") && help.contains("--dry-run"));
    }
}
