//! `trainer table params`: parameters and multiply-adds of networks.

use anstream::println;
use anyhow::bail;
use model::weights::shape_of;

use crate::args::{ParamsArgs, TableFormat};
use crate::comparison::table::{table, thousands};

/// A row of Table 9 of the paper.
struct Published {
    name: &'static str,
    /// Preset of the network. `None` for one that is not part of this project.
    preset: Option<&'static str>,
    /// Published parameters, in millions.
    parameters: u32,
    /// Published GFLOPs.
    gflops: u32,
}

/// Table 9: sizes of latent models at 256x256. SiT trains the network of DiT with another objective.
const TABLE_9: [Published; 4] = [
    Published { name: "DiT-XL/2", preset: Some("dit-xl2"), parameters: 675, gflops: 119 },
    Published { name: "SiT-XL/2", preset: Some("dit-xl2"), parameters: 675, gflops: 119 },
    Published { name: "MDT-G", preset: None, parameters: 700, gflops: 121 },
    Published { name: "DiffiT", preset: Some("latent256"), parameters: 561, gflops: 114 },
];

/// Runs the command.
///
/// # Errors
///
/// If there is no preset of a given name.
pub fn params(args: &ParamsArgs) -> anyhow::Result<()> {
    let (header, rows) = if args.presets.is_empty() { table_9() } else { presets(&args.presets)? };
    match args.format {
        TableFormat::Markdown => {
            print!("{}", table(&header, &rows));
            if args.presets.is_empty() {
                println!("\n{NOTE}");
            }
        }
        TableFormat::Csv => {
            for row in std::iter::once(&header).chain(&rows) {
                let plain: Vec<String> = row.iter().map(|cell| cell.replace(',', "")).collect();
                println!("{}", plain.join(","));
            }
        }
    }
    Ok(())
}

const NOTE: &str = "Multiply-adds are those of one forward pass. The products of attention, Q Kᵀ and \
A V, are counted in one column and left out of the other. The published GFLOPs fit the column with \
them for DiT and the column without them for DiffiT; counted alike, both networks take the same work, \
and DiffiT has fewer parameters. The fixed position embedding is not a parameter. The network of MDT \
is not part of this project: its sizes are those of the paper.";

/// Returns Table 9, recomputed.
fn table_9() -> (Vec<String>, Vec<Vec<String>>) {
    let header = [
        "network",
        "preset",
        "parameters",
        "multiply-adds",
        "multiply-adds with attention products",
        "parameters (published)",
        "GFLOPs (published)",
    ];
    let row = |network: &Published| {
        let mut row = vec![network.name.to_string()];
        match network.preset {
            Some(preset) => {
                row.push(preset.into());
                row.extend(sizes(preset).expect("a preset"));
            }
            None => row.resize(5, "-".into()),
        }
        row.extend([format!("{} M", network.parameters), network.gflops.to_string()]);
        row
    };
    (header.map(String::from).to_vec(), TABLE_9.iter().map(row).collect())
}

/// Returns a table of presets.
fn presets(names: &[String]) -> anyhow::Result<(Vec<String>, Vec<Vec<String>>)> {
    let all: Vec<String> =
        model::preset::all().into_iter().map(|(name, _)| name.to_string()).collect();
    let names = if names == ["all"] { &all } else { names };
    let header = ["preset", "parameters", "multiply-adds", "multiply-adds with attention products"];
    let mut rows = Vec::new();
    for name in names {
        let Some(sizes) = sizes(name) else {
            bail!("{name}: the presets are {}", model::preset::names());
        };
        let mut row = vec![name.clone()];
        row.extend(sizes);
        rows.push(row);
    }
    Ok((header.map(String::from).to_vec(), rows))
}

/// Returns the parameters and the multiply-adds by both ways of counting.
fn sizes(preset: &str) -> Option<[String; 3]> {
    let network = shape_of(&model::preset::by_name(preset)?);
    let macs = network.macs();
    let giga = |macs: u64| format!("{:.3} G", macs as f64 / 1e9);
    Some([thousands(network.parameter_count()), giga(macs.weights), giga(macs.total())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_9_is_recomputed_by_both_rules() {
        let (_, rows) = table_9();
        // Parameters without the 256 x 1152 values of the position embedding.
        let dit = ["dit-xl2", "674,834,720", "114.394 G", "118.621 G", "675 M", "119"];
        assert_eq!(rows[0][1..], dit);
        assert_eq!(rows[2], ["MDT-G", "-", "-", "-", "-", "700 M", "121"]);
        let ours = ["latent256", "561,035,232", "114.279 G", "118.507 G", "561 M", "114"];
        assert_eq!(rows[3][1..], ours);
    }

    #[test]
    fn presets_are_listed_by_name() {
        let (_, rows) = presets(&["all".into()]).expect("known");
        assert_eq!(rows.len(), model::preset::all().len());
        let error = presets(&["nothing".into()]).expect_err("unknown").to_string();
        assert!(
            error.contains("nothing: the presets are tiny-emoji") || error.contains("tiny"),
            "{error}"
        );
    }
}
