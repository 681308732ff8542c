//! Reference statistics: mean and covariance of the features of a data set.
//!
//! | array | contents | EDM | ADM |
//! |---|---|---|---|
//! | `mu`, `sigma` | mean and covariance of the pooled features | yes | yes |
//! | `mu_s`, `sigma_s` | mean and covariance of the spatial features | no | yes |
//! | `arr_0` | images of the data set, `uint8` `[N, H, W, 3]` | no | yes |
//! | `features` | pooled features of some images, for precision, recall and KID | no | no |
//! | `info.json` | the feature network and the data set ([`Info`]) | no | no |

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::MetricsError;
use crate::network::Identity;
use crate::network::tensors::sha256_of_file;
use crate::npz::{Npz, NpzWriter};
use crate::rows::Memory;
use crate::statistics::Gaussian;

/// Origin of reference statistics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Feature network.
    pub network: Identity,
    /// Number of images.
    pub images: usize,
    /// Data set.
    pub data: String,
    /// Program that computed them.
    pub made_with: String,
}

/// Reference statistics.
pub struct Reference {
    /// File.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Mean and covariance of the pooled features.
    pub pooled: Option<Gaussian>,
    /// Mean and covariance of the spatial features.
    pub spatial: Option<Gaussian>,
    /// Pooled features of some images.
    pub features: Option<Memory>,
    /// Whether the file has images, whose features can be computed.
    pub has_images: bool,
    /// Origin, if this project's program made the file.
    pub info: Option<Info>,
}

impl Reference {
    /// Reads reference statistics.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has neither statistics nor images.
    pub fn open(path: &Path) -> Result<Self, MetricsError> {
        let mut npz = Npz::open(path)?;
        let has_images = npz.has("arr_0");
        let pooled = gaussian(&mut npz, path, ["mu", "sigma"])?;
        let spatial = gaussian(&mut npz, path, ["mu_s", "sigma_s"])?;
        if pooled.is_none() && !has_images {
            let reason = "has no statistics (arrays mu and sigma) and no images (array arr_0); \
                          `trainer metrics reference` writes reference statistics";
            return Err(MetricsError::file(path, reason));
        }
        let features = match npz.array("features")? {
            Some(array) => match array.shape[..] {
                [_, dim] if dim > 0 => {
                    let values = array.values.iter().map(|value| *value as f32).collect();
                    Some(Memory::new(values, dim))
                }
                _ => {
                    let reason = format!("array features: its shape is {:?}", array.shape);
                    return Err(MetricsError::file(path, reason));
                }
            },
            None => None,
        };
        let info = match npz.text("info.json")? {
            Some(text) => Some(
                serde_json::from_str(&text)
                    .map_err(|e| MetricsError::file(path, format!("entry info.json: {e}")))?,
            ),
            None => None,
        };
        let sha256 = sha256_of_file(path)?;
        Ok(Self { path: path.to_owned(), sha256, pooled, spatial, features, has_images, info })
    }

    /// Checks that samples of a feature network can be compared with the reference: the network of
    /// the reference, if the file names it, and the dimensions.
    ///
    /// # Errors
    ///
    /// If they cannot.
    pub fn check(
        &self,
        network: &Identity,
        [pooled, spatial]: [usize; 2],
    ) -> Result<(), MetricsError> {
        let wrong = |reason: String| Err(MetricsError::file(&self.path, reason));
        if let Some(info) = &self.info {
            let (found, expected) = (&info.network, network);
            if found.kind != expected.kind || found.weights_sha256 != expected.weights_sha256 {
                return wrong(format!(
                    "these are statistics of another feature network (SHA-256 of its weights {}, \
                     not {}); `trainer metrics reference` computes them with this one",
                    found.weights_sha256, expected.weights_sha256
                ));
            }
        }
        let features = self.features.as_ref().map(crate::rows::Rows::dim);
        for (name, found, expected) in [
            ("mu", self.pooled.as_ref().map(Gaussian::dim), pooled),
            ("mu_s", self.spatial.as_ref().map(Gaussian::dim), spatial),
            ("features", features, pooled),
        ] {
            if let Some(found) = found.filter(|found| *found != expected) {
                return wrong(format!(
                    "array {name} has {found} features, but this feature network has {expected}: \
                     these are statistics of another network"
                ));
            }
        }
        Ok(())
    }
}

/// Reads a mean and a covariance.
fn gaussian(
    npz: &mut Npz,
    path: &Path,
    [mean, covariance]: [&str; 2],
) -> Result<Option<Gaussian>, MetricsError> {
    let (mu, sigma) = match (npz.array(mean)?, npz.array(covariance)?) {
        (None, None) => return Ok(None),
        (Some(mu), Some(sigma)) => (mu, sigma),
        _ => {
            let reason = format!("has only one of the arrays {mean} and {covariance}");
            return Err(MetricsError::file(path, reason));
        }
    };
    match (&mu.shape[..], &sigma.shape[..]) {
        (&[n], &[rows, columns]) if n > 0 && n == rows && n == columns => {}
        _ => {
            let reason = format!(
                "array {mean} has the shape {:?} and array {covariance} {:?}, not [n] and [n, n]",
                mu.shape, sigma.shape
            );
            return Err(MetricsError::file(path, reason));
        }
    }
    Gaussian::new(mu.values, sigma.values).map(Some).map_err(|error| {
        MetricsError::file(path, format!("arrays {mean} and {covariance}: {error}"))
    })
}

