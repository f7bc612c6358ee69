//! What is refused, in which words, and that nothing is left behind by it: exit code 2, the whole text on stderr, nothing
//! on stdout, no new file.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::tensors::{self, Tensor, Tensors};
use common::{PROMPT, Sandbox};
use safetensors::tensor::Dtype;
use serde_json::{Map, Value, json};

const UNET: &str = "broken/unet/diffusion_pytorch_model.safetensors";
const DAMAGED: &str = "\n\nhint: copy or download the file again\n";
const MISFIT: &str = "\n\nhint: are the weights and `config.json` from the same model?\n";

/// `convert broken -o out` must fail with these words, after the checkpoint was broken by `spoil`.
#[track_caller]
fn check(spoil: impl FnOnce(&Sandbox), expected: &str) {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "broken");
    spoil(&sandbox);
    let expected = format!("error: cannot convert `broken`\n  caused by: {expected}");
    sandbox.refuses(&["convert", "broken", "-o", "out"], &expected);
}

/// Changes the header of a safetensors file and leaves its tensors as they are.
fn edit_header(sandbox: &Sandbox, file: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
    let bytes = fs::read(sandbox.path(file)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let mut fields = serde_json::from_slice(header).unwrap();
    edit(&mut fields);
    let header = serde_json::to_vec(&fields).unwrap();
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    fs::write(sandbox.path(file), [&length, header.as_slice(), data].concat()).unwrap();
}

/// Replaces the first bytes of a file.
fn overwrite(sandbox: &Sandbox, file: &str, start: &[u8]) {
    let mut bytes = fs::read(sandbox.path(file)).unwrap();
    bytes[..start.len()].copy_from_slice(start);
    fs::write(sandbox.path(file), &bytes).unwrap();
}

fn cut(sandbox: &Sandbox, file: &str, size: usize) {
    let bytes = fs::read(sandbox.path(file)).unwrap();
    fs::write(sandbox.path(file), &bytes[..size]).unwrap();
}

fn unet_size() -> usize {
    fs::read(common::fixtures().join("sd15/unet/diffusion_pytorch_model.safetensors")).unwrap().len()
}

/// The offsets of a tensor.
fn offsets(header: &mut Map<String, Value>, name: &str) -> [u64; 2] {
    serde_json::from_value(header[name]["data_offsets"].clone()).unwrap()
}

#[test]
fn no_such_checkpoint() {
    let sandbox = Sandbox::new();
    let reason = "`nowhere` does not exist, expected a checkpoint: a diffusers folder or a .safetensors file\n";
    let expected = format!("error: cannot convert `nowhere`\n  caused by: {reason}");
    sandbox.refuses(&["convert", "nowhere", "-o", "out"], &expected);
    let expected = format!("error: cannot run `nowhere`\n  caused by: {reason}");
    sandbox.refuses(&["run", "nowhere", "--prompt", PROMPT, "-o", "p.png"], &expected);
    sandbox.refuses(&["inspect", "nowhere"], &format!("error: {reason}"));
}

#[test]
fn not_a_checkpoint() {
    let sandbox = Sandbox::new();
    let hint = "hint: name the folder that diffusers' `save_pretrained` wrote: it holds `model_index.json`, `unet/`, \
                `vae/`, ...\n";
    let expected = "error: cannot convert `tests`\n  caused by: `tests` is not a diffusers folder: it has no \
                    `model_index.json`\n\n";
    sandbox.refuses(&["convert", "tests", "-o", "out"], &format!("{expected}{hint}"));

    let reason = "is not a checkpoint: expected a diffusers folder or a .safetensors file\n";
    let index = "tests/fixtures/sd15/model_index.json";
    let expected = format!("error: cannot convert `{index}`\n  caused by: `{index}` {reason}");
    sandbox.refuses(&["convert", index, "-o", "out"], &expected);

    let file = "tests/fixtures/sd15/single_file.safetensors";
    let reason = "has no configurations and no tokenizer: name a diffusers folder that has them with `--config`\n";
    let expected = format!("error: cannot convert `{file}`\n  caused by: `{file}` {reason}");
    sandbox.refuses(&["convert", file, "-o", "out"], &expected);

    let file = "tests/fixtures/sd15/vae/diffusion_pytorch_model.safetensors";
    let reason = "has no `model.diffusion_model.*` tensors: it is not an original-layout checkpoint\n";
    let expected = format!("error: cannot convert `{file}`\n  caused by: `{file}` {reason}");
    sandbox.refuses(&["convert", file, "-o", "out"], &expected);
}

#[test]
fn parts_are_missing() {
    let remove = |name: &'static str| move |s: &Sandbox| fs::remove_dir_all(s.path(format!("broken/{name}"))).unwrap();
    check(remove("unet"), "`broken/unet/config.json` is not there: the checkpoint has no unet\n");
    check(remove("vae"), "`broken/vae/config.json` is not there: the checkpoint has no vae\n");
    check(
        remove("text_encoder"),
        "`broken/text_encoder/config.json` is not there: the checkpoint has no text_encoder\n",
    );
    check(
        remove("scheduler"),
        "`broken/scheduler/scheduler_config.json` is not there: the checkpoint has no scheduler\n",
    );
    check(
        remove("tokenizer"),
        "`broken/tokenizer` holds no tokenizer, expected `tokenizer.json`, or `vocab.json` and `merges.txt`\n",
    );
    let no_weights = "`broken/unet` has no weights, expected `diffusion_pytorch_model.safetensors` or \
                      `diffusion_pytorch_model.safetensors.index.json`";
    check(|s| fs::remove_file(s.path(UNET)).unwrap(), &format!("{no_weights}\n"));
    check(
        |s| fs::rename(s.path(UNET), s.path("broken/unet/diffusion_pytorch_model.bin")).unwrap(),
        &format!("{no_weights} (pickled weights run code when they are read: save them as safetensors first)\n"),
    );
}

#[test]
fn truncated_weights() {
    let unsound = |reason: &str| format!("`{UNET}` is not a sound safetensors file: {reason}{DAMAGED}");
    let size = unet_size() - 100;
    let reason = format!(
        "its tensors do not end where the file does, at {size} bytes: it is truncated, or has something after its end"
    );
    check(|s| cut(s, UNET, size), &unsound(&reason));
    check(|s| cut(s, UNET, 4), &unsound("it has 4 bytes, expected 8 and more"));
    check(|s| cut(s, UNET, 0), &unsound("it has 0 bytes, expected 8 and more"));
}

#[test]
fn a_header_length_that_lies() {
    let size = unet_size();
    let unsound = |reason: &str| format!("`{UNET}` is not a sound safetensors file: {reason}{DAMAGED}");
    for claimed in [u64::MAX, u64::MAX / 2, size as u64, size as u64 - 7] {
        let reason = format!("its header claims {claimed} bytes, the file has {size}");
        check(|s| overwrite(s, UNET, &claimed.to_le_bytes()), &unsound(&reason));
    }
    // Shorter than it is: the JSON text breaks off.
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "broken");
    overwrite(&sandbox, UNET, &100_u64.to_le_bytes());
    let said = sandbox.refusal(&["convert", "broken", "-o", "out"]);
    assert!(said.contains("is not a sound safetensors file: its header is not valid: "), "{said}");
}

