//! Settings of S3 that are not in the environment: profiles, roles, machines.
//!
//! In: the environment, `~/.aws/config` and `~/.aws/credentials`. Out: region, endpoint and credentials for a store. A
//! variable wins over the profile's value, as with every AWS tool; with keys in the environment and no `AWS_PROFILE`,
//! no file is looked at. Credentials come through `aws-config`: those of a profile (keys, `credential_process`, SSO,
//! roles that assume roles), of a web identity, a container, a machine; they are asked for again before they expire.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileRegionProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_runtime::env_config::EnvConfigValue;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use tokio::sync::Mutex;

use crate::{Error, Result, secret};

/// Credentials are asked for again this long before they expire.
const MARGIN: Duration = Duration::from_secs(60);

/// What the environment leaves open, filled in.
///
/// # Errors
/// A configuration error for an `AWS_PROFILE` that no file has, and for files that cannot be read.
pub(super) fn configure(mut builder: AmazonS3Builder) -> Result<AmazonS3Builder> {
    let keys = set("AWS_ACCESS_KEY_ID");
    let profiles = if keys.is_none() || set("AWS_PROFILE").is_some() { profiles()? } else { ProfileSet::default() };
    if set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).is_none()
        && let Some(region) = profiles.get("region")
    {
        builder = builder.with_region(region);
    }
    let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].into_iter().find_map(set);
    let of_profile = if named.is_none() { endpoint(&profiles) } else { None };
    if let Some(endpoint) = &of_profile {
        builder = builder.with_endpoint(endpoint);
    }
    // Whoever writes http:// means it; object_store wants it said twice.
    if named.or(of_profile).is_some_and(|url| url.starts_with("http://")) && set("AWS_ALLOW_HTTP").is_none() {
        builder = builder.with_allow_http(true);
    }
    let anonymous = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).is_some_and(|value| value == "true");
    if keys.is_none() && !anonymous {
        static CHAIN: OnceLock<Arc<Chain>> = OnceLock::new();
        builder = builder.with_credentials(Arc::clone(CHAIN.get_or_init(Arc::default)) as _);
    }
    Ok(builder)
}

/// A variable's value; an empty one is none.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The files' profiles, the chosen one checked.
fn profiles() -> Result<ProfileSet> {
    let nothing = (Default::default(), Default::default(), Default::default());
    // It is a future only by its signature: files are read as they are asked for.
    let load = aws_config::profile::load(&nothing.0, &nothing.1, &nothing.2, None);
    let profiles = futures::executor::block_on(load)
        .map_err(|e| Error::config("AWS profiles", "cannot be read; look at ~/.aws/config").because(chain(&e)))?;
    for profile in profiles.profiles().filter_map(|name| profiles.get_profile(name)) {
        let keys = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
        keys.iter().filter_map(|key| profile.get(key)).for_each(secret::remember);
    }
    match set("AWS_PROFILE") {
        Some(name) if profiles.get_profile(&name).is_none() => {
            let mut known: Vec<&str> = profiles.profiles().collect();
            known.sort_unstable();
            let known =
                if known.is_empty() { "there is none".into() } else { format!("there are {}", known.join(", ")) };
            let place = "~/.aws/config and ~/.aws/credentials (or the files that AWS_CONFIG_FILE and \
                         AWS_SHARED_CREDENTIALS_FILE name)";
            Err(Error::config(format!("AWS_PROFILE={name}"), format!("is no profile in {place}; {known}")))
        }
        _ => Ok(profiles),
    }
}

/// The endpoint of the profile: that of its service S3 first.
fn endpoint(profiles: &ProfileSet) -> Option<String> {
    if set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let value = EnvConfigValue::new().profile("endpoint_url").service_id("s3");
    value.load(&Default::default(), Some(profiles)).map(|(url, _)| url.into_owned())
}

/// A credential provider's failure, which `fault` shows as it is.
#[derive(Debug)]
pub(super) struct NoCredentials(pub(super) String);

impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoCredentials {}

/// Everything that can give credentials, in the order of the AWS tools.
#[derive(Default)]
struct Chain {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chain: Option<DefaultCredentialsChain>,
    cached: Option<(Arc<AwsCredential>, Option<SystemTime>)>,
}

impl fmt::Debug for Chain {
    /// Nothing of what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut state = self.state.lock().await;
        let lasts = |margin: Duration, until: &Option<SystemTime>| until.is_none_or(|u| u > SystemTime::now() + margin);
        if let Some((credential, until)) = &state.cached
            && lasts(MARGIN, until)
        {
            return Ok(Arc::clone(credential));
        }
        if state.chain.is_none() {
            state.chain = Some(build().await);
        }
        let asked = match &state.chain {
            Some(chain) => chain.provide_credentials().await,
            None => return Err(failed("there is no credential provider".into())),
        };
        match (asked, &state.cached) {
            (Ok(found), _) => {
                let credential = Arc::new(AwsCredential {
                    key_id: found.access_key_id().to_string(),
                    secret_key: found.secret_access_key().to_string(),
                    token: found.session_token().map(str::to_string),
                });
                let parts = [Some(&credential.key_id), Some(&credential.secret_key), credential.token.as_ref()];
                parts.into_iter().flatten().for_each(|part| secret::remember(part));
                state.cached = Some((Arc::clone(&credential), found.expiry()));
                Ok(credential)
            }
            (Err(e), Some((credential, until))) if lasts(Duration::ZERO, until) => {
                tracing::warn!("credentials could not be renewed yet: {}", chain(&e));
                Ok(Arc::clone(credential))
            }
            (Err(e), _) => {
                // It keeps its first failure otherwise.
                state.chain = None;
                Err(failed(chain(&e)))
            }
        }
    }
}

async fn build() -> DefaultCredentialsChain {
    let tls = Provider::Rustls(CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(tls).build_https();
    let config = ProviderConfig::default().with_http_client(http);
    // A machine that is none of Amazon's is not asked where it is.
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else("us-east-1");
    DefaultCredentialsChain::builder().configure(config).region(region).build().await
}

fn failed(why: String) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(NoCredentials(why)) }
}

/// An error and its causes in one text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let line = error.to_string();
        if !text.contains(&line) {
            text += &format!(": {line}");
        }
        next = error.source();
    }
    text
}
