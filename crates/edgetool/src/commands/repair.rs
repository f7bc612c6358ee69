//! How `quantize` makes up for what integers cost: what it looks at while prompts are drawn, and what it does then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use edge_ir::{Checked, Graph};
use edge_quant::rounding::Rounding;
use edge_quant::{Inputs, Settings, SharedWeights, repairs};
use edge_spec::{Biases, Component, Integer, Manifest, Precision, Repaired, Scheme};

use super::calibrate::{SharedInputs, see, unshare};
use super::copies::directory;
use super::model::Model;
use crate::cli::{Quantize, Repair};
use crate::report;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repairs {
    rounding: Rounding,
    smooth: bool,
    bias: bool,
}

impl Repairs {
    /// What the arguments ask for, or what suits the scheme.
    ///
    /// # Errors
    /// If it needs prompts, and there are none.
    pub(super) fn new(args: &Quantize, scheme: Scheme) -> Result<Self> {
        let seen = args.calibration.is_some() && scheme != Scheme::Fp16;
        let usual = match (args.export_float, seen) {
            (true, _) => Rounding::MinMax,
            (false, true) => Rounding::Gptq,
            (false, false) => Rounding::Nearest,
        };
        let rounding = args.rounding.unwrap_or(usual);
        let by_default = args.repair.is_empty() && seen;
        let has = |repair: Repair| args.repair.contains(&repair);
        let repairs = Self { rounding, smooth: has(Repair::Smooth), bias: has(Repair::Bias) || by_default };
        if (repairs.rounding.needs_products() || repairs.smooth || repairs.bias) && !seen {
            let text = "nothing says what the layers read: ranges alone do not tell how to round and repair";
            return Err(report::with_hint(text, "name prompts with `--calibration FILE`, also beside `--statistics`"));
        }
        if has(Repair::None) && args.repair.len() > 1 {
            return Err(report::with_hint(
                "`--repair none` stands beside other repairs",
                "name it alone, or name the others",
            ));
        }
        if repairs.smooth && args.statistics.is_some() {
            let text = "`--repair smooth` changes what values tensors take: `--statistics` are of before";
            return Err(report::with_hint(text, "leave out `--statistics`: the prompts are drawn again"));
        }
        if repairs.rounding.needs_products() && args.export_float {
            let text = format!("`--export-float` leaves rounding to others, who do not round by {rounding}");
            return Err(report::with_hint(text, "name what they do: `--rounding min-max` or `nearest`"));
        }
        Ok(repairs)
    }

    /// What suits every scheme, where prompts are there.
    pub(super) fn usual(rounding: Option<Rounding>) -> Self {
        Self { rounding: rounding.unwrap_or(Rounding::Gptq), smooth: false, bias: true }
    }

    /// What is to be looked at in the networks that are quantized.
    pub(super) fn inputs(self, manifest: &Manifest, chosen: &[String]) -> Option<SharedInputs> {
        let products = self.rounding.needs_products();
        (products || self.bias).then(|| looking(products, manifest, chosen))
    }

    /// The weights of a folder's graphs.
    pub(super) fn weights<'a>(self, inputs: Option<&'a Inputs>, folder: &'a str) -> SharedWeights<'a> {
        SharedWeights::rounded(self.rounding, inputs, folder)
    }

    /// Smooths the networks of an opened model, if that is to be done. Gives what was done.
    pub(super) fn smooth(
        self,
        args: &Quantize,
        model: &mut Model,
        manifest: &Manifest,
        chosen: &[String],
        settings: &Settings,
    ) -> Result<Option<String>> {
        let (true, Some(prompts)) = (self.smooth, &args.calibration) else { return Ok(None) };
        let inputs = looking(false, manifest, chosen);
        see(&args.model, model, prompts, args.number, chosen, false, Some(&inputs))?;
        let inputs = unshare(inputs);
        let (mut smoothed, mut count) = (BTreeMap::new(), 0);
        for parts in manifest.components.chunk_by(|a, b| directory(a) == directory(b)) {
            let names: Vec<&str> =
                parts.iter().map(|c| c.name.as_str()).filter(|n| chosen.iter().any(|c| c == n)).collect();
            let graphs = names.iter().map(|name| model.graph(name)).collect::<Result<Vec<_>>>()?;
            let (graphs, changed) = repairs::smooth(&graphs, directory(&parts[0]), settings, &inputs)?;
            smoothed.extend(names.into_iter().map(str::to_owned).zip(graphs));
            count += changed;
        }
        if let Model::Converted { changed, .. } = model {
            *changed = smoothed;
        }
        Ok(Some(format!("  smoothed the channels of {count} norms and layers")))
    }

    /// A float graph with corrected biases, if that is to be done.
    pub(super) fn correct(
        self,
        graph: Checked<Graph>,
        settings: &Settings,
        inputs: Option<&Inputs>,
        shared: &mut SharedWeights<'_>,
    ) -> Result<Checked<Graph>> {
        let Some(inputs) = inputs.filter(|_| self.bias) else { return Ok(graph) };
        Ok(repairs::correct_biases(&graph, settings, inputs, shared)?.0)
    }

    /// The names of the repairs.
    pub(super) fn repairs(self) -> Vec<String> {
        let all = [(self.smooth, "smooth"), (self.bias, "bias")];
        all.iter().filter(|row| row.0).map(|row| row.1.to_owned()).collect()
    }

    /// How weights become integers.
    pub(super) fn rounding(self) -> String {
        self.rounding.to_string()
    }

    /// What a manifest says of float graphs for others to quantize.
    pub(super) fn record(self, scheme: Scheme, components: &[String]) -> Repaired {
        Repaired { scheme, rounding: self.rounding(), repairs: self.repairs(), components: components.to_vec() }
    }
}

/// The types of an SDK that quantizes float graphs itself, and does not say which.
pub(super) fn usual(scheme: Scheme) -> Precision {
    Precision {
        schemes: vec![scheme],
        activations_16: Integer::Uint16,
        activations_8: Integer::Uint8,
        block: None,
        weights_16: false,
        biases: Biases::Float,
        matmul_second_16: None,
        depthwise_16: None,
        depthwise_scales_16: None,
        multiplier_bits_16: None,
        gains: BTreeMap::new(),
        exceptions: Vec::new(),
    }
}

fn looking(products: bool, manifest: &Manifest, chosen: &[String]) -> SharedInputs {
    let components = manifest.components.iter().filter(|c| chosen.contains(&c.name));
    let folder = |c: &Component| (c.name.clone(), directory(c).to_owned());
    Arc::new(Mutex::new(Inputs::new(products, components.map(folder).collect())))
}