#[test]
fn offsets_that_overlap_or_leave_the_file() {
    let unsound = |reason: &str| format!("`{UNET}` is not a sound safetensors file: {reason}{DAMAGED}");
    let edit = |edit: fn(&mut Map<String, Value>)| move |s: &Sandbox| edit_header(s, UNET, edit);
    let overlap = "the offsets of `time_embedding.linear_1.bias` overlap another tensor, leave a gap, or run backwards";
    check(
        edit(|header| {
            let [begin, end] = offsets(header, "time_embedding.linear_1.bias");
            header["time_embedding.linear_1.bias"]["data_offsets"] = json!([begin - 2, end - 2]);
        }),
        &unsound(overlap),
    );
    check(
        edit(|header| {
            let [begin, end] = offsets(header, "time_embedding.linear_1.bias");
            header["time_embedding.linear_1.bias"]["data_offsets"] = json!([end, begin]);
        }),
        &unsound(overlap),
    );
    check(
        edit(|header| {
            let [begin, end] = offsets(header, "time_embedding.linear_1.bias");
            header["time_embedding.linear_1.bias"]["data_offsets"] = json!([begin, end + 1_000_000_000]);
        }),
        &unsound("a tensor's offsets do not fit its type and shape"),
    );
    let size = {
        let sandbox = Sandbox::new();
        sandbox.copy("sd15", "broken");
        grow_last(&sandbox);
        fs::read(sandbox.path(UNET)).unwrap().len()
    };
    let reason = format!(
        "its tensors do not end where the file does, at {size} bytes: it is truncated, or has something after its end"
    );
    check(grow_last, &unsound(&reason));
}

