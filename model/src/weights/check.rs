//! Checks of a file's tensors against a configuration.

use std::collections::HashSet;

use crate::network::params::TensorSpec;
use crate::weights::error::{FLOATS, Precision, TensorProblem, WeightsError};
use crate::weights::tensor_file::TensorFile;

/// Compares the tensors of a file with those of a configuration; the file may also have the
/// `others`. Returns the precision of each tensor, and the problems found.
pub(crate) fn check<'s>(
    tensors: &TensorFile,
    specs: &'s [TensorSpec],
    others: &[(String, Vec<usize>)],
) -> (Vec<(&'s TensorSpec, Precision)>, Vec<TensorProblem>) {
    let (mut precisions, mut problems) = (Vec::new(), Vec::new());
    for spec in specs {
        let name = spec.name.clone();
        let Some(info) = tensors.info(&name) else {
            problems.push(TensorProblem::Missing { name, shape: spec.shape.clone() });
            continue;
        };
        match Precision::of(info.dtype) {
            Some(precision) => precisions.push((spec, precision)),
            None => {
                let (name, found) = (name.clone(), format!("{:?}", info.dtype));
                problems.push(TensorProblem::Type { name, found, expected: FLOATS });
            }
        }
        if info.shape != spec.shape {
            let (found, expected) = (info.shape.clone(), spec.shape.clone());
            problems.push(TensorProblem::Shape { name, found, expected });
        }
    }
    let specs = specs.iter().map(|spec| &spec.name);
    let known: HashSet<&String> = specs.chain(others.iter().map(|(name, _)| name)).collect();
    let mut unexpected = tensors.names();
    unexpected.retain(|name| !known.contains(name));
    unexpected.sort_unstable();
    problems.extend(unexpected.into_iter().map(TensorProblem::Unexpected));
    (precisions, problems)
}

/// Checks that every value of these tensors, which must be present, is finite.
pub(crate) fn check_finite(tensors: &TensorFile, specs: &[TensorSpec]) -> Result<(), WeightsError> {
    for TensorSpec { name, .. } in specs {
        let values = tensors.values(name)?.expect("its presence and its type were checked");
        if values.iter().any(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite(name.clone(), ""));
        }
    }
    Ok(())
}
