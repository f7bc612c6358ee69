//! The README of a bundle: what is in it, and what to do with it.

use std::fmt::Write;

use edge_spec::Target;
use edge_spec::bundle::{BundleManifest, BundlePort};

/// The text; `commands` is the emitter's part.
pub(crate) fn readme(bundle: &BundleManifest, target: &Target, runner: bool, commands: &str) -> String {
    let mut text = String::new();
    let device = bundle.target.device.as_ref().map_or(String::new(), |d| format!(", device `{d}`"));
    let p = &bundle.pipeline;
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "# A text-to-image model for {about}\n\n\
         Target `{name}`{device}. {height}x{width} pixels, batch {batch}. Made by {producer}.\n\n\
         Every command below runs in the folder that this file is in:\n\n\
         ```sh\nedgetool bundle extract BUNDLE.zip -o bundle\ncd bundle\n```\n\n",
        about = target.about.trim_end_matches('.'),
        name = target.name,
        height = p.height,
        width = p.width,
        batch = p.batch,
        producer = bundle.producer,
    );
    text.push_str(commands.trim());
    text.push_str("\n\n## Graphs\n\nIn the order of use.\n\n| graph | file | inputs | outputs |\n|---|---|---|---|\n");
    for c in &bundle.components {
        let (inputs, outputs) = (ports(&c.inputs), ports(&c.outputs));
        let _ = writeln!(text, "| `{}` | `{}` | {inputs} | {outputs} |", c.name, c.file);
    }
    sampler(&mut text, bundle);
    golden(&mut text, bundle, runner);
    text
}

fn ports(ports: &[BundlePort]) -> String {
    let port = |p: &BundlePort| {
        let layout = p.layout.as_ref().map_or(String::new(), |l| format!(" {l}"));
        format!("`{}` {}{:?}{layout}", p.name, p.dtype, p.shape)
    };
    ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

fn sampler(text: &mut String, bundle: &BundleManifest) {
    let s = &bundle.sampler;
    let who = if bundle.fold.is_some() { "The graphs have these steps in them" } else { "The caller does these steps" };
    let _ = write!(
        text,
        "\n## Sampler\n\n{who}: `next = sample * x + output * o + noise * z`, of the latent `x`, the UNet's output `o` and \
         noise `z`. Guidance scale {}.\n\n| timestep | sample | output | noise |\n|---|---|---|---|\n",
        s.guidance
    );
    for step in &s.steps {
        let _ = writeln!(text, "| {} | {:?} | {:?} | {:?} |", step.timestep, step.sample, step.output, step.noise);
    }
    let _ = writeln!(
        text,
        "\nNoise is an input: independent normal numbers, mean 0 and variance 1, of shape {:?}, drawn in this order: {}. \
         A seed gives the golden noise with {}.",
        s.noise.shape,
        s.noise.draws.join(", "),
        s.noise.generator
    );
}

fn golden(text: &mut String, bundle: &BundleManifest, runner: bool) {
    let g = &bundle.golden;
    let _ = write!(
        text,
        "\n## Golden run\n\n`golden/` has inputs and expected outputs of every graph, as raw little-endian files in the \
         port's own type and layout, for the prompt \"{}\" and seed {}; `{}` is the picture, `golden/pipeline` the whole \
         run. `golden` in `manifest.json` lists them with how near a device has to come.\n",
        g.prompt, g.seed, g.picture
    );
    let program = if runner { "runner/edgetool" } else { "edgetool" };
    let _ = write!(
        text,
        "\nThe reference runner draws it on a CPU:\n\n```sh\n{program} run model --prompt {} --seed {}{} -o picture.png\n```\n",
        quoted(&g.prompt),
        g.seed,
        if bundle.fold.is_some() { String::new() } else { format!(" --steps {}", bundle.sampler.steps.len()) },
    );
    let licence = if bundle.licence.is_empty() {
        "The checkpoint came without a licence file.".to_owned()
    } else {
        format!("The weights' licence: {}.", bundle.licence.join(", "))
    };
    let _ = write!(text, "\n## Licence\n\n{licence}\n");
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_one_word() {
        assert_eq!(quoted("a $cat's \"toy\""), "'a $cat'\\''s \"toy\"'");
    }
}