/// The last tensor claims a thousand rows more than the file holds.
fn grow_last(sandbox: &Sandbox) {
    edit_header(sandbox, UNET, |header| {
        let end_of = |v: &Value| v["data_offsets"][1].as_u64().unwrap_or(0);
        let (_, last) = header.iter_mut().max_by_key(|(_, v)| end_of(v)).unwrap();
        let [begin, end]: [u64; 2] = serde_json::from_value(last["data_offsets"].clone()).unwrap();
        let rows = last["shape"][0].as_u64().unwrap();
        last["shape"][0] = json!(rows + 1000);
        last["data_offsets"] = json!([begin, end + (end - begin) / rows * 1000]);
    });
}

#[test]
fn weights_that_are_no_numbers_are_counted() {
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "checkpoint");
    let unet = "checkpoint/unet/diffusion_pytorch_model.safetensors";
    let spoil = |name: &str, numbers: &[half::f16]| {
        sandbox.edit_tensors(unet, |tensors| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.get_mut(name).unwrap().bytes[..bytes.len()].copy_from_slice(&bytes);
        });
    };
    let warning = |said: &str| said.lines().next().unwrap_or_default().to_owned();
    spoil("conv_in.weight", &[half::f16::NAN, half::f16::INFINITY, half::f16::NEG_INFINITY]);
    for weights in ["copy", "link", "inline"] {
        let said = sandbox.convert("checkpoint", weights, &["--weights", weights]).stderr;
        let expected = "warning: 3 weights of unet are NaN or infinite, in `conv_in_weight`: the model is damaged";
        assert_eq!(warning(&said), expected);
    }
    spoil("conv_out.bias", &[half::f16::NAN]);
    spoil("conv_norm_out.bias", &[half::f16::NAN]);
    let said = sandbox.convert("checkpoint", "more", &[]).stderr;
    let expected = "warning: 5 weights of unet are NaN or infinite, in `conv_in_weight` and 2 other tensors: the model \
                    is damaged";
    assert_eq!(warning(&said), expected);
    let said = "error: cannot run `more`\n  caused by: unet gave NaN or infinite numbers: the model is damaged, or the \
                guidance too strong\n";
    sandbox.refuses(&["run", "more", "--prompt", PROMPT, "--quiet", "-o", "p.png"], said);
}

