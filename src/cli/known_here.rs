//! Values that only this machine or the built-in configuration knows: the modules that the host's kernel has loaded,
//! its processor, the modules of the default initrd. They take the place of the words that stand for them, so that
//! keys have what is meant.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::boot::microcode::Processor;
use crate::config::{Image, Value};

/// The lists of modules, each with the setting that adds the host's.
const LISTS: [(&str, &str); 2] =
    [("KernelModules", "KernelModulesIncludeHost"), ("KernelInitrdModules", "KernelModulesInitrdIncludeHost")];

/// Puts values in place of words. `defaults` are the modules that `default` stands for, `proc` is `/proc`.
///
/// # Errors
/// When something of the host is asked for and can't be read.
pub fn resolve(image: &mut Image, defaults: &[Value], proc: &Path) -> anyhow::Result<()> {
    for (list, with_host) in LISTS {
        let wanted = image.bool(with_host);
        let named = image.texts(list).contains(&"host");
        let host = if wanted || named {
            let asking = if wanted { format!("{with_host}=yes") } else { format!("{list}=host") };
            loaded_modules(proc).with_context(|| format!("{asking} asks for the kernel modules of the host"))?
        } else {
            Vec::new()
        };
        if wanted {
            set(image, with_host, Value::List(host.clone()));
        }
        if named || image.texts(list).contains(&"default") {
            let items = image.get(list).items().iter();
            let items = items.flat_map(|item| match item.as_text() {
                Some("default") => defaults.to_vec(),
                Some("host") => host.clone(),
                _ => vec![item.clone()],
            });
            let items = Value::List(items.collect());
            set(image, list, items);
        }
    }
    if image.bool("MicrocodeHost") {
        let path = proc.join("cpuinfo");
        let text = std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        let Some(one) = Processor::parse(&text) else {
            bail!("MicrocodeHost=: {} doesn't tell which processor the host has; set it to no", path.display());
        };
        let fields = [
            ("vendor", Value::text(one.vendor)),
            ("family", Value::Number(one.family.into())),
            ("model", Value::Number(one.model.into())),
            ("stepping", Value::Number(one.stepping.into())),
        ];
        set(image, "MicrocodeHost", Value::Map(fields.map(|(name, value)| (name.to_owned(), value)).into()));
    }
    Ok(())
}

fn set(image: &mut Image, setting: &'static str, value: Value) {
    if let Some(sourced) = image.values.get_mut(setting) {
        sourced.value = value;
    }
}

/// The names of the modules that the host's kernel has loaded, sorted.
fn loaded_modules(proc: &Path) -> anyhow::Result<Vec<Value>> {
    let path = proc.join("modules");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("can't read {}; a kernel that loads no modules has no such file", path.display()))?;
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(|name| name.replace('_', "-")).collect();
    names.sort();
    Ok(names.into_iter().map(Value::text).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Origin, Sourced};

    fn list(items: &[&str]) -> Value {
        Value::List(items.iter().map(|item| Value::text(*item)).collect())
    }

    #[test]
    fn words_for_the_host_become_what_it_has() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::write(proc.path().join("modules"), "snd_hda 1 0 - Live 0x0\next4 2 1 x, Live 0x1 (E)\n").unwrap();
        let values = [
            ("KernelModules", list(&["a", "default", "host", "-b"])),
            ("KernelModulesIncludeHost", Value::Bool(false)),
            ("KernelInitrdModules", list(&["c"])),
            ("KernelModulesInitrdIncludeHost", Value::Bool(true)),
            ("MicrocodeHost", Value::Bool(false)),
        ];
        let values = values.map(|(name, value)| (name, Sourced { value, origin: Origin::Default }));
        let mut image = Image { name: "main".into(), project: PathBuf::new(), values: BTreeMap::from(values) };
        resolve(&mut image, list(&["d", "-e"]).items(), proc.path()).unwrap();
        assert_eq!(image.get("KernelModules"), &list(&["a", "d", "-e", "ext4", "snd-hda", "-b"]));
        assert_eq!(image.get("KernelModulesIncludeHost"), &Value::Bool(false));
        assert_eq!(image.get("KernelInitrdModules"), &list(&["c"]));
        assert_eq!(image.get("KernelModulesInitrdIncludeHost"), &list(&["ext4", "snd-hda"]));

        set(&mut image, "MicrocodeHost", Value::Bool(true));
        let error = resolve(&mut image, &[], proc.path()).unwrap_err().to_string();
        assert!(error.starts_with("can't read ") && error.ends_with("cpuinfo"), "{error}");
        let cpuinfo = "vendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nstepping : 2\n";
        std::fs::write(proc.path().join("cpuinfo"), cpuinfo).unwrap();
        resolve(&mut image, &[], proc.path()).unwrap();
        let field = |name| image.get("MicrocodeHost").field(name).cloned();
        assert_eq!((field("vendor"), field("stepping")), (Some(Value::text("AuthenticAMD")), Some(Value::Number(2))));
    }
}
