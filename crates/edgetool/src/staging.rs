//! Output that is there whole or not at all: it is made under a temporary name beside the target and then renamed. What
//! is left of it when the program is interrupted is removed.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::report;

/// Temporary files and folders to remove on an interrupt.
static PENDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How many names are tried for a temporary folder.
const ATTEMPTS: usize = 100;

/// The exit code of a program that SIGINT ended, as shells count.
const INTERRUPTED: i32 = 130;

/// Removes what is pending when the user presses Ctrl-C or the system asks to stop.
pub(crate) fn install_interrupt_handler() -> Result<()> {
    ctrlc::set_handler(|| {
        // The lock is kept: nothing new becomes pending, nothing is renamed, until the process is gone.
        let pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        for path in pending.iter() {
            // The interrupted thread may still be creating files in the folder.
            for _ in 0..20 {
                if remove(path).is_ok() {
                    break;
                }
            }
        }
        report::say("interrupted: nothing was written");
        #[expect(clippy::exit, reason = "the interrupted thread cannot be told to return")]
        std::process::exit(INTERRUPTED);
    })
    .context("cannot watch for interrupts")
}

/// A file or folder in the making.
pub(crate) struct Staging {
    target: PathBuf,
    temporary: PathBuf,
    done: bool,
}

impl Staging {
    /// Starts a folder that will be `target`, which may be there already only with `force`.
    pub(crate) fn folder(target: &Path, force: bool) -> Result<Self> {
        if !force && target.symlink_metadata().is_ok() {
            let text = format!("`{}` is already there", target.display());
            return Err(report::with_hint(text, "name another output, or replace it with `--force`"));
        }
        let staging = Self::beside(target)?;
        fs::create_dir(&staging.temporary)
            .with_context(|| format!("cannot create a folder beside `{}`", target.display()))?;
        Ok(staging)
    }

    /// Starts a file that will be `target`; a file that is there is replaced, a folder is not.
    pub(crate) fn file(target: &Path) -> Result<Self> {
        anyhow::ensure!(!target.is_dir(), "`{}` is a folder, expected the name of a file", target.display());
        Self::beside(target)
    }

    /// Where to write until [`Staging::commit`].
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts the output in its place. What was there is gone only when the new is in place.
    pub(crate) fn commit(mut self) -> Result<()> {
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).with_context(|| format!("cannot rename to `{}`", to.display()))
        };
        let mut old = self.temporary.clone().into_os_string();
        old.push(".old");
        let old = PathBuf::from(old);
        if self.target.is_dir() {
            rename(&self.target, &old)?;
            if let Err(error) = rename(&self.temporary, &self.target) {
                rename(&old, &self.target)?;
                return Err(error);
            }
            remove(&old).with_context(|| format!("cannot remove `{}`", old.display()))?;
        } else {
            rename(&self.temporary, &self.target)?;
        }
        pending.retain(|p| *p != self.temporary);
        self.done = true;
        Ok(())
    }

    fn beside(target: &Path) -> Result<Self> {
        let name = target.file_name().with_context(|| format!("`{}` has no file name", target.display()))?;
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            let text = format!("`{}` is not a folder, so `{}` cannot be made in it", parent.display(), name.display());
            return Err(report::with_hint(text, "create it first"));
        }
        let temporary = parent.join(format!(".{}.edgetool-{}", name.display(), std::process::id()));
        PENDING.lock().unwrap_or_else(PoisonError::into_inner).push(temporary.clone());
        Ok(Self { target: target.to_owned(), temporary, done: false })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // Nothing to be done about a failure here: the error that led here is the one to tell.
            let _ = remove(&self.temporary);
            PENDING.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != self.temporary);
        }
    }
}

/// A folder for the time being, below the system's folder for such. It goes with this value, or on an interrupt.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one that nobody else can look into.
    pub(crate) fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        for number in 0..ATTEMPTS {
            let path = parent.join(format!("edgetool-{}-{number}", std::process::id()));
            let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    pending.push(path.clone());
                    return Ok(Self(path));
                }
                // Left by a process of the same number that was killed, or somebody's trap.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create a folder in `{}`", parent.display()));
                }
            }
        }
        anyhow::bail!("cannot create a folder in `{}`: {ATTEMPTS} names are taken", parent.display())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure leaves rubbish where rubbish is expected.
        let _ = remove(&self.0);
        PENDING.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != self.0);
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}