#[test]
fn shards_that_are_not_there() {
    let index = format!("{UNET}.index.json");
    let shard = |s: &Sandbox, file: &str| {
        fs::rename(s.path(UNET), s.path("broken/unet/a.safetensors")).unwrap();
        let map = json!({"weight_map": {"conv_in.weight": "a.safetensors", "conv_in.bias": file}});
        fs::write(s.path(&index), map.to_string()).unwrap();
    };
    check(
        |s| shard(s, "b.safetensors"),
        &format!("`broken/unet/b.safetensors` is not there: `{index}` names this shard\n"),
    );
    // A shard is a file of the same folder, whatever is elsewhere.
    check(
        |s| shard(s, "../vae/diffusion_pytorch_model.safetensors"),
        &format!("`broken/unet/../vae/diffusion_pytorch_model.safetensors` is not there: `{index}` names this shard\n"),
    );
    check(
        |s| {
            shard(s, "b.safetensors");
            let other = s.path("broken/vae/diffusion_pytorch_model.safetensors");
            fs::copy(other, s.path("broken/unet/b.safetensors")).unwrap();
            s.edit_json(&index, |fields| fields["weight_map"] = json!({"surprise": "b.safetensors"}));
        },
        &format!("`{index}` names `surprise` in \"b.safetensors\", which does not hold it\n"),
    );
    check(
        |s| {
            shard(s, "b.safetensors");
            s.edit_json(&index, |fields| fields["weight_map"] = json!([]));
        },
        &format!(
            "`{index}`: field `weight_map` is absent or not an object, supported: an object of tensor names and file \
             names\n"
        ),
    );
}

#[test]
fn weights_of_another_type() {
    for dtype in [Dtype::I64, Dtype::F64, Dtype::U8, Dtype::F8_E4M3] {
        let size = dtype.bitsize() / 8;
        check(
            |s| {
                s.edit_tensors(UNET, |tensors| {
                    for name in ["conv_in.bias", "conv_out.bias"] {
                        let tensor = tensors.get_mut(name).unwrap();
                        tensor.dtype = dtype;
                        tensor.bytes = vec![0; tensor.shape[0] * size];
                    }
                });
            },
            &format!(
                "`{UNET}` does not fit unet's configuration:\n  `conv_in.bias` has type {dtype:?}, expected F32, F16 or \
                 BF16\n  `conv_out.bias` has type {dtype:?}, expected F32, F16 or BF16{MISFIT}"
            ),
        );
    }
}

#[test]
fn tensors_that_do_not_fit() {
    let misfit = |problems: &str| format!("`{UNET}` does not fit unet's configuration:\n{problems}{MISFIT}");
    let edit = |edit: fn(&mut Tensors)| move |s: &Sandbox| s.edit_tensors(UNET, edit);
    check(
        edit(|tensors| {
            tensors.remove("conv_in.bias").unwrap();
            let bias = tensors.get_mut("conv_out.bias").unwrap();
            (bias.shape, bias.bytes) = (vec![5], vec![0; 10]);
        }),
        &misfit("  missing `conv_in.bias` [16]\n  `conv_out.bias` has shape [5], expected [4]"),
    );
    check(
        edit(|tensors| {
            tensors
                .insert("surprise.weight".into(), Tensor { dtype: Dtype::F16, shape: vec![2, 3], bytes: vec![0; 12] });
            tensors.insert("another".into(), Tensor { dtype: Dtype::I64, shape: vec![], bytes: vec![0; 8] });
        }),
        &misfit("  left over `another` []\n  left over `surprise.weight` [2, 3]"),
    );
    // The same number of elements is not the same shape.
    check(
        edit(|tensors| tensors.get_mut("time_embedding.linear_1.weight").unwrap().shape.reverse()),
        &misfit("  `time_embedding.linear_1.weight` has shape [16, 64], expected [64, 16]"),
    );
    let sandbox = Sandbox::new();
    sandbox.copy("sd15", "broken");
    sandbox.edit_tensors(UNET, |tensors| tensors.retain(|name, _| !name.starts_with("mid_block.resnets")));
    let said = sandbox.refusal(&["convert", "broken", "-o", "out"]);
    assert_eq!(said.matches("\n  missing `mid_block.resnets.").count(), 8, "{said}");
    assert!(said.contains("\n  and 12 more\n"), "{said}");
}

