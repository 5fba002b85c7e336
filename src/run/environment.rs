//! The variables that the programs get which run an image: what image it is, its proxy, and what the user sets.
//!
//! Knows nothing of the programs.

use std::collections::BTreeMap;

use crate::config::{EnvironmentError, Image, environment};
use crate::distro::Proxy;

/// The variables for an image, beside those that this program has, which `outside` are.
///
/// # Errors
/// When a file of `EnvironmentFiles=` can't be read.
pub fn variables(
    image: &Image,
    outside: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let text = |setting| image.text(setting).filter(|text| !text.is_empty()).map(str::to_owned);
    let mut variables = BTreeMap::new();
    let mut add = |name: &str, value: Option<String>| variables.extend(value.map(|value| (name.to_owned(), value)));
    add("SUBIMAGE", Some(image.name.clone()).filter(|name| name != "main"));
    add("IMAGE_ID", text("ImageId"));
    add("IMAGE_VERSION", text("ImageVersion"));
    add("SOURCE_DATE_EPOCH", image.get("SourceDateEpoch").as_number().map(|epoch| epoch.to_string()));
    let exclude = image.texts("ProxyExclude").into_iter().map(str::to_owned).collect();
    variables.extend(Proxy { url: text("ProxyUrl"), exclude, ..Proxy::default() }.environment());
    variables.extend(environment(image, outside)?);
    // Programs are looked for where the tools are.
    variables.remove("PATH");
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, Sourced, Value};

    #[test]
    fn what_the_user_sets_comes_last() {
        let own = [("IMAGE_ID", "mine"), ("PATH", "/nowhere"), ("SYSTEMD_LOG_LEVEL", "debug")];
        let own = own.map(|(name, value)| (name.to_owned(), Value::text(value)));
        let values = [
            ("ImageId", Value::text("os")),
            ("ImageVersion", Value::text("3")),
            ("ProxyUrl", Value::text("http://proxy")),
            ("Environment", Value::Map(own.into_iter().collect())),
        ];
        let values = values.map(|(name, value)| (name, Sourced { value, origin: Origin::Default }));
        let image = Image { name: "app".into(), project: "/p".into(), values: values.into_iter().collect() };
        let set = variables(&image, &BTreeMap::new()).unwrap();
        let set: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            set.join(" "),
            "HTTPS_PROXY=http://proxy HTTP_PROXY=http://proxy IMAGE_ID=mine IMAGE_VERSION=3 SUBIMAGE=app \
             SYSTEMD_LOG_LEVEL=debug http_proxy=http://proxy https_proxy=http://proxy"
        );
    }
}
