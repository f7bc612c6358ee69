//! `docs/bundle.schema.json` and the types of the manifest say the same.

use serde_json::{Map, Value};

use super::*;
use crate::{FoldClip, FoldForm, FoldGuidance, GuidanceBy, ImageLayout, Place};

const SCHEMA: &str = include_str!("../../../../docs/bundle.schema.json");

/// A manifest in which every field is there.
fn full() -> Value {
    let clip = Some(FoldClip { sample: 1.0, output: 1.0, limit: 1.0 });
    let step = FoldStep { timestep: 999, sample: 1.0, output: -1.5, noise: 0.5, clip };
    let tensor = GoldenTensor { name: "x".into(), dtype: "float32".into(), shape: vec![1], file: "x.raw".into() };
    let run =
        GoldenRun { component: "unet".into(), inputs: vec![tensor.clone()], outputs: vec![tensor], min_sqnr_db: 40.0 };
    let quantization = Some(PortQuantization { dtype: "uint16".into(), scale: 0.5, zero_point: -1 });
    let port = BundlePort {
        name: "x".into(),
        dtype: "float32".into(),
        shape: vec![1],
        layout: Some("N".into()),
        quantization,
    };
    let manifest = BundleManifest {
        schema: BUNDLE_SCHEMA.into(),
        producer: "edgetool".into(),
        target: BundleTarget { name: "qnn".into(), file: "target.yaml".into(), device: Some("sm8650".into()) },
        verified: Verified::Source,
        report: "report.json".into(),
        licence: vec!["model/LICENSE".into()],
        tokenizer: "model/tokenizer".into(),
        pipeline: Pipeline {
            height: 64,
            width: 64,
            batch: 1,
            latent_channels: 4,
            vae_scale_factor: 8,
            vae_scaling_factor: 1.0,
            taesd_scaling_factor: Some(1.0),
            guidance_embedding: Some(256),
        },
        fold: Some(Fold {
            form: FoldForm::PerStep,
            guidance: FoldGuidance { by: GuidanceBy::Embedding, scale: Some(8.0) },
            scheduler_step: Place::Graph,
            hoist_kv: false,
            image: ImageLayout::Nchw,
            steps: vec![step],
        }),
        sampler: BundleSampler {
            steps: vec![step],
            guidance: 8.0,
            noise: NoiseContract { generator: "torch".into(), draws: vec!["latent".into()], shape: vec![1] },
        },
        components: vec![BundleComponent {
            name: "unet".into(),
            file: "model/unet.onnx".into(),
            inputs: vec![port.clone()],
            outputs: vec![port],
        }],
        compiled: Some(Compiled {
            sdk: "v2.51".into(),
            tools: vec!["onnxruntime 1.32.0".into()],
            graphs: vec![CompiledGraph {
                component: "unet".into(),
                file: "compiled/unet_ctx.onnx".into(),
                binary: "compiled/unet_ctx_qnn.bin".into(),
                operators: 2,
                float_operators: 1,
                emulated: vec![EmulatedOutput { name: "x".into(), sqnr_db: 50.0 }],
            }],
        }),
        golden: Golden {
            prompt: "a cat".into(),
            seed: 0,
            picture: "p.png".into(),
            runs: vec![run.clone()],
            pipeline: run,
        },
        files: vec![BundleFile { path: "x".into(), size: 1, sha256: "0".repeat(64) }],
    };
    serde_json::to_value(manifest).expect("JSON")
}

/// Whether the types take the manifest.
fn reads(manifest: &Value) -> bool {
    serde_json::from_value::<BundleManifest>(manifest.clone()).is_ok()
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Map<String, Value> {
    let found = path.iter().fold(value, |value, key| match value {
        Value::Array(items) => &mut items[0],
        object => &mut object[key],
    });
    found.as_object_mut().expect("an object")
}

/// Compares the object at `path` with its schema: the same fields, and the same of them needed.
fn compare(schema: &Value, whole: &Value, path: &mut Vec<String>, seen: &mut usize) {
    let root: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).expect("a definition"),
        None => schema,
    };
    let mut copy = whole.clone();
    let object = at(&mut copy, path).clone();
    let fields = schema["properties"].as_object().expect("properties");
    let names = |map: &Map<String, Value>| map.keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(names(fields), names(&object), "{path:?}");
    assert_eq!(schema["additionalProperties"], false, "{path:?}");
    let required: Vec<&str> = schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    at(&mut copy, path).insert("more".into(), Value::Null);
    assert!(!reads(&copy), "{path:?} takes unknown fields");
    for (name, value) in &object {
        let mut less = whole.clone();
        at(&mut less, path).shift_remove(name);
        assert_eq!(reads(&less), !required.contains(&name.as_str()), "{path:?}: `{name}`");
        *seen += 1;
        let field = &fields[name];
        path.push(name.clone());
        match value {
            Value::Object(_) => compare(field, whole, path, seen),
            Value::Array(items) if items[0].is_object() => {
                path.push("0".into());
                compare(&field["items"], whole, path, seen);
                path.pop();
            }
            Value::Array(items) => scalar(&field["items"], &items[0], path),
            value => scalar(field, value, path),
        }
        path.pop();
    }
}

/// The value is of the schema's type.
fn scalar(schema: &Value, value: &Value, path: &[String]) {
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => schema["const"] == *value || schema["enum"].as_array().is_some_and(|list| list.contains(value)),
    };
    assert!(fits, "{path:?}: {value} is not {schema}");
}

#[test]
fn the_schema_and_the_types_are_one() {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let whole = full();
    assert!(reads(&whole));
    let mut seen = 0;
    compare(&schema, &whole, &mut Vec::new(), &mut seen);
    assert!(seen > 60, "{seen}");
    assert_eq!(schema["$defs"]["fold"]["properties"]["image"]["enum"].as_array().map(Vec::len), Some(4));
}
