//! Configurations are read strictly, and the forms in which a checkpoint is published all give the same graphs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use edge_import::{Error, Options, WeightType, import};
use edge_ir::dump;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("tests/fixtures").join(name)
}

/// A copy of a fixture's checkpoint.
struct Changed(TempDir);

impl Changed {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(&fixture(name), &dir.path().join("checkpoint"));
        Self(dir)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("checkpoint")
    }

    fn edit(&self, file: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.root().join(file);
        let mut fields = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut fields);
        fs::write(path, Value::Object(fields).to_string()).unwrap();
    }

    fn edit_tensors(&self, file: &str, edit: impl FnOnce(&mut Tensors)) {
        let mut tensors = read_tensors(&self.root().join(file));
        edit(&mut tensors);
        write_tensors(&self.root().join(file), &tensors);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.root().join(from), self.root().join(to)).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            copy_folder(&path, &to.join(name));
        } else if !name.starts_with("golden") && name != "single_file.safetensors" {
            fs::write(to.join(name), fs::read(&path).unwrap()).unwrap();
        }
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let parts = |v: TensorView<'_>| (v.dtype(), v.shape().to_vec(), v.data().to_vec());
    file.tensors().into_iter().map(|(name, view)| (name, parts(view))).collect()
}

fn write_tensors(path: &Path, tensors: &Tensors) {
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Everything of all graphs: texts, and the bytes of all constants.
type Graphs = Vec<(String, BTreeMap<String, Vec<u8>>)>;

#[track_caller]
fn graphs(path: &Path, options: Options) -> Graphs {
    let imported = import(path, None, options).unwrap_or_else(|e| panic!("{e}"));
    let constants = |graph: &edge_ir::Graph| {
        graph.initializers().map(|(_, v, d)| (v.name.clone(), d.bytes().into_owned())).collect()
    };
    imported.model.components.iter().map(|(_, graph)| (dump(graph), constants(graph))).collect()
}

/// A changed copy of a fixture gives the same graphs as the fixture.
#[track_caller]
fn same(name: &str, change: impl FnOnce(&Changed)) {
    let copy = Changed::of(name);
    change(&copy);
    let (found, expected) = (graphs(&copy.root(), Options::default()), graphs(&fixture(name), Options::default()));
    assert_eq!(found.len(), 5);
    assert!(found == expected, "{name}: the graphs differ");
}

/// One field of sd15's configurations, changed, is refused with these words.
#[track_caller]
fn check(component: &str, field: &str, value: Value, expected: &str) {
    let copy = Changed::of("sd15");
    let file = format!("{component}/config.json");
    copy.edit(&file, |fields| drop(fields.insert(field.to_owned(), value)));
    let error = import(&copy.root(), None, Options::default()).expect_err(field);
    assert!(matches!(error, Error::Field { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("`{}`: field `{expected}", copy.root().join(file).display()));
}

#[test]
fn unet_fields_that_are_not_implemented() {
    for (field, value, supported) in [
        ("center_input_sample", json!(true), "false"),
        ("only_cross_attention", json!(true), "false or [false,false,false] or [false,false,false,false]"),
        ("downsample_padding", json!(0), "1"),
        ("mid_block_scale_factor", json!(2), "1 or 1.0"),
        ("act_fn", json!("gelu"), "\"silu\" or \"swish\""),
        ("reverse_transformer_layers_per_block", json!([[1]]), "null"),
        ("encoder_hid_dim", json!(768), "null"),
        ("encoder_hid_dim_type", json!("text_proj"), "null"),
        ("num_attention_heads", json!(8), "null"),
        ("dual_cross_attention", json!(true), "false"),
        ("class_embed_type", json!("timestep"), "null"),
        ("addition_embed_type", json!("text_time"), "null"),
        ("addition_time_embed_dim", json!(256), "null"),
        ("num_class_embeds", json!(10), "null"),
        ("resnet_time_scale_shift", json!("scale_shift"), "\"default\""),
        ("resnet_skip_time_act", json!(true), "false"),
        ("resnet_out_scale_factor", json!(1.5), "1.0 or 1"),
        ("time_embedding_type", json!("fourier"), "\"positional\""),
        ("time_embedding_dim", json!(64), "null"),
        ("time_embedding_act_fn", json!("silu"), "null"),
        ("timestep_post_act", json!("silu"), "null"),
        ("conv_in_kernel", json!(5), "3"),
        ("conv_out_kernel", json!(1), "3"),
        ("projection_class_embeddings_input_dim", json!(2816), "null"),
        ("attention_type", json!("gated"), "\"default\""),
        ("class_embeddings_concat", json!(true), "false"),
        ("mid_block_only_cross_attention", json!(true), "null or false"),
        ("cross_attention_norm", json!("layer_norm"), "null"),
        ("flip_sin_to_cos", json!(1), "true or false"),
        ("freq_shift", json!(-1), "a whole number"),
        ("norm_eps", json!("1e-5"), "a number"),
        ("time_cond_proj_dim", json!(0), "a positive whole number"),
        ("in_channels", json!("4"), "a positive whole number"),
        ("sample_size", json!([8, 8, 8]), "a positive whole number or two"),
        ("block_out_channels", json!([]), "a list of positive whole numbers"),
        ("layers_per_block", json!([2, 2, -2, 2]), "a list of positive whole numbers"),
        ("transformer_layers_per_block", json!([1, 1, [1], 1]), "a list of positive whole numbers"),
        ("surprise", json!(null), "only configurations without this field, which is not implemented"),
        ("surprise", json!("x"), "only configurations without this field, which is not implemented"),
    ] {
        let expected = format!("{field}` is {value}, supported: {supported}");
        check("unet", field, value, &expected);
    }
    for (field, value, expected) in [
        ("_class_name", json!("UNet2DModel"), "is UNet2DModel, supported: UNet2DConditionModel"),
        ("mid_block_type", json!("UNetMidBlock2D"), "is UNetMidBlock2D, supported: UNetMidBlock2DCrossAttn"),
        (
            "down_block_types",
            json!(["DownBlock2D", "AttnDownBlock2D"]),
            "is [\"DownBlock2D\",\"AttnDownBlock2D\"], supported: a list of CrossAttnDownBlock2D, DownBlock2D",
        ),
        ("up_block_types", json!(["UpBlock2D"]), "is a list of 1, supported: a list of 4, as block_out_channels is"),
        ("attention_head_dim", json!(5), "is 5, supported: a divisor of 16: it is the number of heads"),
        ("attention_head_dim", json!([4, 4]), "is [4, 4], supported: one number, or a list of 4"),
        ("norm_num_groups", json!(7), "is 7, supported: a divisor of 16"),
        ("cross_attention_dim", json!(64), "is 64, supported: 32, the text encoder's hidden_size"),
    ] {
        check("unet", field, value, &format!("{field}` {expected}"));
    }
    let expected = "in_channels, out_channels` is 9 and 4, supported: 4, the VAE's latent_channels";
    check("unet", "in_channels", json!(9), expected);
}

#[test]
fn fields_of_the_other_networks_that_are_not_implemented() {
    for (component, field, value, expected) in [
        ("vae", "_class_name", json!("VQModel"), "is VQModel, supported: AutoencoderKL"),
        ("vae", "act_fn", json!("relu"), "is \"relu\", supported: \"silu\" or \"swish\""),
        ("vae", "shift_factor", json!(0.1), "is 0.1, supported: null or 0.0 or 0"),
        ("vae", "latents_mean", json!([0.0]), "is [0.0], supported: null"),
        ("vae", "latents_std", json!([1.0]), "is [1.0], supported: null"),
        ("vae", "norm_num_groups", json!(3), "is 3, supported: a divisor of 8"),
        ("vae", "mid_block_add_attention", json!("no"), "is \"no\", supported: true or false"),
        ("vae", "scaling_factor", json!("x"), "is \"x\", supported: a number"),
        ("vae", "down_block_types", json!(["X"]), "is [\"X\"], supported: a list of DownEncoderBlock2D"),
        (
            "vae",
            "surprise",
            json!(1),
            "is 1, supported: only configurations without this field, which is not implemented",
        ),
        ("text_encoder", "hidden_act", json!("relu"), "is relu, supported: quick_gelu, gelu"),
        ("text_encoder", "num_attention_heads", json!(5), "is 5, supported: a divisor of hidden_size 32"),
        ("text_encoder", "use_attention_mask", json!(true), "is true, supported: false"),
        ("text_encoder", "vocab_size", json!(1.5), "is 1.5, supported: a positive whole number"),
        (
            "text_encoder",
            "surprise",
            json!(1),
            "is 1, supported: only configurations without this field, which is not implemented",
        ),
        ("taesd", "act_fn", json!("silu"), "is \"silu\", supported: \"relu\""),
        ("taesd", "upsample_fn", json!("linear"), "is \"linear\", supported: \"nearest\""),
        ("taesd", "upsampling_scaling_factor", json!(4), "is 4, supported: 2"),
        (
            "taesd",
            "num_decoder_blocks",
            json!([3, 3]),
            "is a list of 2, supported: a list of 4, as decoder_block_out_channels is",
        ),
    ] {
        check(component, field, value, &format!("{field}` {expected}"));
    }
}

#[test]
fn fields_without_effect_have_none() {
    for (component, field, value) in [
        ("unet", "dropout", json!(0.5)),
        ("unet", "upcast_attention", json!(true)),
        ("unet", "_name_or_path", json!("somewhere")),
        ("unet", "sample_size", json!([8, 8])),
        ("unet", "act_fn", json!("swish")),
        ("unet", "attention_head_dim", json!([4, 4, 4, 4])),
        ("unet", "layers_per_block", json!([2, 2, 2, 2])),
        ("vae", "force_upcast", json!(false)),
        ("vae", "sample_size", json!(1024)),
        ("vae", "shift_factor", json!(0.0)),
        ("text_encoder", "projection_dim", json!(7)),
        ("text_encoder", "eos_token_id", json!(2)),
        ("taesd", "num_encoder_blocks", json!([9])),
    ] {
        let change = |c: &Changed| {
            c.edit(&format!("{component}/config.json"), |fields| drop(fields.insert(field.to_owned(), value)));
        };
        same("sd15", change);
    }
}

#[test]
fn absent_fields_have_the_libraries_defaults() {
    same("sd15", |c| {
        // A mid block that is null is none; one that is not mentioned is the usual one.
        c.edit("unet/config.json", |fields| {
            fields.retain(|_, v| !v.is_null());
            for field in ["mid_block_type", "flip_sin_to_cos", "freq_shift", "layers_per_block", "norm_eps", "act_fn"] {
                fields.shift_remove(field).expect(field);
            }
        });
        c.edit("vae/config.json", |fields| {
            fields.retain(|_, v| !v.is_null());
            for field in ["scaling_factor", "use_quant_conv", "mid_block_add_attention", "_class_name"] {
                fields.shift_remove(field).expect(field);
            }
        });
        c.edit("text_encoder/config.json", |fields| {
            for field in ["hidden_act", "max_position_embeddings", "layer_norm_eps"] {
                fields.shift_remove(field).expect(field);
            }
        });
    });
}

#[test]
fn text_keys_with_and_without_their_prefix() {
    same("sd15", |c| {
        c.edit_tensors(TEXT, |t| {
            *t = std::mem::take(t).into_iter().map(|(name, tensor)| (format!("text_model.{name}"), tensor)).collect();
        });
    });
    for name in ["edgefusion", "sd2"] {
        same(name, |c| {
            c.edit_tensors(TEXT, |t| {
                let bare = |name: String| name.strip_prefix("text_model.").expect("a prefix").to_owned();
                *t = std::mem::take(t).into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
            });
        });
    }
}

#[test]
fn position_ids_are_left_out() {
    let ids = || {
        let bytes = (0..77_i64).flat_map(i64::to_le_bytes).collect();
        (Dtype::I64, vec![1, 77], bytes)
    };
    for (name, key) in [("sd15", "embeddings.position_ids"), ("sd2", "text_model.embeddings.position_ids")] {
        same(name, |c| c.edit_tensors(TEXT, |t| drop(t.insert(key.into(), ids()))));
    }
}

#[test]
fn old_names_of_the_vae_attention() {
    let old = |name: &str| {
        let pairs = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
        pairs.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
    };
    for name in ["edgefusion", "sd15", "sd2"] {
        for as_convolution in [false, true] {
            same(name, |c| {
                c.edit_tensors(VAE, |t| {
                    let renamed = std::mem::take(t).into_iter().map(|(name, (dtype, mut shape, bytes))| {
                        let new = old(&name);
                        if as_convolution && new != name && shape.len() == 2 {
                            shape.extend([1, 1]);
                        }
                        (new, (dtype, shape, bytes))
                    });
                    *t = renamed.collect();
                    assert_eq!(t.keys().filter(|k| k.contains(".query.")).count(), 4);
                });
            });
        }
    }
}

#[test]
fn prompts_of_any_length() {
    let copy = Changed::of("edgefusion");
    copy.edit("text_encoder/config.json", |config| drop(config.insert("max_position_embeddings".into(), json!(5))));
    copy.edit_tensors("text_encoder/model.safetensors", |tensors| {
        let name = tensors.keys().find(|k| k.ends_with("position_embedding.weight")).unwrap().clone();
        let (_, shape, bytes) = tensors.get_mut(&name).unwrap();
        bytes.truncate(bytes.len() / shape[0] * 5);
        shape[0] = 5;
    });
    let model = import(&copy.root(), None, Options::default()).unwrap().model;
    let shape = |component: &str, input: usize| {
        let graph = &model.components[component];
        graph.ty(graph.inputs[input]).shape.clone()
    };
    assert_eq!(shape("text_encoder", 0), [1, 5]);
    assert_eq!(shape("unet", 3)[..2], [1, 5]);
}

#[test]
fn weights_in_shards() {
    for name in ["edgefusion", "sd15", "sd2"] {
        same(name, |c| {
            let tensors = read_tensors(&c.root().join(UNET));
            let file = |i: usize| format!("diffusion_pytorch_model-{:05}-of-00003.safetensors", i + 1);
            let (mut shards, mut map) = (vec![Tensors::new(); 3], Map::new());
            for (index, (name, tensor)) in tensors.into_iter().enumerate() {
                map.insert(name.clone(), json!(file(index % 3)));
                shards[index % 3].insert(name, tensor);
            }
            for (index, shard) in shards.iter().enumerate() {
                write_tensors(&c.root().join("unet").join(file(index)), shard);
            }
            let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
            fs::write(c.root().join(format!("{UNET}.index.json")), index.to_string()).unwrap();
            fs::remove_file(c.root().join(UNET)).unwrap();
        });
    }
}

#[test]
fn files_of_the_16_bit_variant() {
    same("sd15", |c| {
        c.rename(UNET, "unet/diffusion_pytorch_model.fp16.safetensors");
        c.rename(VAE, "vae/diffusion_pytorch_model.fp16.safetensors");
        c.rename(TEXT, "text_encoder/model.fp16.safetensors");
    });
}

#[test]
fn the_tiny_decoder_has_any_name() {
    same("sd2", |c| c.rename("taesd", "a_tiny_vae"));
}

#[test]
fn weights_of_any_width_are_the_same_numbers() {
    let options = Options { weights: WeightType::Float32, ..Options::default() };
    for name in ["sd15", "sd2"] {
        let copy = Changed::of(name);
        for file in [UNET, VAE, TEXT, "taesd/diffusion_pytorch_model.safetensors"] {
            copy.edit_tensors(file, |tensors| {
                for (dtype, _, bytes) in tensors.values_mut() {
                    let from = match dtype {
                        Dtype::F16 => edge_ir::DType::Float16,
                        Dtype::BF16 => edge_ir::DType::BFloat16,
                        other => panic!("{other:?}"),
                    };
                    let wide = edge_ir::Data::owned(bytes.clone()).cast(from, edge_ir::DType::Float32).unwrap();
                    (*dtype, *bytes) = (Dtype::F32, wide.bytes().into_owned());
                }
            });
        }
        let expected = graphs(&fixture(name), options);
        assert!(graphs(&copy.root(), options) == expected, "{name}: cast on the way");
        assert!(graphs(&copy.root(), Options::default()) == expected, "{name}: stored");
    }
}

/// Moves a checkpoint into the layout of the Hugging Face cache, as one snapshot of links into `blobs`.
fn into_cache(copy: &Changed) -> PathBuf {
    let entry = copy.0.path().join("models--someone--something");
    let snapshot = entry.join("snapshots/0123abcd");
    fs::create_dir_all(entry.join("blobs")).unwrap();
    fs::create_dir_all(entry.join("refs")).unwrap();
    fs::write(entry.join("refs/main"), "0123abcd").unwrap();
    link_files(&copy.root(), &snapshot, "../../blobs", &entry.join("blobs"));
    fs::remove_dir_all(copy.root()).unwrap();
    entry
}

fn link_files(from: &Path, to: &Path, blobs_from_here: &str, blobs: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            link_files(&path, &target, &format!("../{blobs_from_here}"), blobs);
        } else {
            let blob = format!("{:04}", fs::read_dir(blobs).unwrap().count());
            fs::rename(&path, blobs.join(&blob)).unwrap();
            std::os::unix::fs::symlink(format!("{blobs_from_here}/{blob}"), target).unwrap();
        }
    }
}

#[test]
fn an_entry_of_the_hugging_face_cache() {
    for name in ["edgefusion", "sd15", "sd2"] {
        let copy = Changed::of(name);
        let entry = into_cache(&copy);
        let expected = graphs(&fixture(name), Options::default());
        let snapshot = entry.join("snapshots/0123abcd");
        assert!(graphs(&entry, Options::default()) == expected, "{name}: by refs/main");
        assert!(graphs(&snapshot, Options::default()) == expected, "{name}: the snapshot itself");
        fs::remove_dir_all(entry.join("refs")).unwrap();
        assert!(graphs(&entry, Options::default()) == expected, "{name}: the only snapshot");
        fs::create_dir(entry.join("snapshots/4567")).unwrap();
        let error = import(&entry, None, Options::default()).expect_err("two snapshots, none of them named");
        let expected = "does not hold the snapshot of refs/main: name one of its folders";
        assert_eq!(error.to_string(), format!("`{}` {expected}", entry.join("snapshots").display()));
    }
}

#[test]
fn an_original_layout_file_with_or_without_what_training_leaves() {
    let options = Options::default();
    let copy = Changed::of("sd15");
    let file = copy.0.path().join("single.safetensors");
    let mut tensors = read_tensors(&fixture("sd15/single_file.safetensors"));
    let extra = || (Dtype::F32, vec![2], vec![0; 8]);
    for name in ["betas", "sqrt_alphas_cumprod", "model_ema.decay", "cond_stage_model.logit_scale"] {
        tensors.insert(name.into(), extra());
    }
    write_tensors(&file, &tensors);
    let content =
        |imported: edge_import::Imported| imported.model.components.iter().map(|(_, g)| dump(g)).collect::<Vec<_>>();
    let expected = content(import(&fixture("sd15"), None, options).unwrap());
    assert_eq!(content(import(&file, Some(&copy.root()), options).unwrap()), expected);
    for (name, component) in [
        ("control_model.x", "the checkpoint"),
        ("model.diffusion_model.x", "unet"),
        ("first_stage_model.x", "vae"),
        ("cond_stage_model.transformer.x", "text_encoder"),
    ] {
        let mut more = tensors.clone();
        more.insert(name.into(), extra());
        write_tensors(&file, &more);
        let error = import(&file, Some(&copy.root()), options).expect_err(name).to_string();
        let expected = format!("does not fit {component}'s configuration:\n  left over `{name}` [2]");
        assert!(error.ends_with(&expected), "{error}");
    }
}
