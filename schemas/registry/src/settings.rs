//! Where the registry is, and who asks.

use crate::{Registry, RegistryError};
use reqwest::{Certificate, Client, ClientBuilder, Url};
use schema_registry_converter::async_impl::schema_registry::SrSettings;
use std::path::PathBuf;
use std::time::Duration;

/// How to reach a registry.
#[derive(Clone)]
pub struct RegistrySettings {
    /// The base URL of the Confluent API, such as `http://127.0.0.1:8081`; Apicurio's ends in `/apis/ccompat/v7`.
    pub url: String,
    /// User of basic authentication.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// PEM file with the certificates to trust; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl RegistrySettings {
    /// Without authentication, with the system's certificates and 10 s per call.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), user: None, password: None, ca_file: None, timeout: Duration::from_secs(10) }
    }
}

impl std::fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password too.
        f.debug_struct("RegistrySettings")
            .field("ca_file", &self.ca_file)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] when the URL is none or the certificates cannot be used.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        // The library's words are left out: they repeat the URL, which may hold a password.
        let wrong_url =
            || RegistryError::Settings("the registry's URL is not http:// or https:// and a host".into());
        let mut url = Url::parse(settings.url.trim()).map_err(|_| wrong_url())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong_url());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RegistryError::Settings(
                "the registry's user and password belong in their own options, not in its URL".into(),
            ));
        }
        if settings.password.is_some() && settings.user.is_none() {
            return Err(RegistryError::Settings("the registry's password needs a user".into()));
        }
        url.set_query(None);
        url.set_fragment(None);
        let url = url.as_str().trim_end_matches('/').to_owned();
        let http = client(&settings)?.build().map_err(|error| unusable(&error))?;
        let mut library = SrSettings::new_builder(url.clone());
        library.set_timeout(settings.timeout);
        if let Some(user) = &settings.user {
            library.set_basic_authorization(user, settings.password.as_deref());
        }
        let library = library
            .build_with(client(&settings)?)
            .map_err(|error| RegistryError::Settings(error.cause.unwrap_or(error.error)))?;
        Ok(Self { http, library, url, user: settings.user, password: settings.password })
    }
}

fn unusable(error: &reqwest::Error) -> RegistryError {
    RegistryError::Settings(crate::error::root_cause(error))
}

/// With its own certificates only, where some are given.
fn client(settings: &RegistrySettings) -> Result<ClientBuilder, RegistryError> {
    let mut builder = Client::builder().timeout(settings.timeout).connect_timeout(settings.timeout);
    if let Some(path) = &settings.ca_file {
        let refuse =
            |error: String| RegistryError::Settings(format!("the CA file {}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| refuse(error.to_string()))?;
        if certificates.is_empty() {
            return Err(refuse("there is no certificate in it".into()));
        }
        builder = builder.tls_built_in_root_certs(false);
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_in_no_debug_text() {
        let mut settings = RegistrySettings::new("http://127.0.0.1:1/path/");
        settings.user = Some("ursula".into());
        settings.password = Some("hunter2".into());
        let shown = format!("{settings:?} {:?}", Registry::new(settings.clone()).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("ursula"), "{shown}");
        assert!(shown.contains("http://127.0.0.1:1/path\""), "{shown}");
    }

    #[test]
    fn settings_that_cannot_work_are_refused_without_their_secrets() {
        for url in [
            "",
            "registry:8081",
            "ftp://registry",
            "http://ursula:hunter2@registry:8081",
            "http://ursula:hunter2@:x",
        ] {
            let error = Registry::new(RegistrySettings::new(url)).unwrap_err().to_string();
            assert!(error.starts_with("TS0115") && !error.contains("hunter2"), "{url}: {error}");
        }
        let alone =
            RegistrySettings { password: Some("hunter2".into()), ..RegistrySettings::new("http://registry") };
        assert!(Registry::new(alone).unwrap_err().to_string().contains("needs a user"));
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("none.pem", None), ("empty.pem", Some("")), ("text.pem", Some("no certificate"))]
        {
            let path = folder.path().join(name);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let settings =
                RegistrySettings { ca_file: Some(path), ..RegistrySettings::new("https://registry") };
            let error = Registry::new(settings).unwrap_err().to_string();
            assert!(error.starts_with("TS0115") && error.contains(name), "{error}");
        }
    }
}