#[test]
fn configurations_that_are_not_implemented() {
    let field = |name: &'static str, value: Value| {
        move |s: &Sandbox| {
            s.edit_json("broken/unet/config.json", |fields| drop(fields.insert(name.into(), value)));
        }
    };
    let refused = |what: &str| format!("`broken/unet/config.json`: {what}\n");
    check(
        field("fancy", json!({"a": 1})),
        &refused(
            "field `fancy` is {\"a\":1}, supported: only configurations without this field, which is not implemented",
        ),
    );
    check(
        field("time_embedding_type", json!("fourier")),
        &refused("field `time_embedding_type` is \"fourier\", supported: \"positional\""),
    );
    check(
        field("_class_name", json!("UNet3DConditionModel")),
        &refused("field `_class_name` is UNet3DConditionModel, supported: UNet2DConditionModel"),
    );
    check(
        field("cross_attention_dim", json!(48)),
        &refused("field `cross_attention_dim` is 48, supported: 32, the text encoder's hidden_size"),
    );
    check(
        |s| fs::write(s.path("broken/unet/config.json"), "{\"a\":").unwrap(),
        "cannot read `broken/unet/config.json`: EOF while parsing a value at line 1 column 5\n",
    );
    check(
        |s| fs::write(s.path("broken/unet/config.json"), "[1]").unwrap(),
        "cannot read `broken/unet/config.json`: expected an object\n",
    );
}

#[test]
fn schedulers_other_than_lcm() {
    let sandbox = Sandbox::new();
    sandbox.copy("edgefusion", "model");
    let file = "model/scheduler/scheduler_config.json";
    let keep = |class: &str| {
        let fields = json!({"_class_name": class, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "num_train_timesteps": 1000, "steps_offset": 1, "skip_prk_steps": true});
        fs::write(sandbox.path(file), fields.to_string()).unwrap();
    };
    let args = ["run", "model", "--prompt", PROMPT, "--quiet", "-o", "p.png"];
    let lcm = [&args[..], &["--scheduler", "lcm"]].concat();
    let said =
        |what: &str| format!("error: cannot run `model`\n  caused by: cannot use `{file}`\n  caused by: {what}\n");
    keep("PNDMScheduler");
    let hint = "`--scheduler lcm` samples with LCM on the same betas";
    sandbox.refuses(&args, &said(&format!("`_class_name`: expected `LCMScheduler`, got `PNDMScheduler`; {hint}")));
    sandbox.ok(&lcm);
    fs::remove_file(sandbox.path("p.png")).unwrap();
    let converted = sandbox.ok(&["convert", "model", "-o", "onnx"]);
    let warning = "warning: the scheduler was copied, but `edgetool run` will not sample with it: `_class_name`";
    assert!(converted.stderr.starts_with(warning), "{}", converted.stderr);
    fs::remove_dir_all(sandbox.path("onnx")).unwrap();
    keep("FancyScheduler");
    sandbox.refuses(&args, &said(&format!("`_class_name`: expected `LCMScheduler`, got `FancyScheduler`; {hint}")));
    let refused = sandbox.refusal(&lcm);
    assert!(
        refused.contains("`_class_name`: expected one of ") && refused.contains("got `FancyScheduler`"),
        "{refused}"
    );
}

#[test]
fn steps_that_the_schedule_does_not_have() {
    let sandbox = Sandbox::new();
    let args = ["run", "tests/fixtures/edgefusion", "--prompt", PROMPT, "--quiet", "-o", "p.png", "--steps"];
    let expected = "error: cannot run `tests/fixtures/edgefusion`\n  caused by: --steps 51 is too many: the schedule has \
                    50, the scheduler's `original_inference_steps`\n\nhint: name 50 steps or fewer\n";
    sandbox.refuses(&[&args[..], &["51"]].concat(), expected);
}