/// Returns an `.npz` file of reference statistics. `features` are pooled features `[N, dim]`.
///
/// # Errors
///
/// If the file becomes too large.
pub fn to_bytes(
    info: &Info,
    pooled: &Gaussian,
    spatial: Option<&Gaussian>,
    features: &[f32],
) -> std::io::Result<Vec<u8>> {
    let mut npz = NpzWriter::default();
    let mut add = |names: [&str; 2], gaussian: &Gaussian| {
        let n = gaussian.dim();
        npz.array(names[0], &[n], &gaussian.mean)?;
        npz.array(names[1], &[n, n], &gaussian.covariance)
    };
    add(["mu", "sigma"], pooled)?;
    if let Some(spatial) = spatial {
        add(["mu_s", "sigma_s"], spatial)?;
    }
    if !features.is_empty() {
        npz.array("features", &[features.len() / pooled.dim(), pooled.dim()], features)?;
    }
    npz.text("info.json", &serde_json::to_string_pretty(info)?)?;
    npz.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Kind;
    use crate::rows::Rows;

    fn info() -> Info {
        let network = Identity {
            kind: Kind::Inception,
            file_sha256: "ab".into(),
            weights_sha256: "cd".into(),
            published: false,
        };
        Info { network, images: 7, data: "data".into(), made_with: "test".into() }
    }

    fn small(shift: f64) -> Gaussian {
        Gaussian::new(vec![shift, 2.0], vec![1.0, 0.5, 0.5, 3.0]).expect("finite")
    }

    fn open(npz: impl FnOnce(&mut NpzWriter)) -> Result<Reference, MetricsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.npz");
        let mut writer = NpzWriter::default();
        npz(&mut writer);
        std::fs::write(&path, writer.finish().expect("small")).expect("written");
        Reference::open(&path)
    }

    #[test]
    fn statistics_come_back_as_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.npz");
        let file = to_bytes(&info(), &small(1.0), Some(&small(4.0)), &[1.0, 2.0, 3.0, 4.0]);
        std::fs::write(&path, file.expect("small")).expect("written");
        let found = Reference::open(&path).expect("there");
        assert_eq!(
            (found.pooled.as_ref(), found.spatial.as_ref()),
            (Some(&small(1.0)), Some(&small(4.0)))
        );
        assert_eq!(found.info, Some(info()));
        let features = found.features.as_ref().expect("there");
        assert_eq!(features.read(0..2).expect("in memory"), [1.0, 2.0, 3.0, 4.0]);
        found.check(&info().network, [2, 2]).expect("the same network");
        let error = found.check(&info().network, [2, 3]).expect_err("another").to_string();
        assert!(error.contains("r.npz: array mu_s has 2 features"), "{error}");
        let other = Identity { weights_sha256: "ef".into(), ..info().network };
        let error = found.check(&other, [2, 2]).expect_err("another").to_string();
        assert!(
            error.contains("r.npz: these are statistics of another feature network"),
            "{error}"
        );
    }

    #[test]
    fn files_of_edm_have_two_arrays_and_files_of_adm_five() {
        let edm = |npz: &mut NpzWriter| {
            npz.array("mu", &[2], &[1.0f64, 2.0]).expect("written");
            npz.array("sigma", &[2, 2], &[1.0f64, 0.5, 0.5, 3.0]).expect("written");
        };
        let found = open(edm).expect("statistics");
        assert_eq!(found.pooled, Some(small(1.0)));
        assert!(found.spatial.is_none() && !found.has_images && found.info.is_none());
        let found = open(|npz| {
            edm(npz);
            npz.array("mu_s", &[1], &[1.0f32]).expect("written");
            npz.array("sigma_s", &[1, 1], &[2.0f32]).expect("written");
            npz.array("arr_0", &[1, 1, 1, 3], &[1u8, 2, 3]).expect("written");
        })
        .expect("statistics");
        let spatial = found.spatial.expect("there");
        assert_eq!((spatial.mean, spatial.covariance), (vec![1.0], vec![2.0]));
        assert!(found.has_images);
    }

    #[test]
    fn unusable_statistics_are_named() {
        let one = |name: &str, shape: &[usize], values: &[f64]| {
            let (name, shape, values) = (name.to_string(), shape.to_vec(), values.to_vec());
            move |npz: &mut NpzWriter| npz.array(&name, &shape, &values).expect("written")
        };
        let error = |result: Result<Reference, MetricsError>| match result {
            Ok(_) => panic!("it is not usable"),
            Err(error) => error.to_string(),
        };
        assert!(error(open(|_| {})).contains("r.npz: has no statistics"));
        assert!(error(open(one("mu", &[2], &[1.0, 2.0]))).contains("only one of the arrays mu"));
        let text = error(open(|npz| {
            one("mu", &[2], &[1.0, 2.0])(npz);
            one("sigma", &[1, 1], &[1.0])(npz);
        }));
        assert!(text.contains("array mu has the shape [2] and array sigma [1, 1]"), "{text}");
        let text = error(open(|npz| {
            one("mu", &[1], &[f64::NAN])(npz);
            one("sigma", &[1, 1], &[1.0])(npz);
        }));
        assert!(
            text.contains("r.npz: arrays mu and sigma") && text.contains("not finite"),
            "{text}"
        );
    }
}
