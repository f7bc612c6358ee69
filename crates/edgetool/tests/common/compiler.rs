//! A stand-in for a Python with Qualcomm's compiler: a shell script that answers as the scripts of a bundle would.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::Sandbox;

/// What a script says of the graphs, by the graph's name; where nothing is said, all is well.
pub(crate) type Says<'a> = &'a [(&'a str, &'a str)];

/// What all is well looks like.
const COMPILED: &str =
    r#"{"component": "NAME", "graphs": 1, "operators": 9, "floats": [], "bytes": 6, "seconds": 1.5, "peak_mb": 20}"#;
const EMULATED: &str = r#"{"component": "NAME", "output": "out", "sqnr_db": 51.5, "least": 40.0}"#;

/// Writes the stand-in as `name` into the sandbox, for bundles of the model in the folder `model`. `compiler` and `emulator` are shell commands that replace what is said of
/// a graph.
pub(crate) fn write(sandbox: &Sandbox, name: &str, model: &str, compiler: Says<'_>, emulator: Says<'_>) {
    let cases = |says: Says<'_>, whole: &str| {
        let own = says.iter().map(|(graph, command)| format!("    {graph}) {command} ;;\n"));
        own.chain([format!("    *) echo '{whole}' | sed \"s/NAME/$graph/\" ;;\n")]).collect::<String>()
    };
    let text = format!(
        "#!/bin/sh\n\
         case \"$1\" in\n\
         -c) echo '[[\"onnxruntime\", \"1.32.0\"], [\"onnxruntime-qnn\", \"2.7.0\"], [\"numpy\", \"2.4.6\"]]'; exit ;;\n\
         esac\n\
         script=\"$1\"; shift\n\
         test -f \"$script\" || exit 9\n\
         mkdir -p build\n\
         kind=own\n\
         for graph in \"$@\"; do\n\
         case \"$graph\" in --share-weights) kind=shared ;; --*) continue ;; esac\n\
         case \"$script\" in\n\
         qnn/compile.py)\n\
         cp \"$0.wrappers/$graph.$kind\" \"build/${{graph}}_ctx.onnx\" 2>/dev/null || continue\n\
         echo binary > \"build/${{graph%_step_*}}_ctx_qnn.bin\"\n\
         echo binary > \"build/${{graph}}_ctx_qnn.bin\"\n\
         case \"$graph\" in\n{compiles}    esac ;;\n\
         qnn/accept.py)\n\
         case \"$graph\" in\n{emulates}    esac ;;\n\
         esac\n\
         done\n",
        compiles = cases(compiler, COMPILED),
        emulates = cases(emulator, EMULATED),
    );
    let path = sandbox.path(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("rights");
    let wrappers = sandbox.path(format!("{name}.wrappers"));
    fs::create_dir_all(&wrappers).expect("a folder");
    let manifest: Value =
        serde_json::from_slice(&fs::read(sandbox.path(model).join("edgetool.json")).expect("a manifest"))
            .expect("JSON");
    for component in manifest["components"].as_array().expect("a list") {
        let graph = component["name"].as_str().expect("a name");
        let group = graph.split_once("_step_").map_or(graph, |(group, _)| group);
        for (kind, binary) in [("own", graph), ("shared", group)] {
            fs::write(wrappers.join(format!("{graph}.{kind}")), wrapper(component, &format!("{binary}_ctx_qnn.bin")))
                .expect("written");
        }
    }
}

/// An ONNX file with one `EPContext` node that stands for a component, as protobuf.
fn wrapper(component: &Value, binary: &str) -> Vec<u8> {
    let names = |side: &str| -> Vec<&str> {
        component[side].as_array().expect("a list").iter().map(|p| p["name"].as_str().expect("a name")).collect()
    };
    let field = |number: u8, content: &[u8]| {
        let len = content.len();
        let low = u8::try_from(len & 127).expect("7 bits");
        let size = if len > 127 { vec![low | 128, u8::try_from(len >> 7).expect("few")] } else { vec![low] };
        [&[number << 3 | 2], &size[..], content].concat()
    };
    let text = |number: u8, text: &str| field(number, text.as_bytes());
    let attribute = |name: &str, value: Vec<u8>| field(5, &[text(1, name), value].concat());
    let (inputs, outputs) = (names("inputs"), names("outputs"));
    let mut node: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    node.extend(outputs.iter().flat_map(|name| text(2, name)));
    node.extend(text(4, "EPContext"));
    node.extend(attribute("embed_mode", vec![3 << 3, 0]));
    node.extend(attribute("ep_cache_context", text(4, binary)));
    node.extend(attribute("ep_sdk_version", text(4, "v2.51.0")));
    node.extend(text(7, "com.microsoft"));
    let mut graph = field(1, &node);
    graph.extend(inputs.iter().flat_map(|name| field(11, &text(1, name))));
    graph.extend(outputs.iter().flat_map(|name| field(12, &text(1, name))));
    field(7, &graph)
}
