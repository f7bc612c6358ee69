//! How `quantize` makes up for what integers cost: what it looks at while prompts are drawn, and what it does then.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use edge_quant::rounding::Rounding;
use edge_quant::{Inputs, SharedWeights};
use edge_spec::{Manifest, Scheme};

use super::calibrate::SharedInputs;
use super::copies::directory;
use crate::cli::{self, Quantize};
use crate::report;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) rounding: Rounding,
}

impl Plan {
    /// What the arguments ask for, or what suits the scheme.
    ///
    /// # Errors
    /// If it needs prompts, and there are none.
    pub(super) fn new(args: &Quantize, scheme: Scheme) -> Result<Self> {
        let rounding = match args.rounding {
            Some(cli::Rounding::Nearest) => Rounding::Nearest,
            Some(cli::Rounding::SequentialMse) => Rounding::SequentialMse,
            Some(cli::Rounding::Gptq) => Rounding::Gptq,
            None if args.calibration.is_some() && scheme != Scheme::Fp16 => Rounding::Gptq,
            None => Rounding::Nearest,
        };
        if rounding != Rounding::Nearest && args.calibration.is_none() {
            let text = "nothing says what the layers read: ranges alone do not tell how to round weights";
            return Err(report::with_hint(text, "name prompts with `--calibration FILE`, also beside `--statistics`"));
        }
        Ok(Self { rounding })
    }

    /// What is to be looked at.
    pub(super) fn inputs(self, manifest: &Manifest, chosen: &[String]) -> Option<SharedInputs> {
        let components = manifest.components.iter().filter(|c| chosen.contains(&c.name));
        let folders = components.map(|c| (c.name.clone(), directory(c).to_owned())).collect();
        let products = self.rounding != Rounding::Nearest;
        products.then(|| Arc::new(Mutex::new(Inputs::new(products, folders))))
    }

    /// The weights of a folder's graphs.
    pub(super) fn weights<'a>(self, inputs: Option<&'a Inputs>, folder: &'a str) -> SharedWeights<'a> {
        inputs.map_or_else(SharedWeights::default, |inputs| SharedWeights::rounded(self.rounding, inputs, folder))
    }
}
