//! `trainer info`: prints the configuration, the sizes and the model card of a model.

use anstream::println;
use anyhow::{Context, bail};
use model::card::Card;
use model::config::ModelConfig;
use model::network::BlockInfo;
use model::weights::{WeightsHeader, shape_of};
use serde_json::json;

use crate::args::InfoArgs;
use crate::run::checkpoint::Checkpoint;
use crate::weights::card::card;
use crate::weights::load::read;
use crate::weights::shipped;

/// Runs the command. Of a file, the header alone is read; of a run folder, the checkpoints until an
/// undamaged one is found.
///
/// # Errors
///
/// If there is no file or preset of that name, or its header is invalid.
pub fn run(args: InfoArgs) -> anyhow::Result<()> {
    let name =
        args.model.as_deref().map_or(shipped::NAME.into(), |path| path.display().to_string());
    let preset = args.model.as_deref().and_then(|path| model::preset::by_name(path.to_str()?));
    let mut precision = None;
    let (config, card): (ModelConfig, Option<Card>) = match preset {
        Some(config) => (config, None),
        None => {
            if let Some(path) = &args.model
                && !path.exists()
            {
                let presets = model::preset::names();
                bail!("{name}: no such file or preset; the presets are {presets}");
            }
            let bytes = read(args.model.as_deref())?;
            if Checkpoint::is_checkpoint(&bytes) {
                let progress = Checkpoint::header(&bytes).context(name.clone())?;
                (progress.config.model.clone(), Some(card(&progress)))
            } else {
                let header = WeightsHeader::parse(&bytes).context(name.clone())?;
                precision = Some(header.precision);
                (header.config, Some(header.card))
            }
        }
    };

    let network = shape_of(&config);
    let parameters = network.parameter_count();
    let macs = network.macs();
    if args.json {
        let tensors = network.specs().iter().map(|spec| json!([spec.name, spec.shape]));
        let tensors: Vec<_> = if args.tensors { tensors.collect() } else { Vec::new() };
        let info = json!({
            "name": name,
            "parameters": parameters,
            "precision": precision,
            "macs": { "weights": macs.weights, "attention": macs.attention, "total": macs.total() },
            "config": config,
            "card": card,
            "tensors": tensors,
        });
        println!("{info}");
        return Ok(());
    }
    println!("{name}");
    println!("  parameters      {parameters}");
    println!(
        "  multiply-adds   {:.3} G per image, {:.3} G with the attention products",
        macs.weights as f64 / 1e9,
        macs.total() as f64 / 1e9
    );
    if let Some(precision) = precision {
        println!("  precision       {}", format!("{precision:?}").to_uppercase());
    }
    let mut number = 0;
    // Equal blocks share a line.
    for equal in network.blocks().chunk_by(|a, b| a == b) {
        let (first, last) = (number, number + equal.len() - 1);
        number = last + 1;
        let numbers =
            if first == last { format!("block {first}") } else { format!("blocks {first}-{last}") };
        let BlockInfo { part, side, channels, window: w } = equal[0];
        let attention = match w {
            0 => "no attention".to_string(),
            _ => format!("windows of {w}x{w}"),
        };
        println!("  {numbers:<15} {part}, {side}x{side}, {channels} channels, {attention}");
    }
    println!("  configuration   {}", indent(&serde_json::to_string_pretty(&config)?));
    if let Some(card) = card {
        println!("  card            {}", indent(&serde_json::to_string_pretty(&card)?));
    }
    if args.tensors {
        for spec in network.specs() {
            println!("  {:<70} {:?}", spec.name, spec.shape);
        }
    }
    Ok(())
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n  ")
}