#[test]
fn prompts_of_all_kinds() {
    let sandbox = Sandbox::new();
    let long = "cat ".repeat(200);
    for prompt in
        ["", " ", "🐱👩\u{200d}👧 \u{202e}evil", "a\tb\r\n\u{7}", "<|endoftext|>", "e\u{301}\u{fffd}\u{10ffff}"]
    {
        sandbox.ok(&["run", "tests/fixtures/sd2", "--prompt", prompt, "--quiet", "--steps", "1", "-o", "p.png"]);
        assert_eq!(common::read_png(&sandbox.path("p.png")).texts["prompt"], prompt);
    }
    let ran = sandbox.ok(&["run", "tests/fixtures/sd2", "--prompt", &long, "--quiet", "--steps", "1", "-o", "p.png"]);
    assert_eq!(ran.stderr, "warning: the prompt is longer than the text encoder takes: its end was left out\n");
    // No argument can hold NUL, but the libraries take it as any other character.
    let tokenizer = edge_run::tokenizer::Tokenizer::from_folder(&common::fixtures().join("sd2/tokenizer")).unwrap();
    assert_eq!(tokenizer.encode("a\0cat 🐱\0").unwrap().ids.len(), 77);
}

#[test]
fn sizes_that_are_no_multiple() {
    let sandbox = Sandbox::new();
    let size =
        |what: &str, hint: &str| format!("  caused by: {what} is not a positive multiple of 8\n\nhint: {hint}\n");
    let checkpoint = "tests/fixtures/sd15";
    sandbox.refuses(
        &["convert", checkpoint, "-o", "out", "--height", "65"],
        &format!(
            "error: cannot convert `{checkpoint}`\n{}",
            size("height 65", "64 is the nearest size below, 72 the nearest above")
        ),
    );
    sandbox.refuses(
        &["run", checkpoint, "--prompt", PROMPT, "-o", "p.png", "--size", "64x60"],
        &format!(
            "error: cannot run `{checkpoint}`\n{}",
            size("width 60", "56 is the nearest size below, 64 the nearest above")
        ),
    );
    let said = sandbox.refusal(&["convert", checkpoint, "-o", "out", "--width", "0"]);
    assert!(said.contains("width 0 is not a positive multiple of 8"), "{said}");
    let said = sandbox.refusal(&["run", checkpoint, "--prompt", PROMPT, "-o", "p.png", "--size", "64"]);
    assert!(said.contains("'--size <HxW>': expected height and width in pixels, as in 512x768"), "{said}");
    sandbox.convert(checkpoint, "onnx", &[]);
    let expected = "error: cannot run `onnx`\n  caused by: `onnx` draws 64x64 pixels, not 64x72: its shapes are fixed\n\n\
                    hint: convert the checkpoint again with `--height 64 --width 72`, or run the checkpoint itself\n";
    sandbox.refuses(&["run", "onnx", "--prompt", PROMPT, "-o", "p.png", "--size", "64x72"], expected);
}

#[test]
fn arguments_out_of_range() {
    let sandbox = Sandbox::new();
    let run = ["run", "tests/fixtures/sd15", "--prompt", PROMPT, "-o", "p.png"];
    let convert = ["convert", "tests/fixtures/sd15", "-o", "out"];
    for option in ["--opset", "--batch"] {
        for value in ["0", "99", "x", "-1", "1.5"] {
            let said = sandbox.refusal(&[&convert[..], &[&format!("{option}={value}")]].concat());
            assert!(said.contains(&format!("invalid value '{value}' for '{option} ")), "{said}");
        }
    }
    for (option, value, expected) in [
        ("--steps", "0", "`steps`: expected 1 to "),
        ("--steps", "51", "--steps 51 is too many: the schedule has 50"),
        ("--steps", "2000", "got 2000"),
        ("--guidance", "nan", "--guidance NaN is not a number to scale with"),
        ("--latents", "nothing.safetensors", "cannot read `nothing.safetensors`"),
        ("--decoder", "fast", "[possible values: vae, taesd]"),
    ] {
        let said = sandbox.refusal(&[&run[..], &[option, value]].concat());
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn noise_that_does_not_fit() {
    let sandbox = Sandbox::new();
    let given = |latent: &[usize], noise: &[usize]| {
        let tensor = |shape: &[usize]| Tensor::f32s(shape, &vec![0.5; shape.iter().product()]);
        let tensors = [("latent".to_owned(), tensor(latent)), ("noise".to_owned(), tensor(noise))];
        tensors::write(&sandbox.path("noise.safetensors"), &Tensors::from(tensors));
    };
    let args = ["run", "tests/fixtures/sd15", "--prompt", PROMPT, "-o", "p.png", "--quiet", "--latents"];
    let args = [&args[..], &["noise.safetensors"]].concat();
    let refused = |cause: &str| {
        sandbox.refuses(&args, &format!("error: cannot run `tests/fixtures/sd15`\n  caused by: {cause}\n"));
    };
    given(&[1, 4, 8, 8], &[0, 1, 4, 8, 8]);
    refused("the noise given ends early: the latents and each step but the last take 256 numbers, got 0");
    given(&[1, 4, 8, 7], &[1, 1, 4, 8, 8]);
    refused("`noise.safetensors`: `latent` is float32[1, 4, 8, 7], expected float32[1, 4, 8, 8]");
    given(&[1, 4, 8, 8], &[256]);
    refused(
        "`noise.safetensors`: `noise` is float32[256], expected a float32[1, 4, 8, 8] for each step but the last, stacked",
    );
    given(&[1, 4, 8, 8], &[1, 1, 4, 8, 8]);
    sandbox.ok(&args);
}

#[test]
fn inputs_that_a_graph_does_not_take() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/sd15", "onnx", &[]);
    let eval = |inputs: &[(&str, Tensor)]| {
        let inputs: Tensors = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        tensors::write(&sandbox.path("in.safetensors"), &inputs);
        sandbox.refusal(&["eval", "onnx/vae_decoder/model.onnx", "-i", "in.safetensors", "-o", "out.safetensors"])
    };
    let latent = Tensor::f32s(&[1, 4, 8, 8], &[0.0; 256]);
    assert_eq!(
        eval(&[("sample", latent.clone())]),
        "error: `in.safetensors` has no tensor `latent_sample`, expected float32[1, 4, 8, 8]\n"
    );
    assert_eq!(
        eval(&[("latent_sample", latent.clone()), ("more", latent)]),
        "error: `in.safetensors` has tensors that are no inputs: more\n"
    );
    let said = eval(&[("latent_sample", Tensor::f32s(&[1, 4, 8, 4], &[0.0; 128]))]);
    assert!(said.contains("latent_sample") && said.contains("[1, 4, 8, 4]"), "{said}");
}

#[test]
fn damaged_models() {
    let sandbox = Sandbox::new();
    sandbox.convert("tests/fixtures/sd15", "onnx", &[]);
    fs::write(sandbox.path("text.onnx"), "this is not a model").unwrap();
    let said = sandbox.refusal(&["inspect", "text.onnx"]);
    assert!(said.starts_with("error: cannot read `text.onnx` as ONNX: "), "{said}");
    let data = "onnx/unet/model.onnx_data";
    let size = sandbox.path(data).metadata().unwrap().len();
    cut(&sandbox, data, 1000);
    let said = sandbox.refusal(&["inspect", "onnx/unet/model.onnx"]);
    assert!(said.contains("of `model.onnx_data`, which has 1000"), "{said} ({size})");
    fs::remove_file(sandbox.path(data)).unwrap();
    let said = sandbox.refusal(&["run", "onnx", "--prompt", PROMPT, "--quiet", "-o", "p.png"]);
    assert!(said.contains("model.onnx_data"), "{said}");
}
